"""Statistics of paired runs: two settings that share seed, split, initial weights and views."""

import math
import statistics
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import nct, t

__all__ = [
    "LEVEL",
    "MIN_FLIPS",
    "MIN_SEEDS",
    "Interval",
    "TwoLevel",
    "bootstrap_interval",
    "holm_intervals",
    "mean_and_spread",
    "paired_interval",
    "paired_p_value",
    "seeds_needed",
    "sign_flip_floor",
    "sign_flip_p_value",
    "two_level_bootstrap",
    "verdict",
]

LEVEL = 0.95
MIN_SEEDS = 3
"""Below this many pairs no interval is given."""

MIN_FLIPS = 6
"""Below this many pairs a sign-flip test cannot reach 0.05, whatever was measured."""

_MOST_SEEDS = 1000


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
    first: Sequence[float],
    second: Sequence[float],
    *,
    level: float = LEVEL,
    overlap: float = 0.0,
) -> Interval | None:
    """The mean of first − second with its t-interval; None below three pairs.

    Assumes that the differences over seeds are independent and about normal. It speaks of other
    seeds on the same split and test pictures, not of other data.

    Folds of a cross-validation are not independent: they share most of what they train on. The
    variance of their mean is taken as 1/n + `overlap` times that of the differences instead of 1/n
    (C. Nadeau, Y. Bengio: Inference for the Generalization Error, Machine Learning 52, 2003).

    Args:
        overlap: of folds pictures that test over those that train; 0 of seeds.

    >>> [round(x, 3) for x in paired_interval([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])]
    [2.0, -0.484, 4.484]
    >>> [round(x, 3) for x in paired_interval([3.0, 5.0, 7.0], [2.0, 3.0, 4.0], overlap=1)]
    [2.0, -2.968, 6.968]
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    count = len(differences)
    if count < MIN_SEEDS:
        return None
    mean, spread = mean_and_spread(differences)
    assert spread is not None
    half = float(t.ppf(0.5 + level / 2, count - 1)) * spread * math.sqrt(1 / count + overlap)
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


def paired_p_value(
    first: Sequence[float], second: Sequence[float], *, overlap: float = 0.0
) -> float | None:
    """Two-sided p-value of the paired t-test; None below three pairs.

    Args:
        overlap: see `paired_interval`.

    Differences that are all the same, and not 0, give 0; all 0 give 1.

    >>> round(paired_p_value([3.0, 5.0, 7.0], [2.0, 3.0, 4.0]), 4)
    0.0742
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if len(differences) < MIN_SEEDS:
        return None
    mean, spread = mean_and_spread(differences)
    if not spread:
        return float(mean == 0)
    scale = spread * math.sqrt(1 / len(differences) + overlap)
    return float(2 * t.sf(abs(mean) / scale, len(differences) - 1))


def holm_intervals(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]],
    *,
    level: float = LEVEL,
    overlaps: Sequence[float] | None = None,
) -> list[Interval | None]:
    """Intervals of several paired differences, corrected so that all verdicts hold together.

    Holm's step-down method: of m comparisons the one with the smallest p-value is given the level
    1 - (1 - level) / m, the next 1 - (1 - level) / (m - 1), and so on. From the first whose
    interval holds 0 all later ones have that one's level at least, and none of them excludes 0.
    Then at most 1 - `level` of such tables contain a wrong "shown" or "contradicted".

    Args:
        pairs: (first, second) of each comparison that was announced, also of those that cannot be
            tested (yet): they count as if they had the largest p-values.
        overlaps: of each comparison; see `paired_interval`.

    Returns:
        In the order given; None below three pairs.
    """
    shared = overlaps or [0.0] * len(pairs)
    p_values = [
        paired_p_value(first, second, overlap=overlap)
        for (first, second), overlap in zip(pairs, shared, strict=True)
    ]
    tested = sorted(
        (number for number, p in enumerate(p_values) if p is not None),
        key=lambda number: p_values[number] or 0.0,
    )
    intervals: list[Interval | None] = [None] * len(pairs)
    stopped: float | None = None
    for rank, number in enumerate(tested):
        error = (1 - level) / (len(pairs) - rank) if stopped is None else stopped
        interval = paired_interval(*pairs[number], level=1 - error, overlap=shared[number])
        assert interval is not None
        if stopped is None and interval.low <= 0 <= interval.high:
            stopped = error
        intervals[number] = interval
    return intervals


def sign_flip_floor(count: int) -> float:
    """The smallest p-value that a two-sided sign-flip test of so many pairs can give.

    >>> [sign_flip_floor(count) for count in (3, 5, 6)]
    [0.25, 0.0625, 0.03125]
    """
    return 2.0 ** (1 - count)


def sign_flip_p_value(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Exact two-sided p-value under all ways to swap first and second within pairs.

    It assumes nothing but that, without an effect, each swap is as likely as none.

    Returns:
        None below six pairs, of which no outcome could reach 0.05.

    >>> sign_flip_p_value([2.0] * 6, [1.0] * 6)
    0.03125
    """
    differences = np.subtract(first, second)
    if len(differences) < MIN_FLIPS:
        return None
    signs = _signs(len(differences))
    sums = np.abs(signs @ differences)
    return float(np.mean(sums >= abs(differences.sum()) - 1e-9 * np.abs(differences).sum()))


def _signs(count: int) -> NDArray[np.float64]:
    """All of them for up to 16 pairs; of more a fixed sample, the observed signs in it."""
    if count <= _EXACT:
        return np.array(list(product((1.0, -1.0), repeat=count)))
    drawn = np.random.default_rng(0).choice([1.0, -1.0], size=(2**_EXACT, count))
    drawn[0] = 1.0
    return drawn


_EXACT = 16


class TwoLevel(NamedTuple):
    """A mean difference whose interval speaks of other seeds *and* other pictures.

    Attributes:
        mean, low, high: as in `Interval`.
        over_seeds: standard error that seeds alone cause.
        over_pictures: standard error that the finite test set alone causes.
    """

    mean: float
    low: float
    high: float
    over_seeds: float
    over_pictures: float


def two_level_bootstrap(
    first: ArrayLike, second: ArrayLike, *, level: float = LEVEL, draws: int = 2000
) -> TwoLevel | None:
    """How far a mean paired difference would move with other seeds and other test pictures.

    Seeds and pictures are drawn with replacement, each drawn picture for all drawn seeds; of S
    seeds S - 1 are drawn, so that the spread of a few is not underestimated (Rao and Wu, 1988). The
    interval is the mean ± the t-quantile times the standard deviation of both together, with the
    degrees of freedom of Satterthwaite's approximation. What seeds and pictures cause together is
    counted in both, so that it is rather too wide than too narrow.

    Args:
        first, second: seeds × pictures, for instance 1 where a student is right; rows and columns
            of both belong together.
        draws: how many; from a generator of its own with a fixed seed.

    Returns:
        None below three seeds.

    Raises:
        ValueError: the two differ in shape, or have no two dimensions.
    """
    if np.ndim(first) != 2 or np.shape(first) != np.shape(second):
        raise ValueError(f"two tables seeds × pictures, not {np.shape(first)}, {np.shape(second)}")
    table = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    seeds, pictures = table.shape
    if seeds < MIN_SEEDS:
        return None
    generator = np.random.default_rng(0)
    by_seed = table.mean(axis=1)
    means = np.empty((draws, 3))
    for one in means:
        drawn_seeds = generator.integers(seeds, size=seeds - 1)
        on_drawn = table[:, generator.integers(pictures, size=pictures)].mean(axis=1)
        one[:] = on_drawn[drawn_seeds].mean(), by_seed[drawn_seeds].mean(), on_drawn.mean()
    both, over_seeds, over_pictures = means.std(axis=0, ddof=1).tolist()
    mean = float(table.mean())
    if both == 0:
        return TwoLevel(mean, mean, mean, 0.0, 0.0)
    weights = over_seeds**4 / (seeds - 1) + over_pictures**4 / max(pictures - 1, 1)
    freedom = (over_seeds**2 + over_pictures**2) ** 2 / weights
    half = float(t.ppf(0.5 + level / 2, freedom)) * both
    return TwoLevel(mean, mean - half, mean + half, over_seeds, over_pictures)


def seeds_needed(
    difference: float, spread: float, *, level: float = LEVEL, power: float = 0.8
) -> int | None:
    """How many seeds would show a true paired difference, with probability `power`.

    Args:
        difference: in the unit of `spread`; its sign does not matter.
        spread: standard deviation of the paired differences over seeds.

    Returns:
        At least three; None if a thousand are too few.

    >>> seeds_needed(1.0, 0.7)
    7
    """
    for count in range(MIN_SEEDS, _MOST_SEEDS + 1):
        if spread == 0:
            return count if difference else None
        quantile = t.ppf(0.5 + level / 2, count - 1)
        if nct.sf(quantile, count - 1, abs(difference) / spread * math.sqrt(count)) >= power:
            return count
    return None


def bootstrap_interval(
    differences: ArrayLike, *, level: float = LEVEL, draws: int = 4000
) -> Interval:
    """The mean of paired differences over pictures, with its percentile bootstrap interval.

    It speaks of other test pictures from where these come, and of these very networks.

    Args:
        differences: one per picture; at least one.
        draws: how often as many pictures are drawn with replacement, by a fixed generator.
    """
    values = np.asarray(differences, dtype=np.float64)
    generator = np.random.default_rng(0)
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2]).tolist()
    return Interval(float(values.mean()), low, high)
