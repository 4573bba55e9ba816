"""Measuring a finished run again: each reading of test is entered in its record."""

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tutelage.build import EVALUATION_BATCH, Built, build
from tutelage.data import DATASETS, EvalLoader, Source
from tutelage.engine import TrainSettings
from tutelage.errors import DataError, NetworkError, RunError, SettingError
from tutelage.evaluation.accuracy import accuracy
from tutelage.evaluation.calibration import calibration
from tutelage.evaluation.classes import by_class, correct_bits
from tutelage.evaluation.predictions import predict
from tutelage.identity import pictures_of, weights_of
from tutelage.models.checkpoints import load_into, parse, read_state
from tutelage.models.network import Network
from tutelage.models.saved import Description, load
from tutelage.networks import make_teacher, open_student
from tutelage.recipes import parse_overrides, source_entry, validate
from tutelage.records import RunFolder
from tutelage.report.acceptance import Limits, accept
from tutelage.runs.extras import NOTHING, Extras, add_extras
from tutelage.runs.finished import named_student, weigh, with_its_student
from tutelage.runs.measuring import (
    COSTS,
    add_test,
    cost,
    enter_measured,
    enter_reading,
    look,
    require_finite,
    students_of,
    teacher_cost,
)
from tutelage.runs.run import Run
from tutelage.runs.surroundings import MEASURED, require_same_content, surroundings
from tutelage.teachers import StoredTeacher
from tutelage.types import InputSpec, Pair

__all__ = ["evaluate", "evaluate_model", "named_source", "read_test"]


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
    since = deepcopy(record)
    recipe = validate(record["recipe"], str(place.recipe))
    with surroundings(recipe.train) as device:
        built = build(recipe, teacher=teacher)
        require_same_content(built, record["content"], folder, MEASURED)
        built = built._replace(student=load(folder))
        weigh(built, device)
        add_test(record, place, built, device, command, purpose)
    return Run(folder, place.enter(record, since))


def evaluate(
    folder: Path | str,
    *,
    with_test: bool = False,
    extras: Extras = NOTHING,
    teacher: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    subnet: str | None = None,
    command: str = "tutelage.evaluate",
    purpose: str = "asked for after the run was finished",
) -> dict[str, Any]:
    """Measures the saved student of a finished run again, for comparison with its record.

    Args:
        with_test: whether to read test too, which is then entered in the record.
        extras: what to measure on test beside the answers, and to enter in the record.
        teacher: of another run's record, if it was measured there with the same extras already.
        limits: asks whether the student keeps them; the answer is entered in the record.
        subnet: measures, and asks of, this sub-net in the place of the student.
        command, purpose: how this was called and what for, for that entry.

    Returns:
        "record", as it stands now; "again": what was measured, under the record's names:
        "validation_accuracy", with test "test_accuracy" and, if there is a teacher, "agreement";
        with limits "accepted", as it was entered.

    Raises:
        RunError: the folder holds no finished run, or its record does not say what limits ask for.
        NetworkError: the student has no such sub-net.
        SettingError: extras were asked for without test, or similarity to no teacher.
        DataError: pictures or teacher are no longer those of the run, or a file does not fit them.
        TutelageError: what the recipe names is no longer there.
    """
    if extras.keys and not with_test:
        raise SettingError(f"{extras} are measured on test, so this reads test. Add --test.")
    place = RunFolder(Path(folder))
    record = place.read_record()
    if extras.similarity and record["teacher"] is None:
        raise SettingError(
            f"Maps are compared with a teacher's, and {record['name']} has none. Leave similarity "
            "out."
        )
    extras.digest()  # refuses a file that is not there before anything is measured
    name = named_student(record, subnet)
    recipe = validate(record["recipe"], str(place.recipe))
    # Nothing is trained; on validation alone the teacher need not be there any more.
    recipe = with_its_student(recipe, place.path, teacher=with_test)
    with surroundings(recipe.train) as device:
        built = build(recipe, with_test=with_test)
        require_same_content(built, record["content"], place.path, MEASURED)
        guide = _guide(built, extras)
        seen = look(students_of(built)[name], built.validation, built, device)
        again: dict[str, Any] = {"validation_accuracy": accuracy(seen)}
        if with_test:
            since, measured = deepcopy(record), deepcopy(record)
            weigh(built, device)
            more = f": {extras}" if extras.keys else ""
            add_test(measured, place, built, device, command, f"{purpose}{more}")
            again |= _test_of(measured, name)
            record = _taken_over(record, measured)
            _measure_costs(record, built, device)
            _measure_extras(record, built, guide, extras, teacher, device)
            enter_measured(record, extras)
            record = place.enter(record, since)
    if limits is None:
        return {"record": record, "again": again}
    with place.changing() as record:
        answer = _held_against(limits, record, name, command)
    return {"record": record, "again": again, "accepted": answer}


def _held_against(
    limits: Limits, record: dict[str, Any], name: str, command: str
) -> dict[str, Any]:
    """The answer, which the record then holds after those to earlier questions."""
    answer = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "limits": {key: limit for key, limit in limits._asdict().items() if limit is not None},
        **({"subnet": name} if name != "student" else {}),
        **accept(record, limits, name)._asdict(),
    }
    record.setdefault("accepted", []).append(answer)
    return answer


def _guide(built: Built, extras: Extras) -> Network | StoredTeacher | None:
    """The teacher whose maps are looked at; where a store answers, the one that it asked."""
    teacher, named = built.teacher, dict(built.recipe.teacher or {})
    if not (extras.similarity and isinstance(teacher, StoredTeacher)):
        return teacher
    named.pop("cache", None)
    if not named and not built.recipe.teachers:
        raise SettingError(
            "Similarity is measured on the teacher's maps of test pictures, which a store does not "
            "hold. Leave it out, or measure a run whose recipe names the teacher beside its cache."
        )
    live = make_teacher(
        built.recipe.model_copy(update={"teacher": named or None}), built.source, None
    )
    assert live is not None
    if weights_of(live) != teacher.store.manifest.fingerprint["teacher"]:
        raise DataError(
            "The teacher that the recipe names is another than the one whose answers lie in "
            f"{teacher.store.folder}. Bring its weights back, or leave similarity out."
        )
    return live


def _test_of(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    student = record["students"][name]
    return {key: student[key] for key in ("test_accuracy", "agreement") if key in student}


def _taken_over(record: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """The record with the new reading: the first one's numbers stand, unless both are the same."""
    if record["readings"] and any(
        _test_of(record, name) != _test_of(measured, name) for name in record["students"]
    ):
        return record | {"readings": measured["readings"]}
    return measured


def _measure_costs(record: dict[str, Any], built: Built, device: torch.device) -> None:
    """Measures costs anew if some are among them that records did not hold at that time."""
    networks = students_of(built)
    pairs = [(record["students"][name], network) for name, network in networks.items()]
    for entry, network in (*pairs, (record["teacher"], built.teacher)):
        if network is not None and not COSTS <= entry.keys():
            entry |= teacher_cost(network, device)


def _measure_extras(
    record: dict[str, Any],
    built: Built,
    guide: Network | StoredTeacher | None,
    extras: Extras,
    teacher: Mapping[str, Any] | None,
    device: torch.device,
) -> None:
    students = students_of(built)
    entries = {name: record["students"][name] for name in students}
    networks: dict[str, Network] = dict(students)
    if isinstance(guide, Network):
        entries["teacher"], networks["teacher"] = record["teacher"], guide
    known = {key: teacher[key] for key in ("robustness", "people") if teacher and key in teacher}
    if known or guide is not built.teacher:
        if known:
            record["teacher"] |= known
        # Of both networks together only similarity is new, or where a store answers, wanted.
        only = Extras(similarity=extras.similarity)
        _add(entries, networks, built, only, device)
        extras = extras._replace(similarity=False)
        entries = {name: entries[name] for name in students}
        networks = dict(students)
    _add(entries, networks, built, extras, device)


def _add(
    entries: Mapping[str, dict[str, Any]],
    networks: Mapping[str, Network],
    built: Built,
    extras: Extras,
    device: torch.device,
) -> None:
    taps = built.recipe.taps
    add_extras(
        entries,
        networks,
        built.source.test,
        extras,
        pairs=None if taps == "auto" else [Pair(*names) for names in taps],
        settings=built.recipe.train,
        device=device,
    )


def evaluate_model(
    model: Path | str,
    source: Source,
    *,
    extras: Extras = NOTHING,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    command: str = "tutelage.evaluate_model",
) -> dict[str, Any]:
    """Measures any saved student, or weights for a network that is known by name, on test pictures.

    If these are the test pictures of the run that left the model, the reading is entered in its
    record. Nothing else is written.

    Args:
        model: a run's folder, a student's file, or `FILE:NAME`.
        source: its test pictures are shown.
        extras: what to measure beside the answers.
        device: "auto" takes CUDA where there is one.
        command: how this was called, for that entry.

    Returns:
        As the entry of a student in a record: "test_accuracy", "test", costs, and the extras.

    Raises:
        TutelageError: there is no such model, or it does not fit the pictures.
    """
    network = _read_model(model, source)
    settings = TrainSettings(steps=1, precision="fp32", device=device)
    with surroundings(settings) as place:
        loader = EvalLoader(source.test, batch_size=EVALUATION_BATCH)
        seen = predict(network, loader, device=place)
        require_finite(seen)
        if seen.outputs.shape[1] != len(source.classes):
            raise NetworkError(
                f"{model} puts out {seen.outputs.shape[1]} classes, but the data has "
                f"{len(source.classes)}. Name data with its classes."
            )
        entry: dict[str, Any] = {
            "test_accuracy": accuracy(seen),
            "test": by_class(seen)
            | {"classes": list(source.classes)}
            | {"calibration": calibration(seen), "correct": correct_bits(seen)},
            "weights": weights_of(network),
            **cost(network, place),
        }
        add_extras(
            {"student": entry},
            {"student": network},
            source.test,
            extras,
            pairs=None,
            settings=settings,
            device=place,
        )
    _enter_own_reading(model, source, command)
    return entry


def _enter_own_reading(model: Path | str, source: Source, command: str) -> None:
    """Enters the reading in the run that left the model, if these are its test pictures."""
    path = Path(model)
    folder = RunFolder(path if path.is_dir() else path.parent)
    if not (path.exists() and folder.finished):
        return
    if folder.read_record()["content"].get("test") == pictures_of(source.test):
        with folder.changing() as record:
            enter_reading(record, command, "asked for after the run was finished, as of any model")


def _read_model(model: Path | str, source: Source) -> Network:
    path = Path(model)
    if path.exists() or ":" not in str(model):
        return open_student(path)[0]
    checkpoint, name = parse(str(model))
    height, width, channels = source.test.shape
    spec = InputSpec(height, width, channels, source.mean, source.std)
    network = Description(name, {}, len(source.classes), spec).make()
    load_into(network.module, read_state(checkpoint), str(checkpoint))
    return network


def named_source(text: str) -> Source:
    """Pictures by name: `digits`, `cifar10:FOLDER`, `pictures.npz`, or `{name: …, …}` as a recipe.

    Raises:
        RecipeError: there is no such source, or it knows no such setting.
        DataError: it is not there, or damaged.
    """
    value: Any = text
    if text.lstrip().startswith("{"):
        value = parse_overrides([f"data={text}"])["data"]
    elif text.endswith(".npz") and not text.startswith("arrays:"):
        value = {"name": "arrays", "path": text}
    elif ":" in text:
        name, _, place = text.partition(":")
        value = {"name": name, "path" if name == "arrays" else "root": place}
    entry = source_entry(value)
    return DATASETS[entry["name"]](**{k: v for k, v in entry.items() if k != "name"})
