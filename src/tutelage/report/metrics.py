"""What can be compared: a metric's name, where a record holds it, and which way is better."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

__all__ = ["METRICS", "Metric", "measured", "measured_of"]


class Metric(NamedTuple):
    """A number of a trial.

    Attributes:
        words: for people, with its unit.
        unit: for a difference.
        path: keys of the student's entry in the record; of the record itself after "record".
        scale: what the number is multiplied by.
        higher_is_better: or lower.
        decimals: how many are shown.
    """

    words: str
    unit: str
    path: tuple[str, ...]
    scale: float = 1.0
    higher_is_better: bool = True
    decimals: int = 1


METRICS: dict[str, Metric] = {
    "accuracy": Metric("test accuracy %", "points", ("test_accuracy",), 100),
    "balanced": Metric("balanced accuracy %", "points", ("test", "balanced"), 100),
    "top5": Metric("top-5 accuracy %", "points", ("test", "top5"), 100),
    "agreement": Metric("agreement %", "points", ("agreement",), 100),
    "corrupted": Metric("corrupted accuracy %", "points", ("robustness", "corruptions"), 100),
    "ece": Metric("ECE %", "points", ("test", "calibration", "ece"), 100, higher_is_better=False),
    "nll": Metric(
        "NLL", "nats", ("test", "calibration", "nll"), higher_is_better=False, decimals=3
    ),
    "brier": Metric("Brier", "", ("test", "calibration", "brier"), 1, False, 3),
    "focus": Metric("attention correlation", "", ("similarity", "attention"), decimals=2),
    "seconds": Metric("wall time s", "s", ("record", "seconds"), 1, False, 0),
}
"""Name in claims → metric. "corrupted" is the mean over all corruptions and severities; "focus" is
the correlation of student's and teacher's attention maps, mean over pairs of stages."""


def measured(record: Mapping[str, Any], name: str) -> float | None:
    """A metric of a record's student, scaled; None if it was not measured."""
    first, *rest = METRICS[name].path
    if first == "record":
        return _at(record, rest, METRICS[name])
    return measured_of(record["students"]["student"], name)


def measured_of(network: Mapping[str, Any], name: str) -> float | None:
    """A metric of one network's entry in a record, scaled; None if it was not measured."""
    return _at(network, METRICS[name].path, METRICS[name])


def _at(value: Any, path: Sequence[str], metric: Metric) -> float | None:
    for key in path:
        if isinstance(value, list):  # one entry for each pair of stages
            known = [one[key] for one in value if one.get(key) is not None]
            value = fmean(known) if known else None
        else:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            return None
    if isinstance(value, Mapping):
        value = fmean(share for shares in value.values() for share in shares)
    return metric.scale * value
