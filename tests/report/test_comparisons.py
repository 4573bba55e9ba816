"""The table of a comparison, worked out by hand from lines."""

import json
import subprocess
import sys
from statistics import stdev
from typing import Any

import pytest

from tutelage.errors import RunError
from tutelage.report.comparisons import make_tables
from tutelage.report.layout import Table
from tutelage.stats import seeds_needed

Line = dict[str, Any]
CONTROLS = {"short": "short", "long": "long"}
ACCURACIES = {
    "short": [0.640, 0.650, 0.660],
    "long": [0.645, 0.655, 0.665],
    "kd": [0.700, 0.712, 0.718],
}


def trial(row: str, seed: int, accuracy: float, **more: Any) -> Line:
    student = {
        "validation_accuracy": accuracy + 0.01,
        "test_accuracy": accuracy,
        "parameters": 4934,
        "macs": 1_234_567,
        "latency_ms": 0.5 + seed,
    }
    record = {
        "students": {"student": student | more.pop("student", {})},
        "recipe": {"student": {"name": "resnet8"}, "teacher": {"name": "resnet56"}},
        "teacher": None,
        "collapsed": False,
        "seconds": 10.0 * (seed + 1),
    }
    line = {"kind": "trial", "row": row, "seed": seed, "settings": {}, "identity": f"{row}{seed}"}
    return line | {"record": record | more.pop("record", {})} | more


def lines(**accuracies: list[float]) -> list[Line]:
    return [
        trial(row, seed, accuracy)
        for row, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]


def spec(*rows: str, controls: Any = "none", note: str = "") -> dict[str, Any]:
    return {"rows": {row: {"choose": {}} for row in rows}, "controls": controls, "note": note}


def table(**accuracies: list[float]) -> Table:
    return make_table(spec(*accuracies, controls=CONTROLS), lines(**accuracies))


def make_table(*arguments: Any) -> Table:
    (made,) = make_tables(*arguments)
    return made


def row_of(made: Table, name: str) -> dict[str, Any]:
    (row,) = [row for row in made.rows if row["row"] == name]
    return row


def shown(made: Table, name: str) -> dict[str, str]:
    """A row's cells by heading."""
    head, *rows = made.cells()
    (row,) = [row for row in rows if row[0] == name]
    return dict(zip(head, row, strict=True))


# Means, spreads, gains


def test_means_and_spreads_by_hand():
    row = row_of(table(**ACCURACIES), "kd")
    assert row["accuracy"] == pytest.approx(71.0)
    # deviations −1.0, 0.2, 0.8: √((1 + 0.04 + 0.64) / 2)
    assert row["spread"] == pytest.approx(0.9165, abs=1e-4)
    assert (row["seeds"], row["parameters"], row["macs"]) == (3, 4934, 1_234_567)
    assert row["latency_ms"] == pytest.approx(1.5)
    assert row["seconds"] == pytest.approx(20.0)


def test_cells_are_written_for_people():
    cells = shown(table(**ACCURACIES), "kd")
    assert cells["test accuracy %"] == "71.0 ± 0.9"
    assert cells["parameters"] == "4,934"
    assert cells["MMACs"] == "1.23"
    assert cells["latency ms"] == "1.50"
    assert cells["wall time s"] == "20"
    assert "agreement %" not in cells  # nobody measured it


def test_what_is_fitted_better_than_test_is_noted_in_points():
    known = lines(**ACCURACIES)
    for line, share in zip(known, [0.84, 0.86, 0.88, 1.0], strict=False):
        line["record"]["students"]["student"]["train_accuracy"] = share
    (said,) = [
        note
        for note in make_table(spec(*ACCURACIES, controls=CONTROLS), known).notes
        if "training pictures" in note
    ]
    # short: 20, 21 and 22 points; long: 1.0 − 0.645, of one seed alone; kd: nothing is known
    assert said.endswith("in points: short +21.0, long +35.5 (1 of 3 seeds).")


@pytest.mark.parametrize("apart", [0.0, 0.02])
def test_balanced_accuracy_is_shown_where_it_says_something_else(apart: float):
    known = lines(**ACCURACIES)
    for line in known:
        student = line["record"]["students"]["student"]
        student["test"] = {"balanced": student["test_accuracy"] - apart}
    cells = shown(make_table(spec(*ACCURACIES), known), "kd")
    assert cells.get("balanced accuracy %") == ("69.0" if apart else None)


def test_gains_are_paired_by_seed():
    row = row_of(table(**ACCURACIES), "kd")
    # kd − short: 6.0, 6.2, 5.8: mean 6.0, deviation 0.2, half-width 4.3027 · 0.2 / √3 = 0.4968
    mean, low, high = row["over_short"]
    assert (mean, low, high) == pytest.approx((6.0, 5.5032, 6.4968), abs=1e-3)
    assert row["over_long"][0] == pytest.approx(5.5)
    assert row["verdict"] == "shown"
    cells = shown(table(**ACCURACIES), "kd")
    assert cells["over short"] == "+6.0 (+5.5 … +6.5)"
    assert cells["over long"] == "+5.5 (+5.0 … +6.0)"


def test_the_order_of_lines_does_not_matter():
    made = table(**ACCURACIES)
    mixed = make_table(spec(*ACCURACIES, controls=CONTROLS), lines(**ACCURACIES)[::-1])
    assert mixed == made


def test_seeds_that_both_have_are_paired():
    have = lines(**ACCURACIES)
    have = [line for line in have if (line["row"], line["seed"]) != ("long", 2)]
    row = row_of(make_table(spec(*ACCURACIES, controls=CONTROLS), have), "kd")
    assert row["over_short"] is not None
    assert row["over_long"] is None
    assert row["verdict"] == "too few seeds"


@pytest.mark.parametrize(
    ("kd", "words"),
    [
        ([0.700, 0.712, 0.718], "shown"),
        ([0.646, 0.658, 0.667], "not shown"),  # 0.7 ± 0.25 over short, 0.2 ± 0.25 over long
        ([0.500, 0.520, 0.510], "contradicted"),
    ],
)
def test_a_gain_counts_over_both_controls(kd: list[float], words: str):
    assert row_of(table(**ACCURACIES | {"kd": kd}), "kd")["verdict"] == words


def test_controls_are_held_against_nothing():
    for name in ("short", "long"):
        assert "verdict" not in row_of(table(**ACCURACIES), name)
        assert shown(table(**ACCURACIES), name)["gain"] == ""


def test_one_seed_has_neither_spread_nor_verdict():
    made = table(short=[0.6], long=[0.61], kd=[0.7])
    assert shown(made, "kd")["test accuracy %"] == "70.0"
    assert shown(made, "kd")["gain"] == "too few seeds"
    assert shown(made, "kd")["over short"] == ""


def test_without_controls_there_are_no_gains():
    made = make_table(spec("a", "b"), lines(a=[0.5, 0.6], b=[0.7, 0.8]))
    assert "verdict" not in row_of(made, "a")
    assert not any("gain" in note or "control" in note for note in made.notes)
    assert make_table(spec("a"), lines(a=[0.5, 0.6])).notes == []


def test_agreement_is_shown_where_all_have_it():
    have = [trial("kd", seed, 0.7, student={"agreement": 0.8 + seed / 100}) for seed in (0, 1)]
    assert shown(make_table(spec("kd"), have), "kd")["agreement %"] == "80.5"


def test_the_teacher_has_a_row_of_its_own():
    entry = {"test_accuracy": 0.944, "parameters": 855_770, "macs": 125_485_706, "latency_ms": 3.0}
    have = [trial("kd", 0, 0.7, record={"teacher": entry})]
    made = make_table(spec("kd"), have)
    assert [row["row"] for row in made.rows] == ["teacher", "kd"]
    cells = shown(made, "teacher")
    assert (cells["test accuracy %"], cells["parameters"]) == ("94.4", "855,770")
    assert (cells["MMACs"], cells["seeds"], cells["wall time s"]) == ("125.49", "", "")


# What must be read with the rows


def test_the_note_of_the_specification_comes_first():
    made = make_table(spec("a", note="Read this."), lines(a=[0.5]))
    assert made.notes[0] == "Read this."


@pytest.mark.parametrize(("long", "told"), [(0.655, False), (0.659, False), (0.662, True)])
def test_under_training_is_told_beyond_one_point(long: float, told: bool):
    made = table(short=[0.64, 0.65, 0.66], long=[long - 0.01, long, long + 0.01], kd=[0.7] * 3)
    assert any(note.startswith("Under-trained") for note in made.notes) == told
    if told:
        assert sum("1.2 points" in note for note in made.notes) == 1


def timed(row: str, seconds: float) -> list[Line]:
    made = [trial(row, seed, accuracy) for seed, accuracy in enumerate(ACCURACIES[row])]
    for line in made:
        line["record"]["seconds"] = seconds
    return made


@pytest.mark.parametrize(("seconds", "short"), [(39.0, False), (40.7, False), (50.0, True)])
def test_a_long_control_must_be_long(seconds: float, short: bool):
    have = [*timed("short", 10.0), *timed("long", 40.0), *timed("kd", seconds)]
    made = make_table(spec(*ACCURACIES, controls=CONTROLS), have)
    assert row_of(made, "kd")["verdict"] == ("control too short" if short else "shown")
    told = [note for note in made.notes if note.startswith("Control too short")]
    assert bool(told) == short
    assert all("kd took 1.25 times the training time of long" in note for note in told)


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ([0.500, 0.520, 0.510], "contradicted"),
        ([0.646, 0.658, 0.667], "not shown"),
        ([0.700, 0.712], "too few seeds"),
    ],
)
def test_more_time_excuses_no_loss(accuracies: list[float], words: str):
    have = lines(**ACCURACIES | {"kd": accuracies})
    for one in have:
        one["record"]["seconds"] = 50.0 if one["row"] == "kd" else 40.0
    made = make_table(spec(*ACCURACIES, controls=CONTROLS), have)
    assert row_of(made, "kd")["verdict"] == words
    assert any(note.startswith("Control too short: kd took 1.25") for note in made.notes)


def test_a_failed_control_that_was_also_too_short_is_no_control():
    have = [*timed("short", 10.0), *timed("long", 40.0), *timed("kd", 50.0)]
    have[0] = collapsed("short", 0)
    made = make_table(spec(*ACCURACIES, controls=CONTROLS), have)
    assert row_of(made, "kd")["verdict"] == "no control"


def test_each_row_says_how_many_seeds_would_show_a_point():
    made = table(**ACCURACIES)
    # kd − long: 5.5, 5.7, 5.3; of a spread of 0.2 points three seeds show one
    assert row_of(made, "kd")["needed"] == seeds_needed(1.0, 0.2) == 3
    wide = table(**ACCURACIES | {"kd": [0.70, 0.73, 0.70]})
    spread = stdev([5.5, 7.5, 3.5])
    assert row_of(wide, "kd")["needed"] == seeds_needed(1.0, spread)
    (note,) = [note for note in wide.notes if note.startswith("Seeds that")]
    assert note == (
        "Seeds that would show 1 point in four of five such comparisons, over long and with the "
        f"spread found here: kd: {seeds_needed(1.0, spread)}."
    )


# Latencies


def with_latencies(rows: dict[str, tuple[str, list[float]]], **more: Any) -> list[Line]:
    """Trials of rows with a student of some name, one for each latency."""
    return [
        trial(
            row,
            seed,
            0.7,
            student={"latency_ms": latency},
            record={"recipe": {"student": {"name": name}}, **more},
        )
        for row, (name, latencies) in rows.items()
        for seed, latency in enumerate(latencies)
    ]


def test_equal_networks_have_one_latency():
    have = with_latencies(
        {"a": ("small", [1.0, 3.0]), "b": ("small", [2.0, 6.0]), "c": ("other", [9.0, 9.0])}
    )
    made = make_table(spec("a", "b", "c"), have)
    assert [row["latency_ms"] for row in made.rows] == [3.0, 3.0, 9.0]
    (note,) = made.notes
    assert note.endswith("equal networks are equally fast: a, b 1.00 … 6.00 ms in 4.")


def test_networks_of_other_size_or_on_another_machine_are_others():
    have = with_latencies({"a": ("same", [1.0]), "b": ("same", [2.0]), "c": ("same", [4.0])})
    have[1]["record"]["students"]["student"]["macs"] = 7
    have[2]["record"]["hardware"] = {"processor": "another"}
    made = make_table(spec("a", "b", "c"), have)
    assert [row["latency_ms"] for row in made.rows] == [1.0, 2.0, 4.0]
    assert made.notes == []


def test_the_teachers_latency_is_the_mean_of_all_that_was_measured_of_it():
    costs = {"test_accuracy": 0.944, "parameters": 855_770, "macs": 125_485_706}
    have = lines(kd=[0.7, 0.7, 0.7], other=[0.6])
    for one, latency in zip(have, (3.9, 8.5, 7.2, 5.6), strict=True):
        one["record"]["teacher"] = costs | {"latency_ms": latency}
    made = make_table(spec("kd", "other"), have)
    assert row_of(made, "teacher")["latency_ms"] == pytest.approx(6.3)
    assert any("the teacher 3.90 … 8.50 ms in 4" in note for note in made.notes)


def test_a_trial_that_stands_in_two_rows_is_timed_once():
    have = lines(a=[0.5, 0.5])
    have += [line | {"row": "b"} for line in have]
    made = make_table(spec("a", "b"), have)
    assert any("a, b 0.50 … 1.50 ms in 2." in note for note in made.notes)


# What cannot stand together


def reading(seed: int, began: str, kind: str, row: str, lr: float, **more: Any) -> Line:
    record: dict[str, Any] = {"began": began, "readings": []}
    if kind == "trial":
        record["readings"] = [{"split": "test", "time": began}]
    settings = {"lr": lr}
    return trial(row, seed, 0.7, kind=kind, settings=settings, record=record, **more)


@pytest.mark.parametrize(("began", "told"), [("2026-01-01", False), ("2026-01-03", True)])
def test_a_later_try_of_a_row_that_it_is_like_is_pointed_out(began: str, told: bool):
    asked = spec("kd", "longer")
    asked["rows"]["kd"]["choose"] = {"lr": [0.1]}
    asked["rows"]["longer"]["like"] = "kd"
    have = [
        reading(0, began, "try", "kd", 0.1),
        reading(0, "2026-01-02", "trial", "longer", 0.1),
    ]
    notes = make_table(asked, have).notes
    assert any(note.startswith("longer: test was read before") for note in notes) == told
    assert not any(note.startswith("kd: test was read") for note in notes)


@pytest.mark.parametrize(
    ("shown", "field"),
    [
        ({"record": {"content": {"test": "bb"}}}, "content.test is aa .* and bb"),
        (
            {"student": {"test": {"correct": "gA==", "pictures": 2}}},
            "test.pictures is 1 .* and 2",
        ),
    ],
)
@pytest.mark.parametrize("claims", [[], ["b > a on accuracy"]])
def test_rows_that_saw_other_test_pictures_are_refused(
    shown: dict[str, Any], field: str, claims: list[str]
):
    same = {"test": {"correct": "gA==", "pictures": 1}}
    have = [
        trial("a", seed, 0.7, student=same, record={"content": {"test": "aa"}}) for seed in range(3)
    ]
    for seed in range(3):
        other = {"student": same, "record": {"content": {"test": "aa"}}} | shown
        have.append(trial("b", seed, 0.8, **other))
    with pytest.raises(RunError, match=field) as told:
        make_tables(spec("a", "b") | {"claims": claims}, have)
    assert "\n" not in str(told.value)


def measured_by(row: str, codes: str, part: str = "test") -> list[Line]:
    robust = {"pictures": 9, "seed": 0, "clean": 0.7, "corruptions": {"fog": [0.5] * 5}}
    return [
        trial(
            row,
            seed,
            accuracy,
            student={"robustness": robust, "agreement": 0.8},
            record={"measured": {part: {"code": code, "commit": None}}},
        )
        for seed, (accuracy, code) in enumerate(zip(ACCURACIES[row], codes, strict=True))
    ]


def test_what_other_code_measured_is_in_no_mean():
    have = [*measured_by("short", "aaa"), *measured_by("long", "aaa"), *measured_by("kd", "aab")]
    made = make_table(spec(*ACCURACIES, controls=CONTROLS), have)
    cells = shown(made, "kd")
    assert (cells["test accuracy %"], cells["agreement %"], cells["over long"]) == ("", "", "")
    assert cells["gain"] == "measured unevenly"
    assert cells["corrupted accuracy %"] == "50.0"  # another part, of which nothing is said
    assert shown(made, "long")["test accuracy %"] == "65.5 ± 1.0"
    assert any(note.startswith("test was not measured by the same code") for note in made.notes)


def test_rows_that_other_code_measured_have_means_but_no_difference():
    have = [*measured_by("short", "aaa"), *measured_by("long", "aaa"), *measured_by("kd", "bbb")]
    made = make_table(spec(*ACCURACIES, controls=CONTROLS), have)
    assert shown(made, "kd")["test accuracy %"] == "71.0 ± 0.9"
    assert row_of(made, "kd")["over_long"] is None
    assert row_of(made, "kd")["verdict"] == "measured unevenly"


def test_corruptions_that_other_code_measured_give_no_ratio():
    have = [line for row in ACCURACIES for line in measured_by(row, "aaa", "robustness")]
    for line in have[-3:]:
        line["record"]["measured"]["robustness"]["code"] = "b"
    made = make_table(spec(*ACCURACIES, controls=CONTROLS), have)
    row = row_of(made, "kd")
    assert row["corrupted"] == pytest.approx(50.0)
    assert row["mce_of_control"] is None
    assert row["verdict"] == "shown"  # accuracy was measured by one code


def test_stale_lines_are_named_and_in_no_mean():
    stale = lines(kd=[0.99, 0.99])
    made = make_table(spec(*ACCURACIES, controls=CONTROLS), lines(**ACCURACIES), stale)
    assert made.rows == table(**ACCURACIES).rows
    assert "2 stale trial(s) of kd are left out" in made.notes[-1]


def test_what_was_chosen_is_told_with_all_that_was_tried():
    key = "methods.kd.weight"
    tries = []
    for weight, accuracy in ((0.3, 0.601), (3.0, 0.652)):
        tries.append(trial("kd", 0, accuracy, kind="try", settings={key: weight}))
    tries.append(trial("kd", 0, 0, kind="try", settings={key: 30.0}, failed="kl became NaN"))
    have = [trial("kd", seed, 0.7, settings={key: 3.0}) for seed in (0, 1)]
    asked = spec("kd")
    asked["rows"]["kd"]["choose"] = {key: [0.3, 3.0, 30.0]}
    made = make_table(asked, [*tries, *have])
    expected = f"{key} 3.0 of (0.3: 61.1, 3.0: 66.2, 30.0: fails)"
    assert row_of(made, "kd")["chosen"] == expected
    assert any(expected in note and "validation" in note for note in made.notes)
    assert row_of(made, "kd")["accuracy"] == pytest.approx(70.0)  # tries enter no mean


def test_of_several_choices_each_is_told_with_its_own_tries():
    def settings(lr: float, weight: float) -> dict[str, Any]:
        return {"lr": lr, "weight": weight}

    tries = [
        trial("kd", 0, accuracy, kind="try", settings=settings(lr, weight))
        for lr, weight, accuracy in ((0.1, 3, 0.6), (0.3, 3, 0.65), (0.3, 30, 0.7))
    ]
    have = [trial("kd", 0, 0.7, settings=settings(0.3, 30))]
    asked = spec("kd")
    asked["rows"]["kd"]["choose"] = {"lr": [0.1, 0.3], "weight": [3, 30]}
    made = make_table(asked, [*tries, *have])
    assert row_of(made, "kd")["chosen"] == (
        "lr 0.3 of (0.1: 61.0, 0.3: 66.0); weight 30 of (3: 66.0, 30: 71.0)"
    )


# Rows that failed


def broken(row: str, seed: int) -> Line:
    line = trial(row, seed, 0.0, failed="fitnet_hints.mse became infinite or NaN at step 7")
    return line | {"record": {"commit": None, "recipe": {}}}


def collapsed(row: str, seed: int) -> Line:
    return trial(row, seed, 0.1, record={"collapsed": True})


@pytest.mark.parametrize(
    ("bad", "words"),
    [(broken, "fitnet_hints.mse became infinite or NaN at step 7"), (collapsed, "collapsed")],
)
def test_a_row_that_failed_ends_in_words_not_in_numbers(bad: Any, words: str):
    have = [*lines(**ACCURACIES)[:6], trial("kd", 0, 0.7), bad("kd", 1), trial("kd", 2, 0.7)]
    made = make_table(spec(*ACCURACIES, controls=CONTROLS), have)
    row = row_of(made, "kd")
    assert "accuracy" not in row
    assert "1 of 3 seed(s) failed" in row["failed"]
    assert words in row["failed"]
    cells = shown(made, "kd")
    assert cells["test accuracy %"] == "fails"
    assert all(cells[key] == "" for key in ("over short", "gain", "wall time s", "parameters"))
    assert any(note.startswith("kd: ") and words in note for note in made.notes)


@pytest.mark.parametrize("control", ["short", "long"])
def test_a_failed_control_proves_nothing(control: str):
    have = [line for line in lines(**ACCURACIES) if line["row"] != control]
    have += [collapsed(control, seed) for seed in range(3)]
    made = make_table(spec(*ACCURACIES, controls=CONTROLS), have)
    assert row_of(made, "kd")["verdict"] == "no control"
    assert row_of(made, "kd")["accuracy"] == pytest.approx(71.0)
    assert not any("Under-trained" in note for note in made.notes)


def test_rows_that_were_not_run_yet_are_named():
    made = make_table(spec(*ACCURACIES, controls=CONTROLS), lines(short=[0.6], kd=[0.7]))
    assert shown(made, "long")["test accuracy %"] == "not run"
    assert "long: not run yet." in made.notes
    assert row_of(made, "kd")["verdict"] == "too few seeds"
    assert make_table(spec("a", controls="none"), []).rows[0]["seeds"] == 0


# How it is shown


def test_text_has_aligned_columns():
    head, *body = table(**ACCURACIES).text().split("\n\n")[0].splitlines()
    place = head.index("test accuracy")
    assert [line[place : place + 4] for line in body] == ["65.0", "65.5", "71.0"]
    assert not any(line != line.rstrip() for line in (head, *body))


def test_markdown_has_one_line_per_row():
    made = make_table(spec(*ACCURACIES, controls=CONTROLS, note="Note."), lines(**ACCURACIES))
    head, rule, *rest = made.markdown().splitlines()
    assert head.startswith("| row | test accuracy % |")
    assert set(rule) == {"|", "-"}
    assert {line.count("|") for line in (head, rule, *rest[:3])} == {head.count("|")}
    assert rest[2].startswith("| kd | 71.0 ± 0.9 | 3 | +6.0")
    assert rest[3] == ""
    assert rest[4].rstrip() == "Note."


def test_rows_are_json_values():
    made = table(**ACCURACIES)
    assert json.loads(json.dumps(made.rows, allow_nan=False))[2]["verdict"] == "shown"


def test_a_table_is_made_without_torch():
    code = f"""
import json, sys
from tutelage.report.comparisons import make_tables
(made,) = make_tables(*json.loads({json.dumps([spec("kd"), lines(kd=[0.6, 0.8])])!r}))
assert "torch" not in sys.modules
print(made.cells()[1][:3])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['kd', '70.0 ± 14.1', '2']"


def test_trials_that_other_code_measured_are_pointed_out():
    by = [{"measured": {"test": {"code": code, "commit": None}}} for code in ("a", "a", "b")]
    made = [trial("kd", seed, 0.7, record=one) for seed, one in enumerate(by)]
    same, other = (make_table(spec("kd"), part).notes for part in (made[:2], made))
    assert not any("same code" in note for note in same)
    assert sum("test was not measured by the same code" in note for note in other) == 1


def test_a_control_that_failed_leaves_no_corruption_error():
    shown = {"pictures": 9, "seed": 0, "clean": 0.7, "corruptions": {"fog": [0.5] * 5}}
    have = [
        trial(row, seed, 0.7, student={"robustness": shown})
        for row in ("short", "long", "kd")
        for seed in (0, 1)
    ]
    have[1] = have[1] | {"failed": "kd became NaN at step 3", "record": {"recipe": {}}}
    made = make_table(spec("short", "long", "kd", controls=CONTROLS), have)
    assert row_of(made, "kd")["mce_of_control"] is None
    assert row_of(made, "kd")["verdict"] == "no control"
