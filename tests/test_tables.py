"""The tables of the papers are those of the records."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLES = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))


def test_no_table_is_older_than_its_records():
    for path in TABLES["FILES"]:
        assert TABLES["renewed"](path.read_text()) == path.read_text(), "run `make tables`"


def test_a_table_that_is_not_that_of_the_records_is_found():
    text = TABLES["FILES"][0].read_text()
    assert len(re.findall("<!-- table of ", text)) >= 1
    number = re.search(r"\| kd \|[^|]* \| (\d\d\.\d)", text) or re.search(
        r"\| kd \| (\d\d\.\d)", text
    )
    assert number is not None
    wrong = text.replace(number[1], "99.9")
    assert wrong != text
    assert TABLES["renewed"](wrong) == text
