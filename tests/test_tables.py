"""The tables of the papers are those of the records."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TABLES = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", TABLES["FILES"], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_table_is_that_of_the_records(path: Path):
    text = path.read_text()
    tables = re.findall(r"<!-- \w+ of (?:.|\n)*?<!-- end of table -->", text)
    assert len(tables) == text.count("<!-- end of table -->") >= 2
    for table in tables:
        assert len(re.findall(r"^\|", table, re.MULTILINE)) >= 4
        numbers = re.search(r"\d\.\d", table)
        assert numbers is not None
        wrong = text.replace(table, table.replace(numbers[0], "99.9"))
        assert wrong != text
        assert TABLES["renewed"](wrong) == text, "run `make tables`"
    assert TABLES["renewed"](text) == text, "run `make tables`"


@pytest.mark.parametrize("path", TABLES["WITH_CODE"], ids=lambda path: path.name)
def test_a_file_in_a_page_is_the_file(path: Path):
    text = path.read_text()
    assert TABLES["renewed"](text) == text, "run `make tables`"
    files = re.findall(r"<!-- file (\S+) -->", text)
    assert len(files) == text.count("<!-- end of file -->") >= 4
    for file in files:
        assert (ROOT / file).read_text() in text
    wrong = text.replace("optimizer.step()", "optimizer.stop()")
    assert TABLES["renewed"](wrong) == text != wrong


@pytest.mark.parametrize("path", sorted(ROOT.glob("benchmarks/*.html")), ids=lambda path: path.name)
def test_a_page_that_is_committed_holds_no_picture_and_belongs_to_the_records(path: Path):
    text = path.read_text(encoding="utf-8")
    plotly = max(text.split("</script>"), key=len)  # which has pictures of its own, of buttons
    text = text.replace(plotly, "")
    assert len(text) < 1e6 < len(plotly)
    assert "data:image" not in text
    assert "<img" not in text
    records = ROOT / "benchmarks" / "records" / f"{path.stem}.jsonl"
    assert f"<title>{path.stem}" in text
    for line in map(json.loads, records.read_text().splitlines()):
        if line["kind"] == "trial" and "robustness" in line["record"]["students"]["student"]:
            assert line["identity"][:8] in text
