"""By which code parts of a record were measured; what other code measured enters no common mean."""

from collections.abc import Iterable, Mapping, Sequence

from tutelage.report.lines import Record
from tutelage.report.metrics import METRICS

__all__ = ["codes", "evenly_measured", "is_even"]

_PARTS: Mapping[str, tuple[str, ...]] = {
    "test": ("test_accuracy", "test", "agreement", "fidelity"),
    "robustness": ("robustness",),
    "similarity": ("similarity",),
    "people": ("people",),
}
"""Part that a record names the code of → entries of a network that it measured."""

_PART_OF = {entry: part for part, entries in _PARTS.items() for entry in entries}


def codes(records: Iterable[Record]) -> dict[str, set[str]]:
    """Part → digests of the code that measured it, as far as records name it."""
    found: dict[str, set[str]] = {}
    for record in records:
        for part, by in record.get("measured", {}).items():
            found.setdefault(part, set()).add(by["code"])
    return found


def is_even(records: Iterable[Record], metric: str) -> bool:
    """Whether a metric was measured by the same code in all of them."""
    part = _PART_OF.get(METRICS[metric].path[0], "")
    return len(codes(records).get(part, ())) <= 1


def evenly_measured(records: Sequence[Record]) -> list[Record]:
    """What records say of their students, without what was not measured by the same code in all."""
    uneven = {part for part, known in codes(records).items() if len(known) > 1}
    return [
        {
            key: value
            for key, value in record["students"]["student"].items()
            if _PART_OF.get(key) not in uneven
        }
        for record in records
    ]
