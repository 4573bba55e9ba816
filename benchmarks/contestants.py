"""Who takes turns: our step, others', and the parts that no step can do without.

Each function here prepares one contestant and returns its step: a function that takes one and
returns its loss where there is one. All begin with the same weights and mean the same loss, 0.1 ×
cross-entropy + 0.9 × 4² × KL at temperature 4 (a test compares them); all but the plain loop and
torchdistill's default run in the workload's precision and in channels_last. Ours get pixels and
normalize them in every step; the others' are normalized before the clock starts.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Literal, final

import timm.task
import torch
import torch._inductor.config
from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from plain import plain
from timing import timed
from tutelage.data import TrainLoader
from tutelage.distiller import Distiller
from tutelage.engine import make_optimizer
from tutelage.engine.asking import Asked, Question
from tutelage.engine.phases import move
from tutelage.engine.session import Session
from tutelage.engine.storing import begin, fill
from tutelage.methods import KD
from tutelage.records import RunFolder
from tutelage.teachers import LiveTeacher, StoredTeacher, Teacher
from tutelage.teachers.encoding import LogitsCode
from tutelage.teachers.manifest import Manifest, Part
from workloads import KD_WEIGHT, MEAN, SGD, STD, TASK_WEIGHT, TEMPERATURE, Setup

__all__ = ["CONTESTANTS", "WHOLE", "Ours", "absent", "make_store", "take_turns"]

Step = Callable[[], Any]


# Others


def plain_loop(setup: Setup) -> Step:
    """`plain.py`, whose batch is resident, normalized, float32 and NCHW."""
    images = setup.normalized(channels_last=False)
    loop = plain(setup.make("student"), setup.make("teacher"), images, setup.labels)
    return partial(next, loop)


def torchdistill(setup: Setup, *, as_found: bool, lean: bool) -> Step:
    """torchdistill's box, and around it the loop of its own example script.

    Args:
        as_found: whether the teacher stays in the training mode in which a network is born, as it
            does in that script: then batch statistics answer, and change in every step.
        lean: whether it runs in the workload's precision and in channels_last.
    """
    from torchdistill.core.distillation import (  # pyright: ignore[reportMissingImports]
        get_distillation_box,
    )

    student, teacher = setup.make("student"), setup.make("teacher").train(as_found)
    if lean:
        _to_channels_last(student, teacher)
    outputs = {
        "student_module_path": ".",
        "student_module_io": "output",
        "teacher_module_path": ".",
        "teacher_module_io": "output",
    }
    weights = {"temperature": TEMPERATURE, "alpha": TASK_WEIGHT, "reduction": "batchmean"}
    term = {"criterion": {"key": "KDLoss", "kwargs": {**outputs, **weights}}, "weight": 1.0}
    config = {
        "num_epochs": 1,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": dict(SGD)},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": term}}},
    }
    box = get_distillation_box(teacher, student, {}, config, setup.device, None, False, 1)
    box.pre_epoch_process(epoch=0)
    images, labels = setup.normalized(channels_last=lean), setup.labels

    def step() -> float:
        with _precision(setup, lean=lean):
            loss = box.forward_process(images, labels, {})
        box.post_forward_process(loss=loss)
        value = loss.item()
        if torch.isnan(loss) or torch.isinf(loss):
            raise ValueError(f"The training loop was broken due to loss = {value}")
        return value

    return step


def timm_task(setup: Setup) -> Step:
    """timm's task for logits, in the loop of its training script."""
    student, teacher = setup.make("student"), setup.make("teacher")
    _to_channels_last(student, teacher)
    for network in (student, teacher):  # what timm asks of a network that is not its own
        network.pretrained_cfg = {"mean": MEAN, "std": STD}  # pyright: ignore[reportArgumentType]
    task = timm.task.LogitDistillationTask(
        student,
        timm.task.DistillationTeacher(teacher, device=setup.device),
        criterion=nn.CrossEntropyLoss(),
        distill_loss_weight=KD_WEIGHT,
        task_loss_weight=TASK_WEIGHT,
        temperature=TEMPERATURE,
        device=setup.device,
        verbose=False,
    ).train()
    optimizer = create_optimizer_v2(
        student, "sgd", **{k: v for k, v in SGD.items() if k != "nesterov"}
    )
    images, labels = setup.normalized(channels_last=True), setup.labels

    def step() -> float:
        with setup.autocast:
            loss = task(images, labels)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def _precision(setup: Setup, *, lean: bool) -> torch.autocast:
    return setup.autocast if lean else torch.autocast(setup.device.type, enabled=False)


def _to_channels_last(*networks: nn.Module) -> None:
    for network in networks:
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


# Ours


@final
class Ours:
    """The engine's own step, and what `fit` does for each: all but its display.

    Args:
        teacher: None for labels alone.
        loaded: whether each step draws its batch, or all have the resident one.

    Attributes:
        session: the engine's.
    """

    def __init__(self, setup: Setup, teacher: Teacher | None, *, loaded: bool) -> None:
        self._setup, self._settings = setup, setup.settings
        methods = {"kd": (KD(temperature=TEMPERATURE), KD_WEIGHT)} if teacher else {}
        distiller = Distiller(
            setup.network("student"),
            teacher,
            methods=methods,
            task_weight=TASK_WEIGHT if teacher else 1.0,
        ).to(setup.device)
        self._loader: TrainLoader = setup.loader()
        self._resident = None if loaded else setup.resident
        folder = RunFolder(setup.new_folder())
        self.session = Session(distiller, self._loader, self._settings, folder, setup.device)
        self.session.begin(seed=0)

    def __call__(self) -> None:
        """One step; the loss is read once per interval."""
        session, settings = self.session, self._settings
        batch = self._resident
        if batch is None:
            drawn = self._loader.batch(session.step)
            batch = move(drawn, self._setup.device, channels_last=settings.channels_lie_last)
        session.train_step(batch)
        session.decide_end()
        if session.due(settings.log_every):
            session.write_log()


def ours(setup: Setup, teacher: Literal["live", "stored"] | None, *, loaded: bool = False) -> Step:
    """Our step with a live teacher, with stored answers, or from labels alone."""
    if teacher == "live":
        return Ours(setup, _live(setup), loaded=loaded)
    if teacher == "stored":
        return Ours(setup, _stored(setup), loaded=loaded)
    return Ours(setup, None, loaded=loaded)


def _live(setup: Setup) -> LiveTeacher:
    """A teacher as a recipe's run has it."""
    settings = setup.settings
    teacher = LiveTeacher(
        setup.network("teacher"), fuse=settings.fuse_teacher, compile=settings.compile_teacher
    )
    teacher.tap(())  # folds
    return teacher


def _stored(setup: Setup) -> StoredTeacher:
    return StoredTeacher(setup.store or make_store(setup))


# Parts that no step can do without


def teacher_alone(setup: Setup) -> Step:
    """Our teacher's network as it lies in our step, without anything around it."""
    answer, images = _bare(setup, _live(setup)), setup.normalized(channels_last=True)

    def step() -> Tensor:
        with torch.no_grad(), setup.autocast:
            return answer(images)

    return step


def _bare(setup: Setup, teacher: LiveTeacher) -> Callable[[Tensor], Tensor]:
    """The network that answers, folded and compiled as our teacher is."""
    network = teacher.network.module
    _to_channels_last(network)
    if not setup.settings.compile_teacher:
        return network
    compiled = torch.compile(network)

    def answer(images: Tensor) -> Tensor:
        with torch._inductor.config.patch(freezing=True):
            return compiled(images)

    return answer


def student_alone(setup: Setup) -> Step:
    """Forward and backward, from the cheapest loss there is."""
    student = setup.make("student").train()
    _to_channels_last(student)
    images, labels = setup.normalized(channels_last=True), setup.labels

    def step() -> Tensor:
        with setup.autocast:
            loss = cross_entropy(student(images), labels)
        loss.backward()
        student.zero_grad()
        return loss.detach()

    return step


def optimizer_alone(setup: Setup, way: Literal["fused", "loop"] | None = None) -> Step:
    """Our optimizer's step on gradients that are there.

    Args:
        way: another implementation of torch than ours, which is `foreach`.
    """
    student = setup.make("student")
    _to_channels_last(student)
    for parameter in student.parameters():
        parameter.grad = torch.full_like(parameter, 1e-6)
    optimizer, _ = make_optimizer(student.parameters(), setup.settings)
    if way is not None:
        other = {"fused": way == "fused", "foreach": False}
        optimizer = torch.optim.SGD(student.parameters(), **SGD, **other)

    def step() -> None:
        optimizer.step()  # the method alone would not keep its optimizer alive

    return step


def copying(setup: Setup) -> Step:
    """The batch's pixels from where a loader leaves them to where a step wants them."""
    images = setup.resident.images.cpu()
    place = torch.empty_like(setup.resident.images)
    return partial(place.copy_, images)


def loading(setup: Setup) -> Step:
    """Drawing and augmenting a batch, and moving it."""
    loader, numbers = setup.loader(), count()
    return lambda: move(loader.batch(next(numbers)), setup.device, channels_last=True)


def nothing(setup: Setup) -> Step:
    """For what a process costs that has only loaded its libraries."""
    del setup
    return lambda: None


# The store


def store_question(setup: Setup) -> Question:
    """Every picture in one view, as `tutelage cache` asks."""
    asked = Asked(
        setup.pictures, setup.views, batch_size=setup.workload.batch_size, full=True, seed=0
    )
    return Question(_live(setup), {"train": asked}, setup.settings)


def make_store(setup: Setup) -> Path:
    """Makes the setup's store, which contestants with stored answers read."""
    setup.store = build_store(setup, store_question(setup))
    return setup.store


def build_store(setup: Setup, question: Question) -> Path:
    """Builds a store from nothing until it is complete on the disk.

    Logits only, with as many bits as the precision is worth.
    """
    workload, folder = setup.workload, setup.new_folder()
    manifest = Manifest(
        {"precision": workload.precision},
        LogitsCode("fp16" if workload.precision == "bf16" else "fp32", workload.num_classes),
        {},
        {"train": Part(workload.num_pictures, 1, workload.num_pictures)},
        {"stages": []},
    )
    filled = fill(folder, begin(folder, manifest, question), question, shown=False)
    assert filled.complete
    return folder


def store_build(setup: Setup) -> Step:
    """Building a store; each is another one, all are removed at the end."""
    return partial(build_store, setup, store_question(setup))


def teacher_pass(setup: Setup) -> Step:
    """The same teacher's network over the same pictures, which lie there rendered, normalized."""
    question, batches = store_question(setup), []
    asked = question.parts["train"]
    for start in range(0, len(asked), asked.batch_size):
        places = torch.arange(start, start + asked.batch_size)
        batch = asked.batch(places, torch.zeros_like(places))
        images = question.teacher.network.prepare(batch.images.to(setup.device))
        batches.append(images.contiguous(memory_format=torch.channels_last))
    answer = _bare(setup, question.teacher)

    def step() -> None:
        with torch.no_grad(), setup.autocast:
            for images in batches:
                answer(images)

    return step


CONTESTANTS: dict[str, Callable[[Setup], Step]] = {
    "plain": plain_loop,
    "torchdistill": partial(torchdistill, as_found=True, lean=False),
    "torchdistill_eval": partial(torchdistill, as_found=False, lean=False),
    "torchdistill_bf16": partial(torchdistill, as_found=False, lean=True),
    "timm": timm_task,
    "live": partial(ours, teacher="live"),
    "stored": partial(ours, teacher="stored"),
    "label_only": partial(ours, teacher=None),
    "live_loaded": partial(ours, teacher="live", loaded=True),
    "stored_loaded": partial(ours, teacher="stored", loaded=True),
    "label_only_loaded": partial(ours, teacher=None, loaded=True),
    "teacher": teacher_alone,
    "student": student_alone,
    "optimizer": optimizer_alone,
    "optimizer_fused": partial(optimizer_alone, way="fused"),
    "optimizer_loop": partial(optimizer_alone, way="loop"),
    "copy": copying,
    "loader": loading,
    "nothing": nothing,
    "store_build": store_build,
    "teacher_pass": teacher_pass,
}

OTHERS = ("plain", "torchdistill", "torchdistill_eval", "torchdistill_bf16", "timm")
"""Contestants that nobody tells to keep freed memory, unless they share a process with ours."""

WHOLE = ("store_build", "teacher_pass")
"""Contestants whose step is so long that a turn is one of them."""


def take_turns(setup: Setup, name: str) -> Callable[[], float]:
    """Prepares a contestant; what is returned takes one turn and says how long a step took."""
    step, steps = CONTESTANTS[name](setup), 1 if name in WHOLE else setup.workload.steps
    return partial(timed, step, steps, setup.device)


def absent(name: str) -> str | None:
    """Why a contestant cannot take part here; None if it can."""
    if name.startswith("torchdistill") and find_spec("torchdistill") is None:
        return "torchdistill is not installed (pip install -e '.[peers]')"
    return None
