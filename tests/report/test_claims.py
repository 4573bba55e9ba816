"""Claims: what may be claimed, and what becomes of it; worked out by hand."""

import base64
from typing import Any

import numpy as np
import pytest

from tutelage.errors import RecipeError, RunError
from tutelage.report.claims import Claim, Finding, decide, kin_of, parse_claim
from tutelage.report.declared import late_claims
from tutelage.report.metrics import METRICS, measured
from tutelage.stats import holm_intervals, paired_interval, seeds_needed

ROWS = ["kd", "label only", "label-only", "long"]
Line = dict[str, Any]


def line(accuracy: float, **more: Any) -> Line:
    student = {"test_accuracy": accuracy, "validation_accuracy": more.pop("validation", accuracy)}
    record = {"students": {"student": student | more.pop("student", {})}, "collapsed": False}
    return {"record": record | {"seconds": 10.0} | more.pop("record", {})} | more


def row(*accuracies: float, **more: Any) -> dict[int, Line]:
    return {seed: line(accuracy, **more) for seed, accuracy in enumerate(accuracies)}


def decided(text: str, **rows: dict[int, Line]) -> Finding:
    (finding,) = decide([(parse_claim(text, rows), rows)])
    return finding


# What may be claimed


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("kd > long on accuracy", Claim("kd", "long", "accuracy")),
        ("kd > label only on agreement", Claim("kd", "label only", "agreement")),
        ("kd < long on nll", Claim("kd", "long", "nll")),
        ("kd > best other on accuracy", Claim("kd", "best other", "accuracy")),
        ("kd > label only - 0.5 on accuracy", Claim("kd", "label only", "accuracy", 0.5)),
        ("kd < long + 2 on ece", Claim("kd", "long", "ece", 2.0)),
        ("kd > label-only - 1 on focus", Claim("kd", "label-only", "focus", 1.0)),
    ],
)
def test_claims_are_read(text: str, claim: Claim):
    assert parse_claim(text, ROWS) == claim
    assert str(claim) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kd is best", "cannot be read; write `A > B on METRIC`"),
        ("kd > long", "cannot be read"),
        ("kd > long on acuracy", "'acuracy'; did you mean accuracy"),
        ("kdd > long on accuracy", "'kdd'; did you mean kd"),
        ("kd > lnog on accuracy", "'lnog'; did you mean long"),
        ("kd > kd on accuracy", "with itself"),
        ("kd > long on nll", "worse is better: nll is better the lower it is"),
        ("kd < long on accuracy", "worse is better: accuracy is better the higher"),
        ("kd > long + 0.5 on accuracy", "margin on the wrong side"),
        ("kd < long - 0.5 on nll", "margin on the wrong side"),
        ("kd > long - half on accuracy", "'long - half'"),
    ],
)
def test_what_is_no_claim_is_refused(text: str, words: str):
    with pytest.raises(RecipeError, match=words):
        parse_claim(text, ROWS)


# What becomes of it


def test_a_gain_by_hand():
    found = decided("a > b on accuracy", a=row(0.71, 0.72, 0.73), b=row(0.60, 0.62, 0.64))
    assert found.verdict == "shown"
    assert found.seeds == 3
    expected = paired_interval([71.0, 72.0, 73.0], [60.0, 62.0, 64.0])
    assert found.interval == pytest.approx(expected)
    assert found.times_longer == 1.0
    assert found.sentence().startswith("shown: a > b on accuracy, by +10.0 (+7.5 … +12.5) points;")
    assert "3 seed(s)" in found.sentence()


@pytest.mark.parametrize(
    ("margin", "said"), [(3, "shown"), (2, "not shown"), (0, "not shown"), (0.5, "not shown")]
)
def test_not_worse_by_more_than_a_margin(margin: float, said: str):
    # Differences of -1, 0 and 1 points: 0 ± 4.303 · 1 / √3 = ± 2.48.
    rows = {"a": row(0.69, 0.70, 0.71), "b": row(0.70, 0.70, 0.70)}
    less = f" - {margin:g}" if margin else ""
    found = decided(f"a > b{less} on accuracy", **rows)
    assert found.verdict == said
    assert found.interval == pytest.approx((0, -2.484, 2.484), abs=1e-3)
    assert found.sentence().startswith(f"{said}: a > b{less} on accuracy, by +0.0 (-2.5 … +2.5)")


def test_worse_by_more_than_the_margin_is_contradicted():
    rows = {"a": row(0.60, 0.62, 0.64), "b": row(0.71, 0.72, 0.73)}
    assert decided("a > b - 5 on accuracy", **rows).verdict == "contradicted"
    assert decided("a > b - 12 on accuracy", **rows).verdict == "not shown"
    assert decided("a > b - 20 on accuracy", **rows).verdict == "shown"


def test_the_other_way_round_it_is_contradicted():
    found = decided("a > b on accuracy", a=row(0.60, 0.62, 0.64), b=row(0.71, 0.72, 0.73))
    assert found.verdict == "contradicted"


def test_less_may_be_better():
    def with_nll(*values: float) -> dict[int, Line]:
        tests = [{"test": {"calibration": {"nll": value}}} for value in values]
        return {seed: line(0.5, student=test) for seed, test in enumerate(tests)}

    found = decided("a < b on nll", a=with_nll(0.5, 0.6, 0.7), b=with_nll(0.9, 1.1, 1.1))
    assert found.verdict == "shown"
    assert found.interval is not None
    assert found.interval.mean == pytest.approx(13 / 30)
    assert found.needed is None  # one nat is no measure


def test_intervals_are_corrected_for_the_number_of_claims():
    rows = {"a": row(0.71, 0.72, 0.73), "b": row(0.60, 0.62, 0.64), "c": row(0.70, 0.715, 0.72)}
    claims = [parse_claim(f"a > {other} on accuracy", rows) for other in "bc"]
    found = decide([(claim, rows) for claim in claims])
    columns = {
        name: [100 * one["record"]["students"]["student"]["test_accuracy"] for one in own.values()]
        for name, own in rows.items()
    }
    expected = holm_intervals([(columns["a"], columns["b"]), (columns["a"], columns["c"])])
    assert [finding.interval for finding in found] == expected


def test_claims_that_fail_or_wait_count_in_the_correction():
    rows = {
        "a": row(0.71, 0.72, 0.73),
        "b": row(0.69, 0.69, 0.695),
        "bad": row(0.6, 0.6, 0.6, failed="kl became NaN"),
        "waiting": {},
    }
    claims = [parse_claim(f"a > {other} on accuracy", rows) for other in ("b", "bad", "waiting")]
    found = decide([(claim, rows) for claim in claims])
    values = [71.0, 72.0, 73.0], [69.0, 69.0, 69.5]
    assert found[0].interval == pytest.approx(paired_interval(*values, level=1 - 0.05 / 3))
    assert [finding.verdict for finding in found] == ["not shown", "fails", "not measured"]
    alone = decide([(claims[0], rows)])
    assert alone[0].verdict == "shown"


def test_the_power_is_that_of_one_of_all_claims():
    rows = {"a": row(0.71, 0.72, 0.73), "b": row(0.60, 0.62, 0.64)}
    claim = parse_claim("a > b on accuracy", rows)
    one, of_four = decide([(claim, rows)])[0], decide([(claim, rows)] * 4)[0]
    # differences of 11, 10 and 9 points: a spread of 1
    assert one.needed == seeds_needed(1.0, 1.0)
    assert of_four.needed == seeds_needed(1.0, 1.0, level=1 - 0.05 / 4)
    assert f"{one.needed} seeds would show 1 point in four of five such" in one.sentence()


@pytest.mark.parametrize(("seconds", "said"), [(10.15, "shown"), (10.25, "at unequal time")])
def test_two_hundredths_of_the_time_are_tolerated(seconds: float, said: str):
    longer = row(0.71, 0.72, 0.73, record={"seconds": seconds})
    found = decided("a > b on accuracy", a=longer, b=row(0.60, 0.62, 0.64))
    assert found.verdict == said


def test_rows_that_saw_other_test_pictures_are_refused():
    rows = {
        name: {
            seed: line(0.7, student=with_bits(seed, 0.7), row=name, seed=seed,
                       record={"content": {"test": name}})
            for seed in range(3)
        }
        for name in "ab"
    }  # fmt: skip
    with pytest.raises(RunError, match=r"a > b on accuracy: content\.test is a in one trial"):
        decided("a > b on accuracy", **rows)


def test_what_different_code_measured_decides_nothing():
    def by(code: str) -> dict[str, Any]:
        return {"measured": {"test": {"code": code, "commit": None}}}

    rows = {"a": row(0.7, 0.7, 0.7, record=by("x")), "b": row(0.6, 0.6, 0.6, record=by("y"))}
    found = decided("a > b on accuracy", **rows)
    assert (found.verdict, found.interval) == ("measured unevenly", None)
    assert decided("a < b on seconds", **rows).interval is not None


def test_a_row_may_be_called_as_a_margin_is_written():
    rows = ["a", "b", "b - 1"]
    assert parse_claim("a > b - 1 on accuracy", rows) == Claim("a", "b - 1", "accuracy")
    assert parse_claim("a > b - 1 - 2 on accuracy", rows) == Claim("a", "b - 1", "accuracy", 2.0)
    assert parse_claim("a > b - 2 on accuracy", rows) == Claim("a", "b", "accuracy", 2.0)


# When it was made


def entries(*said: Any) -> list[Line]:
    """A file in which claims were made, and trials of rows were run, one after the other."""
    made: list[Line] = []
    for one in said:
        if isinstance(one, str):
            kept = {"readings": [{"split": "test"}]}
            made.append({"kind": "trial", "row": one, "identity": one + str(len(made))})
            made[-1]["record"] = kept
        else:
            rows = {"a": {}, "b": {}, "c": {}}
            made.append({"kind": "spec", "spec": {"rows": rows, "claims": one}})
    return made


CLAIM = "a > b on accuracy"


@pytest.mark.parametrize(
    ("file", "late"),
    [
        (entries([CLAIM], "a", "b"), {}),
        (entries([], "a", "b", "b", [CLAIM]), {CLAIM: 3}),
        (entries([], "c", [CLAIM], "a"), {}),
        (entries([CLAIM], "a", [], "b", [CLAIM]), {}),
        (entries([], "b", [CLAIM], "a", [CLAIM, "a > c on accuracy"]),
         {CLAIM: 1, "a > c on accuracy": 1}),
        (entries([], "c", ["a > best other on accuracy"]), {"a > best other on accuracy": 1}),
        (entries([CLAIM], "a", []), {}),
        ([], {}),
    ],
)  # fmt: skip
def test_a_claim_is_late_after_the_first_trial_of_its_rows(file: list[Line], late: dict[str, int]):
    assert late_claims(file) == late


def test_a_trial_that_has_not_read_test_tells_nothing():
    file = entries([], "a", [CLAIM])
    file[1]["record"]["readings"] = []
    assert late_claims(file) == {}
    tried = entries([], "a", [CLAIM])
    tried[1]["kind"] = "try"
    assert late_claims(tried) == {}


def test_renaming_a_row_makes_no_claim_early():
    file = entries([], "before", [CLAIM])
    assert late_claims(file) == {}
    now = [file[1] | {"row": "a"}]
    assert late_claims(file, now) == {CLAIM: 1}


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [([0.71, 0.72, 0.73], "declared late"), ([0.5, 0.52, 0.54], "contradicted")],
)
def test_what_was_claimed_late_is_never_shown(accuracies: list[float], said: str):
    rows = {"a": row(*accuracies), "b": row(0.60, 0.62, 0.64)}
    (found,) = decide([(parse_claim(CLAIM, rows), rows)], late={CLAIM: 3})
    assert (found.verdict, found.late) == (said, 3)
    assert "declared after 3 of its trials had run" in found.sentence()


def test_less_training_time_for_the_other_shows_nothing():
    longer = row(0.71, 0.72, 0.73, record={"seconds": 25.0})
    found = decided("a > b on accuracy", a=longer, b=row(0.60, 0.62, 0.64))
    assert (found.verdict, found.times_longer) == ("at unequal time", 2.5)
    assert "2.50 times the training time" in found.sentence()


def test_the_best_other_is_best_on_validation_not_on_test():
    rows = {
        "a": row(0.8, 0.8, 0.81),
        "lucky": row(0.79, 0.78, 0.79, validation=0.5),
        "good": row(0.7, 0.71, 0.72, validation=0.9),
        "bad": row(0.1, 0.1, 0.1, validation=0.99, record={"collapsed": True}),
    }
    found = decided("a > best other on accuracy", **rows)
    assert found.claim == "a > good on accuracy"


def test_the_best_other_is_no_relative_and_complete():
    rows = {
        "a": row(0.8, 0.8, 0.81),
        "a-longer": row(0.8, 0.8, 0.8, validation=0.99),
        "base": row(0.8, 0.8, 0.8, validation=0.98),
        "lucky": row(0.7, 0.7, validation=0.97),
        "good": row(0.7, 0.71, 0.72, validation=0.9),
    }
    kin = kin_of(
        {"a": {"like": "base"}, "a-longer": {"like": "a"}, "base": {}, "lucky": {}, "good": {}}
    )
    claim = parse_claim("a > best other on accuracy", rows)
    (found,) = decide([(claim, rows)], kin=kin)
    assert found.claim == "a > good on accuracy"
    del rows["good"]
    (found,) = decide([(claim, rows)], kin=kin)
    assert (found.claim, found.verdict) == (str(claim), "not measured")


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ({"a": row(0.7, 0.8), "b": row(0.6, 0.6)}, "too few seeds"),
        ({"a": row(0.7, 0.8, 0.9), "b": row(0.6, 0.6)}, "too few seeds"),
        ({"a": {}, "b": row(0.6)}, "not measured"),
        ({"a": row(0.7, 0.7, 0.7), "b": row(0.6, 0.6, 0.6, failed="kl became NaN")}, "fails"),
        (
            {"a": row(0.7, 0.7, 0.7), "b": row(0.1, 0.1, 0.1, record={"collapsed": True})},
            "fails",
        ),
    ],
)
def test_where_there_is_nothing_to_say_no_interval_is_invented(
    rows: dict[str, dict[int, Line]], verdict: str
):
    found = decided("a > b on accuracy", **rows)
    assert found.verdict == verdict
    assert found.interval is None


def test_a_metric_that_was_not_measured_decides_nothing():
    found = decided("a > b on corrupted", a=row(0.7, 0.7, 0.7), b=row(0.6, 0.6, 0.6))
    assert found.verdict == "not measured"


def test_a_sign_flip_test_comes_with_six_seeds():
    few = decided("a > b on accuracy", a=row(*[0.7] * 5), b=row(*[0.6] * 5))
    many = decided("a > b on accuracy", a=row(*[0.7] * 6), b=row(*[0.6] * 6))
    assert (few.p_value, many.p_value) == (None, 0.03125)


def with_bits(seed: int, share: float) -> dict[str, Any]:
    bits = np.random.default_rng(seed).random(500) < share
    text = base64.b64encode(np.packbits(bits).tobytes()).decode()
    return {"test": {"correct": text, "pictures": 500}, "test_accuracy": float(bits.mean())}


def test_other_test_pictures_widen_the_interval():
    rows = {
        name: {seed: line(0, student=with_bits(10 * seed + int(100 * share), share))
               for seed in range(3)}
        for name, share in (("a", 0.9), ("b", 0.5))
    }  # fmt: skip
    found = decided("a > b on accuracy", **rows)
    assert found.two_level is not None
    assert found.interval is not None
    assert found.two_level.mean == pytest.approx(found.interval.mean)
    # √((0.9 · 0.1 + 0.5 · 0.5) / 3 / 500) is 1.5 points.
    assert found.two_level.over_pictures == pytest.approx(1.5, abs=0.3)
    assert "with other test pictures too" in found.sentence()


def test_every_metric_is_found_where_records_hold_it():
    test = {"balanced": 0.5, "top5": 0.9, "calibration": {"ece": 0.1, "nll": 1.5, "brier": 0.3}}
    robust = {"corruptions": {"fog": [0.8, 0.6], "blur": [0.4, 0.2]}}
    alike = [{"cka": 0.9, "attention": value} for value in (0.25, None, 0.75)]
    more = {"test": test, "agreement": 0.75, "robustness": robust, "similarity": alike}
    record = line(0.6, student=more)["record"]
    assert {name: measured(record, name) for name in METRICS} == pytest.approx(
        {
            "accuracy": 60,
            "balanced": 50,
            "top5": 90,
            "agreement": 75,
            "corrupted": 50,
            "ece": 10,
            "nll": 1.5,
            "brier": 0.3,
            "focus": 0.5,
            "seconds": 10,
        }
    )
    assert {measured(line(0.6)["record"], name) for name in METRICS} == {60.0, 10.0, None}


def test_a_claim_is_late_however_its_margin_is_written():
    text = "a > b - 0.50 on accuracy"
    late = late_claims(entries([], "a", [text], "b"))
    assert late == {"a > b - 0.5 on accuracy": 1}
    rows = {"a": row(0.71, 0.72, 0.73), "b": row(0.60, 0.62, 0.64)}
    (found,) = decide([(parse_claim(text, rows), rows)], late=late)
    assert (found.verdict, found.late) == ("declared late", 1)
