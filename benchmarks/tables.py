"""Writes the measured tables of Markdown files anew, from the records alone: `make tables`.

A table stands between `<!-- table of FILE -->` and `<!-- end of table -->`, FILE being the
JSON-lines file of a comparison, relative to the root of the repository.
"""

import re
import sys
from pathlib import Path

from tutelage.report.formats import Format, written
from tutelage.report.sources import read_source

from tutelage.records import write_atomic

__all__ = ["FILES", "renewed"]

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "README.md",)
_TABLE = re.compile(
    r"(?P<head><!-- table of (?P<file>\S+) -->\n).*?(?P<end><!-- end of table -->)", re.DOTALL
)


def renewed(text: str) -> str:
    """The text with its tables as the records say."""

    def table(found: re.Match[str]) -> str:
        source = read_source([ROOT / found["file"]])
        return f"{found['head']}{written(source, Format.MD)[0]}\n{found['end']}"

    return _TABLE.sub(table, text)


def main() -> None:
    """Rewrites the files, and names those that have changed."""
    for path in FILES:
        text = path.read_text()
        if (new := renewed(text)) != text:
            write_atomic(path, new)
            print(f"{path.relative_to(ROOT)} is renewed.", file=sys.stderr)


if __name__ == "__main__":
    main()
