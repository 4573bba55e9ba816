"""One table, five ways to write it."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from made_records import (
    WIDTHS,
    line,
    lines,
    lines_of_widths,
    measured_deeply,
    record,
    write_comparison,
    write_run,
)

from tutelage.report.comparisons import make_tables
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
    (table,) = make_tables(comparison.spec, comparison.lines)
    assert text.startswith(table.text())
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
    for one in have:
        one["settings"][hostile] = hostile
    path = write_comparison(path, have, rows=rows, controls="none", axes={hostile: [hostile]})
    (_, row) = csv.DictReader(io.StringIO(written(read_source([path]), Format.CSV)[0]))
    assert row[f"'{hostile}"] == f"'{hostile}"


# Claims and axes


CLAIM = "kd > label-only-long on accuracy"


@pytest.fixture
def claimed(tmp_path: Path) -> Source:
    have = measured_deeply(lines())
    return read_source([write_comparison(tmp_path / "made.jsonl", have, claims=[CLAIM])])


@pytest.fixture
def widths(tmp_path: Path) -> Source:
    have = measured_deeply(lines_of_widths(kd=[0.6, 0.61, 0.62]))[:-1]
    path = tmp_path / "made.jsonl"
    return read_source([write_comparison(path, have, axes=WIDTHS, claims=[CLAIM], note="Of both.")])


@pytest.mark.parametrize("form", list(Format))
def test_findings_are_in_every_form(claimed: Source, form: Format):
    text, notes = written(claimed, form)
    told = (text + " ".join(notes)).replace(r"\textgreater{}", ">").replace("$-$", "−")
    assert f"shown: {CLAIM}, by +5.5" in told


@pytest.mark.parametrize("form", list(Format))
def test_with_axes_every_form_tells_of_all_parts(widths: Source, form: Format):
    text, notes = written(widths, form)
    told = text + " ".join(notes)
    assert "hints, student.width 16: seed(s) 2 not run yet." in told
    assert told.count("Of both.") == (2 if form is Format.TEXT else 1)
    if form in (Format.TEXT, Format.MD, Format.LATEX):
        assert text.count("label-only-long") > 2
        for title in ("student.width 8", "student.width 16"):
            assert any(title in row and "kd" not in row for row in text.splitlines())


def test_with_axes_csv_names_their_values_in_each_row(widths: Source):
    text, notes = written(widths, Format.CSV)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert next(iter(rows[0])) == "student.width"
    kd = {row["student.width"]: float(row["accuracy"]) for row in rows if row["row"] == "kd"}
    assert kd == {"8": pytest.approx(71.0), "16": pytest.approx(61.0)}
    assert any(note.startswith(f"student.width 8: shown: {CLAIM}") for note in notes)
    assert any(note.startswith(f"student.width 16: contradicted: {CLAIM}") for note in notes)


def test_with_axes_json_names_their_values_in_each_row_and_finding(widths: Source):
    said = json.loads(written(widths, Format.JSON)[0])
    assert [row["student.width"] for row in said["rows"]] == [8] * 5 + [16] * 5
    first, second = said["findings"]
    assert (first["student.width"], first["verdict"]) == (8, "shown")
    assert (second["student.width"], second["verdict"]) == (16, "contradicted")
    assert first["interval"][0] == pytest.approx(5.5)
    assert set(first["two_level"]) == {"mean", "low", "high", "over_seeds", "over_pictures"}
    assert first["sentence"].startswith(f"shown: {CLAIM}")


def test_a_value_of_an_axis_may_be_a_mapping(tmp_path: Path):
    methods: Any = [{"kd": {"weight": 0.9}}, []]
    have = [
        line("kd", seed, 0.7, settings={"methods": value, "row": "kd"})
        for value in methods
        for seed in range(3)
    ]
    rows = {"kd": {"like": None, "set": {"row": "kd"}, "choose": {}}}
    path = tmp_path / "made.jsonl"
    more: Any = {"rows": rows, "controls": "none", "axes": {"methods": methods}}
    source = read_source([write_comparison(path, have, **more)])
    rows = list(csv.DictReader(io.StringIO(written(source, Format.CSV)[0])))
    told = [row["methods"] for row in rows if row["row"] == "kd"]
    assert told == ['{"kd": {"weight": 0.9}}', "[]"]


def test_code_in_notes_is_code_in_latex():
    text = latex([["row"], ["kd"]], ["run `make tables`"], "lr 0.1 & more")
    assert text.splitlines()[0] == r"\noindent\textbf{lr 0.1 \& more}\par"
    assert text.endswith(r"run \texttt{make tables}\par")


def test_a_run_s_measures_stand_among_its_facts(tmp_path: Path):
    kept = measured_deeply([line("kd", 0, 0.7)])[0]["record"]
    source = read_source([write_run(tmp_path / "run", kept)])
    text = written(source, Format.TEXT)[0]
    for words in ("KL to the teacher", "12.0 ms for 32 at once", "0.30 MB", "people's labels"):
        assert words in text
    (student, _) = json.loads(written(source, Format.JSON)[0])["runs"]
    assert student["fidelity"]["kl"] == 0.5
    (row, _) = csv.DictReader(io.StringIO(written(source, Format.CSV)[0]))
    assert row["latency_batched_p95_ms"] == "14.5"
