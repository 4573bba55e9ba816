"""One's own photographs: folders of classes, or a CSV file that lists them.

A folder holds `train`, `val` (or `valid`, `validation`) and `test`, each with a sub-folder per
class; or sub-folders of classes at once, of which a part is then drawn for test.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from tutelage.data.gathering import Reading, gather, numbered, rule_of
from tutelage.data.listing import Entry, Listed, listed_in, of_folder, of_manifest
from tutelage.data.photographs import Photograph, Rule
from tutelage.data.pictures import Pictures, Source
from tutelage.errors import DataError

__all__ = ["folder", "manifest", "unlabelled_folder"]


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
    reading = Reading(rule_of(size, channels), test, split_seed, skip, keep).check()
    place = Path(root).expanduser()
    return _source(_stamped(of_folder(place)), reading, str(place))


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
    reading = Reading(rule_of(size, channels), test, split_seed, skip, keep).check()
    file = Path(path).expanduser()
    below = Path(root).expanduser() if root is not None else file.parent
    return _source(_stamped(of_manifest(file, below)), reading, str(file))


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
    return numbered(files, (), rule, first)


_Files = tuple[tuple[str, Entry, int, int], ...]
"""Of each picture its part, size in bytes and time of its last change."""


def _stamped(listed: Listed) -> _Files:
    return tuple(
        (part, entry, *_stamp(entry.path)) for part, entries in listed.items() for entry in entries
    )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        known = path.stat()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Check that it is there."
        ) from error
    return known.st_size, known.st_mtime_ns


@lru_cache(maxsize=2)
def _source(files: _Files, reading: Reading, where: str) -> Source:
    """The same is made once, as long as no file changes."""
    by_part: dict[str, list[tuple[Photograph, Entry]]] = {}
    for part, entry, _, _ in files:
        by_part.setdefault(part, []).append((Photograph(entry.path, reading.rule), entry))
    return gather(by_part, reading, where)
