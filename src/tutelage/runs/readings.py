"""Measuring a finished run again: each reading of test is entered in its record."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.build import build
from tutelage.errors import RunError
from tutelage.evaluation.accuracy import accuracy
from tutelage.models.saved import load
from tutelage.recipes import validate
from tutelage.records import RunFolder, write_json
from tutelage.runs.measuring import add_test, look
from tutelage.runs.run import Run
from tutelage.runs.surroundings import MEASURED, require_same_content, surroundings

__all__ = ["evaluate", "read_test"]


def read_test(folder: Path, *, purpose: str, command: str, teacher: nn.Module | None = None) -> Run:
    """Reads test for a finished run whose record has no reading yet, and enters it.

    Raises:
        RunError: the folder holds no finished run, or test was read already.
        DataError: pictures or teacher are no longer those of the run.
    """
    place = RunFolder(folder)
    record = place.read_record()
    if record["readings"]:
        raise RunError(f"Test was read already for {folder}; a run reads it once.")
    recipe = validate(record["recipe"], str(place.recipe))
    with surroundings(recipe.train) as device:
        built = build(recipe, teacher=teacher)
        require_same_content(built, record["content"], folder, MEASURED)
        built = built._replace(student=load(folder))
        add_test(record, built, device, command, purpose)
    write_json(place.record, record)
    return Run(folder, record)


def evaluate(
    folder: Path | str, *, with_test: bool = False, command: str = "tutelage.evaluate"
) -> dict[str, Any]:
    """Measures the saved student of a finished run again, for comparison with its record.

    Args:
        with_test: whether to read test too, which is then entered in the record.
        command: how this was called, for that entry.

    Returns:
        "record", as it stands now; "again": what was measured, under the record's names:
        "validation_accuracy", with test "test_accuracy" and, if there is a teacher, "agreement".

    Raises:
        RunError: the folder holds no finished run.
        DataError: pictures or teacher are no longer those of the run.
        TutelageError: what the recipe names is no longer there.
    """
    place = RunFolder(Path(folder))
    record = place.read_record()
    recipe = validate(record["recipe"], str(place.recipe))
    # Nothing is trained; on validation alone the teacher need not be there any more.
    update: dict[str, Any] = {"student": {"run": str(folder)}, "methods": {}}
    recipe = recipe.model_copy(update=update if with_test else update | {"teacher": None})
    with surroundings(recipe.train) as device:
        built = build(recipe, with_test=with_test)
        require_same_content(built, record["content"], place.path, MEASURED)
        seen = look(built.student, built.validation, built, device)
        measured = deepcopy(record)
        if with_test:
            add_test(measured, built, device, command, "asked for after the run was finished")
    again = {"validation_accuracy": accuracy(seen)}
    if with_test:
        student = measured["students"]["student"]
        again |= {key: student[key] for key in ("test_accuracy", "agreement") if key in student}
        if record["readings"]:  # the first reading stands
            record["readings"] = measured["readings"]
        else:
            record = measured
        write_json(place.record, record)
    return {"record": record, "again": again}
