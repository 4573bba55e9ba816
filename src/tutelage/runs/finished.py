"""A finished run, built again with the student that it left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tutelage.build import Built
from tutelage.distiller import Ensemble
from tutelage.errors import NetworkError, one_of
from tutelage.recipes import Recipe
from tutelage.runs.measuring import check_teacher

__all__ = ["named_student", "subnets_of", "weigh", "with_its_student"]


def subnets_of(record: Mapping[str, Any]) -> dict[str | None, str]:
    """What `--subnet` may say → the name under which a record holds that student.

    Of an ordinary student: None alone.
    """
    others = [name for name in record["students"] if name != "student"]
    if not others:
        return {None: "student"}
    return {"full": "student"} | {name: name for name in others}


def named_student(record: Mapping[str, Any], subnet: str | None) -> str:
    """The name under which a record holds a sub-net, or the whole.

    Raises:
        NetworkError: there is no such sub-net.
    """
    if subnet is None:
        return "student"
    known = subnets_of(record)
    if None in known:
        raise NetworkError(
            f"The student of {record['name']} has no sub-nets, so there is no {subnet!r} among "
            "them. Name none."
        )
    one_of("sub-net", subnet, map(str, known), NetworkError)
    return known[subnet]


def with_its_student(recipe: Recipe, folder: Path, *, teacher: bool) -> Recipe:
    """The recipe of a run whose student begins where that one ended. Nothing is to be trained.

    Args:
        teacher: whether the teacher is wanted; without, it need not be there any more.
    """
    update: dict[str, Any] = {"student": {"run": str(folder)}, "methods": {}}
    if not teacher:
        update |= {"teacher": None, "teachers": [], "aggregation": None}
    return recipe.model_copy(update=update)


def weigh(built: Built, device: torch.device) -> None:
    """Several teachers are weighed as they were before the run."""
    if isinstance(built.teacher, Ensemble):
        check_teacher(built, device)
