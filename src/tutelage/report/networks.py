"""The networks that a report is about, and what was measured of each, pooled over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.report.counting import finite
from tutelage.report.latencies import Timed, of_trials, teacher_kind
from tutelage.report.lines import Record, full_name, overlap_of, works
from tutelage.report.measuring import evenly_measured
from tutelage.report.robustness import mean_corruption_error
from tutelage.report.sources import Comparison, Runs, Source
from tutelage.stats import Interval, mean_and_spread, paired_interval

__all__ = [
    "Network",
    "at",
    "best_student",
    "bins",
    "class_names",
    "confusion",
    "controls",
    "corrupted",
    "corruptions",
    "interval",
    "mean",
    "networks_of",
    "numbers",
    "over_control",
    "over_teacher",
    "per_class",
    "read_split",
    "teacher_of",
]

Role = Literal["teacher", "control", "student"]


class Network(NamedTuple):
    """A teacher, a label-only control, or a student.

    Attributes:
        name: the row's, with the part it belongs to; or the run's.
        role: what it is held against, or that it is held against others.
        measured: what records say of it, one entry per seed, without what was measured by
            different code; of a teacher one, or one per fold.
        seconds: wall time of each training; none of a teacher.
        seeds: of each training; none of a teacher.
        teachers: what the record of each training says of its teacher; none of a teacher.
        row: its name within the part.
        timed: what records say of networks that must be equally fast, for its latencies: of the
            same architecture on the same machine; of a teacher every record that has it.
        part: title of the combination of the axes' values to which it belongs; empty without axes,
            and of a teacher that is the same at all of them.
        overlap: of folds; see `stats.paired_interval`.
    """

    name: str
    role: Role
    measured: list[Record]
    seconds: list[float]
    seeds: list[int]
    teachers: list[Record | None]
    row: str
    timed: list[Record]
    part: str = ""
    overlap: float = 0.0


def networks_of(source: Source) -> list[Network]:
    """Teachers first, then rows or runs in their order, at one combination after the other.

    A row of which any seed failed is left out, as the table leaves out its numbers.
    """
    if isinstance(source, Runs):
        return _of_runs(source.records)
    return _of_comparison(source)


def _of_comparison(source: Comparison) -> list[Network]:
    spec = source.spec
    held = () if spec["controls"] == "none" else tuple(spec["controls"].values())
    found: list[Network] = []
    taught: list[tuple[str, str, Record]] = []
    timed = Timed(of_trials(source.lines))
    folds = spec.get("folds", False)
    guides: dict[str, dict[tuple[str, ...], tuple[str, Network]]] = {}
    for part in source.parts:
        for row in spec["rows"]:
            lines = source.trials(row, part)
            if not lines or not all(map(works, lines)):
                continue
            records = [line["record"] for line in lines]
            found.append(
                Network(
                    full_name(row, part),
                    "control" if row in held else "student",
                    evenly_measured(records),
                    [record["seconds"] for record in records],
                    [record["recipe"]["seed"] for record in records],
                    [record["teacher"] for record in records],
                    row,
                    timed.like(records),
                    part,
                    overlap_of(lines) if folds else 0.0,
                )
            )
            taught += [(row, part, record) for record in records]
            guide = _of_folds(records, part, timed, found[-1].overlap) if folds else None
            if guide is not None:
                kinds = tuple(map(teacher_kind, records))
                guides.setdefault(part, {}).setdefault(kinds, (row, guide))
    named = [
        guide if len(here) == 1 else guide._replace(name=full_name(f"teacher of {row}", part))
        for part, here in guides.items()
        for row, guide in here.values()
    ]
    return (named or _teachers(taught, "test_accuracy", timed)) + found


def _of_folds(records: Sequence[Record], part: str, timed: Timed, overlap: float) -> Network | None:
    """A row's teachers, of each fold, as one network; None if a fold has none that is measured."""
    teachers = [record["teacher"] or {} for record in records]
    if any(finite(teacher.get("test_accuracy")) is None for teacher in teachers):
        return None
    known = [entry for record in records for entry in timed.teacher_like(record)]
    one = _teacher("teacher", part, teachers[0], known)
    return one._replace(measured=teachers, overlap=overlap)


def _of_runs(records: Sequence[Record]) -> list[Network]:
    taught = [record["recipe"]["student"] for record in records if record["recipe"]["methods"]]
    timed = Timed(records)
    found = []
    for record in records:
        recipe = record["recipe"]
        alone = not recipe["methods"] and recipe["student"] in taught
        for name, measured in record["students"].items():
            title = record["name"] if name == "student" else f"{record['name']}, {name}"
            found.append(
                Network(
                    title,
                    "control" if alone else "student",
                    [measured],
                    [record["seconds"]],
                    [recipe["seed"]],
                    [record["teacher"]],
                    title,
                    timed.like([record], name),
                )
            )
    named = [(str(record["name"]), "", record) for record in records]
    return _teachers(named, "validation_accuracy", timed) + found


def _teachers(
    trained: Iterable[tuple[str, str, Record]], needed: str, timed: Timed
) -> list[Network]:
    """Each teacher once, as it was measured most fully; of several, once at each part.

    Args:
        trained: row, part and record of each training.
        needed: what must be known of it.
        timed: knows what was measured of each teacher.
    """
    kinds: dict[str, dict[str, tuple[str, Record]]] = {}
    known: dict[str, list[Record]] = {}
    for row, part, record in trained:
        teacher = record["teacher"]
        if teacher and finite(teacher.get(needed)) is not None:
            kind = teacher_kind(record)
            known[kind] = timed.teacher_like(record)
            at_parts = kinds.setdefault(kind, {})
            first, other = at_parts.setdefault(part, (row, teacher))
            at_parts[part] = (first, max(other, teacher, key=len))
    if len(kinds) == 1:
        ((kind, at_parts),) = kinds.items()
        fullest = max((entry for _, entry in at_parts.values()), key=len)
        return [_teacher("teacher", "", fullest, known[kind])]
    here = [part for at_parts in kinds.values() for part in at_parts]
    return [
        _teacher(
            "teacher" if here.count(part) == 1 else f"teacher of {row}", part, one, known[kind]
        )
        for kind, at_parts in kinds.items()
        for part, (row, one) in at_parts.items()
    ]


def _teacher(row: str, part: str, entry: Record, timed: list[Record]) -> Network:
    return Network(full_name(row, part), "teacher", [entry], [], [], [], row, timed, part)


def teacher_of(networks: Sequence[Network]) -> Network | None:
    """The teacher, if there is exactly one."""
    teachers = [network for network in networks if network.role == "teacher"]
    return teachers[0] if len(teachers) == 1 else None


def controls(networks: Sequence[Network]) -> list[Network]:
    """Those that learned from labels alone."""
    return [network for network in networks if network.role == "control"]


def best_student(networks: Sequence[Network]) -> Network | None:
    """The student that is best on validation, which is what a choice may look at."""
    students = [network for network in networks if network.role == "student"]
    return max(students, key=lambda one: mean(one, "validation_accuracy") or 0.0, default=None)


# Single numbers


def at(value: Any, *path: str) -> Any:
    """What lies at a path in nested mappings; None if nothing does."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def numbers(network: Network, *path: str) -> list[float]:
    """A number of every seed; none at all unless every seed has it.

    Of a latency every number that was measured of a network of its kind.
    """
    if path[0].startswith("latency"):
        timed = [finite(at(measured, *path)) for measured in network.timed]
        return [number for number in timed if number is not None]
    found = [finite(at(measured, *path)) for measured in network.measured]
    known = [number for number in found if number is not None]
    return known if len(known) == len(found) else []


def mean(network: Network, *path: str) -> float | None:
    """Of a number over seeds; None unless every seed has it."""
    known = numbers(network, *path)
    return mean_and_spread(known)[0] if known else None


def interval(values: Sequence[float], *, overlap: float = 0.0) -> Interval | None:
    """The mean over seeds with its 95 % t-interval; None below three seeds.

    Args:
        overlap: of folds; see `stats.paired_interval`.
    """
    return paired_interval(values, [0.0] * len(values), overlap=overlap)


def read_split(networks: Iterable[Network]) -> Literal["test", "validation"]:
    """The split on which all of them can be held against each other."""
    known = all(mean(network, "test_accuracy") is not None for network in networks)
    return "test" if known else "validation"


# What is measured by class, bin or corruption


def class_names(network: Network) -> list[str] | None:
    """Names of classes; None unless every seed has the same ones."""
    names = [at(measured, "test", "classes") for measured in network.measured]
    same = all(name == names[0] for name in names)
    return [str(name) for name in names[0]] if same and isinstance(names[0], list) else None


def per_class(network: Network) -> list[float | None] | None:
    """Mean share of each class that it got right; None where a seed has none."""
    lists = [at(measured, "test", "per_class") for measured in network.measured]
    names = class_names(network)
    if names is None or any(not _is_list(one, len(names)) for one in lists):
        return None
    return [_mean_of([one[place] for one in lists]) for place in range(len(names))]


def confusion(network: Network) -> NDArray[np.float64] | None:
    """Share of each true class (rows) that was taken for each class; 0 for a class without any."""
    names = class_names(network)
    counts = [at(measured, "test", "confusion") for measured in network.measured]
    if names is None or any(not _is_list(one, len(names)) for one in counts):
        return None
    total = np.sum([np.asarray(one, dtype=np.float64) for one in counts], axis=0)
    if total.shape != (len(names), len(names)) or not np.isfinite(total).all():
        return None
    return total / np.maximum(total.sum(axis=1, keepdims=True), 1)


def bins(network: Network) -> list[tuple[float, float, float]] | None:
    """Count, mean confidence and accuracy of each bin that holds any picture, over all seeds."""
    lists = [at(measured, "test", "calibration", "bins") for measured in network.measured]
    if not lists or any(not _is_list(one, len(lists[0] or ())) for one in lists):
        return None
    pooled = []
    for entries in zip(*lists, strict=True):
        known = [
            (count, *pair)
            for count, *pair in entries
            if finite(count) and all(finite(value) is not None for value in pair)
        ]
        total = sum(count for count, *_ in known)
        if total:
            averages = (sum(entry[0] * entry[i] for entry in known) / total for i in (1, 2))
            pooled.append((total, *averages))
    return pooled or None


def corruptions(network: Network) -> dict[str, list[float | None]] | None:
    """Mean accuracy under each corruption, at severities 1, 2, …; None where a seed has none."""
    found = [at(measured, "robustness", "corruptions") for measured in network.measured]
    if not found or any(not isinstance(one, Mapping) or not one for one in found):
        return None
    shared = [name for name in found[0] if all(_is_list(one.get(name)) for one in found)]
    return {
        str(name): [_mean_of(values) for values in zip(*(one[name] for one in found), strict=False)]
        for name in shared
    }


def corrupted(network: Network) -> float | None:
    """Mean accuracy over all corruptions and severities, mean over seeds."""
    found = [at(measured, "robustness", "corruptions") for measured in network.measured]
    if not all(found):
        return None
    return _mean_of([fmean(share for row in one.values() for share in row) for one in found])


def over_teacher(network: Network) -> float | None:
    """Mean corruption error over that of each training's own teacher, mean over seeds.

    None unless every seed has one; and of a teacher.
    """
    return _mean_error(network.measured, network.teachers)


def over_control(network: Network, control: Network) -> float | None:
    """Mean corruption error over that of a control with the same seed, mean over seeds.

    None unless every seed has one; and of a teacher.
    """
    held = dict(zip(control.seeds, control.measured, strict=True))
    return _mean_error(network.measured, [held.get(seed) for seed in network.seeds])


def _mean_error(own: Sequence[Record], references: Sequence[Record | None]) -> float | None:
    ratios: list[float | None] = []
    for entry, reference in zip(own, references or [None], strict=True):
        ours, theirs = entry.get("robustness"), (reference or {}).get("robustness")
        if ours is None or theirs is None:
            return None
        try:
            ratios.append(mean_corruption_error(ours, theirs))
        except DataError:  # runs side by side need not have seen the same pictures
            return None
    return _mean_of(ratios) if ratios else None


def _is_list(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list) and (length is None or len(value) == length)


def _mean_of(values: Sequence[Any]) -> float | None:
    known = [finite(value) for value in values]
    return None if None in known else mean_and_spread([k for k in known if k is not None])[0]
