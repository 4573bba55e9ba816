"""One recipe → one run folder: build, check, train, measure, record."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from tutelage.build import EVALUATION_BATCH, Built, build
from tutelage.data import EvalLoader, Source
from tutelage.engine import Processes, Trained, fit, launched, resolve_device
from tutelage.engine.choosing import Chosen
from tutelage.engine.log import CONSOLE
from tutelage.engine.profiling import Dear
from tutelage.errors import Interrupted, NonFiniteError, RecipeError, RunError
from tutelage.evaluation.accuracy import accuracy
from tutelage.evaluation.predictions import gathered
from tutelage.identity import identity_parts
from tutelage.launcher import place
from tutelage.models.network import AnyNetwork, Network
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
from tutelage.runs.measuring import (
    add_test,
    check_teacher,
    predicted,
    require_finite,
    results,
    students_of,
)
from tutelage.runs.settling import caution, settle, with_chosen
from tutelage.runs.surroundings import CONTENT, require_same_content, surroundings
from tutelage.teachers import StoredTeacher

__all__ = ["Run", "train"]


class Run(NamedTuple):
    """A finished run.

    Attributes:
        folder: where it lies.
        record: what record.json says.
        profile: the operations that took longest, if that was asked for.
    """

    folder: Path
    record: dict[str, Any]
    profile: tuple[Dear, ...] = ()

    def student(self, subnet: str | None = None) -> Network:
        """The trained student, or one of its sub-nets, in eval mode; takes pixels in [0, 1]."""
        return load(self.folder, subnet=subnet)


def train(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    overrides: Iterable[str] = (),
    name: str | None = None,
    runs: Path | str = "runs",
    resume: bool = False,
    student: nn.Module | None = None,
    teacher: AnyNetwork | Sequence[AnyNetwork] | StoredTeacher | None = None,
    data: Source | None = None,
    with_test: bool = True,
    shown: bool = True,
    profile: bool = False,
    command: str = "tutelage.train",
) -> Run:
    """Runs a recipe to its end.

    Of processes that a launcher has started together, as torchrun does, all call this with the same
    arguments and train one run: see docs/machines.md.

    Args:
        recipe: a recipe, what its YAML says, a file, or the name of a packaged recipe.
        overrides: `key=value`, keys dotted.
        name: of the run folder; the recipe's name and seed unless said.
        runs: the folder of run folders.
        resume: continue the run of that name from its newest checkpoint; begins it if it has none.
        student, teacher, data: take the place of the recipe's entries, which the record then leaves
            open; it has their class and digests instead. A network that is no `Network` is shown
            pictures as the data is normalized. A list of teachers is mixed uniformly; an
            `Ensemble` says how.
        with_test: whether test may be read, once, after everything is chosen. A run that belongs
            to a choice must not.
        shown: whether to show progress.
        profile: whether to watch about ten steps by torch's profiler, which slows them down, and to
            leave a Chrome trace of them in the run folder.
        command: how the run was called, for the record.

    Raises:
        TutelageError: what was asked for does not exist or does not fit; nothing was written.
        Interrupted: the run was asked to stop; `resume` continues it, unless it has finished.
    """
    given = {"student": student, "teacher": teacher, "data": data}
    objects = [what for what, value in given.items() if value is not None]
    resolved, default_name = _resolve(recipe, overrides, objects)
    folder = RunFolder(Path(runs) / (name or default_name))
    begins = not (resume and folder.path.exists())
    if begins:
        folder.require_free()
    elif folder.finished and place().world_size > 1:
        # A launcher that starts all anew if one ends badly must find an end.
        return Run(folder.path, folder.read_record())
    else:
        resolved = _require_unfinished(folder, resolved)
    device = resolve_device(resolved.train.device)
    with launched(device) as together, surroundings(resolved.train) as device:
        # Here all have looked, and none has written.
        if together.tell(begins) != begins:
            raise RunError(
                f"Process {together.rank} sees {folder.path} otherwise than the first one does. "
                "Put --runs on a file system that all machines share, and start again."
            )
        together.wait()
        built = build(
            resolved,
            student=student,
            teacher=teacher,
            data=data,
            with_test=with_test,
            rank=together.rank,
            world_size=together.count,
        )
        built, chosen = settle(built, device, together)
        shown = shown and together.first
        said = str(chosen) if chosen is not None else caution(built.recipe.train)
        if said is not None and shown:
            CONSOLE.print(f"{folder.path.name}: {said}", highlight=False, soft_wrap=True)
        origin = _new_origin(built, chosen) if begins else _resumed_origin(folder, built)
        checked = check_teacher(built, device)
        # Taken before training: the code as it is run.
        record = {"schema": RECORD_SCHEMA, "name": folder.path.name, "command": command}
        record |= {"began": origin["began"], "commit": git_commit()}
        trained = _fit(built, folder, origin, device, begins, shown, profile, together)
        if together.first:
            shown_as = built.source.test.rule
            description = built.description._replace(pictures=tuple(shown_as))
            save_network(folder.student, built.student, description)
            record |= _origin(built, origin, device, trained)
            record |= results(built, device, trained, checked)
            if with_test:
                purpose = "final measurement, after all choices"
                add_test(record, folder, built, device, command, purpose)
            write_json(folder.record, record)
        record = together.tell(record)
    if trained.signal is not None:
        raise Interrupted(
            f"Stopped; the run in {folder.path} was at its end and is finished.",
            trained.signal,
            finished=True,
        )
    return Run(folder.path, record, trained.profile)


def _new_origin(built: Built, chosen: Chosen | None) -> dict[str, Any]:
    """What a run is begun with; a resumed one must find the same content."""
    began = datetime.now(UTC).isoformat(timespec="seconds")
    origin = {"began": began, "content": built.content, "codes": [built.code]}
    return origin if chosen is None else origin | {"chosen": chosen._asdict()}


def _resumed_origin(folder: RunFolder, built: Built) -> dict[str, Any]:
    """What a run was begun with, and the code that it goes on with, if that is another."""
    origin = folder.read_origin()
    require_same_content(built, origin["content"], folder.path, CONTENT)
    if built.code != origin["codes"][-1]:
        warnings.warn(
            f"The code has changed since the run in {folder.path} was begun, so its weights may "
            "differ from those of an uninterrupted run; its record names both.",
            stacklevel=3,
        )
        origin["codes"] = [*origin["codes"], built.code]
    return origin


def _origin(
    built: Built, origin: Mapping[str, Any], device: torch.device, trained: Trained
) -> dict[str, Any]:
    """What the numbers come from."""
    code = "+".join(origin["codes"])
    parts = identity_parts(
        built.recipe,
        built.content,
        code,
        threads=trained.threads,
        device=device.type,
        versions=versions(),
        processes=trained.processes,
    )
    machine = {"device": device.type, "threads": trained.threads}
    machine |= {"processes": trained.processes} if trained.processes > 1 else {}
    return {
        "identity": digest(parts),
        "code": code,
        "content": built.content,
        "versions": versions(),
        "hardware": hardware() | machine | {"kept_memory": trained.kept_memory},
        "recipe": plain(built.recipe),
        **{key: origin[key] for key in ("chosen",) if key in origin},
    }


def _fit(
    built: Built,
    folder: RunFolder,
    origin: Mapping[str, Any],
    device: torch.device,
    begins: bool,
    shown: bool,
    profile: bool,
    together: Processes,
) -> Trained:
    """Trains; of a run that could not even begin, no folder is left."""
    if begins and together.first:
        folder.create(dump(built.recipe), origin)
    elif together.first and origin != folder.read_origin():
        write_json(folder.origin, origin)
    mine = _share(built, together)
    try:
        return fit(
            built.distiller,
            built.train,
            built.recipe.train,
            folder,
            held_out=built.validation,
            validate=lambda: _mean_accuracy(built, mine, device, together),
            seed=built.recipe.seed,
            title=folder.path.name,
            shown=shown,
            profile=profile,
            together=together,
        )
    except (Interrupted, NonFiniteError):
        raise
    except Exception:
        unbegun = folder.checkpoints in ([], [folder.checkpoint(0)])
        if begins and together.first and unbegun:
            remove(folder.path)
        raise


def _share(built: Built, together: Processes) -> EvalLoader | None:
    """This process's part of the validation pictures; None if there is not one for each."""
    pictures = built.split.validation
    if len(pictures) < together.count:
        return None
    part = {"rank": together.rank, "world_size": together.count}
    return EvalLoader(pictures, batch_size=EVALUATION_BATCH, **part)


def _mean_accuracy(
    built: Built, mine: EvalLoader | None, device: torch.device, together: Processes
) -> float:
    """On validation, of the student, or of it and its sub-nets.

    Args:
        mine: the part that this process looks at; None: each looks at all.
    """
    found = []
    for one in students_of(built).values():
        seen = predicted(one, mine or built.validation, built, device)
        seen = seen if mine is None else gathered(seen, together.collect)
        require_finite(seen)
        found.append(accuracy(seen))
    return together.tell(sum(found) / len(found))


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


def _require_unfinished(folder: RunFolder, recipe: Recipe) -> Recipe:
    """Checks that a run can go on by this recipe, in which what was open is as it was begun."""
    folder.require()
    begun = read_recipe(folder.recipe)
    values = {key: getattr(begun.train, key) for key in recipe.train.open}
    recipe = with_chosen(recipe, Chosen(values))
    key = _first_difference(plain(begun), plain(recipe))
    if key is not None:
        raise RunError(
            f"The run in {folder.path} was begun with another recipe: {key} differs. Resume it "
            f"with {folder.recipe}, or begin a new one with another --name."
        )
    if folder.finished:
        raise RunError(f"The run in {folder.path} has finished; there is nothing to resume.")
    return recipe


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
