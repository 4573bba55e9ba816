"""The networks that a report is about, and what was measured of each, pooled over seeds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.report.counting import Record
from tutelage.report.sources import Comparison, Runs, Source, finite
from tutelage.stats import Interval, mean_and_spread, paired_interval

__all__ = [
    "Network",
    "at",
    "best_student",
    "bins",
    "classes",
    "confusion",
    "controls",
    "corruption_error",
    "corruptions",
    "interval",
    "mean",
    "networks_of",
    "numbers",
    "per_class",
    "read_split",
    "teacher_of",
]

Role = Literal["teacher", "control", "student"]


class Network(NamedTuple):
    """A teacher, a label-only control, or a student.

    Attributes:
        name: the row's, or the run's.
        role: what it is held against, or that it is held against others.
        measured: what records say of it, one entry per seed; of a teacher one.
        seconds: wall time of each training; none of a teacher.
        seeds: of each training; none of a teacher.
    """

    name: str
    role: Role
    measured: list[Record]
    seconds: list[float]
    seeds: list[int]


def networks_of(source: Source) -> list[Network]:
    """Teachers first, then rows or runs in their order.

    A row of which any seed failed is left out, as the table leaves out its numbers.
    """
    if isinstance(source, Runs):
        return _of_runs(source.records)
    return _of_comparison(source)


def _of_comparison(source: Comparison) -> list[Network]:
    spec = source.spec
    held = () if spec["controls"] == "none" else tuple(spec["controls"].values())
    found, teachers = [], []
    for row in spec["rows"]:
        lines = [line for line in source.lines if (line["kind"], line["row"]) == ("trial", row)]
        if not lines or any("failed" in line or line["record"]["collapsed"] for line in lines):
            continue
        records = [line["record"] for line in sorted(lines, key=lambda line: line["seed"])]
        found.append(
            Network(
                row,
                "control" if row in held else "student",
                [record["students"]["student"] for record in records],
                [record["seconds"] for record in records],
                [record["recipe"]["seed"] for record in records],
            )
        )
        teachers += [(row, record) for record in records]
    return _teachers(teachers, "test_accuracy") + found


def _of_runs(records: Sequence[Record]) -> list[Network]:
    taught = [record["recipe"]["student"] for record in records if record["recipe"]["methods"]]
    found = []
    for record in records:
        recipe = record["recipe"]
        alone = not recipe["methods"] and recipe["student"] in taught
        for name, measured in record["students"].items():
            title = record["name"] if name == "student" else f"{record['name']}, {name}"
            role = "control" if alone else "student"
            found.append(Network(title, role, [measured], [record["seconds"]], [recipe["seed"]]))
    named = [(str(record["name"]), record) for record in records]
    return _teachers(named, "validation_accuracy") + found


def _teachers(records: Iterable[tuple[str, Record]], needed: str) -> list[Network]:
    """Each teacher once, as it was first measured."""
    kinds: dict[str, tuple[str, Record]] = {}
    for name, record in records:
        teacher = record["teacher"]
        if teacher and finite(teacher.get(needed)) is not None:
            kinds.setdefault(
                json.dumps(record["recipe"]["teacher"], sort_keys=True), (name, teacher)
            )
    return [
        Network("teacher" if len(kinds) == 1 else f"teacher of {name}", "teacher", [entry], [], [])
        for name, entry in kinds.values()
    ]


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
    """A number of every seed; none at all unless every seed has it."""
    found = [finite(at(measured, *path)) for measured in network.measured]
    known = [number for number in found if number is not None]
    return known if len(known) == len(found) else []


def mean(network: Network, *path: str) -> float | None:
    """Of a number over seeds; None unless every seed has it."""
    known = numbers(network, *path)
    return mean_and_spread(known)[0] if known else None


def interval(values: Sequence[float]) -> Interval | None:
    """The mean over seeds with its 95 % t-interval; None below three seeds."""
    return paired_interval(values, [0.0] * len(values))


def read_split(networks: Iterable[Network]) -> Literal["test", "validation"]:
    """The split on which all of them can be held against each other."""
    known = all(mean(network, "test_accuracy") is not None for network in networks)
    return "test" if known else "validation"


# What is measured by class, bin or corruption


def classes(network: Network) -> list[str] | None:
    """Names of classes; None unless every seed has the same ones."""
    names = [at(measured, "test", "classes") for measured in network.measured]
    same = all(name == names[0] for name in names)
    return [str(name) for name in names[0]] if same and isinstance(names[0], list) else None


def per_class(network: Network) -> list[float | None] | None:
    """Mean share of each class that it got right; None where a seed has none."""
    lists = [at(measured, "test", "per_class") for measured in network.measured]
    names = classes(network)
    if names is None or any(not _is_list(one, len(names)) for one in lists):
        return None
    return [_mean_of([one[place] for one in lists]) for place in range(len(names))]


def confusion(network: Network) -> NDArray[np.float64] | None:
    """Share of each true class (rows) that was taken for each class; 0 for a class without any."""
    names = classes(network)
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


def corruption_error(network: Network, reference: Network) -> float | None:
    """Errors under corruption, relative to those of another network; the mean over corruptions.

    Of each corruption the errors are summed over severities before they are divided. Below 1 is
    better than the other.
    """
    own, other = corruptions(network), corruptions(reference)
    if own is None or other is None:
        return None
    ratios = []
    for name in own.keys() & other.keys():
        errors, held = (
            [1 - share for share in one[name] if share is not None] for one in (own, other)
        )
        if errors and len(errors) == len(held) and sum(held):
            ratios.append(sum(errors) / sum(held))
    return mean_and_spread(ratios)[0] if ratios else None


def _is_list(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list) and (length is None or len(value) == length)


def _mean_of(values: Sequence[Any]) -> float | None:
    known = [finite(value) for value in values]
    return None if None in known else mean_and_spread([k for k in known if k is not None])[0]
