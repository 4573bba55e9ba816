"""Many runs, one table: what is run, what is reused, what is chosen by what, what survives."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import distilled, recipe, taking, train_teacher

from tutelage import identity
from tutelage.build import build
from tutelage.comparison import Comparison, compare
from tutelage.comparison import outcome as outcome_module
from tutelage.comparison import trials as trials_module
from tutelage.comparison.jobs import Jobs
from tutelage.comparison.spec import read_spec
from tutelage.data.digits import digits
from tutelage.data.loader import TrainLoader
from tutelage.engine import fit
from tutelage.errors import DataError, NetworkError, RecipeError, RunError, SettingError
from tutelage.evaluation.robustness import robustness
from tutelage.identity import weights_of
from tutelage.provenance import digest, versions
from tutelage.recipes import validate
from tutelage.records import RunFolder, alone_in
from tutelage.runs import extras as extras_module
from tutelage.runs import run as run_module
from tutelage.runs import train
from tutelage.runs.caching import cache

Line = dict[str, Any]


def spec(rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"schema": 1, "name": "tiny", "base": recipe(), "seeds": [0, 1], "controls": "none"}
    return base | {"rows": rows} | more


TWO = {"narrow": {}, "wide": {"set": {"student.width": 4}}}
KEY = "train.optimizer.lr"
HINTS = {"set": {"methods": {"fitnet_hints": {"weight": 1}}}}
CHOOSING = {"tuned": {"choose": {KEY: [1e-12, 0.05]}, "set": {"train.steps": 20}}}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_teacher(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Names of the runs that were trained, and whether test was within their reach."""
    found: list[tuple[str, bool]] = []

    def noting(*args: Any, **more: Any) -> Any:
        found.append((more["name"].rpartition("-")[0], more["with_test"]))
        return train(*args, **more)

    monkeypatch.setattr(outcome_module, "train", noting)
    return found


def lines_of(path: Path) -> list[Line]:
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    return [line for line in lines if line["kind"] != "spec"]


def file_of(runs: Path) -> Path:
    return runs / "tiny" / "trials.jsonl"


def run(value: dict[str, Any], runs: Path, **more: Any) -> Comparison:
    return compare(value, runs=runs, shown=False, **more)


def student_of(line: Line) -> dict[str, Any]:
    return line["record"]["students"]["student"]


def meaning(line: Line) -> Line:
    """What must be the same whenever a trial is run: everything but times."""
    told = {key: line[key] for key in ("kind", "row", "seed", "settings", "identity", "parts")}
    student = {k: v for k, v in student_of(line).items() if not k.startswith("latency")}
    return told | {"student": student, "readings": len(line["record"]["readings"])}


# Rows and seeds


def test_every_row_is_run_with_every_seed(runs: Path, trained: list[Any]):
    done = run(spec(TWO), runs, command="tutelage compare x")
    assert trained == [
        ("narrow-seed0", True),
        ("narrow-seed1", True),
        ("wide-seed0", True),
        ("wide-seed1", True),
    ]
    lines = lines_of(file_of(runs))
    assert [(line["kind"], line["row"], line["seed"]) for line in lines] == [
        ("trial", "narrow", 0),
        ("trial", "narrow", 1),
        ("trial", "wide", 0),
        ("trial", "wide", 1),
    ]
    for line in lines:
        assert line["identity"] == line["record"]["identity"]
        (reading,) = line["record"]["readings"]
        assert reading["command"] == "tutelage compare x"
        assert RunFolder(runs / "tiny" / line["record"]["name"]).read_record() == line["record"]
    assert [row["row"] for row in done.table()] == ["narrow", "wide"]
    assert "narrow" in done.text()


def test_paired_rows_share_split_weights_batches_and_views_and_differ_by_seed(teacher: Path):
    rows = {
        "alone": {"set": {"methods": [], "task_weight": 1.0}},
        "kd": {},
        "hints": {"set": {"methods": {"fitnet_hints": {"weight": 1}}}},
    }
    views = {"crop_padding": 1, "flip": True}
    base = distilled(teacher)
    asked = read_spec(spec(rows, base=base | {"data": base["data"] | {"views": views}}))
    (group,) = asked.groups()
    by_seed = []
    for seed in asked.seeds:
        built = [build(asked.recipe(asked.settings(row, group), seed)) for row in rows]
        first = built[0]
        for other in built[1:]:
            assert torch.equal(other.split.train.index, first.split.train.index)
            assert torch.equal(other.split.validation.index, first.split.validation.index)
            assert weights_of(other.student) == weights_of(first.student)
            for step in (0, 1, 5):
                batches = [dict(vars(one.train.batch(step))) for one in (other, first)]
                assert [one.pop("weight") for one in batches] == [None, None]
                assert all(map(torch.equal, *(one.values() for one in batches)))
        by_seed.append(first)
    one, two = by_seed
    assert torch.equal(one.split.train.index, two.split.train.index)
    assert weights_of(one.student) != weights_of(two.student)
    assert not torch.equal(one.train.batch(0).index, two.train.batch(0).index)


def test_the_file_begins_with_what_was_asked_for(runs: Path):
    run(spec(TWO, seeds=[0]), runs)
    first = json.loads(file_of(runs).read_text().splitlines()[0])
    assert first["kind"] == "spec"
    assert first["spec"]["rows"].keys() == {"narrow", "wide"}
    assert first["spec"]["seeds"] == [0]


def test_lines_may_lie_elsewhere(runs: Path, tmp_path: Path):
    records = tmp_path / "benchmarks" / "x.jsonl"
    run(spec(TWO, seeds=[0]), runs, records=records)
    assert len(lines_of(records)) == 2
    assert not file_of(runs).exists()


def test_row_names_may_be_written_for_people(runs: Path):
    done = run(spec({"KD + hints (T=4)/a": {}}, seeds=[0]), runs)
    assert done.table()[0]["row"] == "KD + hints (T=4)/a"
    (folder,) = (path for path in (runs / "tiny").iterdir() if path.is_dir())
    assert folder.name.startswith("KD-hints-T-4-a-seed0-")


# Nothing runs twice


def test_a_finished_comparison_is_only_read(runs: Path, trained: list[Any], teacher: Path):
    value = spec({"kd": {}}, base=distilled(teacher))
    first = run(value, runs)
    text = file_of(runs).read_text()
    shutil.copy(file_of(runs), runs / "kept.jsonl")
    shutil.rmtree(runs / "tiny")
    trained.clear()
    again = run(value, runs, records=runs / "kept.jsonl")
    assert trained == []
    assert again.tables == first.tables
    assert (runs / "kept.jsonl").read_text() == text


def test_what_is_added_later_is_all_that_runs(runs: Path, trained: list[Any]):
    run(spec({"narrow": {}}, seeds=[0]), runs)
    trained.clear()
    done = run(spec(TWO, seeds=[0, 1]), runs)
    assert [name for name, _ in trained] == ["narrow-seed1", "wide-seed0", "wide-seed1"]
    assert [row["seeds"] for row in done.table()] == [2, 2]


def test_a_row_may_be_renamed(runs: Path, trained: list[Any]):
    run(spec({"narrow": {}}), runs)
    trained.clear()
    done = run(spec({"slim": {}}), runs)
    assert trained == []
    assert done.table()[0]["row"] == "slim"
    assert done.table()[0]["seeds"] == 2


def test_a_run_that_finished_before_its_line_was_written_is_not_run_again(
    runs: Path, trained: list[Any]
):
    run(spec(CHOOSING, seeds=[0]), runs)
    before = lines_of(file_of(runs))
    file_of(runs).unlink()
    trained.clear()
    run(spec(CHOOSING, seeds=[0]), runs)
    assert trained == []
    assert lines_of(file_of(runs)) == before  # also what a try may know: nothing of test


@pytest.mark.parametrize("torn", [1, 40, -1])
def test_a_line_that_was_cut_off_is_run_again(torn: int, runs: Path, trained: list[Any]):
    value = spec({"narrow": {}}, seeds=[0, 1, 2])
    run(value, runs)
    path, whole = file_of(runs), lines_of(file_of(runs))
    text = path.read_text()
    last = text.splitlines()[-1]
    path.write_text(text.removesuffix(last + "\n") + last[:torn])
    shutil.rmtree(runs / "tiny" / whole[-1]["record"]["name"])
    trained.clear()
    run(value, runs)
    assert [name for name, _ in trained] == ["narrow-seed2"]
    assert list(map(meaning, lines_of(path))) == list(map(meaning, whole))


def test_a_line_that_only_lacks_its_end_counts(runs: Path, trained: list[Any]):
    run(spec({"narrow": {}}, seeds=[0]), runs)
    path = file_of(runs)
    path.write_text(path.read_text().rstrip("\n"))
    trained.clear()
    run(spec({"narrow": {}}), runs)
    assert [name for name, _ in trained] == ["narrow-seed1"]
    assert [line["seed"] for line in lines_of(path)] == [0, 1]


# Stale lines


def test_a_changed_setting_makes_lines_stale(runs: Path, trained: list[Any]):
    run(spec(TWO, seeds=[0]), runs)
    trained.clear()
    changed = TWO | {"wide": {"set": {"student.width": 5}}}
    done = run(spec(changed, seeds=[0]), runs)
    assert [name for name, _ in trained] == ["wide-seed0"]
    assert any("1 stale trial(s) of wide are left out" in note for note in done.tables[0].notes)
    assert [row["seeds"] for row in done.table()] == [1, 1]
    back = run(spec(TWO, seeds=[0]), runs)  # and the old line counts again
    assert len(trained) == 1
    assert any("stale" in note for note in back.tables[0].notes)


def test_other_code_versions_or_threads_make_lines_stale(
    runs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
):
    value = spec({"narrow": {}}, seeds=[0], base=recipe(threads=None))
    run(value, runs)
    digests = [line["identity"] for line in lines_of(file_of(runs))]

    def ran(value: dict[str, Any]) -> bool:
        trained.clear()
        run(value, runs)
        digests.append(lines_of(file_of(runs))[-1]["identity"])
        return bool(trained)

    other_code(monkeypatch)
    assert ran(value)
    now = versions()
    with monkeypatch.context() as patch:
        patch.setattr(trials_module, "versions", lambda: now | {"torch": "0"})
        trained.clear()
        run(value, runs)
        assert trained
    torch.set_num_threads(1)
    assert ran(value)
    assert len(set(digests)) == len(digests)


def other_code(patch: pytest.MonkeyPatch, name: str = "other") -> None:
    """As if the code had been edited, without doing anything else."""
    patch.setattr(identity, "code_digest", lambda _: f"{name} code")


# Choices


def test_a_choice_is_made_on_validation_by_tries_without_test(runs: Path, trained: list[Any]):
    done = run(spec(CHOOSING), runs)
    lines = lines_of(file_of(runs))
    tries = [line for line in lines if line["kind"] == "try"]
    assert [line["settings"][KEY] for line in tries] == [1e-12, 0.05]
    assert [line["seed"] for line in tries] == [0, 0]
    for line in tries:
        assert line["record"]["readings"] == []
        assert "test_accuracy" not in json.dumps(line["record"])
        assert line["record"]["data"]["test"] == 0
    best = max(tries, key=lambda line: student_of(line)["validation_accuracy"])
    own = [line for line in lines if line["kind"] == "trial"]
    assert {line["settings"][KEY] for line in own} == {best["settings"][KEY]} == {0.05}
    assert done.table()[0]["chosen"].startswith(f"{KEY} 0.05 of (1e-12: ")


def test_the_chosen_try_is_not_trained_twice(runs: Path, trained: list[Any]):
    run(spec(CHOOSING), runs)
    assert trained == [("tuned-seed0", False), ("tuned-seed0", False), ("tuned-seed1", True)]
    trial = next(line for line in lines_of(file_of(runs)) if line["kind"] == "trial")
    chosen = [line for line in lines_of(file_of(runs)) if line["identity"] == trial["identity"]]
    assert [line["kind"] for line in chosen] == ["try", "trial"]
    assert student_of(chosen[0])["weights"] == student_of(chosen[1])["weights"]
    (reading,) = trial["record"]["readings"]
    assert "chosen on validation" in reading["purpose"]
    assert [line["record"]["data"]["test"] for line in chosen] == [0, 500]


def test_a_choice_is_not_made_again(runs: Path, trained: list[Any]):
    first = run(spec(CHOOSING), runs)
    text = file_of(runs).read_text()
    trained.clear()
    assert run(spec(CHOOSING), runs) == first
    assert trained == []
    assert file_of(runs).read_text() == text


def test_without_the_folder_the_chosen_try_is_trained_again(runs: Path, trained: list[Any]):
    run(spec(CHOOSING, seeds=[0]), runs)
    path = file_of(runs)
    kept = [text for text in path.read_text().splitlines() if '"kind": "trial"' not in text]
    shutil.rmtree(runs)
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(kept) + "\n")
    trained.clear()
    run(spec(CHOOSING, seeds=[0]), runs)
    assert trained == [("tuned-seed0", True)]


def test_a_row_takes_the_choice_of_the_row_that_it_is_like(runs: Path, trained: list[Any]):
    rows = CHOOSING | {
        "longer": {"like": "tuned", "set": {"train.steps": 21}},
        "own": {"like": "tuned", "set": {KEY: 0.01}},
        "both": {"like": "tuned", "choose": {"task_weight": [0.9, 0.0]}},
    }
    run(spec(rows, seeds=[0]), runs)
    lines = lines_of(file_of(runs))
    settings = {line["row"]: line["settings"] for line in lines if line["kind"] == "trial"}
    assert settings["longer"] == {KEY: 0.05, "train.steps": 21}
    assert settings["own"] == {KEY: 0.01, "train.steps": 20}
    assert settings["both"] == {KEY: 0.05, "train.steps": 20, "task_weight": 0.9}
    tried = [line["row"] for line in lines if line["kind"] == "try"]
    assert tried == ["tuned", "tuned", "both", "both"]


def test_of_several_keys_each_is_chosen_after_the_one_before_it(runs: Path):
    choose = {KEY: [1e-12, 0.05], "task_weight": [1.0, 0.5]}
    rows = {"tuned": {"set": {"train.steps": 20}, "choose": choose}}
    done = run(spec(rows, seeds=[0]), runs)
    lines = lines_of(file_of(runs))
    tried = [
        (line["settings"][KEY], line["settings"]["task_weight"])
        for line in lines
        if line["kind"] == "try"
    ]
    assert tried == [(1e-12, 1.0), (0.05, 1.0), (0.05, 0.5)]
    (trial,) = [line for line in lines if line["kind"] == "trial"]
    rate, weight = done.table()[0]["chosen"].split("; ")
    assert rate.startswith(f"{KEY} 0.05 of (1e-12: ")
    assert weight.startswith(f"task_weight {trial['settings']['task_weight']} of (1.0: ")
    assert trial["settings"][KEY] == 0.05


def test_rows_that_come_to_the_same_share_their_trials(runs: Path, trained: list[Any]):
    rows = {
        "fixed": {"set": {"train.steps": 20}},
        "tuned": {"like": "fixed", "choose": {"task_weight": [1.0, 1e-9]}},
    }
    done = run(spec(rows), runs)
    assert trained == [
        ("fixed-seed0", True),
        ("fixed-seed1", True),
        ("tuned-seed0", False),
        ("tuned-seed0", False),
    ]
    fixed, tuned = done.table()
    assert tuned["chosen"].startswith("task_weight 1.0 of (1.0: ")
    assert tuned["accuracy"] == fixed["accuracy"]


def test_a_value_that_fails_is_not_chosen(runs: Path):
    rows = {"tuned": {"choose": {KEY: [1e30, 0.05]}, "set": {"train.steps": 20}}}
    done = run(spec(rows, seeds=[0]), runs)
    assert done.table()[0]["chosen"].startswith(f"{KEY} 0.05 of (1e+30: fails, 0.05: ")


def test_a_choice_among_failures_is_refused(runs: Path):
    rows = {"tuned": {"choose": {KEY: [1e30, 1e31]}}}
    with pytest.raises(RunError, match=r"No value of train\.optimizer\.lr .*tuned learned any"):
        run(spec(rows, seeds=[0]), runs)


# What is measured once for all


def test_precision_is_decided_once_for_all_trials_and_kept(
    runs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
):
    asked = taking(monkeypatch, precision="bf16", channels_last=False)
    auto = recipe(precision="auto", channels_last="auto")
    fixed = {"set": {"train.precision": "fp32"}}
    value = spec({"one": {}, "fixed": fixed, "wide": TWO["wide"]}, base=auto)
    run(value, runs)
    assert asked == [("precision", "channels_last")]
    chosen = {"values": {"precision": "bf16", "channels_last": False}, "milliseconds": {"x": 1.5}}
    first = json.loads(file_of(runs).read_text().splitlines()[0])
    assert first["decided"] == chosen | {"images": 7}
    assert first["spec"]["base"]["train"]["precision"] == "auto"

    def taken() -> list[tuple[str, str, bool]]:
        said = [
            (line["row"], line["record"]["recipe"]["train"]) for line in lines_of(file_of(runs))
        ]
        return [(row, train["precision"], train["channels_last"]) for row, train in said]

    first_two = [("one", "bf16", False)] * 2 + [("fixed", "fp32", False)] * 2
    assert taken() == first_two + [("wide", "bf16", False)] * 2
    asked = taking(monkeypatch, precision="fp32", channels_last=True)
    trained.clear()
    more = spec({"one": {}, "fixed": fixed, "narrow": {"set": {"student.width": 3}}}, base=auto)
    run(more, runs)
    assert asked == []
    assert [name for name, _ in trained] == ["narrow-seed0", "narrow-seed1"]
    assert taken()[6:] == [("narrow", "bf16", False)] * 2
    assert all(line["identity"] == line["record"]["identity"] for line in lines_of(file_of(runs)))


def test_each_setting_is_decided_by_the_first_row_that_leaves_it_open(
    runs: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = taking(monkeypatch, precision="fp32", channels_last=False)
    rows = {
        "said": {},
        "one": {"set": {"train.precision": "auto"}},
        "other": {"set": {"train.precision": "auto", "train.channels_last": "auto"}},
        "tried": {"choose": {"train.precision": ["bf16", "auto"]}},
    }
    run(spec(rows, seeds=[0]), runs)
    assert asked == [("precision",), ("channels_last",)]
    first = json.loads(file_of(runs).read_text().splitlines()[0])
    assert first["decided"]["values"] == {"precision": "fp32", "channels_last": False}
    said = [line["record"]["recipe"]["train"]["precision"] for line in lines_of(file_of(runs))]
    assert "auto" not in said


def test_without_anything_open_nothing_is_decided(runs: Path, monkeypatch: pytest.MonkeyPatch):
    asked = taking(monkeypatch)
    run(spec(TWO, seeds=[0]), runs)
    assert asked == []
    assert "decided" not in json.loads(file_of(runs).read_text().splitlines()[0])


# What fails


def test_what_is_no_number_ends_in_words(runs: Path, trained: list[Any]):
    rows = {"wild": {"set": {KEY: 1e30}}, "narrow": {"set": {"train.steps": 20}}}
    done = run(spec(rows), runs)
    wild, narrow = done.table()
    assert "supervised became infinite or NaN at step" in wild["failed"]
    assert str(runs) not in wild["failed"]
    assert "accuracy" not in wild
    assert "accuracy" in narrow
    assert any("wild: 2 of 2 seed(s) failed" in note for note in done.tables[0].notes)
    trained.clear()
    assert run(spec(rows), runs) == done
    assert trained == []


def test_what_collapsed_ends_in_words(runs: Path):
    done = run(spec({"short": {"set": {"train.steps": 2}}}, seeds=[0]), runs)
    assert "collapsed" in done.table()[0]["failed"]
    assert "fails" in done.text()


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ({"narrow": {}, "bad": {"set": {"student.widht": 4}}}, RecipeError),
        ({"narrow": {}, "bad": {"choose": {KEY: [0.1, "many"]}}}, RecipeError),
        ({"narrow": {}, "bad": {"set": {"student": {"run": "nowhere"}}}}, RunError),
        ({"narrow": {}, "bad": {"set": {"taps": [["a", "b"]], "student.mean": [1, 2]}}},
         NetworkError),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_runs(
    rows: dict[str, Any], error: type[Exception], runs: Path, trained: list[Any]
):
    with pytest.raises(error):
        run(spec(rows), runs)
    assert trained == []
    assert not runs.exists()


# Kills

KILLED = """
import json, os, signal, sys
from tutelage.comparison import compare
from tutelage.data.loader import TrainLoader

value, runs, count = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
batch = TrainLoader.batch

def counting(loader, step):
    global count
    count -= 1
    if count < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch(loader, step)

TrainLoader.batch = counting
compare(value, runs=runs, shown=False)
"""


def killed(value: dict[str, Any], runs: Path, after: int) -> int:
    """Runs a comparison in a process of its own that is killed after so many steps."""
    words = [sys.executable, "-c", KILLED, json.dumps(value), str(runs), str(after)]
    return subprocess.run(words, check=False).returncode


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 7])
def test_a_killed_comparison_goes_on(after: int, runs: Path, tmp_path: Path):
    value = spec(TWO, base=recipe(steps=4, checkpoint_every=2))
    assert killed(value, runs, after) == -signal.SIGKILL
    finished = len(lines_of(file_of(runs)))
    assert finished == after // 4
    run(value, runs)
    run(value, tmp_path / "whole")
    ours, whole = lines_of(file_of(runs)), lines_of(file_of(tmp_path / "whole"))
    assert list(map(meaning, ours)) == list(map(meaning, whole))


@pytest.mark.slow
def test_a_killed_trial_goes_on_though_what_only_watches_has_changed(
    runs: Path, tmp_path: Path, trained: list[Any]
):
    rows = {"narrow": {}}
    value = spec(rows, seeds=[0], base=recipe(steps=4, checkpoint_every=2))
    assert killed(value, runs, 3) == -signal.SIGKILL
    (begun,) = (path for path in (runs / "tiny").iterdir() if path.is_dir())
    changed = value | {"base": recipe(steps=4, checkpoint_every=1, log_every=2)}
    with pytest.warns(UserWarning, match=f"{begun.name} was begun with other .* is begun anew"):
        run(changed, runs)
    (line,) = lines_of(file_of(runs))
    assert line["record"]["name"] == begun.name
    run(value, tmp_path / "whole")
    assert list(map(meaning, lines_of(file_of(tmp_path / "whole")))) == [meaning(line)]


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 25, 43, 58, 66])
def test_a_comparison_that_chooses_goes_on_after_any_kill(after: int, runs: Path, tmp_path: Path):
    value = spec(CHOOSING | {"longer": {"like": "tuned", "set": {"train.steps": 6}}})
    value["base"] = recipe(checkpoint_every=5)
    assert killed(value, runs, after) == -signal.SIGKILL
    run(value, runs)
    run(value, tmp_path / "whole")
    ours, whole = lines_of(file_of(runs)), lines_of(file_of(tmp_path / "whole"))
    assert list(map(meaning, ours)) == list(map(meaning, whole))


# Re-stamping


def test_lines_are_restamped_if_one_trial_ends_in_the_same_bits(
    runs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
):
    value = spec(TWO)
    first = run(value, runs)
    before = lines_of(file_of(runs))
    other_code(monkeypatch)
    trained.clear()
    done = run(value, runs, restamp=True)
    assert trained == [("narrow-seed0", False), ("wide-seed0", False)]  # and test is not read
    after = lines_of(file_of(runs))
    assert done == first
    assert [line["record"] for line in after] == [line["record"] for line in before]
    for old, new in zip(before, after, strict=True):
        assert new["identity"] != old["identity"]
        assert new["parts"] == old["parts"] | {"code": "other code"}
        (stamp,) = new["restamped"]
        assert stamp["code"] == old["parts"]["code"]
        assert stamp.keys() == {"code", "time", "commit"}
    trained.clear()
    assert run(value, runs) == first
    assert run(value, runs, restamp=True) == first
    assert trained == []
    assert lines_of(file_of(runs)) == after


def test_what_was_not_measured_then_is_entered_where_a_trial_was_run_anew(
    runs: Path, monkeypatch: pytest.MonkeyPatch
):
    run(spec(TWO), runs)
    path = file_of(runs)
    known = [json.loads(text) for text in path.read_text().splitlines()]
    lacking = json.loads(json.dumps(known))
    for line in lacking:
        if line["kind"] != "spec":
            del line["record"]["students"]["student"]["train_accuracy"]
            del line["record"]["data"]["train_measured"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lacking))
    other_code(monkeypatch)
    run(spec(TWO), runs, restamp=True)
    trials = [line for line in known if line["kind"] == "trial"]
    for was, line in zip(trials, lines_of(path), strict=True):
        if line["seed"]:  # its row's first was run anew, not this
            del was["record"]["students"]["student"]["train_accuracy"]
            del was["record"]["data"]["train_measured"]
        assert line["record"] == was["record"]


def other_measuring(monkeypatch: pytest.MonkeyPatch, code: str = "other measuring") -> None:
    """As if evaluation had been written otherwise since."""
    for module in ("comparison.trials", "runs.measuring"):
        monkeypatch.setattr(f"tutelage.{module}.measuring_code", lambda part: f"{code} {part}")


@pytest.mark.parametrize("kept", [False, True])
def test_what_was_measured_by_older_code_is_proven_too(
    kept: bool, runs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
):
    value = spec(TWO)
    run(value, runs)
    before = lines_of(file_of(runs))
    for folder in (runs / "tiny").iterdir():
        if folder.is_dir() and not kept:
            shutil.rmtree(folder)
    other_measuring(monkeypatch)
    trained.clear()
    run(value, runs, restamp=True)
    anew = [("narrow-seed0", True), ("wide-seed0", True)]  # and test is read
    assert trained == ([] if kept else anew)
    after = lines_of(file_of(runs))
    for old, new in zip(before, after, strict=True):
        assert new["identity"] == old["identity"]
        (stamp,) = new["restamped"]
        assert stamp["measured"] == old["record"]["measured"]["test"]["code"]
        assert new["record"]["measured"]["test"]["code"] == "other measuring test"
        assert new["record"]["students"] == old["record"]["students"]
        extra = new["record"]["readings"][len(old["record"]["readings"]) :]
        assert [reading["purpose"] for reading in extra] == (
            ["proving that other code trains and measures the same"] if new["seed"] == 0 else []
        )
    trained.clear()
    run(value, runs, restamp=True)
    assert trained == []
    assert lines_of(file_of(runs)) == after


def test_code_that_measures_otherwise_is_not_stamped(runs: Path, monkeypatch: pytest.MonkeyPatch):
    value = spec({"narrow": {}}, seeds=[0])
    run(value, runs)
    path = file_of(runs)
    known = [json.loads(text) for text in path.read_text().splitlines()]
    known[-1]["record"]["students"]["student"]["test_accuracy"] += 0.01
    path.write_text("".join(json.dumps(line) + "\n" for line in known))
    text = path.read_text()
    other_measuring(monkeypatch)
    other_code(monkeypatch)
    with pytest.raises(RunError, match="seed 0 answers test otherwise than its line says"):
        run(value, runs, restamp=True)
    assert path.read_text() == text


def test_a_second_change_is_stamped_over_the_first(runs: Path, monkeypatch: pytest.MonkeyPatch):
    value = spec({"narrow": {}}, seeds=[0])
    run(value, runs)
    for name in ("second", "third"):
        other_code(monkeypatch, name)
        run(value, runs, restamp=True)
    (line,) = lines_of(file_of(runs))
    assert line["parts"]["code"] == "third code"
    assert [stamp["code"] for stamp in line["restamped"]][1:] == ["second code"]


def test_code_that_gives_other_bits_is_not_stamped(
    runs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
):
    value = spec(TWO)
    run(value, runs)
    text = file_of(runs).read_text()
    other_code(monkeypatch)
    monkeypatch.setattr(TrainLoader, "batch", one_later(TrainLoader.batch))
    with pytest.raises(RunError, match=r"narrow cannot be re-stamped.*seed 0 .*other weights"):
        run(value, runs, restamp=True)
    assert file_of(runs).read_text() == text
    trained.clear()
    done = run(value, runs)  # run anew; the proof's run is used
    assert [name for name, _ in trained] == ["narrow-seed1", "wide-seed0", "wide-seed1"]
    assert any("4 stale trial(s) of narrow, wide" in note for note in done.tables[0].notes)


def one_later(batch: Callable[..., Any]) -> Callable[..., Any]:
    return lambda loader, step: batch(loader, step + 1)


@pytest.mark.parametrize(
    "change",
    [
        {"base": recipe(steps=4)},
        {"rows": {"narrow": {"set": {"student.width": 3}}}},
    ],
)
def test_only_lines_that_differ_in_code_alone_are_stamped(
    change: dict[str, Any], runs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
):
    value = spec({"narrow": {}}, seeds=[0])
    run(value, runs)
    other_code(monkeypatch)
    trained.clear()
    run(value | change, runs, restamp=True)
    old, new = lines_of(file_of(runs))
    assert trained == [("narrow-seed0", True)]
    assert "restamped" not in old
    assert new["parts"]["code"] == "other code"


def age(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Makes lines those of an earlier version: other code, and recipes as `change` leaves them.

    The run folders are thrown away; they are named after what would be run now.
    """
    for folder in filter(Path.is_dir, list(path.parent.iterdir())):
        shutil.rmtree(folder)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] != "spec":
            change(line["record"]["recipe"])
            line["parts"] |= {"code": "old", "recipe": digest(line["record"]["recipe"])}
            line["identity"] = digest(line["parts"])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def younger(said: dict[str, Any]) -> None:
    """Two settings are not known yet."""
    del said["train"]["fuse_teacher"], said["data"]["views"]["cutmix"]


def test_lines_are_restamped_though_recipes_have_new_settings(runs: Path, trained: list[Any]):
    value = spec(TWO)
    first = run(value, runs)
    now = [line["parts"] for line in lines_of(file_of(runs))]
    age(file_of(runs), younger)
    records = [line["record"] for line in lines_of(file_of(runs))]
    trained.clear()
    assert run(value, runs, restamp=True) == first
    assert trained == [("narrow-seed0", False), ("wide-seed0", False)]
    lines = lines_of(file_of(runs))
    assert [line["parts"] for line in lines] == now
    assert len({line["identity"] for line in lines}) == 4
    assert [line["record"] for line in lines] == records
    for line in lines:
        (stamp,) = line["restamped"]
        assert stamp["code"] == "old"
        assert stamp["settings"] == {"train.fuse_teacher": True, "data.views.cutmix": 0.0}
    trained.clear()
    assert run(value, runs) == first
    assert trained == []


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        (lambda content: content["teacher"]["fingerprint"]["views"].pop("cutmix"), True),
        (lambda content: content["teacher"]["fingerprint"]["views"].update(cutmix=0.5), False),
        (lambda content: content["teacher"]["fingerprint"]["views"].update(gone=1), False),
        (lambda content: content.pop("test"), False),
    ],
)
def test_a_store_may_say_more_than_it_did(
    change: Callable[[dict[str, Any]], Any],
    taken: bool,
    runs: Path,
    trained: list[Any],
    teacher: Path,
    tmp_path: Path,
):
    store = tmp_path / "store"
    base = distilled(teacher)
    base["data"] = {**base["data"], "num_views": 1}
    cache(validate(base, "test"), store, shown=False)
    base["teacher"] = {"run": str(teacher), "cache": str(store)}
    value = spec({"kd": {}}, seeds=[0], base=base)
    first = run(value, runs)
    path = file_of(runs)
    age(path, dict)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    change(lines[1]["parts"]["content"])
    lines[1]["identity"] = digest(lines[1]["parts"])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    trained.clear()
    again = run(value, runs, restamp=True)
    assert (again == first) == taken
    assert trained == [("kd-seed0", not taken)]
    (stamp,) = lines_of(path)[0].get("restamped", [None])
    assert (stamp and stamp["content"]) == (
        {"teacher.fingerprint.views.cutmix": 0.0} if taken else None
    )


def test_where_files_lie_and_what_watches_may_differ_in_what_is_restamped(
    runs: Path, trained: list[Any]
):
    value = spec({"narrow": {}}, seeds=[0])
    run(value, runs)

    def change(said: dict[str, Any]) -> None:
        younger(said)
        said["train"] |= {"log_every": 77, "threads": None}

    age(file_of(runs), change)
    trained.clear()
    run(value, runs, restamp=True)
    assert trained == [("narrow-seed0", False)]
    assert lines_of(file_of(runs))[0]["restamped"]


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["train"].update(batch_size=40),
        lambda said: said["train"].update(gone=1),
        lambda said: said["student"].update(width=3),
        lambda said: said.update(methods={"kd": {"weight": 1.0}}),
    ],
)
def test_a_setting_that_differs_or_is_gone_makes_a_line_stale(
    change: Callable[[dict[str, Any]], Any], runs: Path, trained: list[Any]
):
    value = spec({"narrow": {}}, seeds=[0])
    run(value, runs)
    age(file_of(runs), lambda said: (younger(said), change(said)))
    trained.clear()
    run(value, runs, restamp=True)
    assert trained == [("narrow-seed0", True)]
    assert "restamped" not in lines_of(file_of(runs))[0]


def test_a_method_more_is_no_new_setting(runs: Path, trained: list[Any], teacher: Path):
    value = spec({"kd": {}}, seeds=[0], base=distilled(teacher))
    run(value, runs)
    age(file_of(runs), lambda said: said.update(methods={}))
    trained.clear()
    run(value, runs, restamp=True)
    assert trained == [("kd-seed0", True)]


def test_a_new_setting_that_gives_other_bits_is_refused(
    runs: Path, trained: list[Any], teacher: Path
):
    """A folded teacher's answers are rounded otherwise."""
    plain = {"train": distilled(teacher)["train"] | {"fuse_teacher": False, "precision": "bf16"}}
    run(spec({"kd": {}}, seeds=[0], base=distilled(teacher) | plain), runs)
    age(file_of(runs), lambda said: said["train"].pop("fuse_teacher"))
    folded = {"train": plain["train"] | {"fuse_teacher": True}}
    with pytest.raises(RunError, match="kd cannot be re-stamped"):
        run(spec({"kd": {}}, seeds=[0], base=distilled(teacher) | folded), runs, restamp=True)
    assert run(spec({"kd": {}}, seeds=[0], base=distilled(teacher) | plain), runs, restamp=True)
    assert lines_of(file_of(runs))[0]["restamped"][0]["settings"] == {"train.fuse_teacher": False}


def test_choices_are_stamped_with_their_row(
    runs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
):
    first = run(spec(CHOOSING), runs)
    other_code(monkeypatch)
    trained.clear()
    assert run(spec(CHOOSING), runs, restamp=True) == first
    assert trained == [("tuned-seed0", False)]
    assert all(line["restamped"] for line in lines_of(file_of(runs)))


def test_a_trial_that_failed_is_proven_by_failing_alike(
    runs: Path, monkeypatch: pytest.MonkeyPatch
):
    value = spec({"wild": {"set": {KEY: 1e30}}}, seeds=[0])
    first = run(value, runs)
    other_code(monkeypatch)
    assert run(value, runs, restamp=True) == first
    (line,) = lines_of(file_of(runs))
    assert line["restamped"]


# Axes


LEARNING = {"student": {"name": "resnet8", "width": 8}, "steps": 40, "batch_size": 100}
AXES = {"student.width": [6, 8]}


@pytest.mark.slow
def test_every_row_is_run_at_every_combination_of_the_axes(runs: Path, trained: list[Any]):
    rows = {"short": {}, "long": {"set": {"train.steps": 45}}, "kd": {"set": {"task_weight": 0.5}}}
    controls = {"short": "short", "long": "long"}
    value = spec(rows, seeds=[0], base=recipe(**LEARNING), axes=AXES, controls=controls)
    done = run(value, runs)
    assert [table.title for table in done.tables] == ["student.width 6", "student.width 8"]
    for width, table in zip((6, 8), done.tables, strict=True):
        assert [row["row"] for row in table.rows] == ["short", "long", "kd"]
        assert len({row["parameters"] for row in table.rows}) == 1
        assert f"student.width {width}" in table.text()
    sizes = [table.rows[0]["parameters"] for table in done.tables]
    assert sizes[0] < sizes[1]
    assert len(trained) == 6
    trained.clear()
    assert run(value, runs) == done
    assert trained == []


def test_each_group_chooses_for_itself(runs: Path):
    done = run(spec(CHOOSING, seeds=[0], axes=AXES), runs)
    tries = [line for line in lines_of(file_of(runs)) if line["kind"] == "try"]
    assert [line["settings"]["student.width"] for line in tries] == [6, 6, 8, 8]
    for table in done.tables:
        assert table.rows[0]["chosen"].startswith(f"{KEY} 0.05 of (1e-12: ")


# What is measured beside the answers


@pytest.mark.slow
def test_what_the_specification_asks_for_is_measured_of_every_trial(
    teacher: Path, runs: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
):
    value = spec({"narrow": {}}, base=distilled(teacher, **LEARNING))
    first = run(value, runs)
    trained.clear()
    asked = value | {"evaluate": {"corruptions": 30, "similarity": True}}
    shown: list[list[str]] = []

    def noting(networks: Any, *args: Any, **more: Any) -> Any:
        shown.append(sorted(networks))
        return robustness(networks, *args, **more)

    monkeypatch.setattr(extras_module, "robustness", noting)
    second = run(asked, runs)
    assert trained == []  # the students are still there
    assert shown == [["student", "teacher"], ["student"]]  # the teacher is measured once
    for line in [line for line in lines_of(file_of(runs)) if line["kind"] == "trial"][2:]:
        record = line["record"]
        student = record["students"]["student"]
        assert (
            student["robustness"]["pictures"] == record["teacher"]["robustness"]["pictures"] == 30
        )
        assert {pair["student"] for pair in student["similarity"]} <= {"layer1", "layer2", "layer3"}
        assert record["measured"].keys() == {"test", "robustness", "similarity"}
        assert len(record["readings"]) == 2
        asked_for = "asked for by the specification: corruptions of 30 pictures, similarity of maps"
        assert record["readings"][1]["purpose"] == asked_for
    assert "corrupted accuracy %" in second.text()
    assert "corrupted accuracy %" not in first.text()
    assert second.table()[1]["accuracy"] == first.table()[1]["accuracy"]
    assert run(asked, runs) == second
    assert len(shown) == 2
    fewer = value | {"evaluate": {"corruptions": 20}}
    run(fewer, runs)  # which the lines of 30 do not answer
    assert shown[2:] == [["student", "teacher"], ["student"]]
    pictures = [student_of(line)["robustness"]["pictures"] for line in lines_of(file_of(runs))[2:]]
    assert pictures == [30, 30, 20, 20]
    other = value | {"evaluate": {"corruptions": 20}, "rows": {"narrow": {}, "hints": HINTS}}
    run(other, runs)  # by other methods, but of the same teacher
    assert shown[4:] == [["student"], ["student"]]
    precise = value | {"evaluate": {"corruptions": 20}, "axes": {"train.precision": ["bf16"]}}
    run(precise, runs)  # in which the teacher answers otherwise
    assert shown[6:] == [["student", "teacher"], ["student"]]


def test_without_run_folders_students_are_trained_again_to_be_measured(
    runs: Path, trained: list[Any]
):
    value = spec({"narrow": {}}, seeds=[0], base=recipe(**LEARNING))
    run(value, runs)
    for folder in (runs / "tiny").iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    trained.clear()
    run(value | {"evaluate": {"corruptions": 10}}, runs)
    assert trained == [("narrow-seed0", True)]
    old, new = (line for line in lines_of(file_of(runs)) if line["kind"] == "trial")
    assert student_of(old)["weights"] == student_of(new)["weights"]
    assert "robustness" in student_of(new)


# Several at once


@pytest.mark.slow
def test_jobs_give_what_running_in_turn_gives(runs: Path, tmp_path: Path):
    base = recipe(threads=1)
    value = spec(CHOOSING | TWO, base=base)
    together = compare(value, runs=runs, jobs=2, shown=False)
    alone = compare(value, runs=tmp_path / "alone", shown=False)
    timeless = ("latency_ms", "seconds")
    for ours, theirs in zip(together.table(), alone.table(), strict=True):
        assert {k: v for k, v in ours.items() if k not in timeless} == {
            k: v for k, v in theirs.items() if k not in timeless
        }


def test_while_one_row_waits_for_its_tries_the_next_begins(
    runs: Path, monkeypatch: pytest.MonkeyPatch
):
    queue: list[tuple[Future[Any], Any, Any]] = []
    order: list[str] = []

    def start(self: Jobs, function: Any, argument: Any) -> "Future[Any]":
        order.append(f"begin {argument.kind} {argument.row}")
        queue.append((Future(), function, argument))
        return queue[-1][0]  # nothing runs before somebody waits

    def run_oldest(unfinished: Any, **how: Any) -> None:
        future, function, argument = queue.pop(0)
        order.append(f"run {argument.kind} {argument.row}")
        future.set_result(function(argument))

    monkeypatch.setattr(Jobs, "start", start)
    monkeypatch.setattr(sys.modules["tutelage.comparison.compare"], "wait", run_oldest)
    rows = {
        name: {"set": {"train.steps": steps}, "choose": {KEY: [1e-12, 0.05]}}
        for name, steps in (("first", 20), ("second", 21))
    }
    done = run(spec(rows, seeds=[0]), runs, jobs=2)
    assert order[:8] == [
        *["begin try first"] * 2,
        *["begin try second"] * 2,
        *["run try first"] * 2,
        "begin trial first",
        "run try second",
    ]
    assert [row["chosen"][:20] for row in done.table()] == ["train.optimizer.lr 0"] * 2


@pytest.mark.slow
def test_each_job_has_its_share_of_the_threads(runs: Path):
    compare(spec({"narrow": {}}, base=recipe(threads=None)), runs=runs, jobs=2, shown=False)
    for line in lines_of(file_of(runs)):
        if line["kind"] == "trial":
            threads = max(1, len(os.sched_getaffinity(0)) // 2)
            assert line["parts"]["threads"] == line["record"]["hardware"]["threads"] == threads


@pytest.mark.slow
def test_a_trial_that_cannot_run_stops_the_comparison(runs: Path):
    run(spec(TWO, seeds=[0]), runs)
    line = lines_of(file_of(runs))[0]
    taken = runs / "tiny" / line["record"]["name"]
    shutil.rmtree(taken)
    file_of(runs).unlink()
    taken.write_text("something else")
    with pytest.raises(RunError, match="is no run folder"):
        compare(spec(TWO, seeds=[0]), runs=runs, jobs=2, shown=False)


def test_no_job_is_no_number_of_jobs(runs: Path):
    with pytest.raises(SettingError, match="jobs must be 1 or more"):
        compare(spec(TWO), runs=runs, jobs=0, shown=False)


def test_a_student_that_answers_with_nan_is_a_row_that_fails(
    runs: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(settings: Any, *args: Any, **more: Any) -> Any:
        done = fit(settings, *args, **more)
        list(settings.student.parameters())[-1].data.fill_(float("nan"))
        return done

    monkeypatch.setattr(run_module, "fit", broken)
    done = run(spec({"narrow": {}}, seeds=[0]), runs)
    assert "answered with infinite numbers or NaN" in done.text()
    assert done.table()[0].get("accuracy") is None
    assert run(spec({"narrow": {}}, seeds=[0]), runs) == done


def test_rows_on_other_test_pictures_are_refused_before_anything_runs(runs: Path, tmp_path: Path):
    source = digits()
    parts = {"train": source.train, "test": source.test.take(torch.arange(300))}
    arrays: dict[str, Any] = {f"{name}_images": part.images for name, part in parts.items()}
    arrays |= {f"{name}_labels": part.labels for name, part in parts.items()}
    np.savez(tmp_path / "few.npz", **arrays)
    few = {"data.source": {"name": "arrays", "path": str(tmp_path / "few.npz")}}
    with pytest.raises(RecipeError, match="all and few have different test pictures"):
        run(spec({"all": {}, "few": {"set": few}}), runs)
    assert not file_of(runs).exists()


@pytest.mark.parametrize("name", ["notes.txt", "notes.jsonl", "folder"])
def test_a_file_that_is_not_a_comparisons_is_left_alone(name: str, runs: Path, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    if name != "folder":
        (tmp_path / name).write_text("my notes, one line, no newline")
    with pytest.raises(RunError, match=rf"{name} (is no place|holds no line)"):
        run(spec(TWO), runs, records=tmp_path / name)
    assert not runs.exists()
    if name != "folder":
        assert (tmp_path / name).read_text() == "my notes, one line, no newline"


def test_a_comparison_does_not_move_into_a_run(runs: Path):
    train(recipe(), name="tiny", runs=runs, shown=False)
    with pytest.raises(RunError, match="is the folder of a run"):
        run(spec(TWO), runs)


def test_a_line_that_is_whole_but_damaged_stops_it_before_anything_runs(
    runs: Path, trained: list[Any]
):
    run(spec(TWO, seeds=[0]), runs)
    content = file_of(runs).read_bytes()
    file_of(runs).write_bytes(content[:-9] + b"\xff" + content[-8:])
    trained.clear()
    with pytest.raises(RunError, match="damaged in line 3"):
        run(spec(TWO), runs)
    assert trained == []


def test_soft_labels_that_are_not_there_are_missed_before_anything_runs(runs: Path):
    asked = {"evaluate": {"soft_labels": "nowhere.npy"}}
    with pytest.raises(DataError, match="no file nowhere"):
        run(spec(TWO, **asked), runs)
    assert not runs.exists()


def test_two_comparisons_do_not_work_in_one_folder(runs: Path):
    with (
        alone_in(runs / "tiny", "tutelage compare"),
        pytest.raises(RunError, match="Another `tutelage compare` works in"),
    ):
        run(spec(TWO), runs)
    run(spec(TWO, seeds=[0]), runs)


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["the parent", "the group", "the parent is gone"])
def test_jobs_that_are_stopped_have_saved(asked: str, runs: Path, tmp_path: Path):
    value = spec({"narrow": {}}, base=recipe(steps=100_000, checkpoint_every=100_000, threads=1))
    process = started(value, runs, tmp_path)
    time.sleep(1)
    if asked == "the group":  # as a terminal's Ctrl-C
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM if asked == "the parent" else signal.SIGKILL)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(saved(runs)) < 2:
        time.sleep(0.1)
    assert len(saved(runs)) == 2


def saved(runs: Path) -> list[str]:
    """Checkpoints beyond the first."""
    return [path.name for path in checkpoints(runs) if int(path.name[5:]) > 0]


def checkpoints(runs: Path) -> list[Path]:
    """Finished ones: what is being written comes and goes beside them."""
    return list(runs.glob("*/*/checkpoints/step-*"))


def started(value: dict[str, Any], runs: Path, tmp_path: Path) -> "subprocess.Popen[bytes]":
    """A comparison in two jobs, once both have begun."""
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(value))
    words = [sys.executable, "-m", "tutelage.cli.main", "compare", str(path)]
    process = subprocess.Popen(
        [*words, "--runs", str(runs), "--jobs", "2"], stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(checkpoints(runs)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_jobs_that_are_stopped_go_on(number: signal.Signals, runs: Path, tmp_path: Path):
    value = spec(TWO, base=recipe(steps=150, checkpoint_every=20, threads=1))
    process = started(value, runs, tmp_path)
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
        assert b"Go on with: tutelage compare" in said
    done = compare(value, runs=runs, jobs=2, shown=False)
    whole = compare(value, runs=tmp_path / "whole", jobs=2, shown=False)
    assert [row["accuracy"] for row in done.table()] == [row["accuracy"] for row in whole.table()]
