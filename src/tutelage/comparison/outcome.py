"""What becomes of one trial: its record, or in what words it failed."""

import re
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tutelage.errors import NonFiniteError, RunError
from tutelage.provenance import git_commit
from tutelage.recipes import Recipe, plain, read_recipe
from tutelage.records import RunFolder, remove
from tutelage.runs import Extras, evaluate, read_test, train

__all__ = ["Task", "outcome"]


@dataclass(frozen=True)
class Task:
    """A trial to be run, here or in a process of its own.

    Attributes:
        kind: "trial", or "try" for one that a choice is made by: it has no access to test.
        row, identity: the run folder is named after them.
        runs: the folder of run folders.
        extras: what is measured of a trial on test beside its answers.
        teacher: its entry in another trial's record that was measured with the same extras.
        shown: whether to show progress.
        command: for the record.
    """

    kind: Literal["trial", "try"]
    row: str
    recipe: Recipe
    identity: str
    runs: Path
    extras: Extras
    teacher: Mapping[str, Any] | None
    shown: bool
    command: str

    @property
    def name(self) -> str:
        """Of the run folder."""
        row = re.sub(r"[^A-Za-z0-9._-]+", "-", self.row)
        return f"{row}-seed{self.recipe.seed}-{self.identity[:8]}"


def outcome(task: Task) -> dict[str, Any]:
    """Runs a trial, or goes on with it, or takes its finished run folder.

    Returns:
        "record"; and "failed", if a loss became infinite or NaN.
    """
    try:
        record = _run(task)
        if task.kind == "trial" and task.extras.keys and not record["collapsed"]:
            record = _evaluated(task, record)
    except NonFiniteError as error:
        record = {"commit": git_commit(), "recipe": plain(task.recipe)}
        return {"failed": str(error).split(";")[0], "record": record}
    return {"record": record}


def _evaluated(task: Task, before: Mapping[str, Any]) -> dict[str, Any]:
    """The record with what the specification wants to be measured beside the answers."""
    alone = before["teacher"] is None
    record: dict[str, Any] = evaluate(
        task.runs / task.name,
        with_test=True,
        extras=task.extras._replace(similarity=False) if alone else task.extras,
        teacher=task.teacher,
        command=task.command,
        purpose="asked for by the specification",
    )["record"]
    if "test" not in record["students"]["student"]:
        raise RunError(
            f"The student in {task.runs / task.name} answers test otherwise than its record says, "
            "so that it cannot be measured further. Remove that folder, and it is trained anew."
        )
    return record


def _run(task: Task) -> dict[str, Any]:
    folder = RunFolder(task.runs / task.name)
    if not folder.finished:
        _clear_other_recipe(folder, task.recipe)
        return train(
            task.recipe,
            name=task.name,
            runs=task.runs,
            resume=folder.path.exists(),
            with_test=task.kind == "trial",
            shown=task.shown,
            command=task.command,
        ).record
    record = folder.read_record()
    if task.kind == "try":
        return _without_test(record)
    if record["readings"]:
        return record
    return read_test(
        folder.path,
        purpose="final measurement of a setting that was chosen on validation",
        command=task.command,
    ).record


def _clear_other_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """Removes an unfinished run of this identity that only its own recipe could continue."""
    if folder.recipe.is_file() and plain(read_recipe(folder.recipe)) != plain(recipe):
        warnings.warn(
            f"The unfinished run in {folder.path} was begun with other settings that change no "
            "weights (such as log_every, or where files lie), and is begun anew.",
            stacklevel=2,
        )
        remove(folder.path)


_ON_TEST = (
    "test_accuracy",
    "test",
    "agreement",
    "fidelity",
    "robustness",
    "similarity",
    "people",
)


def _without_test(record: dict[str, Any]) -> dict[str, Any]:
    """The record as it was before test was read."""
    result: dict[str, Any] = deepcopy(record) | {"readings": []}
    result["data"]["test"] = 0
    result.pop("measured", None)
    for network in (*result["students"].values(), result["teacher"] or {}):
        for key in _ON_TEST:
            network.pop(key, None)
    return result
