import json
import shutil
from pathlib import Path
from typing import Any

from tutelage.records import RunFolder


def test_one_run_is_told_with_how_it_came_about(inside: Path, call: Any):
    code, out, err = call("report", "runs/student")
    assert (code, err) == (0, "")
    for words in (
        "its teacher",
        "kd (temperature 4.0, weight 0.9); labels (weight 0.1)",
        "tutelage train student.yaml",
        "200 with label; 100 for validation, 500 for test; 10 classes",
        "3 of 3 steps",
        "final measurement, after all choices",
    ):
        assert words in out
    assert "One run per line" not in out


def test_several_runs_share_a_table_and_a_caution(inside: Path, call: Any):
    code, out, _ = call("report", "runs/teacher", "runs/student")
    assert code == 0
    first = [line.split()[0] for line in out.splitlines()[1:4]]
    assert first == ["teacher", "student", "its"]
    assert "note: One run per line" in out
    assert "machines" not in out


def test_what_does_not_compare_is_said(inside: Path, call: Any, tmp_path: Path):
    shutil.copytree(inside / "runs" / "student", tmp_path / "student")
    other = RunFolder(tmp_path / "student")
    record = other.read_record()
    record["hardware"]["processor"] = "another"
    record["content"]["test"] = "another"
    other.record.write_text(json.dumps(record))
    out = call("report", "runs/student", other.path).out
    assert "different machines" in out
    assert "different test pictures" in out
