"""The sections of a page on where its numbers came from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tutelage.report.blocks import Block, Cell, Code, Facts, Grid, More, Section, Text, points
from tutelage.report.counting import Line, Record
from tutelage.report.networks import at
from tutelage.report.sources import Comparison, Runs, finite
from tutelage.report.tables import duration, facts
from tutelage.report.views import View, one_each, section, setting

__all__ = ["again", "origin", "recipe", "trials"]

_FEW_ROWS = 24
"""A longer list of trials is folded away."""


def trials(view: View) -> Section:
    """Every trial and what became of it."""
    head = ["trial", "seed", "kind", "validation %", "test %", "wall time", "began", "state"]
    rows: list[list[Cell]] = []
    marked = []
    if isinstance(view.source, Runs):
        rows = [
            _trial(record["name"], record["recipe"]["seed"], "run", record, _state(record))
            for record in view.source.records
        ]
    else:
        entries = [(line, _state(line["record"], line)) for line in view.source.lines]
        entries += [(line, "stale: counts for nothing") for line in view.source.stale]
        for line, state in entries:
            if state != "counts":
                marked.append(len(rows))
            rows.append(_trial(line["row"], line["seed"], line["kind"], line["record"], state))
        present = {(line["row"], line["seed"]) for line, _ in entries if _counts(line, view.source)}
        for row in view.source.spec["rows"]:
            for seed in view.source.spec["seeds"]:
                if (row, seed) not in present:
                    marked.append(len(rows))
                    rows.append([row, str(seed), "trial", "–", "–", "–", "–", "not run yet"])
    grid = Grid("Every trial and try in the records", head, rows, marked)
    folded = [More(f"All {len(rows)} trials", [grid])]
    return Section("trials", "Trials", folded if len(rows) > _FEW_ROWS else [grid])


def _counts(line: Line, source: Comparison) -> bool:
    return line["kind"] == "trial" and any(line is other for other in source.lines)


def _state(record: Record, line: Line | None = None) -> str:
    if line is not None and "failed" in line:
        return f"failed: {line['failed']}"
    if record["collapsed"]:
        return "collapsed: no better than chance"
    return "counts" if line is None or line["kind"] == "trial" else "counts for a choice"


def _trial(name: str, seed: int, kind: str, record: Record, state: str) -> list[Cell]:
    student = at(record, "students", "student")
    seconds = finite(record.get("seconds"))
    return [
        name,
        str(seed),
        kind,
        points(finite(at(student, "validation_accuracy"))),
        points(finite(at(student, "test_accuracy"))),
        "–" if seconds is None else duration(seconds),
        str(record.get("began", "–")),
        state,
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings under dotted keys."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def recipe(view: View) -> Section:
    """What was asked for: what differs between rows, then the rest."""
    flats = {name: _flat(record["recipe"]) for name, record in one_each(view.source)}
    if isinstance(view.source, Comparison):
        for flat in flats.values():
            flat.pop("seed", None)
    keys = list(dict.fromkeys(key for flat in flats.values() for key in flat))
    missing = object()
    same = [
        key
        for key in keys
        if all(
            flat.get(key, missing) == next(iter(flats.values())).get(key, missing)
            for flat in flats.values()
        )
    ]
    blocks: list[Block] = []
    if isinstance(view.source, Comparison):
        seeds = ", ".join(map(str, view.source.spec["seeds"]))
        base = setting(view.source.spec["base"])
        blocks.append(Facts([("base", base), ("seeds", seeds)]))
    different = [key for key in keys if key not in same]
    if different:
        rows: list[list[Cell]] = [
            [key, *(setting(flat[key]) if key in flat else "–" for flat in flats.values())]
            for key in different
        ]
        blocks.append(Grid("What differs between rows", ["key", *flats], rows))
    if same:
        first = next(iter(flats.values()))
        shared = Facts([(key, setting(first[key])) for key in same])
        title = "The rest of the recipe, the same for all" if len(flats) > 1 else "The full recipe"
        blocks.append(More(title, [shared]))
    return section("recipe", "Recipe", blocks, "No row has finished, so that no recipe is known.")


def origin(view: View) -> Section:
    """Data, code, versions, machine, and every reading of test."""
    records = [record for _, record in one_each(view.source)]
    if isinstance(view.source, Runs) and len(records) == 1:
        return Section("origin", "Origin", [Facts(facts(records[0]))])
    if isinstance(view.source, Comparison):
        records = [
            line["record"]
            for line in view.source.lines
            if line["kind"] == "trial" and "students" in line["record"]
        ]
    if not records:
        return Section("origin", "Origin", [Text("No row has finished.")])
    versions = {
        name: [record["versions"].get(name) for record in records]
        for name in records[0]["versions"]
    }
    machines = [_machine(record) for record in records]
    # A trial that began as a try counts no test pictures, though it has read them since.
    counted = [record for record in records if record["data"]["test"]]
    items = [
        ("data", _each(dict(facts(record))["data"] for record in counted or records)),
        ("began", f"{min(_strings(records, 'began'))} to {max(_strings(records, 'began'))}"),
        ("commit", _each(record["commit"] or "unknown" for record in records)),
        ("digest of the code", _each(_strings(records, "code"))),
        ("versions", ", ".join(f"{name} {_each(found)}" for name, found in versions.items())),
        ("machine", _each(machines)),
    ]
    readings: list[list[Cell]] = [
        [record["name"], *(str(reading.get(key)) for key in ("split", "time", "purpose"))]
        for record in records
        for reading in record["readings"]
    ]
    blocks: list[Block] = [Facts(items)]
    if readings:
        head = ["run", "split", "time", "purpose"]
        grid = Grid("Every reading of test", head, readings)
        blocks.append(More(f"All {len(readings)} readings of test", [grid]))
    else:
        blocks.append(Text("Test was never read."))
    return Section("origin", "Origin", blocks)


def _machine(record: Record) -> str:
    machine = record["hardware"]
    return (
        f"{machine['processor']}, {machine['cores']} cores; run on {machine['device']}, "
        f"{machine['threads']} threads, {record['recipe']['train']['precision']}"
    )


def _strings(records: Sequence[Record], key: str) -> list[str]:
    return [str(record[key]) for record in records]


def _each(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values))


def again(view: View) -> Section:
    """The commands that did it."""
    records = [record for _, record in one_each(view.source)]
    if not records:
        return Section("again", "Run it again", [Text("No row has finished.")])
    newest = max(records, key=lambda record: str(record["began"]))
    commands = list(dict.fromkeys(_strings(records, "command")))
    if isinstance(view.source, Comparison):
        commands = [str(newest["command"])]
    commit = newest["commit"]
    lines = [f"git checkout {commit.rstrip('+')}"] if commit else []
    blocks: list[Block] = [Code("\n".join([*lines, *commands]))]
    if commit and commit.endswith("+"):
        blocks.append(Text("The code had changes that were not committed."))
    if isinstance(view.source, Runs):
        blocks.append(
            Text(
                "The resolved recipe is recipe.yaml in the run's folder. Trained under another "
                "name, it does the same."
            )
        )
    else:
        blocks.append(
            Text(
                "The same command goes on where it stopped, and runs nothing twice. On the same "
                "machine and versions each CPU run ends in the same bits."
            )
        )
    return Section("again", "Run it again", blocks)
