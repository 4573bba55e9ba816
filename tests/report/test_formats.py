"""One table, five ways to write it."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from made_records import line, lines, record, write_comparison, write_run

from tutelage.report.comparisons import make_table
from tutelage.report.formats import Format, latex, markdown, written
from tutelage.report.sources import Comparison, Source, read_source


@pytest.fixture
def comparison(tmp_path: Path) -> Source:
    return read_source([write_comparison(tmp_path / "made.jsonl", lines()[:-1], note="Read this.")])


@pytest.fixture
def run(tmp_path: Path) -> Source:
    return read_source([write_run(tmp_path / "run", record(0.7))])


def test_text_is_the_comparison_s_table(comparison: Source):
    assert isinstance(comparison, Comparison)
    text, notes = written(comparison, Format.TEXT)
    assert text.startswith(make_table(comparison.spec, comparison.lines).text())
    assert text.endswith("hints: seed(s) 2 not run yet.")
    assert notes == []


@pytest.mark.parametrize("form", list(Format))
def test_every_form_says_the_same(comparison: Source, run: Source, form: Format):
    for source, words in ((comparison, ("label-only-long", "kd", "hints")), (run, ("student",))):
        text, notes = written(source, form)
        assert all(word in text for word in words)
        if source is comparison:
            assert "Read this." in text + " ".join(notes)
            assert "seed(s) 2 not run yet" in text + " ".join(notes)


def test_csv_has_all_digits_and_three_columns_for_an_interval(comparison: Source):
    text, notes = written(comparison, Format.CSV)
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO(text))}
    assert float(rows["kd"]["accuracy"]) == pytest.approx(71.0)
    ends = [float(rows["kd"][key]) for key in ("over_short_low", "over_short", "over_short_high")]
    assert ends == sorted(ends)
    assert ends[1] == pytest.approx(6.0)
    assert rows["label-only"]["over_short"] == ""
    assert notes[0] == "Read this."


def test_json_is_one_object(comparison: Source, run: Source):
    said = json.loads(written(comparison, Format.JSON)[0])
    assert said["comparison"] == "made"
    assert said["notes"][0] == "Read this."
    assert next(row for row in said["rows"] if row["row"] == "kd")["verdict"] == "shown"
    said = json.loads(written(run, Format.JSON)[0])
    assert [row["network"] for row in said["runs"]] == ["student", "teacher"]
    assert said["facts"]["command"] == "tutelage compare spec.yaml"


def test_json_knows_no_nan(tmp_path: Path):
    kept = record(0.7)
    kept["students"]["student"]["agreement"] = float("nan")
    text, _ = written(read_source([write_run(tmp_path / "run", kept)]), Format.JSON)
    assert json.loads(text)["runs"][0]["agreement"] is None


def test_markdown_shows_what_it_is_given():
    cells = [["row", "test"], ["a|b <script> [x](y) *c* \\", "70.0\n± 1"]]
    text = markdown(cells, ["one | two", "`code_of`"])
    head, rule, row, _, first, second = text.splitlines()
    assert (head, rule) == ("| row | test |", "|---|---|")
    assert row == r"| a\|b \<script> \[x\](y) \*c\* \\ | 70.0 ± 1 |"
    assert (first, second) == (r"- one \| two", "- `code_of`")
    assert markdown(cells, []).splitlines()[-1] == row


def test_latex_shows_what_it_is_given():
    special = r"\ { } $ & # % _ ^ ~ < > | ± × − – …"
    text = latex([["row", "test"], [special, "70.0"]], ["100 %"])
    lines = text.splitlines()
    assert lines[:2] == [r"\begin{tabular}{lr}", r"\toprule"]
    assert lines[4] == (
        r"\textbackslash{} \{ \} \$ \& \# \% \_ \textasciicircum{} \textasciitilde{} "
        r"\textless{} \textgreater{} \textbar{} $\pm$ $\times$ $-$ -- \dots{} & 70.0 \\"
    )
    assert lines[-1] == r"100 \%\par"


def test_a_name_is_no_formula(tmp_path: Path):
    hostile = "=cmd|' /C calc'!A0"
    rows: dict[str, Any] = {hostile: {"like": None, "set": {"row": hostile}, "choose": {}}}
    have = [line(hostile, seed, 0.7) for seed in range(3)]
    path = write_comparison(tmp_path / "made.jsonl", have, rows=rows, controls="none")
    (_, row) = csv.DictReader(io.StringIO(written(read_source([path]), Format.CSV)[0]))
    assert row["row"] == f"'{hostile}"
