"""The tables of the papers are those of the records."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TABLES = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))


@pytest.mark.parametrize("path", TABLES["FILES"], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_table_is_that_of_the_records(path: Path):
    text = path.read_text()
    tables = re.findall(r"<!-- table of (?:.|\n)*?<!-- end of table -->", text)
    assert tables
    for table in tables:
        assert len(re.findall(r"^\|", table, re.MULTILINE)) >= 4
        numbers = re.search(r"\d\d\.\d ± \d", table)
        assert numbers is not None
        wrong = text.replace(table, table.replace(numbers[0], "99.9 ± 9"))
        assert wrong != text
        assert TABLES["renewed"](wrong) == text, "run `make tables`"
    assert TABLES["renewed"](text) == text, "run `make tables`"
