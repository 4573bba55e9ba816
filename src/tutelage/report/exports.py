"""What exported files say and cost beside the network that they were made of."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from tutelage.report.blocks import Block, Grid, Points, Section, Text
from tutelage.report.lines import Record
from tutelage.report.tables import MISSING, percent

__all__ = ["bench_notes", "bench_rows", "exports", "parity_rows"]

Entry = Mapping[str, Any]

_LATENCY = (
    "The largest difference is of a logit. Latency is the median for one picture, the network's "
    "the mean of what was measured beside each file."
)


def exports(records: Sequence[Record]) -> list[Section]:
    """A section on the files that were exported of runs and on how fast they are, if there are any.

    What is damaged in a record is left out, and that is said.
    """
    blocks: list[Block] = []
    for record in records:
        whose = f" of {record['name']}" if len(records) > 1 else ""
        files, bad = _files(record, whose)
        timed, worse = _timed(record, whose)
        blocks += [*files, *timed]
        if bad + worse:
            blocks.append(Text(f"Damaged in the record{whose}, and left out: {bad + worse}."))
    return [Section("exports", "Exported files", blocks)] if blocks else []


def _files(record: Record, whose: str) -> tuple[list[Block], int]:
    """The files beside the network, and how many entries are damaged."""
    entries, bad = _whole(
        record.get("exports"),
        lambda entry: [parity_rows([entry]), _origin(entry), entry["name"].strip()],
    )
    if not entries:
        return [], bad
    head, *rows = parity_rows(entries)
    grid = Grid(f"Exported files{whose}, and the network itself", head, rows)
    return [grid, Text(_LATENCY), Points([_origin(entry) for entry in entries])], bad


def _timed(record: Record, whose: str) -> tuple[list[Block], int]:
    """What was timed side by side, and how many lines are damaged."""
    bench = record.get("bench")
    if not isinstance(bench, Mapping):
        return [], int(bench is not None)
    lines, bad = _whole(
        bench.get("lines"),
        lambda line: [bench_rows([line]), line["threads"], line["rounds"], line["name"].strip()],
    )
    if not lines:
        return [], bad
    head, *rows = bench_rows(lines)
    machine = bench.get("hardware")
    named = machine.get("processor") if isinstance(machine, Mapping) else None
    said = (
        f"{named or 'Unknown processor'}, {lines[0]['threads']} thread(s), median and 95th "
        f"percentile of {lines[0]['rounds']} rounds, {bench.get('time')}. Memory is what a process "
        "needs to open the model and answer, beyond what it had before."
    )
    text = Text(" ".join([said, *bench_notes(lines)]))
    return [Grid(f"Timed side by side{whose}", head, rows), text], bad


def _whole(entries: Any, use: Callable[[Entry], Any]) -> tuple[list[Entry], int]:
    """Those that can be used, and how many cannot."""
    if entries is None:
        return [], 0
    if not isinstance(entries, list):
        return [], 1
    found = []
    for entry in entries:
        try:
            use(entry)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            continue
        found.append(entry)
    return found, len(entries) - len(found)


_RUNTIMES = ("torch", "onnxruntime", "executorch")


def _origin(entry: Entry) -> str:
    versions = entry.get("versions")
    known = versions if isinstance(versions, Mapping) else {}
    named = [f"{name} {known[name]}" for name in _RUNTIMES if name in known]
    by = ", ".join(named) or "unknown versions"
    return (
        f"{entry['name']}: {entry.get('file')}, compared on {entry['parity']['pictures']:,} test "
        f"pictures; {entry.get('time')}, {by}, {entry.get('threads')} thread(s)."
    )


def parity_rows(entries: Sequence[Entry]) -> list[list[str]]:
    """A header; then each network, and below it the files that were made of it.

    Args:
        entries: of a record's "exports".
    """
    guided = any(entry["parity"]["teacher_agreement"] for entry in entries)
    rows = [
        [
            "",
            "test",
            "same answer",
            "largest difference",
            *(["as its teacher"] if guided else []),
            "size",
            "latency",
        ]
    ]
    for whose in dict.fromkeys(entry["weights"] for entry in entries):
        own = [entry for entry in entries if entry["weights"] == whose]
        subnet = own[0]["subnet"]
        title = "PyTorch, fp32" if subnet is None else f"{subnet}, PyTorch, fp32"
        rows.append(_row(own, "network", title, guided=guided))
        rows += [_row([entry], "exported", entry["name"], guided=guided) for entry in own]
    return rows


def _row(entries: Sequence[Entry], which: str, title: str, *, guided: bool) -> list[str]:
    """Of a file, or of the network that several were made of, timed beside each."""
    parity = entries[0]["parity"]
    agreement = parity["teacher_agreement"] or {}
    exported = which == "exported"
    latency = fmean(entry["latency_ms"][which] for entry in entries)
    return [
        title,
        percent(parity["accuracy"][which]),
        percent(parity["same_answer"]) if exported else "",
        f"{parity['largest_difference']:.2g}" if exported else "",
        *([percent(agreement.get(which))] if guided else []),
        f"{entries[0]['bytes'][which] / 1e6:.2f} MB",
        f"{latency:.2f} ms",
    ]


def bench_rows(lines: Sequence[Entry]) -> list[list[str]]:
    """A header and a row per model and batch.

    Args:
        lines: of a record's "bench".
    """
    head = ["", "batch", "median", "95 %", "pictures/s", "file", "memory"]
    rows = [head]
    for line in lines:
        memory = line["memory_bytes"]
        rows.append(
            [
                line["name"],
                str(line["batch"]),
                f"{line['median_ms']:.2f} ms",
                f"{line['p95_ms']:.2f} ms",
                f"{line['images_per_second']:,.0f}",
                f"{line['bytes'] / 1e6:.2f} MB",
                MISSING if memory is None else f"{memory / 1e6:.0f} MB",
            ]
        )
    return rows


def bench_notes(lines: Sequence[Entry]) -> list[str]:
    """Where int8 is slower than the same target in float32, which it can be."""
    notes = []
    for line in lines:
        if line.get("precision") != "int8":
            continue
        same = ("target", "batch", "model")
        plain = [
            other["median_ms"]
            for other in lines
            if other.get("precision") == "fp32" and all(other.get(k) == line.get(k) for k in same)
        ]
        if plain and min(plain) < line["median_ms"]:
            notes.append(
                f"{line['name']} is slower than in fp32 here at batch {line['batch']}: "
                f"{line['median_ms']:.2f} against {min(plain):.2f} ms."
            )
    return notes
