"""What only networks can draw: where they look, and where two differ; from run folders."""

import math
import struct
import zipfile
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import RunError
from tutelage.report.blocks import Block, Card, Cards, Gallery, More, Picture, Section, Text
from tutelage.report.latencies import teacher_kind
from tutelage.report.lines import Record
from tutelage.report.networks import Network, at, best_student
from tutelage.report.sources import Runs, Source
from tutelage.report.views import Part, View, by_part, section

__all__ = ["Apart", "Looks", "pictures", "png", "read_pictures"]

Pixels = NDArray[np.uint8]
Maps = Mapping[str, NDArray[np.floating]]

MOST_PIXELS = 96
"""Of a side; larger pictures are averaged down, since they are shown small."""

_IN_A_ROW, _ON_A_CARD = 48, 88  # heights on the page
_STAGES = 2
_POSITIONS = 2**40  # what a picture's index counts from, for each source
_WORTH_SAYING = 0.005


class Apart(NamedTuple):
    """The pictures in which a student and its teacher differ most, the farthest first.

    Attributes:
        images: uint8, n h w c.
        places, targets: n; numbers of the pictures in their source, and of their classes, which
            are below 0 if they are not known.
        student, teacher: probabilities, n k.
    """

    images: Pixels
    places: NDArray[np.integer]
    targets: NDArray[np.integer]
    student: NDArray[np.floating]
    teacher: NDArray[np.floating]


class Looks(NamedTuple):
    """What a run has left of a few test pictures, the same ones in every run on this data.

    Attributes:
        images: uint8, n h w c.
        places, targets: n; numbers of the pictures in their source, and of their classes, which
            are below 0 if they are not known.
        student, teacher: stage → its map of each picture in [0, 1], n h w; of no teacher none.
        apart: None without a teacher.
    """

    images: Pixels
    places: NDArray[np.integer]
    targets: NDArray[np.integer]
    student: Maps
    teacher: Maps
    apart: Apart | None


# Reading


def read_pictures(path: Path) -> Looks | None:
    """Reads a run folder's pictures.npz; None if there is none.

    Raises:
        RunError: it is damaged, or was not made by a run.
    """
    if not path.exists():
        return None
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError(path)
        with np.load(path, allow_pickle=False) as found:
            return _looks({name: found[name] for name in found.files})
    except (OSError, EOFError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error):
        raise RunError(
            f"{path} is damaged, or no run has written it. Remove it; `tutelage evaluate "
            f"{path.parent} --test` writes it anew."
        ) from None


def _looks(kept: Mapping[str, NDArray[Any]]) -> Looks:
    images = _array(kept, "same/images", "u", None, None, None, None)
    count = len(images)
    return Looks(
        images,
        _array(kept, "same/index", "i", count) % _POSITIONS,
        _array(kept, "same/targets", "i", count),
        _maps(kept, "student", count),
        _maps(kept, "teacher", count) if "same/teacher_stages" in kept else {},
        _apart(kept) if "apart/images" in kept else None,
    )


def _maps(kept: Mapping[str, NDArray[Any]], what: str, count: int) -> Maps:
    stages = _array(kept, f"same/{what}_stages", "U", None)
    return {
        str(stage): _array(kept, f"same/{what}/{number}", "f", count, None, None)
        for number, stage in enumerate(stages)
    }


def _apart(kept: Mapping[str, NDArray[Any]]) -> Apart:
    images = _array(kept, "apart/images", "u", None, None, None, None)
    count = len(images)
    student = _array(kept, "apart/student", "f", count, None)
    return Apart(
        images,
        _array(kept, "apart/index", "i", count) % _POSITIONS,
        _array(kept, "apart/targets", "i", count),
        student,
        _array(kept, "apart/teacher", "f", *student.shape),
    )


def _array(
    kept: Mapping[str, NDArray[Any]], name: str, kind: str, *shape: int | None
) -> NDArray[Any]:
    """An array of one kind of numbers or texts; sizes that are None are free, but not 0.

    Raises:
        ValueError, KeyError: there is none such.
    """
    value = kept[name]
    fits = value.ndim == len(shape) and all(
        (size > 0 if asked is None else size == asked)
        for asked, size in zip(shape, value.shape, strict=True)
    )
    if value.dtype.kind != kind or not fits or (kind == "f" and not np.isfinite(value).all()):
        raise ValueError(name)
    return value


# Drawing


def png(pixels: Pixels) -> bytes:
    """A PNG file.

    Args:
        pixels: h w of gray, or h w 3 of red, green and blue.
    """
    height, width = pixels.shape[:2]
    color = 0 if pixels.ndim == 2 else 2
    head = struct.pack(">2I5B", width, height, 8, color, 0, 0, 0)
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    data = np.insert(rows, 0, 0, axis=1).tobytes()  # each row begins with its filter: none
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _drawn(pixels: Pixels, words: str, height: int, shape: Sequence[int]) -> Picture:
    """A picture on the page, in the proportions of `shape`."""
    address = "data:image/png;base64," + b64encode(png(pixels)).decode()
    width = min(max(round(height * shape[1] / shape[0]), height // 4), 4 * height)
    return Picture(words, address, width, height)


def _photograph(image: Pixels, words: str, height: int) -> Picture:
    height_there, width_there, channels = image.shape
    factor = math.ceil(max(height_there, width_there) / MOST_PIXELS)
    small = image
    if factor > 1:
        rows, columns = (max(side // factor, 1) for side in (height_there, width_there))
        cut = image[: rows * factor, : columns * factor].astype(np.float32)
        blocks = cut.reshape(rows, -1, columns, cut.shape[1] // columns, channels)
        small = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    colored = small[..., :3] if channels >= 3 else small[..., 0]
    return _drawn(colored, words, height, image.shape)


def _map(values: NDArray[np.floating], words: str, shape: Sequence[int]) -> Picture:
    """A map from its smallest value, black, to its largest."""
    roots = np.sqrt(np.clip(values.astype(np.float32), 0, 1))
    roots = (roots - roots.min()) / max(float(np.ptp(roots)), 1e-6)
    return _drawn((255 * roots).round().astype(np.uint8), words, _IN_A_ROW, shape)


# The section


class _Kept(NamedTuple):
    """What a row's first run that is still there has left."""

    network: Network
    record: Record
    looks: Looks


def pictures(view: View) -> Section:
    """Where networks look, and the pictures in which students and teachers differ most.

    Raises:
        RunError: a file of pictures is damaged.
    """
    return section(
        "pictures",
        "Pictures",
        by_part(view, lambda part: _of_part(view.source, part)),
        "Not shown: the run folders are not here, or hold no pictures. A run leaves them when test "
        "is read.",
    )


def _of_part(source: Source, part: Part) -> list[Block]:
    kept = [
        _Kept(one, record, looks)
        for role in ("control", "student")
        for one in part.networks
        if one.role == role
        for record, looks in _left_by(source, part, one)
    ]
    return [*_attention(kept), *_differences(kept, best_student(part.networks))] if kept else []


def _left_by(source: Source, part: Part, network: Network) -> list[tuple[Record, Looks]]:
    """Of the first seed that has left anything; at most one."""
    if isinstance(source, Runs):
        pairs = zip(source.records, source.folders, strict=True)
        places = [(record, place) for record, place in pairs if record["name"] == network.name]
    else:
        places = [
            (line["record"], source.folders[line["identity"]])
            for line in source.trials(network.row, part.title)
            if line["identity"] in source.folders
        ]
    for record, place in places:
        looks = read_pictures(place.pictures)
        if looks is not None:
            return [(record, looks)]
    return []


def _name_of(record: Record, target: int) -> str:
    names = at(record, "students", "student", "test", "classes") or []
    if target < 0:
        return "not labelled"
    return str(names[target]) if target < len(names) else f"class {target}"


def _attention(kept: Sequence[_Kept]) -> list[Block]:
    first = kept[0]
    alike = [
        one
        for one in kept
        if np.array_equal(one.looks.places, first.looks.places)
        and np.array_equal(one.looks.images, first.looks.images)
    ]
    columns = [*_teachers(alike), *((one.network.name, one.looks.student) for one in alike)]
    rows = []
    for place, image in enumerate(first.looks.images):
        name = _name_of(first.record, int(first.looks.targets[place]))
        number = int(first.looks.places[place])
        rows.append(
            (
                _photograph(image, f"Test picture {number}, {name}", _IN_A_ROW),
                name,
                [
                    [
                        _map(maps[place], f"{title}, {stage}, picture {number}", image.shape)
                        for stage, maps in _last(stages)
                    ]
                    for title, stages in columns
                ],
            )
        )
    head = [(title, ", ".join(stage for stage, _ in _last(stages))) for title, stages in columns]
    known = [one.network.name for one in alike]
    others = [one.network.name for one in kept if one.network.name not in known]
    left_out = f" {', '.join(others)}: of other pictures, and left out." if others else ""
    return [
        Gallery("Where networks look, on the same test pictures", ["picture", *head], rows),
        Text(
            f"The last {_STAGES} stages of each network, at the first seed of which there are "
            "pictures. A map is the root of the mean of squares over channels, drawn from its own "
            f"smallest value (black) to its largest (white).{left_out}"
        ),
    ]


def _last(stages: Maps) -> list[tuple[str, NDArray[np.floating]]]:
    return list(stages.items())[-_STAGES:]


def _teachers(kept: Sequence[_Kept]) -> list[tuple[str, Maps]]:
    """Name and maps of each teacher once."""
    found: dict[str, tuple[str, Maps]] = {}
    for one in kept:
        if one.looks.teacher:
            found.setdefault(teacher_kind(one.record), (one.network.name, one.looks.teacher))
    return [
        ("teacher" if len(found) == 1 else f"teacher of {name}", maps)
        for name, maps in found.values()
    ]


def _differences(kept: Sequence[_Kept], best: Network | None) -> list[Block]:
    blocks: list[Block] = []
    for one in sorted(kept, key=lambda one: one.network is not best):
        if one.looks.apart is None:
            continue
        name = one.network.name
        cards = Cards(
            f"Where {name} and its teacher differ most: KL of the teacher's answer from the "
            "student's, the largest first",
            [_card(one, one.looks.apart, place) for place in range(len(one.looks.apart.images))],
        )
        blocks.append(
            More(f"Where {name} and its teacher differ most", [cards]) if blocks else cards
        )
    return blocks


def _card(one: _Kept, apart: Apart, place: int) -> Card:
    truth = _name_of(one.record, int(apart.targets[place]))
    number = int(apart.places[place])
    return Card(
        _photograph(apart.images[place], f"Test picture {number}, {truth}", _ON_A_CARD),
        truth,
        [
            (what, _answers(one.record, shares))
            for what, shares in (
                ("teacher", apart.teacher[place]),
                ("student", apart.student[place]),
            )
        ],
    )


def _answers(record: Record, shares: NDArray[np.floating]) -> str:
    """The two most likely answers; the second one unless its share is next to nothing."""
    first, *others = np.argsort(-shares, kind="stable")[:2]
    said = [int(first), *(int(other) for other in others if shares[other] >= _WORTH_SAYING)]
    return ", ".join(
        f"{_name_of(record, answer)} {100 * shares[answer]:.0f}\u00a0%" for answer in said
    )
