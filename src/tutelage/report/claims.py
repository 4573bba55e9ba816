"""What a comparison was run to decide: claims, written down before it, and what became of them."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np

from tutelage.errors import RecipeError, one_of
from tutelage.records import unpack_bits
from tutelage.report.lines import (
    Line,
    has_one_test,
    lineage,
    overlap_of,
    require_same_test,
    student_of,
    works,
)
from tutelage.report.measuring import is_even
from tutelage.report.metrics import METRICS, measured
from tutelage.stats import (
    LEVEL,
    MIN_SEEDS,
    Interval,
    TwoLevel,
    holm_intervals,
    seeds_needed,
    sign_flip_p_value,
    two_level_bootstrap,
    verdict,
)

__all__ = [
    "BEST_OTHER",
    "EQUAL_TIME",
    "Claim",
    "Finding",
    "decide",
    "kin_of",
    "over_pictures",
    "parse_claim",
    "power",
    "times_longer",
]

Trials = Mapping[str, Mapping[int, Line]]

BEST_OTHER = "best other"
"""In the place of a claim's second row: the one of the others that is best on validation."""

EQUAL_TIME = 1.02
"""So many times the other's training time still count as the same: clocks differ by that much."""

_FORM = re.compile(
    r"(?P<better>.+?) (?P<sign>[<>]) (?P<other>.+?)"
    r"(?: (?P<way>[-+]) (?P<margin>\d+(?:\.\d+)?))? on (?P<metric>\w+)"
)


class Claim(NamedTuple):
    """One row is better than another, or not worse by more than a margin.

    Attributes:
        better, other: rows; `other` may be "best other".
        metric: of `METRICS`.
        margin: in the metric's unit, 0 or more.
    """

    better: str
    other: str
    metric: str
    margin: float = 0.0

    def __str__(self) -> str:
        sign, way = (">", "-") if METRICS[self.metric].higher_is_better else ("<", "+")
        less = f" {way} {self.margin:g}" if self.margin else ""
        return f"{self.better} {sign} {self.other}{less} on {self.metric}"


def parse_claim(text: str, rows: Iterable[str]) -> Claim:
    """Reads `A > B on METRIC`, or with a margin `A > B - 0.5 on METRIC`; `<` where less is better.

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
    way, margin = form["way"], float(form["margin"] or 0)
    if way and (whole := f"{other} {way} {form['margin']}") in rows:
        other, way, margin = whole, None, 0.0  # a row may be called so
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
    if way and (way == "-") != METRICS[metric].higher_is_better:
        raise RecipeError(
            f"The claim {text!r} has its margin on the wrong side. Write `A > B - 0.5`: A may be "
            "worse by so much; where less is better, `A < B + 0.5`."
        )
    return Claim(better, other, metric, margin)


class Finding(NamedTuple):
    """What became of a claim.

    Attributes:
        claim: its text, with the row that was the best other.
        verdict: "shown", "not shown", "contradicted", "too few seeds", "not measured", "fails",
            "measured unevenly" (by different code), or of what would be shown "at unequal time"
            (the other row was trained for less time) or "declared late".
        seeds: how many pairs.
        interval: of the mean paired difference in favor of the claim, corrected for all claims of
            the table, in the metric's unit; None below three seeds. A claim with a margin is shown
            if it lies above the margin's negative, and contradicted if below.
        two_level: with other test pictures too; None unless the metric is accuracy and which
            pictures were right is in the lines, and of folds, which are of other pictures already.
        p_value: of the sign-flip test; None below six seeds, and of folds, which are no
            independent pairs.
        needed: seeds that would show a difference of one point, as one of all claims, given the
            spread found here; None for metrics that are not in points, and if a thousand are too
            few.
        times_longer: training time of the first row over the second's.
        late: how many trials of its rows had run, with test read, when it was first made.
    """

    claim: str
    verdict: str
    seeds: int
    interval: Interval | None
    two_level: TwoLevel | None
    p_value: float | None
    needed: int | None
    times_longer: float | None
    late: int = 0

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
            parts.append(f"{self.needed} seeds {power(1)}")
        if self.times_longer is not None:
            parts.append(f"{self.times_longer:.2f} times the training time")
        if self.late:
            parts.append(f"declared after {self.late} of its trials had run")
        return f"{said}; {'; '.join(parts)}."


def power(points: int) -> str:
    """What so many seeds would do, in words."""
    what = f"{points} point" if points == 1 else f"{points} points"
    return f"would show {what} in four of five such comparisons"


def kin_of(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Row → those that it is like, and those that are like it.

    >>> kin_of({"a": {}, "b": {"like": "a"}, "c": {}})
    {'a': {'b'}, 'b': {'a'}, 'c': set()}
    """
    lines = {row: set(lineage(rows, row)) - {row} for row in rows}
    return {row: lines[row] | {other for other in rows if row in lines[other]} for row in rows}


def decide(
    cases: Sequence[tuple[Claim, Trials]],
    *,
    kin: Mapping[str, Collection[str]] | None = None,
    late: Mapping[str, int] | None = None,
    folds: bool = False,
) -> list[Finding]:
    """Holds each claim against its trials; intervals are corrected over all of them (Holm).

    Args:
        cases: a claim, and row → seed → line; all that were declared, also those whose rows fail
            or wait, for the correction counts them.
        kin: row → those that are no "best other" of it.
        late: claim → how many trials of its rows had run when it was made, if any had.
        folds: seeds are folds of a cross-validation.

    Raises:
        RunError: two rows of a claim were shown different test pictures.
    """
    resolved = [(_with_best_other(claim, trials, kin or {}), trials) for claim, trials in cases]
    pairs = [_pairs(claim, trials) for claim, trials in resolved]
    intervals = holm_intervals(
        [pair or ([], []) for pair in pairs],
        overlaps=[overlap_of(_of_both(*one)) if folds else 0.0 for one in resolved],
    )
    findings = []
    for (declared, _), (claim, trials), pair, interval in zip(
        cases, resolved, pairs, intervals, strict=True
    ):
        found = _finding(claim, pair, interval, trials, len(cases), folds=folds)
        if had_run := (late or {}).get(str(declared), 0):
            said = "declared late" if found.verdict in _SHOWN else found.verdict
            found = found._replace(verdict=said, late=had_run)
        findings.append(found)
    return findings


_SHOWN = ("shown", "at unequal time")


def _with_best_other(claim: Claim, trials: Trials, kin: Mapping[str, Collection[str]]) -> Claim:
    """The claim against the best on validation of those that are complete and no relatives."""
    if claim.other != BEST_OTHER:
        return claim
    seeds = {seed for own in trials.values() for seed in own}
    left_out = {claim.better, *kin.get(claim.better, ())}
    scores = {
        row: fmean(student_of(line)["validation_accuracy"] for line in own.values())
        for row, own in trials.items()
        if row not in left_out and own and own.keys() == seeds and all(map(works, own.values()))
    }
    return claim._replace(other=max(scores, key=lambda row: scores[row])) if scores else claim


def _shared(claim: Claim, trials: Trials) -> list[int]:
    return sorted(trials.get(claim.better, {}).keys() & trials.get(claim.other, {}).keys())


def _of_both(claim: Claim, trials: Trials) -> list[Line]:
    return [
        trials[row][seed] for row in (claim.better, claim.other) for seed in _shared(claim, trials)
    ]


def _pairs(claim: Claim, trials: Trials) -> tuple[list[float], list[float]] | None:
    """Values in favor of the claim, its margin added, and against it, seed by seed.

    None if one is missing.
    """
    columns: list[list[float]] = []
    seeds = _shared(claim, trials)
    both = _of_both(claim, trials)
    if not both or not all(map(works, both)):
        return None
    for seed in seeds:
        require_same_test(str(claim), [trials[row][seed] for row in (claim.better, claim.other)])
    if not is_even([line["record"] for line in both], claim.metric):
        return None
    for lines in (both[: len(seeds)], both[len(seeds) :]):
        values = [measured(line["record"], claim.metric) for line in lines]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        columns.append(known)
    better, other = columns
    own, held = (better, other) if METRICS[claim.metric].higher_is_better else (other, better)
    return [value + claim.margin for value in own], held


def _finding(
    claim: Claim,
    pair: tuple[list[float], list[float]] | None,
    interval: Interval | None,
    trials: Trials,
    claims: int,
    *,
    folds: bool,
) -> Finding:
    """What became of a claim, as one of so many, if it came in time."""
    seeds = _shared(claim, trials)
    if pair is None:
        why = _why_none(claim, _of_both(claim, trials))
        return Finding(str(claim), why, len(seeds), None, None, None, None, None)
    said = verdict([interval])
    if interval is not None:
        interval = Interval(*(value - claim.margin for value in interval))
    times = times_longer(trials[claim.better], trials[claim.other])
    if claim.metric != "seconds" and times > EQUAL_TIME and said == "shown":
        said = "at unequal time"
    needed = None
    if not folds and len(seeds) >= MIN_SEEDS and METRICS[claim.metric].unit == "points":
        spread = stdev(a - b for a, b in zip(*pair, strict=True))
        needed = seeds_needed(1.0, spread, level=1 - (1 - LEVEL) / claims)
    two_level = None
    if claim.metric == "accuracy":
        two_level = over_pictures(trials[claim.better], trials[claim.other])
    return Finding(
        str(claim),
        said,
        len(seeds),
        interval,
        two_level,
        None if folds else sign_flip_p_value(*pair),
        needed,
        round(times, 3),
    )


def _why_none(claim: Claim, lines: Sequence[Line]) -> str:
    if not all(map(works, lines)):
        return "fails"
    even = is_even([line["record"] for line in lines], claim.metric)
    return "not measured" if even else "measured unevenly"


def times_longer(first: Mapping[int, Line], second: Mapping[int, Line]) -> float:
    """How many times the second's training time the first took, on the seeds of both; 0 if none."""
    shared = first.keys() & second.keys()
    if not shared:
        return 0.0
    own, other = (
        fmean(lines[seed]["record"]["seconds"] for seed in shared) for lines in (first, second)
    )
    return own / other


def over_pictures(first: Mapping[int, Line], second: Mapping[int, Line]) -> TwoLevel | None:
    """The mean difference of accuracy in points, over other seeds and other test pictures.

    Args:
        first, second: seed → line; of each seed of both, both were shown the same test pictures.

    Returns:
        None below three seeds, if a line does not tell which pictures were right, or if seeds were
        shown different ones: folds are over other pictures already.
    """
    seeds = sorted(first.keys() & second.keys())
    if not has_one_test(first[seed] for seed in seeds):
        return None
    tables = []
    for lines in (first, second):
        tests = [test for seed in seeds if (test := student_of(lines[seed]).get("test"))]
        if len(tests) < len(seeds):
            return None
        tables.append(
            np.array([100.0 * unpack_bits(test["correct"], test["pictures"]) for test in tests])
        )
    return two_level_bootstrap(*tables) if seeds else None
