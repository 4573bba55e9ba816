"""What counts: of a comparison's file which lines, and of a record which numbers."""

import math
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, final

from tutelage.report.lines import (
    Line,
    Record,
    combinations,
    is_trial,
    lineage,
    of_student,
    student_of,
    subnet_of,
    title_of,
    works,
)

__all__ = [
    "Choice",
    "Pool",
    "finite",
    "parts_of",
    "sound",
    "that_count",
]

_SHARED = ("code", "versions", "device", "threads")
"""What the trials of a row have in common, besides their data."""


class Choice(NamedTuple):
    """What a row chose on validation.

    Attributes:
        row: its name.
        part: title of the combination of the axes' values at which it chose.
        key: of the recipe, dotted.
        tried: each value asked for, and the line of its try; None if that has not been run.
        taken: the value; None while it is undecided.
    """

    row: str
    part: str
    key: str
    tried: list[tuple[Any, Line | None]]
    taken: Any


def parts_of(spec: Record) -> dict[str, Record]:
    """Title and settings of each combination of the axes' values; without axes one, untitled."""
    return {title_of(group): group for group in combinations(spec.get("axes", {}))}


@final
class Pool:
    """The lines of a file, and which of them were of use."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines
        self._used: set[int] = set()

    def find(self, kind: str, row: str, seed: int, settings: Record) -> Line | None:
        """The newest fitting line; of another row, which then has the same recipe, if need be."""
        fits = [
            line
            for line in self.lines
            if (line["kind"], line["seed"], line["settings"]) == (kind, seed, settings)
        ]
        own = [line for line in fits if line["row"] == row]
        return (own or fits or [None])[-1]

    def newest_first(self, row: str) -> Iterable[Line]:
        """The trials of a row."""
        return (line for line in reversed(self.lines) if is_trial(line, row))

    def use(self, line: Line, row: str, part: str) -> Line:
        """The line, which now counts for a row at a combination of the axes' values."""
        self._used.add(id(line))
        return {**line, "row": row, "part": part}

    def unused(self) -> list[Line]:
        """Lines that count for no row."""
        return [line for line in self.lines if id(line) not in self._used]


def that_count(spec: Record, pool: Pool) -> tuple[list[Line], list[Choice]]:
    """The lines that count, under the rows and parts for which they do, and what was chosen.

    Of equal lines (kind, row, seed, settings) the newest counts, if its settings are what the
    specification asks for, with what the tries have chosen; while tries are missing, with what the
    newest trial of the row has. The trials of a row must agree in code, versions, device and
    threads with its newest. All of this holds at each combination of the axes' values by itself.

    Returns:
        Lines with an entry "part", the title of that combination; and choices in their order.
    """
    lines: list[Line] = []
    choices: list[Choice] = []
    for part, group in parts_of(spec).items():
        for row in spec["rows"]:
            settings, own_choices = _settings(spec, row, part, group, pool)
            subnet = subnet_of(spec["rows"], row)
            for choice in own_choices:
                tried = [
                    (value, line and of_student(pool.use(line, row, part), subnet))
                    for value, line in choice.tried
                ]
                choices.append(choice._replace(tried=tried))
                lines += [line for _, line in tried if line is not None and line not in lines]
            trials = [pool.find("trial", row, seed, settings) for seed in spec["seeds"]]
            present = [line for line in trials if line is not None]
            newest = max(present, key=lambda line: _place(pool.lines, line), default=None)
            for line in present:
                if newest is not None and _shared(line) == _shared(newest):
                    lines.append(of_student(pool.use(line, row, part), subnet))
    return lines, choices


def _place(lines: Sequence[Line], line: Line) -> int:
    return next(number for number, other in enumerate(lines) if other is line)


def _shared(line: Line) -> Record:
    parts = line.get("parts", {})
    return {key: parts.get(key) for key in _SHARED}


def _settings(
    spec: Record, name: str, part: str, group: Record, pool: Pool
) -> tuple[dict[str, Any], list[Choice]]:
    """A row's settings with what was chosen, as `tutelage compare` works them out; its choices."""
    settings: dict[str, Any] = dict(group)
    undecided: dict[str, list[Any]] = {}
    tries: dict[str, list[tuple[Any, Line | None]]] = {}
    for ancestor in lineage(spec["rows"], name):
        row = spec["rows"][ancestor]
        choose = row.get("choose", {})
        settings |= {**row.get("set", {}), **{key: values[0] for key, values in choose.items()}}
        undecided = {
            key: values for key, values in undecided.items() if key not in row.get("set", {})
        }
        tries = {}
        for key, values in choose.items():
            seed = spec["seeds"][0]
            tries[key] = [
                (value, pool.find("try", ancestor, seed, {**settings, key: value}))
                for value in values
            ]
            taken = None if undecided else _best(tries[key], subnet_of(spec["rows"], ancestor))
            if taken is None:
                undecided[key] = values
            else:
                settings[key] = values[taken]
    if undecided:
        fits = (line for line in pool.newest_first(name) if _may(line, settings, undecided))
        known = next(fits, None)
        if known is not None:
            settings, undecided = dict(known["settings"]), {}
    return settings, [
        Choice(name, part, key, tried, None if key in undecided else settings[key])
        for key, tried in tries.items()
    ]


def _best(tried: Sequence[tuple[Any, Line | None]], subnet: str | None) -> int | None:
    """Which value is best on validation, of equal ones the first; None if one is missing."""
    if any(line is None for _, line in tried):
        return None
    lines = [of_student(line, subnet) for _, line in tried if line is not None]
    scores = [_validation(line) for line in lines]
    return scores.index(max(scores)) if max(scores) >= 0 else None


def _validation(line: Line) -> float:
    return student_of(line)["validation_accuracy"] if works(line) else -1.0


def _may(line: Line, settings: Record, undecided: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a trial has a row's settings, whatever of the undecided ones it has."""
    own = line["settings"]
    return own.keys() == settings.keys() and all(
        own[key] in undecided[key] if key in undecided else own[key] == value
        for key, value in settings.items()
    )


# Numbers


def finite(value: Any) -> float | None:
    """A number if it is one, and finite; else None.

    >>> finite(3), finite(float("nan")), finite("3"), finite(None)
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def sound(record: Record) -> tuple[Record, list[str]]:
    """A record without what is damaged of what it holds beyond accuracy and costs.

    Returns:
        The record, and what was left out of it.
    """
    left_out: list[str] = []
    students = {
        name: _sound(entry, "" if name == "student" else f"{name}'s ", left_out)
        for name, entry in record["students"].items()
    }
    teacher = record["teacher"] and _sound(record["teacher"], "its teacher's ", left_out)
    return {**record, "students": students, "teacher": teacher}, left_out


def _sound(entry: Record, whose: str, left_out: list[str]) -> Record:
    bad = [
        key
        for key, is_sound in _SOUND.items()
        if entry.get(key) is not None and not is_sound(entry[key])
    ]
    left_out += [f"{whose}{key}" for key in bad]
    return {key: value for key, value in entry.items() if key not in bad}


def _is_number(value: Any) -> bool:
    return finite(value) is not None


def _may_be_number(value: Any) -> bool:
    return value is None or _is_number(value)


def _numbers(*needed: str, may: Sequence[str] = ()) -> Callable[[Any], bool]:
    """Whether a mapping holds these numbers, and perhaps others."""
    return lambda value: (
        isinstance(value, Mapping)
        and all(_is_number(value.get(key)) for key in needed)
        and all(_may_be_number(value.get(key)) for key in may)
    )


def _list_of(is_sound: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_sound, value))


_SCORES = ("ece", "nll", "brier")


def _is_calibration(value: Any) -> bool:
    if not _numbers(*_SCORES)(value):
        return False
    triples = _list_of(lambda one: _list_of(_is_number)(one) and len(one) == 3)
    scaled = value.get("scaled")
    return triples(value.get("bins", [])) and (
        scaled is None or (_numbers(*_SCORES)(scaled) and _is_number(value.get("temperature")))
    )


def _is_test(value: Any) -> bool:
    """What was counted of answers; `correct` has a bit for each picture."""
    if not _numbers("pictures", may=("top1", "top5", "balanced"))(value):
        return False
    names, shares = value.get("classes"), value.get("per_class")
    confusion, calibrated = value.get("confusion"), value.get("calibration")
    try:
        bits = len(b64decode(value["correct"], validate=True))
        return (
            bits == -(-value["pictures"] // 8)
            and _list_of(lambda name: isinstance(name, str))(names)
            and _list_of(_may_be_number)(shares)
            and len(names) == len(shares)
            and (confusion is None or _list_of(_list_of(_is_number))(confusion))
            and (calibrated is None or _is_calibration(calibrated))
        )
    except (KeyError, TypeError, ValueError):
        return False


def _is_robustness(value: Any) -> bool:
    if not _numbers("pictures", "seed", "clean")(value):
        return False
    spoiled = value.get("corruptions")
    return (
        isinstance(spoiled, Mapping)
        and bool(spoiled)
        and all(shares and _list_of(_is_number)(shares) for shares in spoiled.values())
    )


def _is_pair(value: Any) -> bool:
    return _numbers("cka", may=("attention",))(value) and {"student", "teacher"} <= value.keys()


_SOUND: dict[str, Callable[[Any], bool]] = {
    "agreement": _is_number,
    "fidelity": _numbers("top1", "kl", may=("on_teacher_errors",)),
    "test": _is_test,
    "robustness": _is_robustness,
    "similarity": _list_of(_is_pair),
    "people": _numbers("cross_entropy", "kl", "top1"),
    "latency_p95_ms": _is_number,
    "latency_batched": _numbers("batch", "median_ms", "p95_ms"),
    "file_bytes": _is_number,
    "peak_memory_bytes": _is_number,
}
"""What a network's entry may hold → whether it is what belongs there."""
