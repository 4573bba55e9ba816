"""One's own photographs: folders of classes, or a CSV file that lists them.

A folder holds `train`, `val` (or `valid`, `validation`) and `test`, each with a sub-folder per
class; or sub-folders of classes at once, of which a part is then drawn for test.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch

from tutelage.data.listing import Entry, Listed, listed_in, of_folder, of_manifest
from tutelage.data.photographs import Photograph, Photographs, Rule, decode, in_threads
from tutelage.data.pictures import Pictures, Source, pixel_statistics
from tutelage.data.subsets import draw_stratified
from tutelage.errors import DataError, SettingError

__all__ = ["ELSEWHERE", "folder", "manifest", "unlabelled_folder"]

ELSEWHERE = 1 << 40
"""Number of the first picture of a second source: none is that of one of the first."""

_FIRST = {"train": 0, "validation": 1 << 38, "test": 1 << 39}
"""Number of the first picture of each part; it does not depend on how many are in the others."""

_STATISTICS = 2000
"""Of how many training pictures, at most, mean and standard deviation are taken."""

_OVERSIZE = 8 / 7
"""The short side of a decoded picture over what is shown of it: 256 for 224."""

_AT_ONCE = 256


def folder(
    *,
    root: str,
    size: int = 224,
    channels: Literal[1, 3] = 3,
    test: float = 0.2,
    split_seed: int = 0,
    skip: float = 0.01,
    keep: bool | None = None,
) -> Source:
    """Reads a folder of photographs; classes are its sub-folders, in the order of their names.

    Pictures stand in an order that hashes of their paths give.

    Args:
        root: the folder.
        size: side of the square that is shown, in pixels: the middle of the picture, whose short
            side is 8/7 of that.
        channels: 3 for RGB, 1 for gray.
        test: share of the pictures that is drawn for test where there is no folder for it.
        split_seed: another number draws others.
        skip: share of damaged pictures that is left out with a warning; with more it is refused.
        keep: whether decoded pictures stay in memory; None: if they take no more than half of what
            is free.

    Raises:
        DataError: the folder is absent, holds other files, or classes that do not fit.
        SettingError: a setting is outside its range.
    """
    rule = _rule(size, channels)
    place = Path(root).expanduser()
    listed = of_folder(place)
    return _source(_key(listed, rule, test, split_seed, skip, keep), str(place))


def manifest(
    *,
    path: str,
    root: str | None = None,
    size: int = 224,
    channels: Literal[1, 3] = 3,
    test: float = 0.2,
    split_seed: int = 0,
    skip: float = 0.01,
    keep: bool | None = None,
) -> Source:
    """Reads the photographs that a CSV file lists.

    Its first line names the columns: `path`, below `root`; `label`, empty where there is none; and
    perhaps `split`: train, val or test; and `weight`, by which the supervised loss of a picture is
    multiplied, 1 where it is empty.

    Args:
        path: of the CSV file.
        root: folder of the photographs; the file's own if None. No path may leave it.
        size, channels, test, split_seed, skip, keep: see `folder`.

    Raises:
        DataError: the file or a picture is absent, or says something that is not known.
        SettingError: a setting is outside its range.
    """
    rule = _rule(size, channels)
    file = Path(path).expanduser()
    listed = of_manifest(file, Path(root).expanduser() if root is not None else file.parent)
    return _source(_key(listed, rule, test, split_seed, skip, keep), str(file))


def unlabelled_folder(root: str, rule: Rule, *, first: int) -> Pictures:
    """Pictures below a folder, without labels.

    Args:
        rule: how they are read.
        first: number of the first.

    Raises:
        DataError: the folder is absent or empty, or holds other files.
    """
    place = Path(root).expanduser()
    if not place.is_dir():
        raise DataError(f"There is no folder {place} of unlabelled pictures. Check the path.")
    files = [(Photograph(path, rule), Entry(path, None)) for path in listed_in(place)]
    if not files:
        raise DataError(f"The folder {place} of unlabelled pictures is empty. Name another.")
    return _pictures(files, (), rule, first)


@dataclass(frozen=True)
class _Key:
    """Everything that a source is made of, so that the same is made once.

    Attributes:
        files: part, picture, size of its file in bytes and time of its last change.
    """

    files: tuple[tuple[str, Entry, int, int], ...]
    rule: Rule
    test: float
    split_seed: int
    skip: float
    keep: bool | None


def _key(
    listed: Listed, rule: Rule, test: float, split_seed: int, skip: float, keep: bool | None
) -> _Key:
    for name, value in (("test", test), ("skip", skip)):
        if not 0 <= value < 1:
            raise SettingError(f"{name} is a share, from 0 to below 1, but is {value}.")
    files = tuple(
        (part, entry, *_stamp(entry.path)) for part, entries in listed.items() for entry in entries
    )
    return _Key(files, rule, test, split_seed, skip, keep)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        known = path.stat()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Check that it is there."
        ) from error
    return known.st_size, known.st_mtime_ns


def _rule(size: int, channels: Literal[1, 3]) -> Rule:
    if size < 8:
        raise SettingError(f"size must be at least 8 pixels, but is {size}; 224 is usual.")
    return Rule(size, round(size * _OVERSIZE), channels)


# From files to a source


@lru_cache(maxsize=2)
def _source(key: _Key, where: str) -> Source:
    by_part: dict[str, list[tuple[Photograph, Entry]]] = {}
    for part, entry, _, _ in key.files:
        by_part.setdefault(part, []).append((Photograph(entry.path, key.rule), entry))
    every = [file for entries in by_part.values() for file, _ in entries]
    bad = _read(every, keep=key.keep)
    _refuse_damaged(bad, len(every), key.skip, where)
    wrong = {id(file) for file, _ in bad}
    by_part = {
        part: [(file, entry) for file, entry in entries if id(file) not in wrong]
        for part, entries in by_part.items()
    }
    labels = {entry.label for _, entry in by_part["train"]}
    classes = tuple(sorted(label for label in labels if label is not None))
    made = {
        part: _pictures(entries, classes, key.rule, _FIRST[part])
        for part, entries in by_part.items()
    }
    if "test" not in made:
        made |= _with_test(made["train"], key, where)
    mean, std = _statistics(made["train"])
    return Source(made["train"], made["test"], classes, mean, std, made.get("validation"))


def _pictures(
    entries: Sequence[tuple[Photograph, Entry]],
    classes: Sequence[str],
    rule: Rule,
    first: int,
) -> Pictures:
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


def _with_test(train: Pictures, key: _Key, where: str) -> dict[str, Pictures]:
    """Training pictures of which some were drawn for test."""
    number = round(key.test * int(train.has_label.sum()))
    if number < 1:
        raise DataError(
            f"{where} has no test pictures, and test: {key.test} draws none. Add a folder test, or "
            "raise the share."
        )
    chosen = torch.zeros(len(train), dtype=torch.bool)
    chosen[draw_stratified(train, number, key.split_seed, "test")] = True
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
                decode(file.path, file.rule)
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
