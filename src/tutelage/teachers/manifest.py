"""What a store of answers is: parts, shards, codes, and what its answers depend on."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutelage.errors import StoreError
from tutelage.records import write_atomic
from tutelage.teachers.encoding import Layout, LogitsCode, MapCode

__all__ = [
    "EVALUATED",
    "GO_ON",
    "MEASURED",
    "TRAIN",
    "Manifest",
    "Part",
    "Shard",
    "require_same",
    "shard_name",
]

SCHEMA = 1

TRAIN = "train"
"""The part whose pictures are stored in several views."""

EVALUATED = ("validation", "test")
"""Parts whose pictures are stored as they are."""

MEASURED = "measured"
"""Tensor with the logits that are measured, where training has others of the same pictures."""

GO_ON = "run the same command again"
"""What to do once there is space again."""


class Part(NamedTuple):
    """Pictures that are stored alike.

    Attributes:
        pictures, views: how many; 1 view for pictures as they are.
        shard_size: entries in a shard; the last of a view may have fewer.
    """

    pictures: int
    views: int
    shard_size: int

    @property
    def shards_per_view(self) -> int:
        """Of which the last may be short."""
        return math.ceil(self.pictures / self.shard_size)


class Shard(NamedTuple):
    """Where a file's entries stand: view, and places in the order of the index."""

    part: str
    view: int
    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Of its file, without the checksum."""
        return shard_name(self.part, self.view, self.number)


def shard_name(part: str, view: int, number: int) -> str:
    """Of a shard's file, without the checksum."""
    return f"{part}-{view:04d}-{number:05d}"


@dataclass(frozen=True)
class Manifest:
    """What a store is.

    Attributes:
        fingerprint: what the answers depend on; a run must agree in all of it.
        logits, maps: how answers to training pictures are coded; tap → its maps.
        parts: "train", "validation", "test".
        about: the teacher's cost; its stages, among which taps are found; where and how the store
            was made.
        checksums: file name without checksum → checksum; None while the store is being built.
    """

    fingerprint: Mapping[str, Any]
    logits: LogitsCode
    maps: Mapping[str, MapCode]
    parts: Mapping[str, Part]
    about: Mapping[str, Any] = field(default_factory=dict)
    checksums: Mapping[str, str] | None = None

    def shards(self) -> Iterator[Shard]:
        """All that the store has when it is complete."""
        for name, part in self.parts.items():
            for view in range(part.views):
                for number in range(part.shards_per_view):
                    start = number * part.shard_size
                    stop = min(start + part.shard_size, part.pictures)
                    yield Shard(name, view, number, start, stop)

    def answers_twice(self, part: str) -> bool:
        """Whether pictures are answered as in training, and as the teacher itself is measured.

        Both look at validation; the two differ, by rounding, if a folded or compiled copy of the
        teacher answers in training. Only what is measured looks at test.
        """
        other = any(self.fingerprint.get(key) for key in ("fuse_teacher", "compile_teacher"))
        return other and part == "validation"

    def logits_of(self, part: str) -> LogitsCode:
        """Those to pictures as they are serve measurements, so they are exact."""
        if part in EVALUATED:
            return LogitsCode("fp32", self.logits.num_classes)
        return self.logits

    def maps_of(self, part: str) -> Mapping[str, MapCode]:
        """No method sees test pictures."""
        return {} if part == "test" else self.maps

    def layout(self, part: str) -> Layout:
        """The tensors of one entry."""
        layout = self.logits_of(part).layout()
        if self.answers_twice(part):
            layout[MEASURED] = layout["logits"]
        for tap, code in self.maps_of(part).items():
            layout |= code.layout(tap)
        return layout

    def entry_bytes(self, part: str) -> int:
        """Of one view of one picture."""
        return sum(kind.itemsize * math.prod(shape) for kind, shape in self.layout(part).values())

    def total_bytes(self) -> int:
        """Of all entries and the index, headers aside."""
        return sum(
            part.pictures * (part.views * self.entry_bytes(name) + torch.int64.itemsize)
            for name, part in self.parts.items()
        )

    def write(self, folder: Path) -> None:
        """Writes manifest.json, atomically.

        Raises:
            RunError: no space is left on the device.
        """
        text = json.dumps({"schema": SCHEMA} | asdict(self), indent=2, allow_nan=False) + "\n"
        write_atomic(folder / "manifest.json", text, go_on=GO_ON)

    def checked(self) -> "Manifest":
        """Itself, if a file could hold it: what JSON was read may be anything.

        Raises:
            ValueError: it could not.
        """
        tables = [self.fingerprint, self.about, {} if self.checksums is None else self.checksums]
        counts = [number for part in self.parts.values() for number in part]
        sound = (
            all(isinstance(table, Mapping) for table in tables)
            and all(isinstance(one, str) for one in tables[2].values())
            and all(type(number) is int for number in counts)
            and all(part.pictures >= 0 and part.views >= 1 for part in self.parts.values())
            and all(part.shard_size >= 1 for part in self.parts.values())
            and all(type(size) is int for code in self.maps.values() for size in code.shape)
        )
        if not sound:
            raise ValueError("not the manifest of a store")
        return self

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads manifest.json.

        Raises:
            StoreError: there is none, it is damaged, or of another schema.
        """
        path = folder / "manifest.json"
        try:
            value = json.loads(path.read_bytes())
            if value["schema"] != SCHEMA:
                raise StoreError(
                    f"{path} has schema {value['schema']}, and this version reads {SCHEMA}. Build "
                    "the store anew with `tutelage cache`."
                )
            made = cls(
                value["fingerprint"],
                LogitsCode(**value["logits"]),
                {tap: _map_code(code) for tap, code in value["maps"].items()},
                {name: Part(*part) for name, part in value["parts"].items()},
                value["about"],
                value["checksums"],
            )
            return made.checked()
        except FileNotFoundError:
            raise StoreError(
                f"{folder} is no store of a teacher's answers: it holds no manifest.json. Make one "
                "with `tutelage cache RECIPE --out FOLDER`."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
            raise StoreError(
                f"{path} is damaged. Build the store anew in another folder."
            ) from None


def _map_code(value: Mapping[str, Any]) -> MapCode:
    size = value["size"] and tuple(value["size"])
    return MapCode(**{**value, "shape": tuple(value["shape"]), "size": size})


def require_same(
    folder: Path, known: Mapping[str, Any], wanted: Mapping[str, Any], what: str = "this run"
) -> None:
    """Checks that a store was made for just this.

    Args:
        known: of the store.
        wanted: fields and what they must be; others are not looked at.

    Raises:
        StoreError: names the first field that differs.
    """
    for name, value in wanted.items():
        if known.get(name) != value:
            raise StoreError(
                f"The store in {folder} is of something else: its {name.replace('_', ' ')} is "
                f"{_short(known.get(name))}, and that of {what} is {_short(value)}. Set it back, "
                "or make another store with `tutelage cache`."
            )


def _short(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list | None) else str(value)
