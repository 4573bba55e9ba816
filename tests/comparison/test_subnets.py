"""Rows that are sub-nets of another row's students: shown and chosen by, and trained once."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import recipe

from tutelage.comparison import Comparison, compare
from tutelage.comparison.spec import read_spec
from tutelage.errors import RecipeError, RunError
from tutelage.report.comparisons import make_tables
from tutelage.report.page import make_page
from tutelage.report.sources import Comparison as Read
from tutelage.report.sources import read_source

DEEP = {"student": {"name": "resnet14", "width": 2, "subnets": {"small": 1}}, "train.steps": 40}
ROWS: dict[str, Any] = {
    "deep": {"set": DEEP},
    "deep-small": {"like": "deep", "subnet": "small"},
    "alone": {"set": {"train.steps": 40}},
}


def asked(**more: Any) -> dict[str, Any]:
    base = {"schema": 1, "name": "tiny", "base": recipe(), "seeds": [0, 1], "controls": "none"}
    return base | {"rows": ROWS, "claims": ["deep-small > alone on accuracy"]} | more


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def done(runs: Path) -> Comparison:
    return compare(asked(), runs=runs, shown=False)


def lines_of(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    return [line for line in lines if line["kind"] != "spec"]


def test_a_row_shows_its_sub_net_and_trains_nothing_of_its_own(done: Comparison) -> None:
    lines = lines_of(done.records)
    assert [(line["row"], line["seed"]) for line in lines] == [
        *(("deep", 0), ("deep", 1)),
        *(("alone", 0), ("alone", 1)),
    ]
    table = {row["row"]: row for row in done.table()}
    for row, name in (("deep", "student"), ("deep-small", "small")):
        entries = [line["record"]["students"][name] for line in lines if line["row"] == "deep"]
        mean = sum(entry["test_accuracy"] for entry in entries) / 2
        assert table[row]["accuracy"] == pytest.approx(100 * mean)
        assert table[row]["parameters"] == entries[0]["parameters"]
        assert table[row]["macs"] == entries[0]["macs"]
        share = entries[0]["macs"] / sum(e["macs"] for e in lines[0]["record"]["students"].values())
        took = [line["record"]["seconds"] for line in lines if line["row"] == "deep"]
        assert table[row]["seconds"] == pytest.approx(share * sum(took) / 2)
    assert "deep-small: sub-nets." in done.text()
    took = [line["record"]["seconds"] for line in lines if line["row"] == "deep"]
    assert f"All depths together: deep {sum(took) / 2:.0f} s." in done.text()
    assert table["deep-small"]["macs"] == table["alone"]["macs"] < table["deep"]["macs"]
    (finding,) = done.findings()
    assert finding.claim == "deep-small > alone on accuracy"
    assert finding.seeds == 2


def test_the_report_from_the_file_says_the_same(done: Comparison) -> None:
    source = read_source([done.records])
    assert isinstance(source, Read)
    tables = make_tables(source.spec, source.lines, source.stale, source.late)
    assert [table.text() for table in tables] == [done.text()]
    page = make_page(source)
    assert "deep-small" in page


def test_nothing_runs_twice(done: Comparison, runs: Path) -> None:
    before = done.records.read_text()
    again = compare(asked(), runs=runs, shown=False)
    assert again.text() == done.text()
    assert done.records.read_text() == before


@pytest.mark.slow
def test_a_row_chooses_by_its_sub_net(runs: Path) -> None:
    lrs = [1e-12, 0.05, 0.2]
    row = {"like": "deep", "choose": {"train.optimizer.lr": lrs}}
    rows = {"deep": ROWS["deep"], "whole": row, "part": row | {"subnet": "small"}}
    found = compare(asked(name="choosing", rows=rows, claims=[]), runs=runs, shown=False)
    tries = [line for line in lines_of(found.records) if line["kind"] == "try"]
    assert len(tries) == 3  # one after the other asks for the same
    for row, name in (("whole", "student"), ("part", "small")):
        scores = [line["record"]["students"][name]["validation_accuracy"] for line in tries]
        best = lrs[scores.index(max(scores))]
        chosen = {entry["row"]: entry for entry in found.table()}[row]["chosen"]
        assert chosen.startswith(f"train.optimizer.lr {best} of")
    source = read_source([found.records])
    assert isinstance(source, Read)
    tables = make_tables(source.spec, source.lines, source.stale, source.late)
    assert [table.text() for table in tables] == [found.text()]


def test_a_row_that_is_like_one_shows_the_same_sub_net_unless_it_says_full() -> None:
    more = {"longer": {"like": "deep-small", "set": {"train.steps": 50}}}
    more["whole"] = {"like": "longer", "subnet": "full"}
    spec = read_spec(asked(rows=ROWS | more))
    shown = {name: spec.subnet(name) for name in spec.rows}
    assert shown == {
        **{"deep": None, "alone": None, "whole": None},
        **{"deep-small": "small", "longer": "small"},
    }
    # What the student of an earlier run has is seen when its trials are.
    read_spec(asked(rows={"a": {"set": {"student": {"run": "r"}}, "subnet": "8"}}, claims=[]))


def test_refuses_a_sub_net_that_the_student_has_not(done: Comparison) -> None:
    for row in ({"like": "deep", "subnet": "8"}, {"subnet": "small"}):
        with pytest.raises(RecipeError, match=r"is to be the sub-net .* but its student has"):
            read_spec(asked(rows=ROWS | {"other": row}, claims=[]))
    # A file that was changed by hand.
    text = done.records.read_text().replace('"subnet": "small"', '"subnet": "tall"')
    path = done.records.parent / "changed.jsonl"
    path.write_text(text)
    with pytest.raises(RunError, match=r"is to be the sub-net 'tall', but its trials trained"):
        read_source([path])
