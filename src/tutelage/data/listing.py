"""Which photographs there are: in folders of classes, or in a CSV file that lists them."""

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from tutelage.errors import DataError

__all__ = [
    "ENDINGS",
    "PARTS",
    "Entry",
    "Listed",
    "listed_in",
    "of_folder",
    "of_manifest",
    "seen_in",
]

ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
"""What the names of pictures end in."""

PARTS: Mapping[str, str] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""What parts are called → what they are."""

_IGNORED = frozenset({"thumbs.db", "desktop.ini"})
_COLUMNS = ("path", "label", "split", "weight")


class Entry(NamedTuple):
    """A picture that is there.

    Attributes:
        path: of its file.
        label: the name of its class; None without one.
        weight: what its supervised loss is multiplied by.
    """

    path: Path
    label: str | None
    weight: float = 1.0


Listed = Mapping[str, Sequence[Entry]]
"""Pictures by part: "train", and perhaps "validation" and "test"."""


def of_folder(root: Path) -> Listed:
    """The pictures below a folder, by part and class.

    Raises:
        DataError: it is absent, holds other files, or classes that do not fit.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder {root}. Name the folder of your pictures.")
    below = sorted(_folders(root))
    parts = [path for path in below if path.name.lower() in PARTS]
    if not parts:
        return {"train": _mixed(_of_classes(root, None), root)}
    named: dict[str, Path] = {}
    for path in parts:
        part = PARTS[path.name.lower()]
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
    classes = sorted({entry.label for entry in train if entry.label is not None})
    found = {"train": train}
    for part in ("validation", "test"):
        if part in named:
            found[part] = _mixed(_of_classes(named[part], classes), root)
    return found


def _mixed(entries: Iterable[Entry], root: Path) -> tuple[Entry, ...]:
    """In an order that hashes of their paths give, so that the first ones are of all classes."""

    def place(entry: Entry) -> bytes:
        return hashlib.blake2b(entry.path.relative_to(root).as_posix().encode()).digest()

    return tuple(sorted(entries, key=place))


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _of_classes(root: Path, known: Sequence[str] | None) -> Iterable[Entry]:
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
        files = listed_in(below)
        if not files:
            raise DataError(
                f"{below} is a class without a picture. Add some, or remove the folder."
            )
        yield from (Entry(path, below.name) for path in files)


def seen_in(root: Path) -> list[Path]:
    """All files below a folder, by name, but those that systems leave there."""
    return [path for path in sorted(root.rglob("*")) if path.is_file() and _is_seen(path)]


def listed_in(root: Path) -> list[Path]:
    """All pictures below a folder, by name.

    Raises:
        DataError: there are other files.
    """
    files = seen_in(root)
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


def of_manifest(file: Path, root: Path) -> Listed:
    """The pictures that a CSV file lists.

    Args:
        root: the folder that no path may leave.

    Raises:
        DataError: the file is absent, or says something that is not known.
    """
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
            "needs path and label, and may have split and weight."
        )
    odd = set(names) - set(_COLUMNS)
    if odd:
        raise DataError(
            f"{file} has a column {sorted(odd)[0]!r}, which is not known. Known: "
            f"{', '.join(_COLUMNS)}."
        )
    parts: dict[str, list[Entry]] = {"train": []}
    for number, line in enumerate(lines, start=2):
        part, entry = _of_line(line, root, f"line {number} of {file}")
        parts.setdefault(part, []).append(entry)
    known = {entry.label for entry in parts["train"]}
    for part, entries in parts.items():
        for entry in entries:
            if entry.label not in known:
                raise DataError(
                    f"{file} has the class {entry.label!r} in {part} ({entry.path.name}), but not "
                    "in train."
                )
    return parts


def _of_line(line: Mapping[str, str | None], root: Path, where: str) -> tuple[str, Entry]:
    """The part that a line is of, and its picture."""
    split = (line.get("split") or "train").strip().lower()
    if split not in PARTS:
        raise DataError(f"The split of {where} is {split!r}. Known: train, val, test.")
    part = PARTS[split]
    label = (line["label"] or "").strip() or None
    path = _inside(root, line["path"] or "", where)
    if label is None and part != "train":
        raise DataError(f"There is no label in {where}, which {split} needs.")
    return part, Entry(path, label, _weight(line.get("weight"), part, label, where))


def _weight(text: str | None, part: str, label: str | None, where: str) -> float:
    """What a picture's supervised loss is multiplied by; 1 unless said."""
    text = (text or "").strip()
    if not text:
        return 1.0
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < inf:
        raise DataError(f"The weight in {where} is {text!r}. It is a number, 0 or more.")
    if part != "train" or label is None:
        raise DataError(
            f"The picture in {where} has a weight, which counts where labels train, but it is "
            f"{f'of {part}' if part != 'train' else 'without a label'}. Leave it empty."
        )
    return weight


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
