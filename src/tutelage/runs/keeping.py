"""What of a teacher's answers is kept: how many classes, and what of its maps."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tutelage import rng
from tutelage.build import Built, softest
from tutelage.distiller import Distiller
from tutelage.engine.asking import Question
from tutelage.errors import NoEffectWarning, SettingError
from tutelage.methods import METHODS, Method
from tutelage.ops import pool_to_smaller
from tutelage.recipes import Recipe
from tutelage.teachers.encoding import Kept, LogitsCode, LogitsKind, MapCode, fewest_classes
from tutelage.teachers.manifest import Manifest

__all__ = ["PILOT", "Choices", "Reduce", "logits_code", "map_codes"]

PILOT = 2000
"""Pictures that tell how many classes hold the mass."""

_LARGEST = 2**28
"""Bytes in a file, about: while it is made, it is in memory."""

Reduce = Callable[[Tensor], Tensor]
"""A teacher's maps → what is kept of them."""


class Choices(NamedTuple):
    """What a store keeps.

    Attributes:
        logits: "fp16" and "fp32" are whole; "top" keeps the largest, if that is less.
        share: of the probability mass that "top" keeps, for 99 % of the pictures.
        maps: what it keeps of the maps that the recipe's methods look at: "whole"; "pooled" to the
            student's size, where that is smaller; "encoded", what their method needs of them.
        shard_size: entries in a file, about, and fewer if they are large; what a kill can cost.
    """

    logits: LogitsKind = "fp16"
    share: float = 0.99
    maps: Kept = "whole"
    shard_size: int = 16_384

    def entries(self, entry_bytes: int, batch_size: int) -> int:
        """In a file: whole batches, and not much more than 256 MiB."""
        most = min(self.shard_size, _LARGEST // entry_bytes)
        return max(1, most // batch_size) * batch_size

    def check(self) -> None:
        """Refuses what cannot be.

        Raises:
            SettingError: a number is out of range.
        """
        if self.shard_size < 1:
            raise SettingError(f"A file holds at least 1 entry, not {self.shard_size}; try 16384.")
        if not 0 < self.share < 1:
            raise SettingError(f"share must lie in (0, 1), but is {self.share}; 0.99 is usual.")


def logits_code(built: Built, question: Question, folder: Path, choices: Choices) -> LogitsCode:
    """How logits are stored; for "top" the teacher is asked about a few pictures.

    Args:
        folder: of the store; one that was begun has decided already.
    """
    num_classes = len(built.source.classes)
    if choices.logits != "top":
        return LogitsCode(choices.logits, num_classes)
    if (folder / "manifest.json").exists():  # found out when it was begun
        known = Manifest.read(folder).logits
        if known.kind == "top":
            return known
    temperature = softest(built.recipe)
    top = _fewest(question, choices.share, temperature)
    # Values and classes of 2 bytes each and a remainder of 4 against 2 bytes per class.
    if 4 * top + 4 < 2 * num_classes:
        return LogitsCode("top", num_classes, top, temperature)
    warnings.warn(
        f"{100 * choices.share:g} % of the mass at temperature {temperature:g} takes {top} of "
        f"{num_classes} classes, no fewer bytes than all of them in fp16; they are stored whole.",
        NoEffectWarning,
        stacklevel=2,
    )
    return LogitsCode("fp16", num_classes)


def _fewest(question: Question, share: float, temperature: float) -> int:
    """Asks about a few pictures, drawn the same way every time."""
    asked = question.parts["train"]
    question.place()
    some = rng.permutation(0, "store/pilot", 0, len(asked))[:PILOT]
    outputs = []
    for start in range(0, len(some), asked.batch_size):
        places = some[start : start + asked.batch_size]
        seen = question.answers(asked.batch(places, torch.zeros_like(places)))
        outputs.append(seen.output[: len(places)].cpu())
    return fewest_classes(torch.cat(outputs), share=share, temperature=temperature)


def map_codes(built: Built, kept: Kept) -> tuple[dict[str, MapCode], dict[str, Reduce]]:
    """How each tap's maps are stored, and what is done to them before.

    Raises:
        SettingError: less than all of a map would not do for the recipe's methods.
    """
    distiller, recipe = built.distiller, built.recipe
    taps, last = distiller.teacher_taps, recipe.train.channels_lie_last
    if not taps:
        return {}, {}
    teacher = distiller.teachers[0]  # of several the first is looked into
    bf16 = recipe.train.precision == "bf16"
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        seen = teacher.dry_run(taps, None).features
    if kept == "whole":
        return {tap: MapCode(_shape(maps), last, _kind(maps)) for tap, maps in seen.items()}, {}
    sizes = _sizes(built)
    if set(taps) - set(sizes):
        raise SettingError(
            "A method looks at all of the teacher's stages, so that its maps can only be stored "
            "whole. Leave --maps out."
        )
    name, method = _only_reader(recipe, distiller) if kept == "encoded" else ("", None)
    reduce: dict[str, Reduce] = {
        tap: partial(_pool, size=sizes[tap])
        if method is None
        else partial(method.encode, size=sizes[tap])
        for tap in taps
    }
    said = {k: v for k, v in recipe.methods.get(name, {}).items() if k != "weight"}
    of_whom = {name: said} if method is not None else None
    less = {tap: reduce[tap](seen[tap]) for tap in taps}
    codes = {
        tap: MapCode(_shape(maps), last, _kind(maps), kept, sizes[tap], of_whom)
        for tap, maps in less.items()
    }
    return codes, reduce


def _sizes(built: Built) -> dict[str, tuple[int, int]]:
    """Teacher's tap → height and width of the student's map that it is compared with."""
    sizes: dict[str, tuple[int, int]] = {}
    pairs = built.distiller.pairs
    own = built.student.dry_run([pair.student for pair in pairs]).features
    for pair in pairs:
        height, width = own[pair.student].shape[2:]
        if sizes.setdefault(pair.teacher, (height, width)) != (height, width):
            raise SettingError(
                f"The teacher's tap {pair.teacher!r} is compared at several sizes, so its maps can "
                "only be stored whole. Leave --maps out."
            )
    return sizes


def _only_reader(recipe: Recipe, distiller: Distiller) -> tuple[str, Method]:
    """The method that looks at maps, if there is one alone and it can do with less."""
    readers = [name for name in recipe.methods if METHODS[name].needs.reads_teacher]
    (name, *others) = readers
    if others or METHODS[name].encode is Method.encode:
        raise SettingError(
            f"Maps can be stored encoded where one method looks at them that says what it needs of "
            f"them, but here {' and '.join(readers)} {'do' if others else 'does not say'}. Leave "
            "--maps out, or say pooled."
        )
    return name, dict(distiller.named_methods())[name]


def _pool(maps: Tensor, *, size: tuple[int, int]) -> Tensor:
    return pool_to_smaller(maps, maps.new_empty(len(maps), 1, *size))[0]


def _kind(maps: Tensor) -> Literal["bfloat16", "float32"]:
    return "bfloat16" if maps.dtype == torch.bfloat16 else "float32"


def _shape(maps: Tensor) -> tuple[int, int, int]:
    channels, height, width = maps.shape[1:]
    return channels, height, width
