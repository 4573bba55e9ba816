import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tutelage.records import RunFolder
from tutelage.runs import train


@pytest.fixture
def mine(inside: Path, tmp_path: Path) -> RunFolder:
    """A copy of the student's run, that may be changed."""
    shutil.copytree(inside / "runs" / "student", tmp_path / "student")
    return RunFolder(tmp_path / "student")


def test_the_record_is_shown_and_found_true(inside: Path, call: Any):
    said = call("evaluate", "runs/student")
    record = RunFolder(inside / "runs" / "student").read_record()
    assert said.code == 0
    assert said.out.startswith("student\n")
    student = record["students"]["student"]
    for name in ("validation_accuracy", "test_accuracy", "agreement"):
        assert f"{100 * student[name]:.1f} %" in said.out
    assert "its teacher" in said.out
    assert record["readings"][0]["purpose"] in said.out
    assert said.out.count("test read") == 1
    assert "measured again" in said.out
    assert "as recorded" in said.out


def test_json_is_one_object_and_nothing_else(inside: Path, call: Any):
    said = call("evaluate", "runs/student", "--json")
    found = json.loads(said.out)
    record = RunFolder(inside / "runs" / "student").read_record()
    assert found["record"] == record
    expected = record["students"]["student"]["validation_accuracy"]
    assert found["again"] == {"validation_accuracy": expected}


def test_a_record_that_is_no_longer_true_is_found_out(mine: RunFolder, call: Any):
    record = mine.read_record()
    record["students"]["student"]["validation_accuracy"] = 0.987
    mine.record.write_text(json.dumps(record))
    said = call("evaluate", mine.path)
    assert "but the record says 0.9870" in said.out


def test_test_is_read_again_only_when_asked_and_then_entered(mine: RunFolder, call: Any):
    before = mine.read_record()
    assert call("evaluate", mine.path).code == 0
    assert mine.read_record() == before
    said = call("evaluate", mine.path, "--test", "--json")
    after = mine.read_record()
    assert json.loads(said.out)["record"] == after
    assert after["readings"][:-1] == before["readings"]
    assert after["readings"][-1]["command"] == f"tutelage evaluate {mine.path} --test --json"
    assert after | {"readings": []} == before | {"readings": []}
    again = json.loads(said.out)["again"]
    assert again.keys() == {"validation_accuracy", "test_accuracy", "agreement"}
    assert again.items() <= before["students"]["student"].items()


def test_a_run_that_never_read_test_gets_its_first_reading(inside: Path, call: Any, tmp_path: Path):
    recipe = RunFolder(inside / "runs" / "student").recipe
    train(recipe, name="blind", runs=tmp_path, with_test=False, shown=False)
    blind = RunFolder(tmp_path / "blind")
    assert "test read       never" in call("evaluate", blind.path).out
    assert "test_accuracy" not in blind.read_record()["students"]["student"]
    assert call("evaluate", blind.path, "--test").code == 0
    record = blind.read_record()
    assert len(record["readings"]) == 1
    known = RunFolder(inside / "runs" / "student").read_record()
    assert record["students"]["student"]["test_accuracy"] == pytest.approx(
        known["students"]["student"]["test_accuracy"], abs=0.02
    )
    assert "test_accuracy" in record["teacher"]


def test_without_test_the_teacher_may_be_gone(
    mine: RunFolder, call: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(mine.path)
    assert call("evaluate", ".").code == 0
    code, _, err = call("evaluate", ".", "--test")
    assert code == 2
    assert "runs/teacher" in err


def test_other_pictures_are_refused(mine: RunFolder, call: Any):
    record = mine.read_record()
    record["content"]["train"] = "0" * 16
    mine.record.write_text(json.dumps(record))
    code, out, err = call("evaluate", mine.path)
    assert (code, out) == (2, "")
    assert "this has changed: training pictures" in err
