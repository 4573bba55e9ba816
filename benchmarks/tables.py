"""Writes the measured tables of Markdown files anew, from the records alone: `make tables`.

A table stands between `<!-- table of FILE -->` and `<!-- end of table -->`, FILE being the
JSON-lines file of a comparison, relative to the root of the repository. With
`<!-- table of FILE: COLUMN | COLUMN … -->` only those columns are shown, and what must be read with
them has to be linked to.
"""

import re
import sys
from pathlib import Path

from tutelage.records import write_atomic
from tutelage.report.comparisons import make_tables
from tutelage.report.formats import Format, markdown, written
from tutelage.report.sources import Runs, read_source

__all__ = ["FILES", "renewed"]

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
_TABLE = re.compile(
    r"(?P<head><!-- table of (?P<file>[^\s:]+)(: (?P<columns>.+?))? -->\n)"
    r".*?(?P<end><!-- end of table -->)",
    re.DOTALL,
)


def renewed(text: str) -> str:
    """The text with its tables as the records say."""
    return _TABLE.sub(
        lambda found: (
            f"{found['head']}\n{_table(found['file'], found['columns'])}\n\n{found['end']}"
        ),
        text,
    )


def _table(file: str, columns: str | None) -> str:
    source = read_source([ROOT / file])
    if columns is None:
        return written(source, Format.MD)[0]
    assert not isinstance(source, Runs)
    (table,) = make_tables(source.spec, source.lines, source.stale)
    cells = table.cells()
    places = [cells[0].index(name) for name in columns.split(" | ")]
    return markdown([[row[place] for place in places] for row in cells], [])


def main() -> None:
    """Rewrites the files, and names those that have changed."""
    for path in FILES:
        text = path.read_text()
        if (new := renewed(text)) != text:
            write_atomic(path, new)
            print(f"{path.relative_to(ROOT)} is renewed.", file=sys.stderr)


if __name__ == "__main__":
    main()
