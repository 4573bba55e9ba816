"""The sections of a page on where its numbers came from."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tutelage.report.blocks import Block, Cell, Code, Facts, Grid, More, Section, Text, points
from tutelage.report.counting import finite
from tutelage.report.lines import Line, Record, full_name, title_of
from tutelage.report.networks import at
from tutelage.report.sources import Comparison, Runs
from tutelage.report.tables import duplicates_in_words, duration, facts
from tutelage.report.views import View, by_part, one_each, section, setting

__all__ = ["again", "origin", "recipe", "trials"]

_FEW_ROWS = 24
"""A longer list of trials is folded away."""


def trials(view: View) -> Section:
    """Every trial and what became of it."""
    head = ["trial", "seed", "kind", "validation %", "test %", "wall time", "began, UTC", "state"]
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
            if not state.startswith("counts"):
                marked.append(len(rows))
            name = full_name(line["row"], line.get("part", _part_of(line, view.source)))
            rows.append(_trial(name, line["seed"], line["kind"], line["record"], state))
        for part in view.source.parts:
            for row in view.source.spec["rows"]:
                present = {line["seed"] for line in view.source.trials(row, part)}
                for seed in view.source.spec["seeds"]:
                    if seed not in present:
                        marked.append(len(rows))
                        cells = [full_name(row, part), str(seed), "trial", *4 * ["–"]]
                        rows.append([*cells, "not run yet"])
    grid = Grid("Every trial and try in the records", head, rows, marked)
    folded = [More(f"All {len(rows)} trials", [grid])]
    return Section("trials", "Trials", folded if len(rows) > _FEW_ROWS else [grid])


def _part_of(line: Line, source: Comparison) -> str:
    """Those of the axes' values that a stale line has."""
    axes = source.spec.get("axes", {})
    return title_of({key: line["settings"][key] for key in axes if key in line["settings"]})


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
        _minute(record.get("began")),
        state,
    ]


def _minute(time: Any) -> str:
    """Of a recorded time, which is in UTC, without the seconds."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\+00:00", str(time))
    return f"{found[1]} {found[2]}" if found else str(time or "–")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings under dotted keys."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def recipe(view: View) -> Section:
    """What was asked for: what differs between parts and between rows, then the rest."""
    flats = {(one.part, one.row): _flat(one.record["recipe"]) for one in one_each(view.source)}
    blocks: list[Block] = []
    if isinstance(view.source, Comparison):
        spec = view.source.spec
        for flat in flats.values():
            flat.pop("seed", None)
        axes = [
            (f"axis {key}", ", ".join(map(setting, values)))
            for key, values in spec.get("axes", {}).items()
        ]
        seeds = ", ".join(map(str, spec["seeds"]))
        folds = [("folds", "files that each seed has of its own are shown as the first has them")]
        said = [("base", setting(spec["base"])), *axes, ("seeds", seeds)]
        blocks.append(Facts(said + (folds if spec.get("folds") else [])))
    by_row = {
        part: {row: flat for (other, row), flat in flats.items() if other == part}
        for part in dict.fromkeys(part for part, _ in flats)
    }
    inside = list(dict.fromkeys(key for own in by_row.values() for key in _different(own.values())))
    firsts = {part: next(iter(own.values())) for part, own in by_row.items()}
    between = [key for key in _different(firsts.values()) if key not in inside]
    if between:
        blocks.append(_side_by_side("What differs between the axes' values", firsts, between))
    between_rows = {
        part: _side_by_side("What differs between rows", own, inside)
        for part, own in by_row.items()
        if inside
    }
    if all(grid == next(iter(between_rows.values())) for grid in between_rows.values()):
        blocks += list(between_rows.values())[:1]
    else:
        blocks += by_part(
            view, lambda part: [between_rows[part.title]] if part.title in by_row else []
        )
    same = [key for key in next(iter(firsts.values()), {}) if key not in (*inside, *between)]
    if same:
        first = next(iter(firsts.values()))
        shared = Facts([(key, setting(first[key])) for key in same])
        title = "The rest of the recipe, the same for all" if len(flats) > 1 else "The full recipe"
        blocks.append(More(title, [shared]))
    return section("recipe", "Recipe", blocks, "No row has finished, so that no recipe is known.")


def _different(flats: Iterable[Mapping[str, Any]]) -> list[str]:
    """Keys that not all of several recipes have with the same value."""
    first, *others = [*flats] or [{}]
    missing = object()
    keys = dict.fromkeys(key for flat in (first, *others) for key in flat)
    return [
        key
        for key in keys
        if any(flat.get(key, missing) != first.get(key, missing) for flat in others)
    ]


def _side_by_side(caption: str, flats: Mapping[str, Mapping[str, Any]], keys: list[str]) -> Grid:
    rows: list[list[Cell]] = [
        [key, *(setting(flat[key]) if key in flat else "–" for flat in flats.values())]
        for key in keys
    ]
    return Grid(caption, ["key", *flats], rows)


def origin(view: View) -> Section:
    """Data, code, versions, machine, and every reading of test."""
    records = [one.record for one in one_each(view.source)]
    if isinstance(view.source, Runs) and len(records) == 1:
        items = [*facts(records[0]), *_measured_by(records)]
        items.append(("exact duplicates", _duplicates(records[0])))
        return Section("origin", "Origin", [Facts(items)])
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
        ("exact duplicates", _each(map(_duplicates, records))),
        ("began", f"{min(_strings(records, 'began'))} to {max(_strings(records, 'began'))}"),
        ("commit", _each(record["commit"] or "unknown" for record in records)),
        ("digest of the code", _each(_strings(records, "code"))),
        *_measured_by(records),
        ("versions", ", ".join(f"{name} {_each(found)}" for name, found in versions.items())),
        ("machine", _each(machines)),
    ]
    readings: list[list[Cell]] = [
        [record["name"], *(str(reading.get(key, "–")) for key in _OF_A_READING)]
        for record in records
        for reading in record["readings"]
    ]
    blocks: list[Block] = [Facts(items)]
    if readings:
        grid = Grid("Every reading of test", ["run", *_OF_A_READING], readings)
        blocks.append(More(f"All {len(readings)} readings of test", [grid]))
    else:
        blocks.append(Text("Test was never read."))
    return Section("origin", "Origin", blocks)


def _measured_by(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Digests of the code that measured parts of the records on test."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for part, by in record.get("measured", {}).items():
            found.setdefault(part, {})[str(by.get("code"))] = None
    said = [f"{part} {' and '.join(codes)}" for part, codes in found.items()]
    return [("measured by", ", ".join(said))] if said else []


_OF_A_READING = ("split", "time", "purpose", "command")


def _duplicates(record: Record) -> str:
    """Of pictures, within and between what is trained on, chosen by and tested on."""
    found = record["data"].get("duplicates")
    if found is None:
        return "not measured"
    within = [
        f"{number} picture(s) of {name} are there once more"
        for name, number in found.items()
        if "/" not in name
    ]
    return "; ".join([*within, *filter(None, [duplicates_in_words(found)])]) or "none"


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
    records = [one.record for one in one_each(view.source)]
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
