"""The sections of a page, and those of them on results, costs, training and choices."""

from collections.abc import Mapping, Sequence

from tutelage.report.blocks import (
    Block,
    Cell,
    Grid,
    Group,
    Points,
    Section,
    Text,
    points,
    signed,
)
from tutelage.report.counting import Choice, finite
from tutelage.report.curves import Logged, curve_figures, terms_of
from tutelage.report.exports import exports
from tutelage.report.figures import cost_figure, gain_figure
from tutelage.report.layout import Table
from tutelage.report.lines import Line, Record, full_name
from tutelage.report.maps import ALIKE, similarity_figure
from tutelage.report.networks import Network, at, mean, read_split
from tutelage.report.origins import again, origin, recipe, trials
from tutelage.report.pictures import pictures
from tutelage.report.qualities import agreement, calibration, classes, robustness
from tutelage.report.selection import selection_figure, selections, survivors
from tutelage.report.sources import Comparison, Runs, Source
from tutelage.report.tables import count, duration, ratio, run_table
from tutelage.report.views import (
    Part,
    View,
    by_part,
    every_one,
    of_every_seed,
    one_each,
    section,
    setting,
    shown,
)

__all__ = ["sections"]


def sections(view: View, *, with_pictures: bool = False) -> list[Section]:
    """All sections, in the order of the page.

    Args:
        with_pictures: whether there is one of pictures of the data.
    """
    return [
        _result(view),
        _networks(view),
        _cost(view),
        *(exports(view.source.records) if isinstance(view.source, Runs) else []),
        _training(view),
        _choices(view),
        classes(view),
        calibration(view),
        agreement(view),
        robustness(view),
        *([pictures(view)] if with_pictures else []),
        trials(view),
        recipe(view),
        origin(view),
        again(view),
    ]


# Results

_DECISIVE = ("row", "test accuracy %", "seeds", "over short", "over long", "gain")
"""Columns of the first table; what the others hold stands in sections of its own."""


def _result(view: View) -> Section:
    blocks: list[Block] = []
    if isinstance(view.source, Runs):
        head, *rows = run_table(view.source.records)
        blocks.append(Grid("Runs", ["run", *head[1:]], rows))
        records = [(str(record["name"]), record) for record in view.source.records]
    else:
        named = view.source.spec["controls"]
        for table, part, notes in zip(view.tables, view.parts, view.own_notes, strict=True):
            made = _of_table(table, {} if named == "none" else named, part)
            made += [Points(notes)] if notes else []
            blocks += [Group(part.title, made)] if part.title else made
        records = [
            (f"{full_name(line['row'], line['part'])}, seed {line['seed']}", line["record"])
            for line in view.source.lines
        ]
    if view.notes:
        said = Points(view.notes)
        blocks.append(Group("Of all of these", [said]) if len(view.parts) > 1 else said)
    return Section("result", "Result", [*blocks, *_accepted(records)])


def _of_table(table: Table, named: Mapping[str, str], part: Part) -> list[Block]:
    cells = table.cells()
    kept = [place for place, name in enumerate(cells[0]) if name in _DECISIVE]
    head, *rows = [[row[place] for place in kept] for row in cells]
    failed = [place for place, row in enumerate(table.rows) if "accuracy" not in row]
    blocks: list[Block] = [Grid("All rows", head, rows, failed)]
    if table.findings:
        late = any(finding.late for finding in table.findings)
        when = "" if late else " that were written down before the runs"
        blocks.append(Text(f"What became of the claims{when}:"))
        blocks.append(Points([finding.sentence() for finding in table.findings]))
    return blocks + (shown(gain_figure(table.rows, named, part.slug)) if named else [])


def _accepted(records: Sequence[tuple[str, Record]]) -> list[Block]:
    """What was answered when somebody asked whether a student keeps limits."""
    rows: list[list[Cell]] = [
        [
            f"{name}, {found['subnet']}" if "subnet" in found else name,
            ", ".join(f"{key} {value}" for key, value in found["limits"].items()),
            found["answer"],
            "; ".join(found["reasons"]),
            found["time"],
        ]
        for name, record in records
        for found in record.get("accepted", [])
    ]
    head = ["run", "limits", "kept", "because", "asked"]
    return [Grid("Whether the student keeps the limits that were set", head, rows)] if rows else []


_POOLED = "the mean of all measurements of one architecture: equal networks are equally fast"


def _networks(view: View) -> Section:
    split = read_split(view.networks)
    blocks = by_part(view, lambda part: _beside_each_other(part, split))
    if blocks:
        against = []
        if any(part.teacher for part in view.parts):
            against.append("accuracy in points and costs as ratios against the teacher")
        if held := next((part.control for part in view.parts if part.control), None):
            against.append(f"wall time as a multiple of that of {held.name}")
        batch = at(view.networks[0].measured[0], "latency_batch")
        blocks.append(
            Text(
                (f"In small print: {'; '.join(against)}. " if against else "")
                + "MACs are multiply–accumulates for one picture; latency is the median for a "
                f"batch of {batch if batch is not None else 'unknown size'}, {_POOLED}."
            )
        )
    return section(
        "networks", "Teacher, label-only and student", blocks, "No row has finished on every seed."
    )


def _beside_each_other(part: Part, split: str) -> list[Block]:
    rows = [_ratios(one, part.teacher, part.control, split) for one in part.networks]
    head = ["network", "role", f"{split} accuracy %", "parameters", "MACs", "latency", "wall time"]
    return [Grid("Teacher, controls and students", head, rows)] if rows else []


def _ratios(
    network: Network, teacher: Network | None, control: Network | None, split: str
) -> list[Cell]:
    accuracy = mean(network, f"{split}_accuracy")
    cells: list[Cell] = [network.name, network.role, points(accuracy)]
    other = mean(teacher, f"{split}_accuracy") if teacher else None
    if network.role != "teacher" and accuracy is not None and other is not None:
        cells[-1] = (points(accuracy), f"{signed(100 * (accuracy - other))} points")
    shown = {
        "parameters": lambda value: count(round(value)),
        "macs": lambda value: count(round(value)),
        "latency_ms": lambda value: f"{value:.2f} ms",
    }
    less = {"parameters": "fewer", "macs": "fewer", "latency_ms": "faster"}
    more = {"parameters": "as many", "macs": "as many", "latency_ms": "as slow"}
    for key, show in shown.items():
        own = mean(network, key)
        whole = mean(teacher, key) if teacher else None
        if own is None:
            cells.append("–")
        elif network.role == "teacher" or not whole or not own:
            cells.append(show(own))
        elif own <= whole:
            cells.append((show(own), f"{ratio(whole, own)} {less[key]}"))
        else:
            cells.append((show(own), f"{ratio(own, whole)} {more[key]}"))
    if not network.seconds:
        return [*cells, "–"]
    seconds = sum(network.seconds) / len(network.seconds)
    base = sum(control.seconds) / len(control.seconds) if control else 0
    if control is None or control is network or not base:
        return [*cells, duration(seconds)]
    return [*cells, (duration(seconds), f"{ratio(seconds, base)} the time")]


# Costs


def _cost(view: View) -> Section:
    split = read_split(view.networks)
    batch = at(view.networks[0].measured[0], "latency_batch") if view.networks else None
    latency = "latency" if batch is None else f"latency of a batch of {batch}"
    made = shown(
        cost_figure(view.networks, view.styles, split, "macs", "MACs", "millions", 1e-6),
        cost_figure(view.networks, view.styles, split, "latency_ms", latency, "ms"),
    )
    rows = [_answering(one) for one in view.networks]
    if rows:
        together = next((n for one in view.networks if (n := _batch(one)) is not None), None)
        head = ["network", latency, "latency of a larger batch", "weights", "peak memory"]
        if together is not None:
            head[2] = f"latency of a batch of {together:.0f}"
        made.append(Grid("What answering costs", head, rows))
        if any(set(row[2:]) != {"–"} for row in rows):
            made.append(
                Text(
                    f"Latencies are medians, {_POOLED}; the 95th percentile is in small print. "
                    "Weights are bytes as saved; peak memory is what is alive at once in one "
                    "forward pass of one picture, counted, without what operations need inside. "
                    "MB are 10⁶ bytes."
                )
            )
        else:
            made.append(Text("File size, peak memory and latency of larger batches: not measured."))
    return section("cost", "Accuracy and cost", made, "No row has finished.")


def _batch(network: Network) -> float | None:
    return mean(network, "latency_batched", "batch")


def _answering(network: Network) -> list[Cell]:
    """What it costs to let a network answer."""
    cells: list[Cell] = [network.name]
    for median, p95 in (
        (("latency_ms",), ("latency_p95_ms",)),
        (("latency_batched", "median_ms"), ("latency_batched", "p95_ms")),
    ):
        usual, slow = mean(network, *median), mean(network, *p95)
        shown = "–" if usual is None else f"{usual:.2f} ms"
        cells.append(shown if slow is None else (shown, f"95 %: {slow:.2f} ms"))
    for key in ("file_bytes", "peak_memory_bytes"):
        size = mean(network, key)
        cells.append("–" if size is None else f"{size / 1e6:.2f} MB")
    return cells


# Training


def _logged(source: Source, part: str) -> list[Logged]:
    """What trainings have logged, at one combination of the axes' values."""
    if isinstance(source, Runs):
        pairs = zip(source.records, source.metrics, strict=True)
        return [
            Logged(record["name"], record["recipe"]["seed"], True, lines)
            for record, lines in pairs
            if lines
        ]
    found: list[Logged] = []
    for row in source.spec["rows"]:
        logged = [
            (line["seed"], lines)
            for line in source.trials(row, part)
            if (lines := source.metrics.get(line["identity"]))
        ]
        found += [
            Logged(row, seed, number == 0, lines) for number, (seed, lines) in enumerate(logged)
        ]
    return found


def _training(view: View) -> Section:
    known = sum(len(_logged(view.source, part.title)) for part in view.parts)
    asked = (
        len(view.source.records)
        if isinstance(view.source, Runs)
        else sum(line["kind"] == "trial" for line in view.source.lines)
    )
    made = by_part(view, lambda part: _curves(view.source, part))
    if made and known < asked:
        made.insert(0, Text(f"Curves of {known} of {asked}; the other run folders are not here."))
    return section(
        "training",
        "Training",
        made,
        "Not shown: the run folders, which hold the curves, are not here.",
    )


def _curves(source: Source, part: Part) -> list[Block]:
    return shown(*curve_figures(_logged(source, part.title), part.styles, part.slug))


# Choices


def _choices(view: View) -> Section:
    logged = {
        (run.row, part.title): terms_of(run.lines)
        for part in view.parts
        for run in reversed(_logged(view.source, part.title))
    }
    rows: list[list[Cell]] = []
    phases: list[str] = []
    for one in one_each(view.source):
        asked = one.record["recipe"]
        terms = [term for term in logged.get((one.row, one.part), []) if "." in term]
        rows.append(
            [
                one.name,
                ", ".join(asked["methods"]) or "labels alone",
                setting(asked.get("taps")) if asked["methods"] else "–",
                ", ".join(terms) or "–",
            ]
        )
        chose = {choice.method for choice in selections(one.name, one.record)}
        phases += [
            f"{one.name}, phase {number}: {setting(rest)}"
            for number, phase in enumerate(one.record.get("phases") or [], start=1)
            if (rest := {name: value for name, value in phase.items() if name not in chose})
        ]
    blocks: list[Block] = []
    if rows:
        head = ["row", "methods", "taps asked for", "terms, with the taps they stand at"]
        blocks.append(Grid("What is passed on, and where", head, rows))
    if phases:
        blocks.append(Text("What was found between phases:"))
        blocks.append(Points(phases))
    blocks += _selected(view.source)
    if isinstance(view.source, Comparison):
        blocks += _tried(view.source.choices)
    blocks += by_part(view, _alike)
    if not any(of_every_seed(one, "similarity") for one in view.networks):
        blocks.append(Text("Likeness of maps to the teacher's (CKA): not measured."))
    return section("choices", "Connections and choices", blocks, "Nothing was chosen.")


def _selected(source: Source) -> list[Block]:
    """What methods chose between phases: a picture of each row's first run, a table of all."""
    first = [choice for one in one_each(source) for choice in selections(one.name, one.record)]
    figures = [selection_figure(choice, f"-{place}") for place, choice in enumerate(first)]
    whole = [choice for one in every_one(source) for choice in selections(one.name, one.record)]
    return [*shown(*figures), *([survivors(whole)] if len(whole) > 1 else [])]


def _alike(part: Part) -> list[Block]:
    return shown(
        *(similarity_figure(_similar(part.networks, key), part.slug, key) for key in ALIKE)
    )


def _tried(choices: Sequence[Choice]) -> list[Block]:
    rows: list[list[Cell]] = []
    for choice in choices:
        for value, line in choice.tried:
            taken = choice.taken is not None and value == choice.taken
            rows.append(
                [
                    full_name(choice.row, choice.part),
                    choice.key,
                    setting(value),
                    _validation(line),
                    "chosen" if taken else "",
                ]
            )
    if not rows:
        return [Text("No row chose anything: all settings were given.")]
    head = ["row", "key", "value tried", "validation accuracy %", ""]
    return [
        Grid("All that was tried, on validation with the first seed; test was not read", head, rows)
    ]


def _validation(line: Line | None) -> str:
    if line is None:
        return "not run"
    if "failed" in line:
        return "failed"
    if line["record"]["collapsed"]:
        return "collapsed"
    return points(line["record"]["students"]["student"]["validation_accuracy"])


def _similar(networks: Sequence[Network], key: str) -> dict[str, dict[tuple[str, str], float]]:
    """Mean likeness over seeds of each pair that every seed has.

    Args:
        key: which, of `ALIKE`.
    """
    found: dict[str, dict[tuple[str, str], float]] = {}
    for network in networks:
        seeds = []
        for measured in of_every_seed(network, "similarity"):
            pairs = [(str(e.get("student")), str(e.get("teacher")), e.get(key)) for e in measured]
            seeds.append({(s, t): value for s, t, value in pairs if finite(value) is not None})
        if seeds and seeds[0]:
            shared = [pair for pair in seeds[0] if all(pair in seed for seed in seeds)]
            found[network.name] = {
                pair: sum(seed[pair] for seed in seeds) / len(seeds) for pair in shared
            }
    return found
