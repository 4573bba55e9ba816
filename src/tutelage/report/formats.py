"""The tables of a report for terminals, documents and programs."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from tutelage.report.blocks import spans
from tutelage.report.claims import Finding
from tutelage.report.comparisons import make_tables
from tutelage.report.layout import Table
from tutelage.report.lines import Record
from tutelage.report.measures import measures
from tutelage.report.sources import Comparison, Runs, Source, finite_only
from tutelage.report.tables import align, cautions, facts, listing, run_table
from tutelage.report.views import notes_of, setting
from tutelage.stats import TwoLevel

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
    of runs in [0, 1], accuracies of comparisons in percent. With axes there is a table for each
    combination of their values; CSV and JSON name the values in each row.

    Returns:
        What belongs on the output, and notes that must be read with it and have no place there.
    """
    if isinstance(source, Runs):
        return _runs(source, form)
    tables = make_tables(source.spec, source.lines, source.stale, source.late)
    if form is Format.TEXT:
        last = tables[-1]._replace(notes=[*tables[-1].notes, *source.remarks()])
        return "\n\n".join(table.text() for table in [*tables[:-1], last]), []
    if form in (Format.CSV, Format.JSON):
        return _for_programs(source, tables, form)
    notes, own_notes = notes_of(source, tables)
    show = latex if form is Format.LATEX else markdown
    shown = []
    for table, own in zip(tables, own_notes, strict=True):
        said = [finding.sentence() for finding in table.findings] + own
        said += notes if table is tables[-1] else []
        shown.append(show(table.cells(), said, table.title))
    return "\n\n".join(shown), []


def _for_programs(
    source: Comparison, tables: Sequence[Table], form: Format
) -> tuple[str, list[str]]:
    """Rows, findings and notes of all tables, each of them naming the axes' values."""
    notes, own_notes = notes_of(source, tables)
    rows: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    claims: list[str] = []
    for table, axes, own in zip(tables, source.parts.values(), own_notes, strict=True):
        rows += [{**axes, **_plain(row)} for row in table.rows]
        findings += [{**axes, **_finding(finding)} for finding in table.findings]
        claims += _at(table, [finding.sentence() for finding in table.findings])
        notes += _at(table, own)
    if form is Format.CSV:
        axes = source.spec.get("axes", {})
        rows = [row | {key: setting(row[key]) for key in axes} for row in rows]
        return _csv(rows), [*claims, *notes]
    name = source.spec["name"]
    return _json({"comparison": name, "rows": rows, "findings": findings, "notes": notes}), []


def _at(table: Table, said: Sequence[str]) -> list[str]:
    return [f"{table.title}: {one}" if table.title else one for one in said]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value._asdict() if isinstance(value, TwoLevel) else value for key, value in row.items()
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {**_plain(finding._asdict()), "sentence": finding.sentence()}


def _runs(source: Runs, form: Format) -> tuple[str, list[str]]:
    records = source.records
    notes = [*cautions(records), *source.remarks()]
    known = facts(records[0]) if len(records) == 1 else []
    if known:
        known += measures(records[0]["students"]["student"], records[0]["teacher"])
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
    *("train_accuracy", "validation_accuracy", "test_accuracy"),
    *("agreement", "fidelity", "people"),
    *("parameters", "macs", "file_bytes", "peak_memory_bytes"),
    *("latency_ms", "latency_p95_ms", "latency_batched"),
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
    writer.writerow({key: _no_formula(key) for key in keys})
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


def markdown(cells: Sequence[Sequence[str]], notes: Sequence[str], title: str = "") -> str:
    """A table and what must be read with it; links, HTML and emphasis in them are shown as text."""
    above = [f"**{_as_markdown(title)}**", ""] if title else []
    head, *rows = ["| " + " | ".join(map(_as_markdown, row)) + " |" for row in cells]
    rule = "|" + "---|" * len(cells[0])
    said = [f"- {_as_markdown(note)}" for note in notes]
    return "\n".join([*above, head, rule, *rows, *(["", *said] if said else [])])


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


def latex(cells: Sequence[Sequence[str]], notes: Sequence[str], title: str = "") -> str:
    """A tabular of the package booktabs, and what must be read with it."""
    above = [rf"\noindent\textbf{{{_as_latex(title)}}}\par"] if title else []
    head, *rows = [" & ".join(_as_latex(cell) for cell in row) + r" \\" for row in cells]
    columns = "l" + "r" * (len(cells[0]) - 1)
    table = [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows]
    said = [_as_latex(note) + r"\par" for note in notes]
    return "\n".join(
        [*above, *table, r"\bottomrule", r"\end{tabular}", *(["", *said] if said else [])]
    )


def _as_latex(text: str) -> str:
    pieces = spans(" ".join(text.split()))
    return "".join(
        rf"\texttt{{{piece.translate(_LATEX)}}}" if is_code else piece.translate(_LATEX)
        for is_code, piece in pieces
    )
