import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_records import WIDTHS, line, lines, lines_of_widths, write_comparison

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


# Comparisons, pages and other forms


def test_a_comparison_is_reported_as_it_was_compared(tmp_path: Path, call: Any):
    path = write_comparison(tmp_path / "made.jsonl", lines())
    code, out, err = call("report", path)
    assert (code, err) == (0, "")
    assert out.startswith("row")
    assert "71.0 ± 0.9" in out
    assert [one.name for one in tmp_path.iterdir()] == ["made.jsonl"]


def test_a_page_is_written_beside_the_table(tmp_path: Path, call: Any):
    path = write_comparison(tmp_path / "made.jsonl", lines())
    page = tmp_path / "made.html"
    code, out, err = call("report", path, "--html", page, "--format", "md")
    assert code == 0
    assert out.startswith("| row |")
    assert err == f"note: The page is {page}.\n"
    assert "is shown for kd" in page.read_text(encoding="utf-8")


def test_a_page_of_real_runs_can_be_made(inside: Path, call: Any, tmp_path: Path):
    page = tmp_path / "runs.html"
    assert call("report", "runs/teacher", "runs/student", "--html", page).code == 0
    text = page.read_text(encoding="utf-8")
    assert "2 runs side by side" in text
    assert '"curve-loss"' in text


def test_pictures_are_shown_when_they_are_asked_for(inside: Path, call: Any, tmp_path: Path):
    page = tmp_path / "runs.html"
    runs = ("runs/teacher", "runs/student")
    assert call("report", *runs, "--html", page, "--pictures").code == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<img ") == 12 * (1 + 3 * 2) + 12  # teacher, and both as students; 12 apart
    assert "Where student and its teacher differ most" in text
    assert call("report", *runs, "--html", page).code == 0
    assert "<img " not in page.read_text(encoding="utf-8")
    code, out, err = call("report", *runs, "--pictures")
    assert (code, out) == (2, "")
    assert "--pictures goes with a page" in err


def test_a_comparison_with_axes_has_a_table_for_each_of_their_values(tmp_path: Path, call: Any):
    claims = ["kd > label-only-long on accuracy"]
    path = write_comparison(tmp_path / "made.jsonl", lines_of_widths(), axes=WIDTHS, claims=claims)
    code, out, err = call("report", path)
    assert (code, err) == (0, "")
    assert out.startswith("student.width 8\n\nrow")
    assert out.count("kd > label-only-long on accuracy") == 2


def test_notes_of_a_table_for_programs_go_elsewhere(tmp_path: Path, call: Any):
    path = write_comparison(tmp_path / "made.jsonl", lines(), note="Read this.")
    _, out, err = call("report", path, "--format", "csv")
    assert "Read this." not in out
    assert "note: Read this.\n" in err
    said = json.loads(call("report", path, "--format", "json").out)
    assert said["notes"][0] == "Read this."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["made.jsonl", "--format", "pdf"], "pdf"),
        (["made.jsonl", "--html", "made.txt"], "made.txt is no name for a page"),
        (["made.jsonl", "absent"], "of runs, or of one comparison"),
        (["absent"], "no run folder"),
        (["absent.jsonl"], "There is no absent.jsonl"),
    ],
)
def test_what_cannot_be_reported_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, arguments: list[str], words: str
):
    monkeypatch.chdir(tmp_path)
    write_comparison(tmp_path / "made.jsonl", lines())
    code, out, err = call("report", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_mixed_data_are_refused_with_the_field(tmp_path: Path, call: Any):
    other = {"content": {"train": "aaaa", "test": "other", "source": "cccc"}}
    path = write_comparison(tmp_path / "made.jsonl", [*lines(), line("kd", 2, 0.7, record=other)])
    code, out, err = call("report", path)
    assert (code, out) == (2, "")
    assert "content.test" in err
