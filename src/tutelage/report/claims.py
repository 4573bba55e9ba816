"""What a comparison was run to decide: claims, written down before it, and what became of them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np

from tutelage.errors import RecipeError, one_of
from tutelage.records import unpack_bits
from tutelage.report.metrics import METRICS, measured
from tutelage.stats import (
    MIN_SEEDS,
    Interval,
    TwoLevel,
    holm_intervals,
    seeds_needed,
    sign_flip_p_value,
    two_level_bootstrap,
    verdict,
)

__all__ = ["BEST_OTHER", "Claim", "Finding", "decide", "over_pictures", "parse_claim"]

Line = Mapping[str, Any]
Trials = Mapping[str, Mapping[int, Line]]

BEST_OTHER = "best other"
"""In the place of a claim's second row: the one of the others that is best on validation."""

_FORM = re.compile(r"(?P<better>.+?) (?P<sign>[<>]) (?P<other>.+?) on (?P<metric>\w+)")


class Claim(NamedTuple):
    """One row is better than another.

    Attributes:
        better, other: rows; `other` may be "best other".
        metric: of `METRICS`.
    """

    better: str
    other: str
    metric: str

    def __str__(self) -> str:
        sign = ">" if METRICS[self.metric].higher_is_better else "<"
        return f"{self.better} {sign} {self.other} on {self.metric}"


def parse_claim(text: str, rows: Iterable[str]) -> Claim:
    """Reads `A > B on METRIC`; `<` where less is better.

    Raises:
        RecipeError: it has another form, names what is not there, or claims that worse is better.
    """
    rows = list(rows)
    form = _FORM.fullmatch(text)
    if form is None:
        raise RecipeError(
            f"The claim {text!r} cannot be read; write `A > B on METRIC` with rows A and B, such "
            "as `kd > label-only-long on accuracy`."
        )
    better, sign, other, metric = form["better"], form["sign"], form["other"], form["metric"]
    one_of("metric", metric, METRICS, RecipeError)
    one_of("row (of a claim)", better, rows, RecipeError)
    one_of("row (of a claim)", other, [*rows, BEST_OTHER], RecipeError)
    if better == other:
        raise RecipeError(f"The claim {text!r} compares a row with itself. Name another.")
    if (sign == ">") != METRICS[metric].higher_is_better:
        way = "higher" if METRICS[metric].higher_is_better else "lower"
        raise RecipeError(
            f"The claim {text!r} says that worse is better: {metric} is better the {way} it is. "
            "Turn the sign, or the rows."
        )
    return Claim(better, other, metric)


class Finding(NamedTuple):
    """What became of a claim.

    Attributes:
        claim: its text, with the row that was the best other.
        verdict: "shown", "not shown", "contradicted", "too few seeds", "not measured", "fails", or
            "at unequal time": the other row was trained for less time.
        seeds: how many pairs.
        interval: of the mean paired difference in favor of the claim, corrected for all claims of
            the table, in the metric's unit; None below three seeds.
        two_level: with other test pictures too; None unless the metric is accuracy and which
            pictures were right is in the lines.
        p_value: of the sign-flip test; None below six seeds.
        needed: seeds that would show a difference of one point, given the spread found here; None
            for metrics that are not in points.
        times_longer: training time of the first row over the second's.
    """

    claim: str
    verdict: str
    seeds: int
    interval: Interval | None
    two_level: TwoLevel | None
    p_value: float | None
    needed: int | None
    times_longer: float | None

    def sentence(self) -> str:
        """It in one line."""
        metric = METRICS[self.claim.rpartition(" on ")[2]]
        said = f"{self.verdict}: {self.claim}"
        parts = [f"{self.seeds} seed(s)"]
        if self.interval:
            mean, low, high = (f"{value:+.{metric.decimals}f}" for value in self.interval)
            said += f", by {mean} ({low} … {high}) {metric.unit}".rstrip()
        if self.two_level:
            _, low, high = (f"{value:+.{metric.decimals}f}" for value in self.two_level[:3])
            parts.append(f"with other test pictures too {low} … {high}")
        if self.p_value is not None:
            parts.append(f"sign-flip p {self.p_value:.3f}")
        if self.needed is not None:
            parts.append(f"{self.needed} seeds would show 1 point")
        if self.times_longer is not None:
            parts.append(f"{self.times_longer:.2f} times the training time")
        return f"{said}; {'; '.join(parts)}."


def decide(cases: Sequence[tuple[Claim, Trials]]) -> list[Finding]:
    """Holds each claim against its trials; intervals are corrected over all of them (Holm).

    Args:
        cases: a claim, and row → seed → line.
    """
    resolved = [(_with_best_other(claim, trials), trials) for claim, trials in cases]
    pairs = [_pairs(claim, trials) for claim, trials in resolved]
    intervals = holm_intervals([pair or ([], []) for pair in pairs])
    return [
        _finding(claim, pair, interval, trials)
        for (claim, trials), pair, interval in zip(resolved, pairs, intervals, strict=True)
    ]


def _works(line: Line) -> bool:
    return "failed" not in line and not line["record"]["collapsed"]


def _with_best_other(claim: Claim, trials: Trials) -> Claim:
    if claim.other != BEST_OTHER:
        return claim
    scores = {
        row: fmean(
            line["record"]["students"]["student"]["validation_accuracy"] for line in own.values()
        )
        for row, own in trials.items()
        if row != claim.better and own and all(map(_works, own.values()))
    }
    return claim._replace(other=max(scores, key=lambda row: scores[row])) if scores else claim


def _shared(claim: Claim, trials: Trials) -> list[int]:
    return sorted(trials.get(claim.better, {}).keys() & trials.get(claim.other, {}).keys())


def _pairs(claim: Claim, trials: Trials) -> tuple[list[float], list[float]] | None:
    """Values in favor of the claim and against it, seed by seed; None if one is missing."""
    columns: list[list[float]] = []
    for row in (claim.better, claim.other):
        lines = [trials[row][seed] for seed in _shared(claim, trials)]
        if not lines or not all(map(_works, lines)):
            return None
        values = [measured(line["record"], claim.metric) for line in lines]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        columns.append(known)
    better, other = columns
    return (better, other) if METRICS[claim.metric].higher_is_better else (other, better)


def _finding(
    claim: Claim,
    pair: tuple[list[float], list[float]] | None,
    interval: Interval | None,
    trials: Trials,
) -> Finding:
    seeds = _shared(claim, trials)
    if pair is None:
        lines = [trials[row][seed] for row in (claim.better, claim.other) for seed in seeds]
        said = "not measured" if all(map(_works, lines)) else "fails"
        return Finding(str(claim), said, len(seeds), None, None, None, None, None)
    said = verdict([interval])
    times = _times_longer(claim, trials, seeds)
    if claim.metric != "seconds" and times > 1 and said == "shown":
        said = "at unequal time"
    needed = None
    if len(seeds) >= MIN_SEEDS and METRICS[claim.metric].unit == "points":
        needed = seeds_needed(1.0, stdev(a - b for a, b in zip(*pair, strict=True)))
    two_level = None
    if claim.metric == "accuracy":
        two_level = over_pictures(trials[claim.better], trials[claim.other])
    return Finding(
        str(claim),
        said,
        len(seeds),
        interval,
        two_level,
        sign_flip_p_value(*pair),
        needed,
        round(times, 3),
    )


def _times_longer(claim: Claim, trials: Trials, seeds: Sequence[int]) -> float:
    better, other = (
        fmean(trials[row][seed]["record"]["seconds"] for seed in seeds)
        for row in (claim.better, claim.other)
    )
    return better / other


def over_pictures(first: Mapping[int, Line], second: Mapping[int, Line]) -> TwoLevel | None:
    """The mean difference of accuracy in points, over other seeds and other test pictures.

    Args:
        first, second: seed → line; of the seeds of both, both were shown the same test pictures.

    Returns:
        None below three seeds, or if a line does not tell which pictures were right.
    """
    seeds = sorted(first.keys() & second.keys())
    tables = []
    for lines in (first, second):
        tests = [lines[seed]["record"]["students"]["student"].get("test") for seed in seeds]
        if not all(tests):
            return None
        tables.append(
            np.array([100.0 * unpack_bits(test["correct"], test["pictures"]) for test in tests])
        )
    return two_level_bootstrap(*tables) if seeds else None
