"""The sections of a page, and those of them on results, costs, training and choices."""

from collections.abc import Sequence

from tutelage.report.blocks import (
    Block,
    Cell,
    Grid,
    Points,
    Section,
    Text,
    points,
    signed,
)
from tutelage.report.counting import Choice, Line
from tutelage.report.curves import Logged, curve_figures, terms_of
from tutelage.report.figures import cost_figure, gain_figure
from tutelage.report.maps import similarity_figure
from tutelage.report.networks import Network, at, controls, mean, read_split, teacher_of
from tutelage.report.origins import again, origin, recipe, trials
from tutelage.report.qualities import agreement, calibration, classes, robustness
from tutelage.report.sources import Comparison, Runs, Source, finite
from tutelage.report.tables import count, duration, ratio, run_table
from tutelage.report.views import View, of_every_seed, one_each, section, setting, shown

__all__ = ["sections"]


def sections(view: View) -> list[Section]:
    """All sections, in the order of the page."""
    return [
        _result(view),
        _networks(view),
        _cost(view),
        _training(view),
        _choices(view),
        classes(view),
        calibration(view),
        agreement(view),
        robustness(view),
        trials(view),
        recipe(view),
        origin(view),
        again(view),
    ]


# Results

_IN_THE_NEXT_TABLE = {"parameters", "MMACs", "latency ms", "wall time s"}


def _result(view: View) -> Section:
    notes: list[Block] = [Points(view.notes)] if view.notes else []
    if isinstance(view.source, Runs):
        head, *rows = run_table(view.source.records)
        return Section("result", "Result", [Grid("Runs", ["run", *head[1:]], rows), *notes])
    assert view.table is not None
    cells = view.table.cells()
    kept = [place for place, name in enumerate(cells[0]) if name not in _IN_THE_NEXT_TABLE]
    head, *rows = [[row[place] for place in kept] for row in cells]
    failed = [place for place, row in enumerate(view.table.rows) if "accuracy" not in row]
    blocks: list[Block] = [Grid("All rows, means over seeds", head, rows, failed)]
    named = view.source.spec["controls"]
    if named != "none":
        blocks += shown(gain_figure(view.table.rows, named))
    blocks += notes
    if claims := view.source.spec.get("claims"):
        blocks.append(Text("Claims that the specification makes, written before the runs:"))
        blocks.append(Points([setting(claim) for claim in claims]))
    return Section("result", "Result", blocks)


def _networks(view: View) -> Section:
    teacher, split = teacher_of(view.networks), read_split(view.networks)
    held = controls(view.networks)
    rows = [_ratios(one, teacher, held[0] if held else None, split) for one in view.networks]
    head = ["network", "role", f"{split} accuracy %", "parameters", "MACs", "latency", "wall time"]
    blocks: list[Block] = []
    if rows:
        against = []
        if teacher:
            against.append("accuracy in points and costs as ratios against the teacher")
        if held:
            against.append(f"wall time as a multiple of that of {held[0].name}")
        batch = at(view.networks[0].measured[0], "latency_batch")
        blocks = [
            Grid("Teacher, controls and students; means over seeds", head, rows),
            Text(
                (f"In small print: {'; '.join(against)}. " if against else "")
                + "MACs are multiply–accumulates for one picture; latency is the median for a "
                f"batch of {batch if batch is not None else 'unknown size'}."
            ),
        ]
    return section(
        "networks", "Teacher, label-only and student", blocks, "No row has finished on every seed."
    )


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


def _cost(view: View) -> Section:
    split = read_split(view.networks)
    batch = at(view.networks[0].measured[0], "latency_batch") if view.networks else None
    made = [
        cost_figure(view.networks, view.styles, split, "macs", "MACs", "millions", 1e-6),
        cost_figure(
            view.networks,
            view.styles,
            split,
            "latency_ms",
            "latency" if batch is None else f"latency of a batch of {batch}",
            "ms",
        ),
    ]
    return section("cost", "Accuracy and cost", shown(*made), "No row has finished.")


# Training


def _logged(source: Source) -> list[Logged]:
    if isinstance(source, Runs):
        pairs = zip(source.records, source.metrics, strict=True)
        return [
            Logged(record["name"], record["recipe"]["seed"], True, lines)
            for record, lines in pairs
            if lines
        ]
    found: list[Logged] = []
    for line in source.lines:
        if line["kind"] == "trial" and (lines := source.metrics.get(line["identity"])):
            first = all(run.row != line["row"] for run in found)
            found.append(Logged(line["row"], line["seed"], first, lines))
    return found


def _training(view: View) -> Section:
    runs = _logged(view.source)
    asked = (
        len(view.source.records)
        if isinstance(view.source, Runs)
        else sum(line["kind"] == "trial" for line in view.source.lines)
    )
    made = shown(*curve_figures(runs, view.styles))
    if made and len(runs) < asked:
        made.insert(
            0, Text(f"Curves of {len(runs)} of {asked}; the other run folders are not here.")
        )
    return section(
        "training",
        "Training",
        made,
        "Not shown: the run folders, which hold the curves, are not here.",
    )


# Choices


def _choices(view: View) -> Section:
    blocks: list[Block] = []
    logged = {run.row: terms_of(run.lines) for run in reversed(_logged(view.source))}
    rows: list[list[Cell]] = []
    phases: list[str] = []
    for name, record in one_each(view.source):
        asked = record["recipe"]
        terms = [term for term in logged.get(name, []) if "." in term]
        rows.append(
            [
                name,
                ", ".join(asked["methods"]) or "labels alone",
                setting(asked.get("taps")) if asked["methods"] else "–",
                ", ".join(terms) or "–",
            ]
        )
        phases += [
            f"{name}, phase {number}: {setting(phase)}"
            for number, phase in enumerate(record.get("phases") or [], start=1)
            if phase
        ]
    if rows:
        head = ["row", "methods", "taps asked for", "terms, with the taps they stand at"]
        blocks.append(Grid("What is passed on, and where", head, rows))
    if phases:
        blocks.append(Text("What was found between phases:"))
        blocks.append(Points(phases))
    if isinstance(view.source, Comparison):
        blocks += _tried(view.source.choices)
    blocks += shown(similarity_figure(_similar(view.networks)))
    if not any(of_every_seed(one, "similarity") for one in view.networks):
        blocks.append(Text("Likeness of maps to the teacher's (CKA): not measured."))
    return section("choices", "Connections and choices", blocks, "Nothing was chosen.")


def _tried(choices: Sequence[Choice]) -> list[Block]:
    rows: list[list[Cell]] = []
    for choice in choices:
        for value, line in choice.tried:
            taken = choice.taken is not None and value == choice.taken
            rows.append(
                [
                    choice.row,
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


def _similar(networks: Sequence[Network]) -> dict[str, dict[tuple[str, str], float]]:
    """Mean CKA over seeds of each pair that every seed has."""
    found: dict[str, dict[tuple[str, str], float]] = {}
    for network in networks:
        seeds = []
        for measured in of_every_seed(network, "similarity"):
            pairs = [(str(e.get("student")), str(e.get("teacher")), e.get("cka")) for e in measured]
            seeds.append({(s, t): cka for s, t, cka in pairs if finite(cka) is not None})
        if seeds and seeds[0]:
            shared = [pair for pair in seeds[0] if all(pair in seed for seed in seeds)]
            found[network.name] = {
                pair: sum(seed[pair] for seed in seeds) / len(seeds) for pair in shared
            }
    return found
