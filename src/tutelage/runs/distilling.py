"""From a teacher, a student's name and a folder of pictures to a recipe for a first try."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.build import Built, build
from tutelage.errors import RecipeError, SettingError, one_of
from tutelage.methods import METHODS
from tutelage.recipes import Recipe, validate
from tutelage.runs.settling import settle
from tutelage.runs.surroundings import surroundings

__all__ = ["LEARNING_WEIGHTS", "Wish", "methods_of", "propose", "within_budget"]

_VALIDATION, _LEAST = 0.1, 20
_MOST_EPOCHS, _FEWEST_STEPS = 100, 100
_BATCH = 64
_OF_BUDGET = 0.85
"""The rest is for reading pictures, measuring and the page."""

LEARNING_WEIGHTS: Mapping[str, Mapping[str, Any]] = {
    "kd": {"temperature": 4, "weight": 0.9},
    "fitnet_hints": {"weight": {"kind": "linear", "from": 10, "to": 0}},
    "attention_transfer": {"weight": 1000},
    "knowledge_projection": {
        "direction": "student_to_teacher",
        "routes": "same",
        "weight": {"kind": "linear", "from": 10, "to": 0},
    },
    "geometric": {"weight": 1},
    "dct_attention": {"weight": 1},
}
"""Methods that a teacher is needed for, with settings that did well in the comparisons here; those
of geometric and dct_attention, which are not measured yet, are the ones to begin with."""


class Wish(NamedTuple):
    """What is asked for.

    Attributes:
        teacher: FILE:NAME, or the folder of a run; None for labels alone.
        student: a network's name.
        data: a folder of photographs, a CSV file, an .npz file, or the name of a source.
        methods: of `LEARNING_WEIGHTS`; none where there is no teacher.
        unlabelled: a folder of more pictures.
        size: side of the pictures that are shown; 224 for photographs unless said.
    """

    teacher: str | None
    student: str
    data: str
    methods: tuple[str, ...] = ("kd",)
    unlabelled: str | None = None
    size: int | None = None


def propose(wish: Wish, *, seed: int = 0) -> dict[str, Any]:
    """The recipe, for as many steps as `within_budget` then says.

    Raises:
        RecipeError: a method is not known.
        SettingError: methods without a teacher, or unlabelled pictures that nothing learns from.
    """
    for name in wish.methods:
        if name not in METHODS:
            one_of("method", name, METHODS, RecipeError)
        one_of("method that learns from a teacher", name, LEARNING_WEIGHTS, RecipeError)
    methods = {name: dict(LEARNING_WEIGHTS[name]) for name in wish.methods} if wish.teacher else {}
    if wish.unlabelled and not methods:
        raise SettingError(
            "Without a teacher nothing is learned from pictures without labels. Name a teacher, or "
            "leave the unlabelled pictures out."
        )
    source, photographs = _source(wish)
    views: dict[str, Any] = {"flip": True}
    views |= {"crop_area": [0.35, 1]} if photographs else {"crop_padding": 4}
    data: dict[str, Any] = {"source": source, "views": views}
    if wish.unlabelled:
        data["unlabelled"] = wish.unlabelled
    return {
        "schema": 1,
        "seed": seed,
        "data": data,
        "student": _network(wish.student),
        **({"teacher": _network(wish.teacher)} if wish.teacher else {}),
        "methods": methods,
        "task_weight": 0.1 if "kd" in methods else 1.0,
        "train": {
            "steps": _FEWEST_STEPS,
            "batch_size": _BATCH,
            "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 5e-4},
            "clip": 2.0,  # a run of few steps reaches its highest rate soon
            "precision": "auto",
        },
    }


def _network(text: str) -> Any:
    return {"run": text} if Path(text).is_dir() else text


def _source(wish: Wish) -> tuple[dict[str, Any], bool]:
    """The source's entry, and whether it is of photographs."""
    path = Path(wish.data)
    size = {} if wish.size is None else {"size": wish.size}
    if path.is_dir():
        return {"name": "folder", "root": wish.data, **size}, True
    if path.suffix == ".csv":
        return {"name": "manifest", "path": wish.data, **size}, True
    if path.suffix == ".npz":
        return {"name": "arrays", "path": wish.data}, False
    if path.suffix or "/" in wish.data:
        raise RecipeError(
            f"There are no pictures in {wish.data}. Name a folder, a .csv or .npz file, or a "
            "source such as digits."
        )
    name, _, root = wish.data.partition(":")
    return {"name": name, **({"root": root} if root else {})}, False


def within_budget(
    value: Mapping[str, Any], minutes: float, where: str
) -> tuple[dict[str, Any], list[str]]:
    """The recipe with a part for validation and with as many steps as there is time for.

    A step of it is timed; no weights are kept.

    Returns:
        The recipe, and what was settled, in sentences.

    Raises:
        SettingError: there is no time.
        TutelageError: the recipe cannot be built.
    """
    if not 0 < minutes < math.inf:
        raise SettingError(f"The budget must be a time above 0, but is {minutes} minutes.")
    value = {**value, "data": dict(value["data"]), "train": dict(value["train"])}
    said = []
    drawn = _validation(value, where)
    if drawn is not None:
        value["data"]["validation"] = drawn
        said.append(f"{drawn} of the training pictures are set apart for choices.")
    recipe = validate(value, where)
    batch = min(_BATCH, _pictures(recipe))
    value["train"]["batch_size"] = batch
    recipe = validate(value, where)
    with surroundings(recipe.train) as device:
        built = build(recipe, with_test=False)
        settled, chosen = settle(built, device)
    assert chosen is not None
    name = str(settled.recipe.train.precision)
    taken = min(chosen.milliseconds.values()) * batch / chosen.images / 1000
    value["train"]["precision"] = name
    number = len(built.split.train)
    fits = int(60 * minutes * _OF_BUDGET / taken)
    most = math.ceil(_MOST_EPOCHS * number / batch)
    steps = max(min(fits, most), 1)
    value["train"]["steps"] = steps
    said.append(
        f"{steps} steps of {batch} pictures, {steps * batch / number:.1f} times through {number}: "
        f"{_why(fits, most)} A step takes {1000 * taken:.0f} ms in {name}."
    )
    if steps < _FEWEST_STEPS:
        said.append("That is very little. Give it more time.")
    return value, said


def _why(fits: int, most: int) -> str:
    if fits <= most:
        return "as many as fit into the budget."
    return f"{_MOST_EPOCHS} times are enough for a first try; the budget would allow {fits}."


def _pictures(recipe: Recipe) -> int:
    return len(_built(recipe).split.train)


def _validation(value: Mapping[str, Any], where: str) -> int | None:
    """How many training pictures are to validate; None where the source sets some apart."""
    alone = {**value, "methods": {}, "task_weight": 1.0}
    alone.pop("teacher", None)
    alone["data"] = {**value["data"], "validation": 1}
    alone["data"].pop("unlabelled", None)
    source = _built(validate(alone, where)).source
    if source.validation is not None:
        return None
    known = int(source.train.has_label.sum())
    return min(max(round(_VALIDATION * known), _LEAST), max(known // 2, 1))


def _built(recipe: Recipe) -> Built:
    return build(recipe, with_test=False)


def methods_of(text: str) -> tuple[str, ...]:
    """`kd` or `kd+fitnet_hints`."""
    names: Sequence[str] = [part.strip() for part in text.split("+")]
    return tuple(name for name in names if name)
