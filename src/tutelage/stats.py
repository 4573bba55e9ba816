"""Statistics of paired runs: two settings that share seed, split, initial weights and views."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t

__all__ = ["MIN_SEEDS", "Interval", "mean_and_spread", "paired_interval", "verdict"]

MIN_SEEDS = 3
"""Below this many pairs no interval is given."""


class Interval(NamedTuple):
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (None for a single value).

    >>> mean_and_spread([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    spread = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), spread


def paired_interval(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95
) -> Interval | None:
    """The mean of first − second with its t-interval; None below three pairs.

    Assumes that the differences over seeds are independent and about normal. It speaks of other
    seeds on the same split and test pictures, not of other data.

    >>> [round(x, 3) for x in paired_interval([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])]
    [2.0, -0.484, 4.484]
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    count = len(differences)
    if count < MIN_SEEDS:
        return None
    mean, spread = mean_and_spread(differences)
    assert spread is not None
    half = float(t.ppf(0.5 + level / 2, count - 1)) * spread / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def verdict(intervals: Sequence[Interval | None]) -> str:
    """What intervals of a gain over several controls say together.

    Returns:
        "shown" if all lie above 0, "contradicted" if any lies below 0, "not shown" otherwise, and
        "too few seeds" if there is no interval.

    >>> verdict([Interval(2.0, 1.0, 3.0), Interval(0.5, -0.2, 1.2)])
    'not shown'
    """
    known = [interval for interval in intervals if interval is not None]
    if not known or len(known) < len(intervals):
        return "too few seeds"
    if all(interval.low > 0 for interval in known):
        return "shown"
    return "contradicted" if any(interval.high < 0 for interval in known) else "not shown"
