"""What methods chose between phases, on a page."""

import re
from pathlib import Path
from typing import Any

import pytest
from made_records import line, spec, write_comparison

from tutelage.report.page import write_page
from tutelage.report.selection import selection_figure, selections
from tutelage.report.sources import read_source

NUMBERS: dict[str, float | None] = {"a<-a": 1.0, "a<-b": 2.0, "b<-a": None, "b<-b": 0.5}


def found(names: list[str], kept: list[str]) -> dict[str, Any]:
    return {"score": "joint", "scores": {name: NUMBERS[name] for name in names}, "kept": kept}


def record(last: str = "b<-b") -> dict[str, Any]:
    kept = ["a<-a", "b<-b"]
    return {
        "recipe": {"seed": 3},
        "phases": [{"routes": found(list(NUMBERS), kept)}, {"routes": found(kept, [last])}, {}],
    }


def test_a_line_ends_where_its_candidate_was_dropped():
    (choice,) = selections("run", record())
    assert choice.left == ["b<-b"]
    figure = selection_figure(choice, "-0")
    assert figure is not None
    assert {trace["legendgroup"]: trace["x"] for trace in figure.data} == {
        "a<-a": [1, 2],
        "a<-b": [1],
        "b<-a": [1],
        "b<-b": [1, 2],
    }
    assert {trace["legendgroup"]: trace["y"] for trace in figure.data}["b<-a"] == [None]
    wide = [trace["legendgroup"] for trace in figure.data if trace["line"]["width"] == 3]
    assert wide == ["b<-b"]
    assert figure.table.rows == [
        ["a<-a", "dropped after phase 2", "1", "1"],
        ["a<-b", "dropped after phase 1", "2", "–"],
        ["b<-a", "dropped after phase 1", "–", "–"],
        ["b<-b", "stayed", "0.5", "0.5"],
    ]
    assert "b<-b stayed" in figure.label


@pytest.mark.parametrize(
    "phases", [None, [], [{}], [{"kd": {"seen": 1}}], [{"kd": 3}], [{"kd": {"scores": 1}}]]
)
def test_other_findings_are_no_choice(phases: Any):
    assert selections("run", {"phases": phases}) == []


def test_the_page_shows_the_first_run_and_names_what_stayed_in_each(tmp_path: Path):
    have = [line("kpn", seed, 0.7) for seed in range(3)]
    for seed, one in enumerate(have):
        made = record("b<-b" if seed else "a<-a")
        made["phases"][2] = {"other": {"seen": seed}}
        one["record"]["phases"] = made["phases"]
    path = write_comparison(
        tmp_path / "made.jsonl",
        have,
        rows=spec("kpn", controls="none")["rows"],
        controls="none",
    )
    write_page(read_source([path]), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "What routes chose in kpn" in text
    stayed = text[text.index('aria-label="What stayed of the candidates"') :]
    cells = re.findall(r"<td>(\w&lt;-\w)</td>", stayed)
    assert cells[:3] == ["a&lt;-a", "b&lt;-b", "b&lt;-b"]
    assert "phase 3: {&#34;other&#34;" in text  # as before, in words
    assert "phase 1: {" not in text


def test_what_was_never_chosen_has_no_picture_but_is_named():
    (choice,) = selections("run", {"phases": [{"routes": {"scores": {}, "kept": ["a<-b"]}}, {}]})
    assert choice.left == ["a<-b"]
    assert selection_figure(choice, "-0") is None
