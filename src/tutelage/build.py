"""From a recipe to objects. Nothing is written here, so a mistake costs nothing."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from tutelage.data import (
    DATASETS,
    EvalLoader,
    Pictures,
    Source,
    Split,
    TrainLoader,
    divide,
)
from tutelage.data.folder import unlabelled_folder
from tutelage.data.gathering import ELSEWHERE
from tutelage.data.photographs import Photographs, Rule
from tutelage.distiller import Distiller, Ensemble, Schedule, Weight
from tutelage.distiller.aggregation import members_of
from tutelage.errors import (
    DataError,
    NetworkError,
    NoEffectWarning,
    SettingError,
    StoreError,
    TeacherError,
    first_line,
)
from tutelage.identity import code_of, content_of, fingerprint_of, named_teacher, pictures_of
from tutelage.methods import METHODS, Method
from tutelage.models.fake_quantization import FakeQuantization
from tutelage.models.network import AnyNetwork, Network
from tutelage.models.saved import Description
from tutelage.networks import make_student, make_teacher, teacher_files
from tutelage.recipes import Recipe, left_open, views_of
from tutelage.tasks import Classification
from tutelage.teachers import LiveTeacher, StoredTeacher
from tutelage.teachers.manifest import require_same
from tutelage.types import ObservationShape

__all__ = ["EVALUATION_BATCH", "Built", "build", "live_teacher", "softest"]

EVALUATION_BATCH = 500
"""Pictures that are measured at a time."""


class Built(NamedTuple):
    """The objects of a run.

    Attributes:
        recipe: they were built from.
        source, split: pictures.
        student: wrapped with what it wants to be shown; `description` says how to make it anew.
        teacher: None in a run without one; one that answers from a store is no network; several are
            an `Ensemble`. It is what is measured; while training a folded copy of it, or of each
            of its members, may answer, see `live_teacher`.
        distiller: student, teacher, methods and weights.
        train: batches to train on.
        validation, test: pictures as they are; test is None where a choice is being made.
        content: digests of what the recipe only names, pictures and weights; of a network that was
            given as an object, its class and source too.
        code: digest of the source files that shape this run's numbers.
    """

    recipe: Recipe
    source: Source
    split: Split
    student: Network
    description: Description
    teacher: Network | StoredTeacher | None
    distiller: Distiller
    train: TrainLoader
    validation: EvalLoader
    test: EvalLoader | None
    content: dict[str, Any]
    code: str


def build(
    recipe: Recipe,
    *,
    student: nn.Module | None = None,
    teacher: AnyNetwork | Sequence[AnyNetwork] | StoredTeacher | None = None,
    data: Source | None = None,
    with_test: bool = True,
    rank: int = 0,
    world_size: int = 1,
) -> Built:
    """Makes everything that a run needs.

    Args:
        student, teacher, data: take the place of the recipe's entries.
        with_test: False leaves test out of the result, so that a choice cannot see it.
        rank, world_size: of several processes, each trains on its part of every batch.

    Raises:
        TutelageError: something does not exist, or does not fit together.
    """
    source = data or _source(recipe)
    network, description = make_student(recipe, source, student)
    guide = _teacher(recipe, source, teacher)
    objects = {"student": student, "teacher": teacher}
    given = [what for what, value in objects.items() if value is not None]
    content = content_of(recipe, source, network, guide, given)
    if not with_test:
        guide = guide.without_test() if isinstance(guide, StoredTeacher) else guide
        source = replace(source, test=source.test.take(torch.empty(0, dtype=torch.int64)))
    more = _unlabelled(source, recipe.data.unlabelled)
    if more is not None:
        content["unlabelled"] = pictures_of(more)
    split = _split(source, recipe, more)
    task = Classification(**recipe.task)
    labels = split.train.labels[split.train.has_label]
    task = task.fit(labels, len(source.classes))
    methods = _methods(recipe.methods)
    _check(recipe, source, network, guide, {name: method for name, (method, _) in methods.items()})
    if recipe.train.compile_teacher and guide is None:
        warnings.warn(
            "compile_teacher changes nothing, because the recipe has no teacher; leave it out.",
            NoEffectWarning,
            stacklevel=2,
        )
    if not network.subnets and (recipe.subnet_weight != 1 or _norms_of_none(recipe)):
        warnings.warn(
            "subnet_weight and subnet_norms change nothing, because the student has no sub-nets; "
            "leave them out, or give it subnets.",
            NoEffectWarning,
            stacklevel=2,
        )
    if isinstance(guide, StoredTeacher):
        _check_store(guide, recipe, content, split)
    live = members_of(guide) if isinstance(guide, Network) else ()
    distiller = Distiller(
        network,
        [live_teacher(recipe, one) for one in live] or guide,
        aggregator=guide.aggregator if isinstance(guide, Ensemble) else None,
        methods=methods,
        task=task,
        task_weight=_strength(recipe.task_weight),
        subnet_weight=recipe.subnet_weight,
        taps=recipe.taps,
        seed=recipe.seed,
    )
    if recipe.train.quantization is not None:  # refused now rather than when it begins
        FakeQuantization(network, distiller.example(), recipe.train.quantization).remove()
    if isinstance(guide, StoredTeacher):
        _check_sizes(guide, network, distiller)
    if isinstance(guide, Ensemble) and not distiller.teachers:  # measured, though nobody asks it
        shape = ObservationShape((len(source.classes),))
        guide.aggregator.build([shape] * len(live), shape)
    settings = recipe.train
    _check_processes(recipe, world_size)
    train = TrainLoader(
        split.train,
        views_of(recipe.data.views),
        batch_size=settings.batch_size,
        labelled_per_batch=settings.labelled_per_batch,
        seed=recipe.seed,
        num_views=recipe.data.num_views,
        balanced=recipe.data.balanced,
        rank=rank,
        world_size=world_size,
        mix=partial(task.mix_targets, num_classes=len(source.classes)),
    )
    return Built(
        recipe,
        source,
        split,
        network,
        description,
        guide,
        distiller,
        train,
        EvalLoader(split.validation, batch_size=EVALUATION_BATCH),
        EvalLoader(split.test, batch_size=EVALUATION_BATCH) if with_test else None,
        content,
        code_of(recipe, network, guide),
    )


def _check_processes(recipe: Recipe, count: int) -> None:
    """What several processes cannot share."""
    settings = recipe.train
    if count > 1 and settings.batch_size % (settings.accumulate * count):
        pieces = settings.accumulate * count
        raise SettingError(
            f"A batch is cut into equal parts, {settings.accumulate} in each of {count} processes, "
            f"but batch_size {settings.batch_size} is no multiple of {pieces}; "
            f"{max(round(settings.batch_size / pieces), 1) * pieces} would do."
        )
    if settings.sync_norms and (recipe.student or {}).get("subnet_norms") == "shared":
        raise SettingError(
            "sync_norms does not reach the norms that sub-nets share. Leave it out, or leave "
            "subnet_norms out."
        )


def _norms_of_none(recipe: Recipe) -> bool:
    entry = recipe.student or {}
    return "subnet_norms" in entry and "subnets" not in entry


def _source(recipe: Recipe) -> Source:
    entry = recipe.data.source
    if entry is None:
        raise left_open("data.source", "data")
    return DATASETS[entry["name"]](**{k: v for k, v in entry.items() if k != "name"})


def _split(source: Source, recipe: Recipe, more: Pictures | None) -> Split:
    data = recipe.data
    return divide(
        source,
        limit=data.limit,
        validation=data.validation,
        labelled=data.labelled,
        unlabelled=data.unlabelled is True,
        more=more,
        split_seed=data.split_seed,
    )


def _unlabelled(source: Source, folder: bool | str) -> Pictures | None:
    """The pictures of a folder, as those of the source are; None if none is named."""
    if isinstance(folder, bool):
        return None
    pixels = source.train.pixels
    if isinstance(pixels, Photographs):
        return unlabelled_folder(folder, pixels.rule, first=ELSEWHERE)
    height, width, channels = source.train.shape
    if height != width:
        raise DataError(
            f"Unlabelled photographs are shown as squares, but the pictures have {height}×{width} "
            "pixels. Give both as folders."
        )
    rule = Rule(height, height, 3 if channels == 3 else 1)
    found = unlabelled_folder(folder, rule, first=ELSEWHERE)
    return found.decoded()


def _teacher(
    recipe: Recipe, source: Source, given: AnyNetwork | Sequence[AnyNetwork] | StoredTeacher | None
) -> Network | StoredTeacher | None:
    if isinstance(given, StoredTeacher):
        return given
    if given is None and recipe.store is not None:
        return StoredTeacher(recipe.store)
    return make_teacher(recipe, source, given)


def live_teacher(recipe: Recipe, network: Network) -> LiveTeacher:
    """A teacher that answers as it does in a run by this recipe."""
    settings = recipe.train
    return LiveTeacher(network, fuse=settings.fuse_teacher, compile=settings.compile_teacher)


def _check_store(
    teacher: StoredTeacher, recipe: Recipe, content: Mapping[str, Any], split: Split
) -> None:
    """Refuses answers that were given to other pictures, or by another teacher."""
    store, entry = teacher.store, recipe.teacher or {}
    known = store.manifest.fingerprint
    require_same(store.folder, known, fingerprint_of(recipe, content, split))
    if entry.keys() - {"cache"} or recipe.teachers:  # what it was made of is named, too
        named = named_teacher(recipe, content, teacher_files(recipe))
        require_same(store.folder, known, named, "the teacher that the recipe names")
    for part in ("train", "validation", "test"):
        missing = int((store.locate(part, getattr(split, part).index) < 0).sum())
        if missing:
            raise StoreError(
                f"The store in {store.folder} is of another split: {missing} {part} pictures of "
                "this run are not in that part of it. Set data.limit, data.validation, "
                "data.unlabelled and data.split_seed back, or make another store."
            )
    _check_encoded(teacher, recipe)
    code = store.manifest.logits
    if code.kind == "top" and recipe.methods and code.temperature != softest(recipe):
        raise StoreError(
            f"The store in {store.folder} keeps the {code.top} largest logits and their rest at "
            f"temperature {code.temperature:g}, but this run's methods soften answers at "
            f"{softest(recipe):g}. Set the temperature back, or make a store with --logits fp16."
        )


def softest(recipe: Recipe) -> float:
    """The highest temperature at which a recipe's methods soften answers; 1 if none does."""
    known = [settings.get("temperature") for settings in recipe.methods.values()]
    return max((float(value) for value in known if value is not None), default=1.0)


def _check_sizes(teacher: StoredTeacher, student: Network, distiller: Distiller) -> None:
    """Maps that were pooled to one student's size serve no student of another."""
    codes = teacher.store.manifest.maps
    for pair in distiller.pairs:
        size = codes[pair.teacher].size
        if size is None:
            continue
        height, width = student.dry_run([pair.student]).features[pair.student].shape[2:]
        if size != (height, width):
            raise StoreError(
                f"The store in {teacher.store.folder} keeps the maps of {pair.teacher!r} for a "
                f"student whose own are {size[0]}×{size[1]}, but {pair.student!r} gives "
                f"{height}×{width}. Make a store with --maps whole."
            )


def _check_encoded(teacher: StoredTeacher, recipe: Recipe) -> None:
    """Maps that were reduced to what one method needs serve that method alone."""
    readers = {name for name in recipe.methods if METHODS[name].needs.reads_teacher}
    whole = [name for name in readers if METHODS[name].needs.taps == "all"]
    for tap, code in teacher.store.manifest.maps.items():
        if whole and code.kept != "whole":
            raise StoreError(
                f"The store in {teacher.store.folder} keeps the maps of {tap!r} {code.kept}, and "
                f"{whole[0]} looks at all of every map. Make a store with --maps whole."
            )
        if code.method is None:
            continue
        (name, settings), *_ = code.method.items()
        now = {k: v for k, v in recipe.methods.get(name, {}).items() if k != "weight"}
        if readers - {name} or (name in readers and now != settings):
            raise StoreError(
                f"The store in {teacher.store.folder} keeps of the tap {tap!r} only what {name} "
                f"needs with {settings or 'its settings'}, and this run's methods are "
                f"{', '.join(sorted(readers))}, {now}. Make a store with --maps whole."
            )


def _check(
    recipe: Recipe,
    source: Source,
    student: Network,
    teacher: Network | StoredTeacher | None,
    methods: Mapping[str, Method],
) -> None:
    """What is better said before the first dry run than after."""
    classes = len(source.classes)
    for what, network in (("student", student), ("teacher", teacher)):
        if network is None:
            continue
        for one in members_of(network) if isinstance(network, Network) else [network]:
            _check_classes(_answer(one, what), what, classes)
    mixes = recipe.data.views.get("mixup") or recipe.data.views.get("cutmix")
    for name, method in methods.items():
        listens = method.needs.outputs and method.needs.teachers
        if listens and teacher is not None and not teacher.answers:
            raise TeacherError(
                f"{name} listens to what the teacher answers, and with class_map: none that says "
                "nothing of the data's classes. Say which class is which, or take a method that "
                "compares maps alone."
            )
        if method.needs.labels == "none":
            continue
        if recipe.data.labelled == 0 or mixes:
            raise SettingError(
                f"{name} looks at class labels, and with {'mixed pictures' if mixes else 'none'} "
                "there is no single one. Turn off mixup and cutmix, or leave the method out."
            )


def _check_classes(output: Any, what: str, classes: int) -> None:
    if output.ndim != 2 or output.shape[1] != classes:
        or_map = ", or give it a class_map (none, if only its maps are to teach)"
        raise (TeacherError if what == "teacher" else NetworkError)(
            f"The {what} puts out {tuple(output.shape[1:])} numbers per picture, but the data "
            f"has {classes} classes. Take a {what} for these classes"
            f"{or_map if what == 'teacher' else ''}."
        )


def _answer(network: Network | StoredTeacher, what: str) -> Any:
    """The output for a gray picture."""
    if isinstance(network, StoredTeacher):
        return network.dry_run(()).output
    try:
        return network.dry_run(()).output
    except (RuntimeError, ValueError, AssertionError) as error:
        assert network.spec is not None
        raise NetworkError(
            f"The {what} fails on pictures of {network.spec.height}×{network.spec.width} "
            f"({first_line(error)}). Give size: in its entry what it was made for, to which "
            "pictures are resized."
        ) from error


def _methods(entries: Mapping[str, Any]) -> dict[str, tuple[Method, Weight]]:
    return {
        name: (
            METHODS[name](**{k: v for k, v in settings.items() if k != "weight"}),
            _weight(settings["weight"]),
        )
        for name, settings in entries.items()
    }


def _weight(value: Any) -> Weight:
    if isinstance(value, Mapping) and "kind" not in value:
        return {part: _strength(number) for part, number in value.items()}
    return _strength(value)


def _strength(value: Any) -> float | Schedule:
    if isinstance(value, Mapping):
        return Schedule(**{"from_" if k == "from" else k: v for k, v in value.items()})
    return value
