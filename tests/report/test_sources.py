"""What counts in a comparison's file, and what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_records import (
    ACCURACIES,
    WIDTHS,
    deeply,
    line,
    lines,
    lines_of_widths,
    measured_deeply,
    metrics,
    record,
    spec,
    spec_line,
    write_comparison,
    write_run,
)

from tutelage.errors import RunError
from tutelage.report.comparisons import make_tables
from tutelage.report.latencies import teacher_kind
from tutelage.report.layout import Table
from tutelage.report.sources import Comparison, Runs, read_source


def read(path: Path, have: list[dict[str, Any]], **more: Any) -> Comparison:
    source = read_source([write_comparison(path / "made.jsonl", have, **more)], runs=path / "runs")
    assert isinstance(source, Comparison)
    return source


def make_table(source: Comparison) -> Table:
    (made,) = make_tables(source.spec, source.lines, source.stale)
    return made


def trials(source: Comparison) -> list[tuple[str, int]]:
    return [(one["row"], one["seed"]) for one in source.lines if one["kind"] == "trial"]


# What counts


def test_all_lines_of_a_finished_comparison_count(tmp_path: Path):
    source = read(tmp_path, lines())
    assert trials(source) == [(row, seed) for row in ACCURACIES for seed in range(3)]
    assert (source.stale, source.remarks()) == ([], [])
    table = make_table(source)
    assert [row["row"] for row in table.rows] == ["teacher", *ACCURACIES]


def test_the_folder_stands_for_its_file(tmp_path: Path):
    write_comparison(tmp_path / "trials.jsonl", lines())
    assert isinstance(read_source([tmp_path]), Comparison)


def test_the_newest_specification_counts(tmp_path: Path):
    older = spec_line(seeds=[0, 1])
    source = read(tmp_path, [older, *lines(), spec_line(note="newer")])
    assert source.spec["note"] == "newer"
    assert len(source.spec["seeds"]) == 3


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path):
    path = write_comparison(tmp_path / "made.jsonl", lines())
    path.write_text(path.read_text() + '{"kind": "tri')
    assert isinstance(read_source([path]), Comparison)


@pytest.mark.parametrize(
    "gone",
    [
        line("gone", 0, 0.99),
        line("kd", 9, 0.99),
        line("kd", 0, 0.99, settings={"row": "kd", "train.steps": 1}),
    ],
    ids=["row", "seed", "settings"],
)
def test_what_is_no_longer_asked_for_is_stale(tmp_path: Path, gone: dict[str, Any]):
    source = read(tmp_path, [*lines(), gone])
    assert source.stale == [gone]
    table = make_table(source)
    (kd,) = [row for row in table.rows if row["row"] == "kd"]
    assert kd["accuracy"] == pytest.approx(71.0)
    assert "1 stale trial(s)" in table.notes[-1]


def test_of_equal_trials_the_newest_counts(tmp_path: Path):
    source = read(tmp_path, [line("kd", 0, 0.99), *lines()])
    assert [one["record"]["students"]["student"]["test_accuracy"] for one in source.stale] == [0.99]


def test_a_trial_that_was_measured_again_is_not_stale(tmp_path: Path):
    measured = line("kd", 0, 0.7)
    measured["record"]["students"]["student"]["people"] = {
        "cross_entropy": 1.0,
        "kl": 0.1,
        "top1": 0.6,
    }
    source = read(tmp_path, [*lines(), measured])
    assert source.stale == []
    (counts,) = [one for one in source.lines if (one["row"], one["seed"]) == ("kd", 0)]
    assert "people" in counts["record"]["students"]["student"]


def test_trials_of_older_code_do_not_mix_with_newer(tmp_path: Path):
    newer = line("kd", 2, 0.9)
    newer["parts"] = newer["parts"] | {"code": "newer"}
    source = read(tmp_path, [*lines(), newer])
    assert [one for one in trials(source) if one[0] == "kd"] == [("kd", 2)]
    assert len(source.stale) == 3
    assert "kd: seed(s) 0, 1 not run yet." in source.remarks()


def test_a_renamed_row_keeps_its_trials(tmp_path: Path):
    renamed = spec() | {"rows": {**spec()["rows"], "distilled": spec()["rows"]["kd"]}}
    del renamed["rows"]["kd"]
    source = read(tmp_path, [*lines(), {"kind": "spec", "spec": renamed}])
    assert ("distilled", 2) in trials(source)
    assert source.stale == []


def test_what_is_missing_is_said(tmp_path: Path):
    source = read(tmp_path, lines()[:-1])
    assert source.remarks() == ["hints: seed(s) 2 not run yet."]


CHOOSE = {"like": None, "set": {"row": "kd"}, "choose": {"lr": [0.1, 0.3], "weight": [3, 30]}}


def chosen(lr: float, weight: float) -> dict[str, Any]:
    return {"row": "kd", "lr": lr, "weight": weight}


def tries(*scores: tuple[float, float, float]) -> list[dict[str, Any]]:
    return [
        line("kd", 0, score, kind="try", settings=chosen(lr, weight))
        for lr, weight, score in scores
    ]


def test_choices_are_worked_out_from_the_tries(tmp_path: Path):
    asked = {**spec()["rows"], "kd": CHOOSE}
    asked["hints"] = {"like": "kd", "set": {"row": "hints"}, "choose": {}}
    have = [*tries((0.1, 3, 0.6), (0.3, 3, 0.65), (0.3, 30, 0.7))]
    have += [line("kd", 0, 0.5, settings=chosen(0.1, 3))]  # from before 0.3 was tried
    have += [line("kd", seed, 0.7, settings=chosen(0.3, 30)) for seed in range(3)]
    have += [line("hints", 0, 0.7, settings=chosen(0.3, 30) | {"row": "hints"})]
    source = read(tmp_path, have, rows=asked)
    assert [(one.key, one.taken, len(one.tried)) for one in source.choices] == [
        ("lr", 0.3, 2),
        ("weight", 30, 2),
    ]
    assert trials(source) == [("kd", 0), ("kd", 1), ("kd", 2), ("hints", 0)]
    assert [one["settings"] for one in source.stale] == [chosen(0.1, 3)]
    said = make_table(source).rows
    assert "lr 0.3 of (0.1: 61.0, 0.3: 66.0)" in next(r for r in said if r["row"] == "kd")["chosen"]


def test_while_tries_are_missing_the_newest_trial_says_what_was_chosen(tmp_path: Path):
    have = [*tries((0.1, 3, 0.6)), line("kd", 0, 0.7, settings=chosen(0.3, 30))]
    have += [line("kd", 1, 0.7, settings=chosen(0.5, 30))]  # a value that is not asked for
    source = read(tmp_path, have, rows={"kd": CHOOSE}, controls="none")
    assert trials(source) == [("kd", 0)]
    assert [one.taken for one in source.choices] == [0.3, 30]
    assert "kd: lr was not tried at 0.3 yet." in source.remarks()


def test_a_number_that_is_none_fails_its_trial(tmp_path: Path):
    broken = line("kd", 2, 0.7)
    broken["record"]["students"]["student"]["test_accuracy"] = float("nan")
    source = read(tmp_path, [*lines(), broken])
    (kd,) = [row for row in make_table(source).rows if row["row"] == "kd"]
    assert "test_accuracy is no number" in kd["failed"]


def test_curves_come_from_run_folders_that_still_are_the_trials(tmp_path: Path):
    have = lines()
    write_run(tmp_path / "kd-seed0", have[6]["record"], metrics())
    write_run(tmp_path / "runs/made/kd-seed1", have[7]["record"], metrics(2))
    other = have[8]["record"] | {"began": "another day"}
    write_run(tmp_path / "kd-seed2", other, metrics())
    found = read(tmp_path, have).metrics
    assert [len(found.get(one["identity"], [])) for one in have[6:9]] == [5, 2, 0]


# Axes


def at_width(width: int, **more: Any) -> dict[str, Any]:
    return {"student.width": width, "row": "kd", **more}


def test_all_lines_at_every_value_of_an_axis_count(tmp_path: Path):
    source = read(tmp_path, lines_of_widths(), axes=WIDTHS)
    assert len(source.lines) == 24
    assert source.stale == []
    assert list(source.parts) == ["student.width 8", "student.width 16"]
    for part, width in zip(source.parts, (8, 16), strict=True):
        assert [one["seed"] for one in source.trials("kd", part)] == [0, 1, 2]
        settings = [one["settings"] for one in source.lines if one["part"] == part]
        assert {one["student.width"] for one in settings} == {width}
    assert [table.title for table in make_tables(source.spec, source.lines)] == list(source.parts)


def test_a_value_that_is_no_longer_asked_for_is_stale(tmp_path: Path):
    source = read(tmp_path, lines_of_widths(), axes={"student.width": [16]})
    assert {one["settings"]["student.width"] for one in source.stale} == {8}
    assert len(source.stale) == 12
    without = read(tmp_path, lines_of_widths())
    assert len(without.stale) == 24


def test_at_each_value_of_an_axis_choices_are_made_anew(tmp_path: Path):
    rows = {"kd": {"like": None, "set": {"row": "kd"}, "choose": {"lr": [0.1, 0.3]}}}
    scores = {(8, 0.1): 0.6, (8, 0.3): 0.7, (16, 0.1): 0.8, (16, 0.3): 0.75}
    have = [
        line("kd", 0, score, kind="try", settings=at_width(width, lr=lr))
        for (width, lr), score in scores.items()
    ]
    for width, lr in ((8, 0.3), (16, 0.1)):
        have += [line("kd", seed, 0.7, settings=at_width(width, lr=lr)) for seed in range(3)]
    wrong = line("kd", 0, 0.9, settings=at_width(16, lr=0.3))
    source = read(tmp_path, [wrong, *have], rows=rows, controls="none", axes=WIDTHS)
    assert [(one.part, one.taken) for one in source.choices] == [
        ("student.width 8", 0.3),
        ("student.width 16", 0.1),
    ]
    assert [one["settings"] for one in source.stale] == [at_width(16, lr=0.3)]
    assert len(trials(source)) == 6


def test_what_is_missing_is_said_of_the_part(tmp_path: Path):
    rows = {"kd": {"like": None, "set": {"row": "kd"}, "choose": {"lr": [0.1]}}}
    have = [line("kd", seed, 0.7, settings=at_width(16, lr=0.1)) for seed in range(2)]
    source = read(tmp_path, have, rows=rows, controls="none", axes=WIDTHS)
    assert source.remarks() == [
        "kd, student.width 16: seed(s) 2 not run yet.",
        "kd, student.width 8: lr was not tried at 0.1 yet.",
        "kd, student.width 16: lr was not tried at 0.1 yet.",
    ]


def test_different_parts_may_have_different_data(tmp_path: Path):
    have = lines_of_widths()
    for one in have:
        if one["settings"]["student.width"] == 16:
            one["record"]["content"] = {"train": "aaaa", "test": "other", "source": "cccc"}
    assert len(read(tmp_path, have, axes=WIDTHS).lines) == 24
    have[-1]["record"]["content"] = {"train": "aaaa", "test": "bbbb", "source": "cccc"}
    with pytest.raises(RunError, match=r"hints, student\.width 16: content\.test is other"):
        read(tmp_path, have, axes=WIDTHS)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"student.width": []}, "an axis of its specification has no values"),
        (["student.width"], "an axis of its specification has no values"),
        ({"student.width": [8, 8]}, "the same value twice"),
    ],
)
def test_axes_that_are_none_are_refused(tmp_path: Path, axes: Any, words: str):
    with pytest.raises(RunError, match=words):
        read(tmp_path, lines(), axes=axes)


# When claims were made


def test_a_claim_that_came_after_its_trials_is_known_to_be_late(tmp_path: Path):
    claim = "kd > hints on accuracy"
    early = read(tmp_path, [spec_line(claims=[claim]), *lines()])
    assert early.late == {}
    have = [spec_line(), *lines(), spec_line(claims=[claim])]
    late = read(tmp_path, have)
    assert late.late == {claim: 6}
    (table,) = make_tables(late.spec, late.lines, late.stale, late.late)
    assert [finding.verdict for finding in table.findings] == ["declared late"]
    renamed = [one | {"row": "kd before"} if one.get("row") == "kd" else one for one in have]
    assert read(tmp_path, renamed).late == {claim: 6}


# What is damaged


def student_of(one: Mapping[str, Any]) -> dict[str, Any]:
    return one["record"]["students"]["student"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("agreement", float("nan")),
        ("fidelity", {"top1": 0.5, "kl": None}),
        ("robustness", {"pictures": 9, "seed": 0, "clean": 0.5, "corruptions": {}}),
        ("robustness", {"pictures": 9, "seed": 0, "clean": 0.5, "corruptions": {"fog": [None]}}),
        ("similarity", [{"student": "a", "teacher": "b"}]),
        ("people", [1]),
        ("latency_batched", {"batch": 32}),
        ("file_bytes", "large"),
        ("test", deeply(0.7)["test"] | {"correct": "AAAA"}),
        ("test", deeply(0.7)["test"] | {"correct": "?"}),
        ("test", deeply(0.7)["test"] | {"calibration": {"ece": float("inf")}}),
        ("test", deeply(0.7)["test"] | {"per_class": [0.7]}),
    ],
)
def test_what_is_damaged_counts_as_not_measured(tmp_path: Path, key: str, value: Any):
    have = measured_deeply(lines())
    student_of(have[6])[key] = value
    source = read(tmp_path, have)
    first, second = source.trials("kd", "")[:2]
    assert key not in student_of(first)
    assert key in student_of(second)
    words = f"kd, seed 0: {key} is damaged in its record, and counts as not measured."
    assert words in source.remarks()
    run = write_run(tmp_path / "run", have[6]["record"])
    of_run = read_source([run])
    assert isinstance(of_run, Runs)
    assert key not in of_run.records[0]["students"]["student"]
    assert any(f"{key} is damaged" in remark for remark in of_run.remarks())


def test_what_is_whole_is_left_as_it_is(tmp_path: Path):
    have = measured_deeply(lines())
    source = read(tmp_path, have)
    assert source.unsound == []
    assert [one["record"] for one in source.lines] == [one["record"] for one in have]


def test_corruptions_of_different_pictures_enter_no_gain(tmp_path: Path):
    have = measured_deeply(lines())
    student_of(have[7])["robustness"]["pictures"] = 49
    with pytest.raises(RunError, match=r"kd: robustness\.pictures is 50 .* and 49 in another"):
        read(tmp_path, have)


def test_records_from_before_duplicates_were_counted_stand_beside_newer_ones(tmp_path: Path):
    have = lines()
    have[7]["record"]["data"] = have[7]["record"]["data"] | {"duplicates": {"train/test": 1}}
    assert len(read(tmp_path, have).lines) == 12


# What is refused


def test_runs_and_a_comparison_do_not_mix(tmp_path: Path):
    path = write_comparison(tmp_path / "made.jsonl", lines())
    run = write_run(tmp_path / "run", record())
    with pytest.raises(RunError, match="of runs, or of one comparison"):
        read_source([path, run])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"content": {"train": "aaaa", "test": "other", "source": "cccc"}}, "content.test"),
        ({"data": record()["data"] | {"validation": 7}}, "data.validation"),
        (
            {"recipe": record()["recipe"] | {"data": {"validation": 100, "split_seed": 1}}},
            "recipe.data.split_seed",
        ),
    ],
)
def test_different_data_enter_no_common_mean(tmp_path: Path, change: Any, field: str):
    have = [*lines(), line("kd", 2, 0.7, record=change)]
    with pytest.raises(RunError, match=f"kd: {field} is .* in one trial .* no common mean") as told:
        read(tmp_path, have)
    assert "\n" not in str(told.value)


def test_a_row_on_other_test_pictures_than_its_controls_is_refused(tmp_path: Path):
    other = {"content": {"train": "aaaa", "test": "other", "source": "cccc"}}
    have = [*lines()[:6], *(line("kd", seed, 0.7, record=other) for seed in range(3))]
    with pytest.raises(RunError, match=r"kd: content\.test"):
        read(tmp_path, have)
    alone = read(tmp_path, have[6:], rows={"kd": spec()["rows"]["kd"]}, controls="none")
    assert len(alone.lines) == 3


@pytest.mark.parametrize(
    ("have", "words"),
    [
        ([line("kd", 0, 0.7, record={"schema": 0})], "schema 0, and this version reads 1"),
        ([{"kind": "spec", "spec": spec() | {"schema": 7}}], "specification of schema 7"),
        ([{"kind": "else"}], "is damaged: it is no specification, trial or try"),
        ([{"kind": "trial", "row": "kd"}], "says nothing of seed"),
        ([[1, 2]], "is damaged"),
        ([line("kd", 0, 0.7, record={"students": None})], "is damaged"),
    ],
)
def test_bad_lines_are_refused_in_words(tmp_path: Path, have: list[Any], words: str):
    path = tmp_path / "made.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [spec_line(), *have]))
    with pytest.raises(RunError, match=words):
        read_source([path])


def test_a_file_without_a_specification_is_refused(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("")
    with pytest.raises(RunError, match="holds no specification"):
        read_source([path])
    with pytest.raises(RunError, match=r"There is no .*absent\.jsonl"):
        read_source([tmp_path / "absent.jsonl"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 0}, "schema 0"),
        ({"students": {}}, "is damaged"),
        ({"students": {"student": {"macs": 1}}}, "is damaged"),
    ],
)
def test_bad_records_of_runs_are_refused_in_words(tmp_path: Path, change: Any, words: str):
    run = write_run(tmp_path / "run", record() | change)
    with pytest.raises(RunError, match=words):
        read_source([run])


def test_an_unfinished_run_is_refused(tmp_path: Path):
    run = write_run(tmp_path / "run", record())
    (run / "record.json").unlink()
    with pytest.raises(RunError, match="has not finished"):
        read_source([run])


def test_runs_are_read_with_what_they_logged(tmp_path: Path):
    first = write_run(tmp_path / "first", record(), metrics(3))
    second = write_run(tmp_path / "second", record(seed=1))
    source = read_source([first, second])
    assert isinstance(source, Runs)
    assert [len(logged) for logged in source.metrics] == [3, 0]


# Teachers that were asked once


def of_store(seed: int, **more: Any) -> dict[str, Any]:
    fingerprint = {"teacher": "7eac", "num_views": 4, "seed": seed} | more
    return {"fingerprint": fingerprint, "coded": "c0", "files": f"f{seed}"}


def from_stores(**more: Any) -> list[dict[str, Any]]:
    """All trials have the same teacher; of `kd` each seed has a store of its own."""
    have = lines()
    for one in have:
        stored = one["row"] == "kd"
        one["record"]["content"]["teacher"] = of_store(one["seed"]) if stored else "7eac"
        one["record"]["recipe"]["teacher"] = {"name": "resnet56"}
        if stored:
            one["record"]["recipe"]["teacher"]["cache"] = "stores/{seed}"
            if one["seed"] == 2:
                one["record"]["content"]["teacher"] = of_store(2, **more)
    return have


def test_each_seed_may_have_a_store_of_its_own(tmp_path: Path):
    table = make_table(read(tmp_path, from_stores()))
    assert [row["row"] for row in table.rows] == ["teacher", *ACCURACIES]
    assert next(row for row in table.rows if row["row"] == "kd")["seeds"] == 3


def test_stores_of_one_row_agree_in_all_but_the_seed(tmp_path: Path):
    with pytest.raises(RunError, match=r"kd: content.teacher is .* no common mean"):
        read(tmp_path, from_stores(num_views=8))


def test_a_teacher_is_the_same_whether_it_is_asked_or_has_answered():
    live, *_, stored = sorted(from_stores(), key=lambda one: one["row"] == "kd")
    assert teacher_kind(live["record"]) == teacher_kind(stored["record"])
    stored["record"]["content"]["teacher"]["fingerprint"]["teacher"] = "07e2"
    assert teacher_kind(live["record"]) != teacher_kind(stored["record"])
