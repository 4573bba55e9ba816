"""From files of photographs to a source: read once, numbered, and divided."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from tutelage.data.listing import Entry
from tutelage.data.photographs import Photograph, Photographs, Rule, in_threads
from tutelage.data.pictures import Pictures, Source, pixel_statistics
from tutelage.data.subsets import draw_stratified
from tutelage.errors import DataError, SettingError

__all__ = ["ELSEWHERE", "Reading", "gather", "numbered", "rule_of"]

ELSEWHERE = 1 << 40
"""Number of the first picture of a second source: none is that of one of the first."""

_FIRST = {"train": 0, "validation": 1 << 38, "test": 1 << 39}
"""Number of the first picture of each part; it does not depend on how many are in the others."""

_STATISTICS = 2000
"""Of how many training pictures, at most, mean and standard deviation are taken."""

_OVERSIZE = 8 / 7
"""The short side of a decoded picture over what is shown of it: 256 for 224."""

_AT_ONCE = 256


class Reading(NamedTuple):
    """How photographs are read and divided; see `folder.folder`."""

    rule: Rule
    test: float
    split_seed: int
    skip: float
    keep: bool | None

    def check(self) -> "Reading":
        """Itself.

        Raises:
            SettingError: a share is none.
        """
        for name, value in (("test", self.test), ("skip", self.skip)):
            if not 0 <= value < 1:
                raise SettingError(f"{name} is a share, from 0 to below 1, but is {value}.")
        return self


def rule_of(size: int, channels: Literal[1, 3]) -> Rule:
    """How files become pictures of this size.

    Raises:
        SettingError: that is too small.
    """
    if size < 8:
        raise SettingError(f"size must be at least 8 pixels, but is {size}; 224 is usual.")
    return Rule(size, round(size * _OVERSIZE), channels)


def gather(
    by_part: Mapping[str, Sequence[tuple[Photograph, Entry]]],
    reading: Reading,
    where: str,
    classes: Sequence[str] | None = None,
) -> Source:
    """Reads every file once and makes a source of what can be read.

    Args:
        by_part: "train", and perhaps "validation" and "test", which is drawn if it is not there.
        where: what messages call the place that they are from.
        classes: in the order of their numbers; None: those of train, by name.

    Raises:
        DataError: too many files are damaged, or none would be test.
    """
    every = [file for entries in by_part.values() for file, _ in entries]
    bad = _read(every, keep=reading.keep)
    _refuse_damaged(bad, len(every), reading.skip, where)
    wrong = {id(file) for file, _ in bad}
    by_part = {
        part: [(file, entry) for file, entry in entries if id(file) not in wrong]
        for part, entries in by_part.items()
    }
    labels = {entry.label for _, entry in by_part["train"]}
    if classes is None:
        classes = sorted(label for label in labels if label is not None)
    made = {
        part: numbered(entries, classes, reading.rule, _FIRST[part])
        for part, entries in by_part.items()
    }
    if "test" not in made:
        made |= _with_test(made["train"], reading, where)
    mean, std = _statistics(made["train"])
    return Source(made["train"], made["test"], tuple(classes), mean, std, made.get("validation"))


def numbered(
    entries: Sequence[tuple[Photograph, Entry]],
    classes: Sequence[str],
    rule: Rule,
    first: int,
) -> Pictures:
    """Pictures of one part.

    Args:
        first: number of the first.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    names = [entry.label for _, entry in entries]
    labels = torch.tensor([-1 if name is None else numbers[name] for name in names])
    weights = torch.tensor([entry.weight for _, entry in entries])
    return Pictures(
        Photographs([file for file, _ in entries], rule),
        labels.long(),
        labels >= 0,
        torch.arange(first, first + len(entries)),
        None if bool((weights == 1).all()) else weights,
    )


def _with_test(train: Pictures, reading: Reading, where: str) -> dict[str, Pictures]:
    """Training pictures of which some were drawn for test."""
    number = round(reading.test * int(train.has_label.sum()))
    if number < 1:
        raise DataError(
            f"{where} has no test pictures, and test: {reading.test} draws none. Add a part named "
            "test, or raise the share."
        )
    chosen = torch.zeros(len(train), dtype=torch.bool)
    chosen[draw_stratified(train, number, reading.split_seed, "test")] = True
    return {
        "train": train.take((~chosen).nonzero().flatten()),
        "test": train.take(chosen.nonzero().flatten()),
    }


def _read(files: Sequence[Photograph], *, keep: bool | None) -> list[tuple[Photograph, str]]:
    """Decodes every file once, and keeps them if there is room; those that cannot be, and why."""
    bad: list[tuple[Photograph, str]] = []
    room = float("inf") if keep else _free() / 2
    used = 0

    def one(file: Photograph) -> tuple[int, str | None]:
        try:
            if keep is False or used > room:
                file.decoded()
                return 0, None
            return file.keep(), None
        except DataError as error:
            return 0, str(error)

    for begin in range(0, len(files), _AT_ONCE):
        some = files[begin : begin + _AT_ONCE]
        for file, (size, why) in zip(some, in_threads(one, some), strict=True):
            used += size
            if why is not None:
                bad.append((file, why))
    return bad


def _free() -> int:
    """Bytes of memory that are free, or may be made so."""
    try:
        text = Path("/proc/meminfo").read_text()
        (line,) = [line for line in text.splitlines() if line.startswith("MemAvailable")]
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _refuse_damaged(
    bad: Sequence[tuple[Photograph, str]], number: int, skip: float, where: str
) -> None:
    if not bad:
        return
    listed = "; ".join(why.rstrip(".") for _, why in bad[:5])
    more = "" if len(bad) <= 5 else f"; and {len(bad) - 5} more"
    if len(bad) > skip * number:
        raise DataError(
            f"{len(bad)} of {number} pictures in {where} cannot be read: {listed}{more}. Mend or "
            f"remove them, or raise skip, which is {skip:g} of all."
        )
    warnings.warn(
        f"{len(bad)} of {number} pictures in {where} cannot be read and are left out: "
        f"{listed}{more}.",
        stacklevel=2,
    )


def _statistics(train: Pictures) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels of training pictures as they are shown."""
    some = torch.linspace(0, len(train) - 1, min(len(train), _STATISTICS)).long()
    return pixel_statistics(train.shown(some))
