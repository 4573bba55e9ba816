"""Data sets in the form of Hugging Face's `datasets`: by name, or from a folder of local files."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from tutelage.data.gathering import Reading, gather, rule_of
from tutelage.data.listing import PARTS, Entry
from tutelage.data.photographs import Photograph
from tutelage.data.pictures import Source
from tutelage.errors import DataError, NoEffectWarning, first_line, nearest

__all__ = ["hub"]


def hub(
    *,
    dataset: str,
    config: str | None = None,
    revision: str | None = None,
    image: str | None = None,
    label: str | None = None,
    parts: dict[str, str] | None = None,
    size: int = 224,
    channels: Literal[1, 3] = 3,
    test: float = 0.2,
    split_seed: int = 0,
    skip: float = 0.01,
    keep: bool | None = None,
) -> Source:
    """Reads pictures and labels through the package `datasets`; no code of a data set is run.

    Args:
        dataset: a name on the hub; or a folder: what `save_to_disk` has written, or parquet files.
        config: which of a data set's configurations.
        revision: which of its versions; say one, so that the same pictures come next year.
        image, label: names of columns; None: the only one that holds pictures, and the only one
            that holds classes.
        parts: train, validation or test → the split that it is, where its name does not say so.
        size, channels, test, split_seed, skip, keep: see `folder.folder`.

    Raises:
        DataError: the data set, or something in it, is not there or not as said.
        SettingError: a setting is outside its range.
    """
    reading = Reading(rule_of(size, channels), test, split_seed, skip, keep).check()
    splits = _load(dataset, config, revision)
    chosen = _parts(splits, parts, dataset)
    columns = _columns(splits[chosen["train"]].features, image, label, dataset)
    return _source(_Held(splits, dataset), tuple(sorted(chosen.items())), columns, reading)


class _Held:
    """Splits, told apart by what `datasets` calls their fingerprints."""

    def __init__(self, splits: Mapping[str, Any], name: str) -> None:
        self.splits, self.name = splits, name
        self._key = (name, *((split, data._fingerprint) for split, data in splits.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _load(dataset: str, config: str | None, revision: str | None) -> dict[str, Any]:
    """Split → its rows, of which nothing is decoded."""
    try:
        import datasets  # an extra, and slow to import
    except ImportError as error:
        raise DataError(
            "The source hub needs the package datasets, which is not installed. Install "
            "tutelage[hub]."
        ) from error
    place = Path(dataset).expanduser()
    if place.is_dir() and (config or revision):
        warnings.warn(
            f"config and revision change nothing, because {dataset} is a folder; leave them out.",
            NoEffectWarning,
            stacklevel=3,
        )
    try:
        if place.is_dir() and any(place.glob("*.parquet")):
            files = {file.stem.partition("-")[0]: [] for file in place.glob("*.parquet")}
            for file in sorted(place.glob("*.parquet")):
                files[file.stem.partition("-")[0]].append(str(file))
            found: Any = datasets.load_dataset("parquet", data_files=files)
            return dict(found)
        if place.is_dir():
            found = datasets.load_from_disk(str(place))
            return {"train": found} if isinstance(found, datasets.Dataset) else dict(found)
        found = datasets.load_dataset(dataset, config, revision=revision)
        return dict(found)
    except Exception as error:  # of many libraries below it
        raise DataError(
            f"The data set {dataset} cannot be read ({first_line(error)}). Name one on the hub "
            "while there is a network, a folder of parquet files, or one that save_to_disk wrote."
        ) from error


def _parts(splits: Mapping[str, Any], asked: Mapping[str, str] | None, name: str) -> dict[str, str]:
    """Part → split: as the splits are called, but for what was asked."""
    known, asked = sorted(splits), asked or {}
    found = {PARTS[split]: split for split in known if split in PARTS}
    for part, split in asked.items():
        if part not in ("train", "validation", "test"):
            raise DataError(f"parts are train, validation and test, not {part!r}. Correct it.")
        if split not in splits:
            raise DataError(f"{name} has no split {split!r}; {nearest(split, known)}.")
        found = {p: s for p, s in found.items() if s != split} | {part: split}
    twice = [split for split in asked.values() if list(asked.values()).count(split) > 1]
    if twice:
        raise DataError(f"The split {twice[0]!r} of {name} is named for two parts. Name others.")
    if "train" not in found:
        raise DataError(
            f"{name} has the splits {', '.join(known)}, and none to train on. Say which it is: "
            "parts: {train: …}."
        )
    return found


def _columns(
    features: Mapping[str, Any], image: str | None, label: str | None, name: str
) -> tuple[str, str]:
    """The columns of pictures and of labels."""

    def one(asked: str | None, what: str, kind: str) -> str:
        if asked is not None:
            if asked not in features:
                raise DataError(f"{name} has no column {asked!r}; {nearest(asked, features)}.")
            return asked
        fitting = [key for key, value in features.items() if type(value).__name__ == kind]
        if len(fitting) != 1:
            raise DataError(
                f"Of the columns of {name}, {', '.join(features)}, {len(fitting)} hold {what}. Say "
                f"which with {'image' if kind == 'Image' else 'label'}."
            )
        return fitting[0]

    found = one(image, "pictures", "Image"), one(label, "classes", "ClassLabel")
    if type(features[found[0]]).__name__ != "Image":
        raise DataError(f"The column {found[0]!r} of {name} holds no pictures. Name another.")
    if type(features[found[1]]).__name__ not in ("ClassLabel", "Value"):
        raise DataError(f"The column {found[1]!r} of {name} holds no classes. Name another.")
    return found


@lru_cache(maxsize=2)
def _source(
    held: _Held, parts: tuple[tuple[str, str], ...], columns: tuple[str, str], reading: Reading
) -> Source:
    image, label = columns
    train = held.splits[dict(parts)["train"]]
    classes = getattr(train.features[label], "names", None)
    by_part: dict[str, list[tuple[Photograph, Entry]]] = {}
    values: set[Any] = set()
    for part, split in parts:
        where = f"{held.name}, {split}"
        rows = held.splits[split]
        for column in columns:
            if column not in rows.features:
                raise DataError(f"{where} has no column {column!r}, which train has. Leave it out.")
        names = _labels(rows[label], getattr(rows.features[label], "names", None), where)
        if part != "train" and None in names:
            raise DataError(
                f"{where} has a picture without label, which {part} needs. Leave the split out: "
                "say in parts which are to be used."
            )
        values |= set(rows[label]) if part == "train" else set()
        rows = rows.select_columns([image, label]).cast_column(image, _undecoded())
        by_part[part] = []
        for number, name in enumerate(names):
            path = Path(held.name) / split / str(number)
            file = Photograph(path, reading.rule, _reader(rows, number, image))
            by_part[part].append((file, Entry(path, name)))
    if classes is None:  # numbers in their order, names by the alphabet
        classes = [str(value) for value in sorted(value for value in values if value is not None)]
    for part, entries in by_part.items():
        for _, entry in entries:
            if entry.label is not None and entry.label not in classes:
                raise DataError(
                    f"{held.name} has the label {entry.label!r} in {part}, which train has not. "
                    "Leave those pictures out, or name other parts."
                )
    return gather(by_part, reading, held.name, classes)


def _undecoded() -> Any:
    import datasets

    return datasets.Image(decode=False)


def _reader(rows: Any, number: int, image: str) -> Callable[[], bytes]:
    """Gives the bytes of one picture's file."""

    def read() -> bytes:
        held = rows[number][image]
        if held is None:
            raise ValueError("it is empty")
        return held["bytes"] if held["bytes"] is not None else Path(held["path"]).read_bytes()

    return read


def _labels(values: Iterable[Any], names: Sequence[str] | None, where: str) -> list[str | None]:
    """Names of classes; None without a label.

    Args:
        names: of the split's own classes, if its labels are their numbers.
    """
    values = list(values)
    if names is None:
        return [None if value is None else str(value) for value in values]
    bad = [value for value in values if value is not None and not -1 <= value < len(names)]
    if bad:
        raise DataError(f"{where} has the label {bad[0]}, but {len(names)} classes.")
    known: dict[Any, str] = dict(enumerate(names))
    return [known.get(value) for value in values]  # -1 stands for none
