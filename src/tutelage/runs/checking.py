"""A recipe's first step, without a run folder."""

import time
from typing import Any

import torch

from tutelage.build import build
from tutelage.engine import make_optimizer
from tutelage.engine.phases import move
from tutelage.evaluation.cost import macs, num_parameters
from tutelage.models.network import Network
from tutelage.recipes import Recipe
from tutelage.runs.measuring import check_teacher, image_size
from tutelage.runs.settling import settle
from tutelage.runs.surroundings import surroundings
from tutelage.teachers import StoredTeacher

__all__ = ["check"]


def check(recipe: Recipe) -> dict[str, Any]:
    """Builds a recipe, measures its teacher and takes one step; writes nothing.

    Returns:
        What a user wants to know before a run: sizes, costs, taps, terms of the first step.
    """
    with surroundings(recipe.train) as device:
        return _check(recipe, device)


def _check(recipe: Recipe, device: torch.device) -> dict[str, Any]:
    built, chosen = settle(build(recipe), device)
    settings = built.recipe.train
    checked = check_teacher(built, device)
    distiller = built.distiller.to(device).train()
    if settings.channels_lie_last:
        distiller.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer, _ = make_optimizer(distiller.parameter_groups(), settings)
    batch = move(built.train.batch(0), device, channels_last=settings.channels_lie_last)
    began = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        out = distiller(
            batch.images,
            batch.targets,
            index=batch.index,
            view=batch.view,
            has_label=batch.has_label,
            progress=0.0,
            num_labelled=built.train.num_labelled,
            weight=batch.weight,
        )
    out.loss.backward()
    optimizer.step()
    loss, seconds = out.loss.item(), time.perf_counter() - began
    return {
        "student": {
            "parameters": num_parameters(built.student),
            "macs": macs(built.student, image_size(built.student)),
            "stages": [stage._asdict() for stage in built.student.stages()],
        },
        "teacher": None
        if built.teacher is None
        else {
            **_teacher_cost(built.teacher),
            "validation_accuracy": None if checked is None else checked.accuracy,
            "stages": [stage._asdict() for stage in built.teacher.stages()],
        },
        "pairs": [pair._asdict() for pair in built.distiller.pairs],
        "data": {
            "train": len(built.split.train),
            "labelled": int(built.split.train.has_label.sum()),
            "labelled_per_batch": built.train.num_labelled,
            "validation": len(built.split.validation),
            "test": len(built.split.test),
        },
        "chosen": None if chosen is None else chosen._asdict(),
        "loss": loss,
        "terms": {name: value.item() for name, value in out.terms.items()},
        "first_step_seconds": round(seconds, 3),
    }


def _teacher_cost(teacher: Network | StoredTeacher) -> dict[str, Any]:
    if isinstance(teacher, StoredTeacher):
        return {key: teacher.about["cost"][key] for key in ("parameters", "macs")}
    return {
        "parameters": num_parameters(teacher),
        "macs": macs(teacher, image_size(teacher)),
    }
