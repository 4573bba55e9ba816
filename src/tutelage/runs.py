"""One recipe → one run folder: build, check, train, measure, record."""

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from tutelage.build import EVALUATION_BATCH, Built, build
from tutelage.data import EvalLoader, Source
from tutelage.data.subsets import draw_stratified
from tutelage.engine import (
    Trained,
    TrainSettings,
    fit,
    make_optimizer,
    memory_in_words,
    require_one_process,
    resolve_device,
)
from tutelage.engine.phases import move
from tutelage.errors import (
    DataError,
    Interrupted,
    NonFiniteError,
    RecipeError,
    RunError,
    TeacherError,
)
from tutelage.evaluation.accuracy import accuracy, near_chance
from tutelage.evaluation.agreement import agreement
from tutelage.evaluation.cost import macs, num_parameters
from tutelage.evaluation.latency import latency
from tutelage.evaluation.predictions import Predictions, predict
from tutelage.identity import identity_parts, weights_of
from tutelage.models.network import Network
from tutelage.models.saved import load, save_network
from tutelage.provenance import digest, git_commit, hardware, versions
from tutelage.recipes import (
    Recipe,
    apply_overrides,
    dump,
    leave_open,
    parse_overrides,
    plain,
    read_mapping,
    read_recipe,
    validate,
)
from tutelage.records import RECORD_SCHEMA, RunFolder, remove, write_json

__all__ = ["Run", "check", "evaluate", "read_test", "train"]

SANITY_PICTURES = 1000


class Run(NamedTuple):
    """A finished run.

    Attributes:
        folder: where it lies.
        record: what record.json says.
    """

    folder: Path
    record: dict[str, Any]

    def student(self) -> Network:
        """The trained student, in eval mode; takes pixels in [0, 1]."""
        return load(self.folder)


def train(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    overrides: Iterable[str] = (),
    name: str | None = None,
    runs: Path | str = "runs",
    resume: bool = False,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
    data: Source | None = None,
    with_test: bool = True,
    shown: bool = True,
    command: str = "tutelage.train",
) -> Run:
    """Runs a recipe to its end.

    Args:
        recipe: a recipe, what its YAML says, a file, or the name of a packaged recipe.
        overrides: `key=value`, keys dotted.
        name: of the run folder; the recipe's name and seed unless said.
        runs: the folder of run folders.
        resume: continue the run of that name from its newest checkpoint; begins it if it has none.
        student, teacher, data: take the place of the recipe's entries, which the record then leaves
            open; it has their class and digests instead. A network that is no `Network` is shown
            pictures as the data is normalized.
        with_test: whether test may be read, once, after everything is chosen. A run that belongs
            to a choice must not.
        shown: whether to show progress.
        command: how the run was called, for the record.

    Raises:
        TutelageError: what was asked for does not exist or does not fit; nothing was written.
        Interrupted: the run was asked to stop; `resume` continues it, unless it has finished.
    """
    require_one_process()
    given = {"student": student, "teacher": teacher, "data": data}
    objects = [what for what, value in given.items() if value is not None]
    resolved, default_name = _resolve(recipe, overrides, objects)
    folder = RunFolder(Path(runs) / (name or default_name))
    begins = not (resume and folder.path.exists())
    if begins:
        folder.require_free()
    else:
        _require_unfinished(folder, resolved)
    with _surroundings(resolved.train) as device:
        built = build(resolved, student=student, teacher=teacher, data=data, with_test=with_test)
        origin = _new_origin(built) if begins else _resumed_origin(folder, built)
        teacher_on_validation = _check_teacher(built, device)
        # Taken before training: the code as it is run.
        record = {"schema": RECORD_SCHEMA, "name": folder.path.name, "command": command}
        record |= {"began": origin["began"], "commit": git_commit()}
        trained = _fit(built, folder, origin, device, begins, shown)
        save_network(folder.student, built.student, built.description)
        record |= _origin(built, origin["codes"], device, trained)
        record |= _results(built, device, trained, teacher_on_validation)
        if with_test:
            _add_test(record, built, device, command, "final measurement, after all choices")
        write_json(folder.record, record)
    if trained.signal is not None:
        raise Interrupted(
            f"Stopped; the run in {folder.path} was at its end and is finished.",
            trained.signal,
            finished=True,
        )
    return Run(folder.path, record)


@contextmanager
def _surroundings(settings: TrainSettings) -> Iterator[torch.device]:
    """The device. Inside, torch has the threads asked for, and lack of memory is said in words."""
    device, before = resolve_device(settings.device), torch.get_num_threads()
    try:
        torch.set_num_threads(settings.threads or before)
        with memory_in_words(device, settings):
            yield device
    finally:
        torch.set_num_threads(before)


def _new_origin(built: Built) -> dict[str, Any]:
    """What a run is begun with; a resumed one must find the same content."""
    began = datetime.now(UTC).isoformat(timespec="seconds")
    return {"began": began, "content": built.content, "codes": [built.code]}


def _resumed_origin(folder: RunFolder, built: Built) -> dict[str, Any]:
    """What a run was begun with, and the code that it goes on with, if that is another."""
    origin = folder.read_origin()
    _require_same_content(built, origin["content"], folder.path, _CONTENT)
    if built.code != origin["codes"][-1]:
        warnings.warn(
            f"The code has changed since the run in {folder.path} was begun, so its weights may "
            "differ from those of an uninterrupted run; its record names both.",
            stacklevel=3,
        )
        origin["codes"] = [*origin["codes"], built.code]
        write_json(folder.origin, origin)
    return origin


def _origin(
    built: Built, codes: list[str], device: torch.device, trained: Trained
) -> dict[str, Any]:
    """What the numbers come from."""
    code = "+".join(codes)
    parts = identity_parts(
        built.recipe,
        built.content,
        code,
        threads=trained.threads,
        device=device.type,
        versions=versions(),
    )
    machine = {"device": device.type, "threads": trained.threads}
    return {
        "identity": digest(parts),
        "code": code,
        "content": built.content,
        "versions": versions(),
        "hardware": hardware() | machine | {"kept_memory": trained.kept_memory},
        "recipe": plain(built.recipe),
    }


def _results(
    built: Built, device: torch.device, trained: Trained, teacher_on_validation: Predictions | None
) -> dict[str, Any]:
    """What came out, without test."""
    on_validation = _look(built.student, built.validation, built, device)
    share = accuracy(on_validation)
    student = {"validation_accuracy": share, "weights": weights_of(built.student)}
    return {
        "seconds": round(trained.seconds, 3),
        "steps": trained.steps,
        "ended": trained.ended,
        "collapsed": near_chance(share, on_validation),
        "phases": list(trained.phases),
        "students": {"student": student | _cost(built.student, device)},
        "teacher": _teacher_entry(built, device, teacher_on_validation),
        "data": {
            "train": len(built.split.train),
            "labelled": int(built.split.train.has_label.sum()),
            "validation": len(built.split.validation),
            "test": len(built.split.test),
            "classes": len(built.source.classes),
        },
        "readings": [],
    }


def _fit(
    built: Built,
    folder: RunFolder,
    origin: Mapping[str, Any],
    device: torch.device,
    begins: bool,
    shown: bool,
) -> Trained:
    """Trains; of a run that could not even begin, no folder is left."""
    if begins:
        folder.create(dump(built.recipe), origin)
    try:
        return fit(
            built.distiller,
            built.train,
            built.recipe.train,
            folder,
            held_out=built.validation,
            validate=lambda: accuracy(_look(built.student, built.validation, built, device)),
            seed=built.recipe.seed,
            title=folder.path.name,
            shown=shown,
        )
    except (Interrupted, NonFiniteError):
        raise
    except Exception:
        if begins and folder.checkpoints in ([], [folder.checkpoint(0)]):
            remove(folder.path)
        raise


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
    with _surroundings(recipe.train) as device:
        built = build(recipe, teacher=teacher)
        _require_same_content(built, record["content"], folder, _MEASURED)
        built = built._replace(student=load(folder))
        _add_test(record, built, device, command, purpose)
    write_json(place.record, record)
    return Run(folder, record)


_CONTENT = {
    "train": "training pictures",
    "test": "test pictures",
    "source": "classes, or mean and standard deviation of the pixels",
    "student": "weights that the student begins from",
    "teacher": "teacher",
}
"""Parts of a run's content, in words."""

_MEASURED = _CONTENT.keys() - {"student"}
"""Those that numbers of a trained student depend on."""


def _require_same_content(
    built: Built, content: Mapping[str, Any], folder: Path, parts: Iterable[str]
) -> None:
    """Checks that pictures, and networks that are there, are those of the run."""
    for part in sorted(parts):
        if part in built.content and built.content[part] != content.get(part):
            raise DataError(
                f"Since the run in {folder} was begun, this has changed: {_CONTENT[part]}. Bring "
                "back what its recipe names, or begin a new run with another --name."
            )


def check(recipe: Recipe) -> dict[str, Any]:
    """Builds a recipe, measures its teacher and takes one step; writes nothing.

    Returns:
        What a user wants to know before a run: sizes, costs, taps, terms of the first step.
    """
    with _surroundings(recipe.train) as device:
        return _check(recipe, device)


def _check(recipe: Recipe, device: torch.device) -> dict[str, Any]:
    built, settings = build(recipe), recipe.train
    on_validation = _check_teacher(built, device)
    distiller = built.distiller.to(device).train()
    if settings.channels_last:
        distiller.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer, _ = make_optimizer(distiller.trainable_parameters(), settings)
    batch = move(built.train.batch(0), device, channels_last=settings.channels_last)
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
        )
    out.loss.backward()
    optimizer.step()
    loss, seconds = out.loss.item(), time.perf_counter() - began
    return {
        "student": {
            "parameters": num_parameters(built.student),
            "macs": macs(built.student, _image_size(built.student)),
            "stages": [stage._asdict() for stage in built.student.stages()],
        },
        "teacher": None
        if built.teacher is None
        else {
            "parameters": num_parameters(built.teacher),
            "macs": macs(built.teacher, _image_size(built.teacher)),
            "validation_accuracy": None if on_validation is None else accuracy(on_validation),
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
        "loss": loss,
        "terms": {name: value.item() for name, value in out.terms.items()},
        "first_step_seconds": round(seconds, 3),
    }


def _resolve(
    recipe: Recipe | Mapping[str, Any] | str | Path, overrides: Iterable[str], given: list[str]
) -> tuple[Recipe, str]:
    """The recipe, entries left open for which objects are given, and a name for its run."""
    overrides = list(overrides)
    if isinstance(recipe, str | Path):
        value, where = read_mapping(recipe)
        if isinstance(value, Mapping):
            value = leave_open(apply_overrides(value, parse_overrides(overrides)), given)
        resolved = validate(value, where)
        stem = Path(recipe).stem
        stem = Path(recipe).resolve().parent.name if stem == "recipe" else stem
        name = f"{stem}-seed{resolved.seed}"
        if any(not text.startswith("seed=") for text in overrides):
            name += f"-{digest(sorted(overrides))[:6]}"
        return resolved, name
    if overrides:
        raise RecipeError("Overrides go with a recipe file; change the mapping itself instead.")
    value = plain(recipe) if isinstance(recipe, Recipe) else recipe
    resolved = validate(leave_open(value, given) if given else value, "The recipe")
    return resolved, f"run-{digest(plain(resolved))[:8]}"


def _require_unfinished(folder: RunFolder, recipe: Recipe) -> None:
    """Checks that a run can go on by this recipe."""
    folder.require()
    key = _first_difference(plain(read_recipe(folder.recipe)), plain(recipe))
    if key is not None:
        raise RunError(
            f"The run in {folder.path} was begun with another recipe: {key} differs. Resume it "
            f"with {folder.recipe}, or begin a new one with another --name."
        )
    if folder.finished:
        raise RunError(f"The run in {folder.path} has finished; there is nothing to resume.")


def _first_difference(one: Any, other: Any) -> str | None:
    """The dotted key at which two trees of values differ first; None if they do not."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return None if one == other else ""
    for key in [*one, *(key for key in other if key not in one)]:
        if key not in one or key not in other:
            return key
        below = _first_difference(one[key], other[key])
        if below is not None:
            return f"{key}.{below}".rstrip(".")
    return None


def _look(
    network: Network, pictures: EvalLoader, built: Built, device: torch.device
) -> Predictions:
    settings = built.recipe.train
    return predict(
        network,
        pictures,
        device=device,
        precision=settings.precision,
        channels_last=settings.channels_last,
    )


def _check_teacher(built: Built, device: torch.device) -> Predictions | None:
    """Refuses a teacher that knows nothing, before the first step.

    Raises:
        TeacherError: it is at or near chance.
    """
    if built.teacher is None:
        return None
    validation = built.split.validation
    number = min(len(validation), SANITY_PICTURES)
    # Of all classes: a source may be sorted by them.
    some = validation.take(draw_stratified(validation, number, 0, "sanity"))
    loader = EvalLoader(some, batch_size=EVALUATION_BATCH)
    seen = _look(built.teacher, loader, built, device)
    share = accuracy(seen)
    if near_chance(share, seen):
        raise TeacherError(
            f"The teacher is right on {100 * share:.1f} % of {len(seen.targets)} validation "
            "pictures, which is chance. Likely causes: another normalization (give its mean and "
            "std), another order of classes, or a head that was never trained."
        )
    return seen


def _image_size(network: Network) -> tuple[int, int, int]:
    assert network.spec is not None
    return network.spec.channels, network.spec.height, network.spec.width


def _cost(network: Network, device: torch.device) -> dict[str, Any]:
    size = _image_size(network)
    speed = latency(network, size, device=device)
    return {
        "parameters": num_parameters(network),
        "macs": macs(network, size),
        "latency_ms": speed.median_ms,
        "latency_p95_ms": speed.p95_ms,
        "latency_batch": speed.batch_size,
    }


def _teacher_entry(
    built: Built, device: torch.device, on_validation: Predictions | None
) -> dict[str, Any] | None:
    if built.teacher is None or on_validation is None:
        return None
    return {
        "validation_accuracy": accuracy(on_validation),
        "validation_pictures": len(on_validation.targets),
    } | _cost(built.teacher, device)


def _add_test(
    record: dict[str, Any], built: Built, device: torch.device, command: str, purpose: str
) -> None:
    """Reads test, once, and says so."""
    assert built.test is not None, "a choice has no test"
    student = record["students"]["student"]
    on_test = _look(built.student, built.test, built, device)
    student["test_accuracy"] = accuracy(on_test)
    if built.teacher is not None:
        teacher_on_test = _look(built.teacher, built.test, built, device)
        record["teacher"]["test_accuracy"] = accuracy(teacher_on_test)
        student["agreement"] = agreement(on_test, teacher_on_test)
    record["readings"].append(
        {
            "split": "test",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "purpose": purpose,
        }
    )


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
    with _surroundings(recipe.train) as device:
        built = build(recipe, with_test=with_test)
        _require_same_content(built, record["content"], place.path, _MEASURED)
        seen = _look(built.student, built.validation, built, device)
        measured = deepcopy(record)
        if with_test:
            _add_test(measured, built, device, command, "asked for after the run was finished")
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
