"""Runs a comparison: choices first, on validation; then every row with every seed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.comparison.spec import Spec, read_spec
from tutelage.comparison.trials import Trials
from tutelage.errors import RunError
from tutelage.report.comparisons import Table, make_table

__all__ = ["Comparison", "compare"]


class Comparison(NamedTuple):
    """A finished comparison.

    Attributes:
        result: its table.
    """

    result: Table

    def table(self) -> list[dict[str, Any]]:
        """One mapping per row."""
        return self.result.rows

    def text(self) -> str:
        """The table in plain characters."""
        return self.result.text()


def compare(
    spec: str | Path | Mapping[str, Any],
    *,
    runs: Path | str = "runs",
    records: Path | str | None = None,
    shown: bool = True,
    command: str = "tutelage.compare",
) -> Comparison:
    """Runs what is not there yet, and makes the table.

    Args:
        spec: a file, a packaged specification's name, or the mapping itself.
        runs: folder of run folders; the comparison's own lie in a folder of its name below.
        records: the JSON-lines file with one line per finished trial; `trials.jsonl` beside the
            runs unless said.
        shown: whether to show progress.
        command: how it was called, for the records.

    Raises:
        TutelageError: the specification or one of its recipes is wrong; nothing has run then.
    """
    known = read_spec(spec)
    folder = Path(runs) / known.name
    path = Path(records) if records is not None else folder / "trials.jsonl"
    trials = Trials(path, folder, shown=shown, command=command)
    trials.note_spec(known.model_dump(mode="json", by_alias=True))
    lines = []
    for row in known.rows:
        chosen = _choose(known, row, trials, lines)
        settings = known.settings(row) | chosen
        for seed in known.seeds:
            lines.append(trials.run("trial", row, settings, known.recipe(settings, seed)))
    stale = _stale(trials, lines)
    return Comparison(make_table(known.model_dump(mode="json", by_alias=True), lines, stale))


def _choose(spec: Spec, row: str, trials: Trials, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The value that is best on validation, on the first seed."""
    chooser, choices = spec.choice(row)
    if not choices:
        return {}
    ((key, values),) = choices.items()
    scores = []
    for value in values:
        settings = spec.settings(chooser) | {key: value}
        line = trials.run("try", chooser, settings, spec.recipe(settings, spec.seeds[0]))
        if line not in lines:
            lines.append(line)
        works = "failed" not in line and not line["record"]["collapsed"]
        scores.append(_validation(line) if works else -1.0)
    if max(scores) < 0:
        raise RunError(
            f"No value of {key} that was tried for {chooser} learned anything: "
            f"{', '.join(map(str, values))}. Try smaller ones."
        )
    return {key: values[scores.index(max(scores))]}


def _validation(line: Mapping[str, Any]) -> float:
    return line["record"]["students"]["student"]["validation_accuracy"]


def _stale(trials: Trials, used: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of trials that are no longer what would be run now."""
    identities = {line["identity"] for line in used}
    return [
        line
        for line in trials.lines
        if line["kind"] != "spec" and line["identity"] not in identities
    ]
