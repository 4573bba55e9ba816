"""One's own photographs: folders of classes, or a CSV file that lists them.

A folder holds `train`, `val` (or `valid`, `validation`) and `test`, each with a sub-folder per
class; or sub-folders of classes at once, of which a part is then drawn for test.
"""

import csv
import hashlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch

from tutelage.data.photographs import Photograph, Photographs, Rule, decode, in_threads
from tutelage.data.pictures import Pictures, Source, pixel_statistics
from tutelage.data.subsets import draw_stratified
from tutelage.errors import DataError, SettingError

__all__ = ["ELSEWHERE", "ENDINGS", "folder", "manifest", "unlabelled_folder"]

ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
"""What the names of pictures end in."""

ELSEWHERE = 1 << 40
"""Number of the first picture of a second source: none is that of one of the first."""

_FIRST = {"train": 0, "validation": 1 << 38, "test": 1 << 39}
"""Number of the first picture of each part; it does not depend on how many are in the others."""

_PARTS: Mapping[str, str] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_IGNORED = frozenset({"thumbs.db", "desktop.ini"})
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
    listed = _of_folder(place)
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
    perhaps `split`: train, val or test.

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
    listed = _of_manifest(file, Path(root).expanduser() if root is not None else file.parent)
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
    files = [Photograph(path, rule) for path in _pictures_below(place)]
    if not files:
        raise DataError(f"The folder {place} of unlabelled pictures is empty. Name another.")
    return _pictures([(file, None) for file in files], (), rule, first)


@dataclass(frozen=True)
class _Key:
    """Everything that a source is made of, so that the same is made once.

    Attributes:
        files: part, path, class (None without a label), size in bytes and time of its last change.
    """

    files: tuple[tuple[str, Path, str | None, int, int], ...]
    rule: Rule
    test: float
    split_seed: int
    skip: float
    keep: bool | None


_Listed = Mapping[str, Sequence[tuple[Path, str | None]]]
"""Files by part, each with its class."""


def _key(
    listed: _Listed, rule: Rule, test: float, split_seed: int, skip: float, keep: bool | None
) -> _Key:
    for name, value in (("test", test), ("skip", skip)):
        if not 0 <= value < 1:
            raise SettingError(f"{name} is a share, from 0 to below 1, but is {value}.")
    files = tuple(
        (part, path, label, *_stamp(path))
        for part, entries in listed.items()
        for path, label in entries
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


# What is there


def _of_folder(root: Path) -> _Listed:
    if not root.is_dir():
        raise DataError(f"There is no folder {root}. Name the folder of your pictures.")
    below = sorted(_folders(root))
    parts = [path for path in below if path.name.lower() in _PARTS]
    if not parts:
        return {"train": _mixed(_of_classes(root, None), root)}
    named: dict[str, Path] = {}
    for path in parts:
        part = _PARTS[path.name.lower()]
        if part in named:
            raise DataError(f"{named[part]} and {path} are both {part}. Keep one of them.")
        named[part] = path
    if "train" not in named:
        raise DataError(
            f"{root} has a folder {parts[0].name}, but none named train. Add it, or put the "
            "classes into one folder."
        )
    stray = [path.name for path in below if path not in parts]
    if stray:
        raise DataError(
            f"{root} has train and also {stray[0]}, which is no part. Put classes into train, val "
            "and test, or all into one folder."
        )
    train = _mixed(_of_classes(named["train"], None), root)
    classes = sorted({label for _, label in train if label is not None})
    found = {"train": train}
    for part in ("validation", "test"):
        if part in named:
            found[part] = _mixed(_of_classes(named[part], classes), root)
    return found


def _mixed(entries: Iterable[tuple[Path, str]], root: Path) -> tuple[tuple[Path, str | None], ...]:
    """In an order that hashes of their paths give, so that the first ones are of all classes."""

    def place(entry: tuple[Path, str]) -> bytes:
        return hashlib.blake2b(entry[0].relative_to(root).as_posix().encode()).digest()

    return tuple(sorted(entries, key=place))


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _of_classes(root: Path, known: Sequence[str] | None) -> Iterable[tuple[Path, str]]:
    """The pictures below a folder's sub-folders, and the names of these.

    Args:
        known: names that there may be; None for any.
    """
    _refuse_strays(root)
    for below in sorted(_folders(root)):
        if known is not None and below.name not in known:
            raise DataError(
                f"{below} is a class that train has not. Give train pictures of it, or leave it "
                "out."
            )
        files = _pictures_below(below)
        if not files:
            raise DataError(
                f"{below} is a class without a picture. Add some, or remove the folder."
            )
        yield from ((path, below.name) for path in files)


def _pictures_below(root: Path) -> list[Path]:
    """All pictures below a folder, by name.

    Raises:
        DataError: there are other files.
    """
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and _is_seen(path)]
    others = [path for path in files if path.suffix.lower() not in ENDINGS]
    if others:
        raise DataError(
            f"Among the pictures in {root} there are {len(others)} file(s) of another kind (first: "
            f"{others[0].name}). Move them away; pictures end in {', '.join(sorted(ENDINGS))}."
        )
    return files


def _refuse_strays(root: Path) -> None:
    """Files beside the folders of classes belong to no class."""
    strays = [path for path in root.iterdir() if path.is_file() and _is_seen(path)]
    if strays:
        raise DataError(
            f"In {root}, beside the folders of classes, there are {len(strays)} file(s) of no "
            f"class (first: {strays[0].name}). Move them away."
        )


def _is_seen(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.lower() not in _IGNORED


def _of_manifest(file: Path, root: Path) -> _Listed:
    if not file.is_file():
        raise DataError(
            f"There is no file {file}. Name a CSV file with the columns path and label."
        )
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            names = reader.fieldnames or []
            lines = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as CSV ({error}). Save it as UTF-8.") from error
    if not {"path", "label"} <= set(names):
        raise DataError(
            f"The first line of {file} names the columns {', '.join(names) or 'not at all'}; it "
            "needs path and label, and may have split."
        )
    odd = set(names) - {"path", "label", "split"}
    if odd:
        raise DataError(
            f"{file} has a column {sorted(odd)[0]!r}, which is not known. Known: label, path, "
            "split."
        )
    parts: dict[str, list[tuple[Path, str | None]]] = {"train": []}
    for number, line in enumerate(lines, start=2):
        split = (line.get("split") or "train").strip().lower()
        if split not in _PARTS:
            raise DataError(
                f"Line {number} of {file} is of the split {split!r}. Known: train, val, test."
            )
        label = (line["label"] or "").strip() or None
        path = _inside(root, line["path"] or "", f"line {number} of {file}")
        if label is None and _PARTS[split] != "train":
            raise DataError(f"Line {number} of {file} has no label, which {split} needs.")
        parts.setdefault(_PARTS[split], []).append((path, label))
    known = {label for _, label in parts["train"]}
    for part, entries in parts.items():
        for path, label in entries:
            if label not in known:
                raise DataError(
                    f"{file} has the class {label!r} in {part} ({path.name}), but not in train."
                )
    return parts


def _inside(root: Path, text: str, where: str) -> Path:
    """A path below a folder.

    Raises:
        DataError: it leaves the folder.
    """
    path = root / text
    if not text or not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"The path {text!r} in {where} leaves the folder {root}. Name pictures below it."
        )
    return path


# From files to a source


@lru_cache(maxsize=2)
def _source(key: _Key, where: str) -> Source:
    by_part: dict[str, list[tuple[Photograph, str | None]]] = {}
    for part, path, label, _, _ in key.files:
        by_part.setdefault(part, []).append((Photograph(path, key.rule), label))
    every = [file for entries in by_part.values() for file, _ in entries]
    bad = _read(every, keep=key.keep)
    _refuse_damaged(bad, len(every), key.skip, where)
    wrong = {id(file) for file, _ in bad}
    by_part = {
        part: [entry for entry in entries if id(entry[0]) not in wrong]
        for part, entries in by_part.items()
    }
    classes = tuple(sorted({label for _, label in by_part["train"] if label is not None}))
    made = {
        part: _pictures(entries, classes, key.rule, _FIRST[part])
        for part, entries in by_part.items()
    }
    if "test" not in made:
        made |= _with_test(made["train"], key, where)
    mean, std = _statistics(made["train"])
    return Source(made["train"], made["test"], classes, mean, std, made.get("validation"))


def _pictures(
    entries: Sequence[tuple[Photograph, str | None]],
    classes: Sequence[str],
    rule: Rule,
    first: int,
) -> Pictures:
    numbers = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([-1 if label is None else numbers[label] for _, label in entries])
    return Pictures(
        Photographs([file for file, _ in entries], rule),
        labels.long(),
        labels >= 0,
        torch.arange(first, first + len(entries)),
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
