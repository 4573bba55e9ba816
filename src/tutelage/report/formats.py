"""The tables of a report for terminals, documents and programs."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from tutelage.report.comparisons import make_table
from tutelage.report.counting import Record
from tutelage.report.sources import Runs, Source, finite_only
from tutelage.report.tables import align, cautions, facts, listing, run_table

__all__ = ["Format", "latex", "markdown", "written"]


class Format(StrEnum):
    """How tables are written."""

    TEXT = "text"
    MD = "md"
    CSV = "csv"
    JSON = "json"
    LATEX = "latex"


def written(source: Source, form: Format) -> tuple[str, list[str]]:
    """A report's tables.

    Text, Markdown and LaTeX show numbers as people read them; CSV and JSON give all digits, shares
    of runs in [0, 1], accuracies of comparisons in percent.

    Returns:
        What belongs on the output, and notes that must be read with it and have no place there.
    """
    if isinstance(source, Runs):
        return _runs(source.records, form)
    table = make_table(source.spec, source.lines, source.stale)
    notes = [*table.notes, *source.remarks()]
    if form is Format.CSV:
        return _csv(table.rows), notes
    if form is Format.JSON:
        name = source.spec["name"]
        return _json({"comparison": name, "rows": table.rows, "notes": notes}), []
    if form is Format.TEXT:
        return table._replace(notes=notes).text(), []
    cells = table.cells()
    return (latex if form is Format.LATEX else markdown)(cells, notes), []


def _runs(records: Sequence[Record], form: Format) -> tuple[str, list[str]]:
    notes = cautions(records)
    known = facts(records[0]) if len(records) == 1 else []
    values = [row for record in records for row in _networks(record)]
    if form is Format.CSV:
        return _csv(values), notes
    if form is Format.JSON:
        return _json({"runs": values, "facts": dict(known), "notes": notes}), []
    cells = run_table(records)
    if form is Format.TEXT:
        parts = [align(cells), *([listing(known)] if known else [])]
        told = "\n".join(f"note: {note}" for note in notes)
        return "\n\n".join([*parts, told] if told else parts), []
    cells = [["run", *cells[0][1:]], *cells[1:]]
    told = [*(f"{name}: {text}" for name, text in known), *notes]
    return (latex if form is Format.LATEX else markdown)(cells, told), []


_MEASURED = (
    *("validation_accuracy", "test_accuracy", "agreement", "parameters", "macs", "latency_ms"),
)


def _networks(record: Record) -> list[dict[str, Any]]:
    """One mapping per student and, after them, one for the teacher."""
    teacher = record["teacher"]
    named = [*record["students"].items(), *([("teacher", teacher)] if teacher else [])]
    return [
        {"run": record["name"], "network": name}
        | {key: entry.get(key) for key in _MEASURED}
        | {"seconds": record["seconds"] if entry is not teacher else None}
        for name, entry in named
    ]


# For programs


def _json(value: Any) -> str:
    return json.dumps(finite_only(value), indent=2, allow_nan=False)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per row; an interval takes three columns."""
    flat = [_flat(finite_only(row)) for row in rows]
    keys = list(dict.fromkeys(key for row in flat for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _no_formula(value) for key, value in row.items()} for row in flat)
    return out.getvalue().rstrip("\n")


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}_{name}": inner for name, inner in _flat(value).items()}
        elif isinstance(value, list):
            ends = ("", "_low", "_high") if len(value) == 3 else map(str, range(len(value)))
            flat |= {f"{key}{end}": inner for end, inner in zip(ends, value, strict=True)}
        else:
            flat[key] = value
    return flat


def _no_formula(value: Any) -> Any:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


# For documents


def markdown(cells: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """A table and what must be read with it; links, HTML and emphasis in them are shown as text."""
    head, *rows = ["| " + " | ".join(map(_as_markdown, row)) + " |" for row in cells]
    rule = "|" + "---|" * len(cells[0])
    said = [f"- {_as_markdown(note)}" for note in notes]
    return "\n".join([head, rule, *rows, *(["", *said] if said else [])])


def _as_markdown(text: str) -> str:
    escaped = re.sub(r"([\\|<*\[\]])", r"\\\1", text)
    return " ".join(escaped.split())


_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "{}$&#%_"},
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "×": r"$\times$",
        "−": r"$-$",
        "–": "--",
        "…": r"\dots{}",
    }
)


def latex(cells: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """A tabular of the package booktabs, and what must be read with it."""
    head, *rows = [" & ".join(_as_latex(cell) for cell in row) + r" \\" for row in cells]
    columns = "l" + "r" * (len(cells[0]) - 1)
    table = [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows]
    said = [_as_latex(note) + r"\par" for note in notes]
    return "\n".join([*table, r"\bottomrule", r"\end{tabular}", *(["", *said] if said else [])])


def _as_latex(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)
