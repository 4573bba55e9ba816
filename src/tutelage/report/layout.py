"""A comparison's rows as columns of text."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tutelage.report.claims import Finding
from tutelage.report.metrics import METRICS

__all__ = ["AVERAGED", "Table"]

AVERAGED = ("balanced", "agreement", "ece", "corrupted", "focus")
"""Metrics that have a column of their own beside accuracy, where they were measured."""


class Table(NamedTuple):
    """A comparison, ready to be shown.

    Attributes:
        rows: one mapping per row; accuracies in percent, None where there is nothing to say.
        notes: what must be read with the rows.
        findings: what became of the claims.
        title: values of the axes at which it was measured; empty without axes.
    """

    rows: list[dict[str, Any]]
    notes: list[str]
    findings: list[Finding]
    title: str = ""

    def cells(self) -> list[list[str]]:
        """Heading and rows, as text; columns of metrics that nobody measured are left out."""
        shown = {
            name: show
            for name, show in _COLUMNS.items()
            if name not in _OPTIONAL or any(show(row) for row in self.rows)
        }
        return [list(shown), *([show(row) for show in shown.values()] for row in self.rows)]

    def text(self) -> str:
        """In plain characters, columns aligned."""
        cells = self.cells()
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        title = [self.title, ""] if self.title else []
        said = [finding.sentence() for finding in self.findings]
        return "\n".join([*title, *lines, "", *said, *self.notes])

    def markdown(self) -> str:
        """As a Markdown table, notes below."""
        cells = self.cells()
        head, *rows = ["| " + " | ".join(row) + " |" for row in cells]
        rule = "|" + "---|" * len(cells[0])
        title = [f"**{self.title}**", ""] if self.title else []
        said = [finding.sentence() for finding in self.findings]
        below = [f"{line}  " for line in [*said, *self.notes]]
        return "\n".join([*title, head, rule, *rows, "", *below])


def _accuracy(row: Mapping[str, Any]) -> str:
    if "uneven" in row:
        return ""
    if "accuracy" not in row:
        return "fails" if "failed" in row else "not run"
    spread = row.get("spread")
    return f"{row['accuracy']:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")


def _number(key: str, form: str, scale: float = 1) -> Any:
    return lambda row: form.format(scale * row[key]) if row.get(key) is not None else ""


def _interval(key: str) -> Any:
    def show(row: Mapping[str, Any]) -> str:
        gain = row.get(key)
        return f"{gain[0]:+.1f} ({gain[1]:+.1f} … {gain[2]:+.1f})" if gain else ""

    return show


_COLUMNS: dict[str, Any] = {
    "row": lambda row: row["row"],
    "test accuracy %": _accuracy,
    "seeds": lambda row: str(row.get("seeds", "")),
    "over short": _interval("over_short"),
    "over long": _interval("over_long"),
    "gain": lambda row: row.get("verdict", ""),
    **{METRICS[name].words: _number(name, f"{{:.{METRICS[name].decimals}f}}") for name in AVERAGED},
    "mCE / teacher's": _number("mce_of_teacher", "{:.2f}"),
    "mCE / control's": _number("mce_of_control", "{:.2f}"),
    "parameters": _number("parameters", "{:,}"),
    "MMACs": _number("macs", "{:.2f}", 1e-6),
    "latency ms": _number("latency_ms", "{:.2f}"),
    "wall time s": _number("seconds", "{:.0f}"),
}

_OPTIONAL = {
    "mCE / teacher's",
    "mCE / control's",
    *(METRICS[name].words for name in AVERAGED),
}
