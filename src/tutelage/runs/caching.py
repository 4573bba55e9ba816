"""From a recipe to a store of its teacher's answers."""

import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tutelage.build import EVALUATION_BATCH, Built, build, live_teacher
from tutelage.data import Views
from tutelage.distiller import Ensemble
from tutelage.distiller.aggregation import members_of
from tutelage.engine.asking import Asked, Question
from tutelage.engine.settings import OPEN
from tutelage.engine.storing import Filled, Verified, begin, fill, verify
from tutelage.errors import SettingError, StoreError, TeacherError
from tutelage.evaluation.accuracy import accuracy
from tutelage.identity import fingerprint_of, teacher_fingerprint
from tutelage.models.network import Network
from tutelage.networks import teacher_files
from tutelage.provenance import hardware, versions
from tutelage.recipes import Recipe, views_of
from tutelage.records import alone_in
from tutelage.runs.keeping import PILOT, Choices, logits_code, map_codes
from tutelage.runs.measuring import check_teacher, cost
from tutelage.runs.surroundings import surroundings
from tutelage.tasks import Classification
from tutelage.teachers import LiveTeacher
from tutelage.teachers.manifest import EVALUATED, Manifest, Part
from tutelage.teachers.store import existing

__all__ = ["cache", "plan"]

_USUAL = Choices()


def plan(recipe: Recipe, folder: Path, choices: Choices = _USUAL) -> dict[str, Any]:
    """What a store would cost, without making it.

    Returns:
        "pictures" by part; "views"; "logits" and "maps", how they are coded; "entry_bytes" by part
        and "bytes" in all; "shards", and how many are "there"; "teacher_passes", pictures that the
        teacher must look at; "passes_per_epoch" of a run without a store, which asks about
        validation and test besides; "break_even_epoch", after which such a run would have asked the
        teacher more; "epochs" of the recipe's run.

    Raises:
        TutelageError: the recipe does not build, or its teacher cannot be asked.
    """
    with surroundings(recipe.train):
        built, question = _ask(recipe)
        manifest, _ = _manifest(built, question, folder, choices)
        return _plan(built, manifest, folder, choices)


def cache(
    recipe: Recipe,
    folder: Path,
    choices: Choices = _USUAL,
    *,
    rank: int = 0,
    world_size: int = 1,
    verified: int = 0,
    shown: bool = True,
) -> tuple[Filled, Verified | None]:
    """Makes a store of the answers that a run by this recipe asks its teacher for.

    What is there already and whole is not made again.

    Args:
        rank, world_size: of several processes, each makes its part of the files.
        verified: of how many entries the teacher is asked again, when the store is complete.
        shown: whether to show progress.

    Raises:
        TutelageError: the recipe does not build, its teacher knows nothing, the folder holds
            something else, there is no space, or a verified answer is wrong.
        Interrupted: it was asked to stop; the same call goes on.
    """
    with surroundings(recipe.train) as device:
        built, question = _ask(recipe)
        checked = check_teacher(built, device)
        assert checked is not None
        assert isinstance(built.teacher, Network)
        manifest, question = _manifest(built, question, folder, choices)
        if not (folder / "manifest.json").exists():
            _require_space(folder, manifest)
            about = {
                **({"validation_accuracy": accuracy(checked.seen)} if checked.seen else {}),
                **({"members": list(checked.members)} if checked.members else {}),
                "cost": cost(built.teacher, device),
                "made": {
                    "device": device.type,
                    "threads": torch.get_num_threads(),
                    "channels_last": recipe.train.channels_last,
                    "hardware": hardware(),
                    "versions": versions(),
                },
            }
            manifest = replace(manifest, about={**manifest.about, **about})
        manifest = begin(folder, manifest, question)
        # Alone, it clears what killed processes left; parts leave each other's files alone.
        with alone_in(folder, "tutelage cache") if world_size == 1 else nullcontext():
            filled = fill(folder, manifest, question, rank=rank, world_size=world_size, shown=shown)
            if not verified or not filled.complete:
                return filled, None
            return filled, verify(folder, question, verified, seed=recipe.seed)


def _ask(recipe: Recipe) -> tuple[Built, Question]:
    """What is built, and what is asked."""
    entry = {k: v for k, v in (recipe.teacher or {}).items() if k != "cache"} or None
    if entry is None and not recipe.teachers:
        raise TeacherError(
            "The recipe names no teacher network that could be asked. Name one, as FILE:NAME or "
            "{run: FOLDER}."
        )
    views, settings = views_of(recipe.data.views), recipe.train
    if settings.open:
        raise SettingError(
            f"A store is made in one way, but train.{settings.open[0]} is auto. Say which: "
            f"{' or '.join(map(json.dumps, OPEN[settings.open[0]]))}. A run that leaves its "
            "precision open takes that of its store."
        )
    built = build(recipe.model_copy(update={"teacher": entry}))
    assert isinstance(built.teacher, Network)
    if recipe.data.num_views is None:
        epochs = math.ceil(settings.steps * settings.batch_size / len(built.split.train))
        raise SettingError(
            "A store needs to know how many views of a picture there are, but data.num_views is "
            f"left open. The run visits each picture about {epochs} times: set it to that for a "
            "new view each visit, or to less."
        )
    task = Classification(**recipe.task)
    train = Asked(
        built.split.train,
        views,
        batch_size=settings.batch_size // settings.accumulate,
        full=True,
        seed=recipe.seed,
        mix=partial(task.mix_targets, num_classes=len(built.source.classes)),
    )
    parts = {"train": train} | {
        name: Asked(getattr(built.split, name), Views(), batch_size=EVALUATION_BATCH, full=False)
        for name in EVALUATED
    }
    return built, Question(
        _training_teacher(built), parts, settings, measured=LiveTeacher(built.teacher)
    )


def _training_teacher(built: Built) -> LiveTeacher:
    """As it answers in a run by this recipe; or would, if a method asked it."""
    assert isinstance(built.teacher, Network)
    asked = [one for one in built.distiller.teachers if isinstance(one, LiveTeacher)]
    if not asked:
        asked = [live_teacher(built.recipe, one) for one in members_of(built.teacher)]
        for one in asked:
            one.tap(())
    if not isinstance(built.teacher, Ensemble):
        return asked[0]
    if built.recipe.train.compile_teacher:
        raise SettingError(
            "A store of several teachers' answers is made by teachers that are not compiled. Set "
            "train.compile_teacher to false."
        )
    together = LiveTeacher(Ensemble([one.network for one in asked], built.teacher.aggregator))
    together.tap(built.distiller.teacher_taps)
    return together


def _manifest(
    built: Built, question: Question, folder: Path, choices: Choices
) -> tuple[Manifest, Question]:
    """What the store is to be, and what is asked, with what is kept of maps."""
    recipe, network = built.recipe, built.teacher
    assert isinstance(network, Network)
    choices.check()
    maps, reduce = map_codes(built, choices.maps)
    fingerprint = teacher_fingerprint(recipe, built.content, network, teacher_files(recipe))
    fingerprint |= fingerprint_of(recipe, built.content, built.split)
    manifest = Manifest(
        fingerprint | {"taps": list(built.distiller.teacher_taps)},
        logits_code(built, question, folder, choices),
        maps,
        {},
        {
            "stages": [stage._asdict() for stage in network.stages()],
            "folded": question.teacher.folded,
        },
    )
    views = {"train": recipe.data.num_views or 1}
    parts = {
        name: Part(
            len(asked),
            views.get(name, 1),
            choices.entries(manifest.entry_bytes(name), asked.batch_size),
        )
        for name, asked in question.parts.items()
    }
    manifest = replace(manifest, parts=parts)
    return manifest, replace(question, reduce=reduce)


# What it costs


def _plan(built: Built, manifest: Manifest, folder: Path, choices: Choices) -> dict[str, Any]:
    parts, settings = manifest.parts, built.recipe.train
    train = parts["train"]
    pilot = min(PILOT, train.pictures) if choices.logits == "top" else 0
    training = train.pictures * train.views + pilot
    there = existing(folder) if folder.is_dir() else {}
    names = [shard.name for shard in manifest.shards()]
    return {
        "pictures": {name: part.pictures for name, part in parts.items()},
        "views": train.views,
        "logits": asdict(manifest.logits),
        "maps": {tap: asdict(code) for tap, code in manifest.maps.items()},
        "entry_bytes": {name: manifest.entry_bytes(name) for name in parts},
        "bytes": manifest.total_bytes(),
        "shards": len(names),
        "there": sum(name in there for name in names),
        "teacher_passes": training
        + sum(parts[name].pictures * (1 + manifest.answers_twice(name)) for name in EVALUATED),
        "passes_per_epoch": train.pictures,
        "break_even_epoch": math.ceil(training / train.pictures),
        "epochs": settings.steps * settings.batch_size / train.pictures,
    }


def _require_space(folder: Path, manifest: Manifest) -> None:
    """Refuses what cannot end well, before the teacher is asked."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(place).free, manifest.total_bytes()
    if needed > free:
        raise StoreError(
            f"The store takes {needed / 1e9:.2f} GB, and where {place} lies {free / 1e9:.2f} GB "
            "are free. Free some, choose another folder, or store less: fewer views, --logits top, "
            "--maps encoded."
        )
