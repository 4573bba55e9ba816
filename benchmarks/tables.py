"""Writes the measured tables of Markdown files anew, from the records alone: `make tables`.

A table stands between `<!-- KIND of FILE … -->` and `<!-- end of table -->`, each FILE being one of
JSON lines, relative to the root of the repository:

    table of COMPARISON             the rows of a comparison, with what must be read with them
    table of COMPARISON: A | B …    only those columns; link to what must be read with them
    stores of COMPARISON and STORES what rows from stores cost and lose; see stored.py
    steps of STEPS                  the newest line of each workload; see step.py
    peers of PEERS                  the same for each way of measuring; see peers.py
    peers of PEERS: A | B …         only those rows
    compiled of PEERS               the same where our teacher was compiled
    int8 of EXPORTS                 what each format costs and says; see int8.py

A whole file of Python stands between `<!-- file FILE -->` and `<!-- end of file -->`.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from peers import RATIOS
from tutelage.records import read_lines, write_atomic
from tutelage.report.comparisons import make_tables
from tutelage.report.formats import Format, markdown, written
from tutelage.report.sources import Comparison, Runs, read_source
from tutelage.stats import mean_and_spread, paired_interval, verdict
from workloads import WORKLOADS

__all__ = ["FILES", "WITH_CODE", "renewed"]

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
WITH_CODE = (ROOT / "docs" / "loops.md",)
_TABLE = re.compile(
    r"(?P<head><!-- (?P<kind>\w+) of (?P<files>[^\s:]+( and [^\s:]+)*)(: (?P<columns>.+?))? -->\n)"
    r".*?(?P<end><!-- end of table -->)",
    re.DOTALL,
)
_CODE = re.compile(r"(<!-- file (\S+) -->\n).*?(<!-- end of file -->)", re.DOTALL)
Line = Mapping[str, Any]


def renewed(text: str) -> str:
    """The text with its tables as the records say, and with its files as they are."""

    def table(found: re.Match[str]) -> str:
        files = [ROOT / file for file in found["files"].split(" and ")]
        if found["kind"] == "table":
            made = _comparison(files[0], found["columns"])
        else:
            made = _KINDS[found["kind"]](*files)
            made = made if found["columns"] is None else _only(made, found["columns"].split(" | "))
        return f"{found['head']}\n{made}\n\n{found['end']}"

    def code(found: re.Match[str]) -> str:
        head, file, end = found.groups()
        return f"{head}\n```python\n{(ROOT / file).read_text()}```\n\n{end}"

    return _CODE.sub(code, _TABLE.sub(table, text))


def _comparison(file: Path, columns: str | None) -> str:
    source = read_source([file])
    if columns is None:
        return written(source, Format.MD)[0]
    assert not isinstance(source, Runs)
    (table,) = make_tables(source.spec, source.lines, source.stale)
    cells = table.cells()
    places = [cells[0].index(name) for name in columns.split(" | ")]
    return markdown([[row[place] for place in places] for row in cells], [])


def _only(table: str, rows: Sequence[str]) -> str:
    """The head of a table, and of its rows those; no notes."""
    lines = table.splitlines()
    first = {line.split(" | ")[0].removeprefix("| "): line for line in lines[2:] if line[:1] == "|"}
    return "\n".join([*lines[:2], *(first[row] for row in rows)])


def _stores(comparison: Path, made: Path) -> str:
    """Rows from stores: what they lose against the live teacher, and their whole wall time.

    Without a live row they are held against the first.
    """
    source = read_source([comparison])
    assert isinstance(source, Comparison)
    others = read_lines(made)
    trials = {
        row: sorted(
            (line for line in source.lines if line["row"] == row and line["kind"] == "trial"),
            key=lambda line: line["seed"],
        )
        for row in source.spec["rows"]
    }
    trials = {row: lines for row, lines in trials.items() if lines}  # others: not measured
    against = "live" if "live" in trials else next(iter(trials))
    live = _accuracies(trials[against])
    head = ["row", "seeds", "test accuracy %", f"− {against} (95 % interval)"]
    cells = [[*head, "store MB", "store s", "training s", "both s"]]
    for row, lines in trials.items():
        stores = list(_newest(others, "store", row=row))
        apart = paired_interval(_accuracies(lines), live) if stores else None
        cells.append(
            [
                row,
                str(len(lines)),
                _mean(_accuracies(lines)),
                f"{apart.mean:+.1f} ({apart.low:+.1f} … {apart.high:+.1f})" if apart else "",
                *_times([line["record"]["seconds"] for line in lines], stores),
            ]
        )
    loops = list(_newest(others, "plain")) if against == "live" else []  # what it is the loop of
    if loops:
        shares = [100 * loop["test_accuracy"] for loop in loops]
        times = _times([loop["seconds"] for loop in loops], [])
        cells.append(["plain loop, float32", str(len(loops)), _mean(shares), "", *times])
    return markdown(cells, [])


def _newest(lines: Iterable[Line], kind: str, **more: str) -> Iterable[Line]:
    """Of these results the newest of each seed."""
    wanted = {"kind": kind} | more
    found = {
        line["result"]["seed"]: line["result"]
        for line in lines
        if wanted.items() <= line["result"].items()
    }
    return found.values()


def _accuracies(lines: Iterable[Line]) -> list[float]:
    return [100 * line["record"]["students"]["student"]["test_accuracy"] for line in lines]


def _mean(values: Sequence[float]) -> str:
    mean, spread = mean_and_spread(values)
    return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def _times(training: Sequence[float], stores: Sequence[Line]) -> list[str]:
    """Bytes and seconds of the store, seconds of training, and both; means over seeds."""
    own = fmean(training)
    if not stores:
        return ["", "", f"{own:.0f}", f"{own:.0f}"]
    size, store = (fmean(values) for values in zip(*map(_cost, stores), strict=True))
    return [f"{size:.2f}", f"{store:.0f}", f"{own:.0f}", f"{own + store:.0f}"]


def _cost(store: Line) -> tuple[float, float]:
    return store["plan"]["bytes"] / 1e6, store["seconds"]


def _steps(file: Path) -> str:
    newest = {line["result"]["workload"]: line["result"] for line in _on_a_cpu(file)}
    keys = [
        key for key in next(iter(newest.values())) if key.endswith(("_ms", "_percent", "_second"))
    ]
    ratios = ["plain_fp32_over_ours", "live_over_cached", "cached_over_label_only"]
    cells = [["", *newest]]
    for key in (*ratios, *keys):
        cells.append([key, *(_spread(one[key]) for one in newest.values())])
    for name in next(iter(newest.values()))["peak_memory_bytes"]:
        values = [one["peak_memory_bytes"][name] for one in newest.values()]
        sizes = [f"{value / 1e6:.0f}" if value else "–" for value in values]
        cells.append([f"peak memory, {name}, MB", *sizes])
    return markdown(cells, _circumstances(_on_a_cpu(file)))


def _on_a_cpu(file: Path, *, compiled: bool = False) -> list[Line]:
    """Lines of the table: of the newest line's threads, our teacher compiled or not."""
    lines = [line for line in read_lines(file) if line["result"]["device"] == "cpu"]
    wanted = [line for line in lines if line["result"]["options"]["compile_teacher"] == compiled]
    threads = wanted[-1]["result"]["threads"]
    return [line for line in wanted if line["result"]["threads"] == threads]


def _circumstances(lines: Iterable[Line]) -> list[str]:
    """On what, with what and under which load."""
    said = {}
    for line in lines:
        result, versions = line["result"], {"torchdistill": "absent"} | line["versions"]
        named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "timm", "torchdistill"))
        said[
            f"{line['commit']}; {line['hardware']['processor']}, {result['threads']} threads; "
            f"{named}; {result['rounds']} rounds, medians with 95 % intervals."
        ] = None
    return list(said)


def _peers(file: Path, *, compiled: bool = False) -> str:
    lines = _on_a_cpu(file, compiled=compiled)
    newest: dict[tuple[str, bool], Line] = {}
    for line in lines:
        result = line["result"]
        for workload in result["ms"]:
            newest[workload, result["apart"]] = result
    order = sorted(newest, key=lambda key: (list(WORKLOADS).index(key[0]), key[1]))
    names = [f"{workload}, {'apart' if apart else 'one process'}" for workload, apart in order]
    cells = [["", *names]]
    for key, ratio in sorted(RATIOS.items(), key=lambda item: "bf16" not in item[0]):
        row = [key]
        for workload, apart in order:
            found = newest[workload, apart][key][workload]
            met = found and ratio.met(workload, found)
            said = {None: "", True: " ✓", False: " ✗"}[met]
            bar = ratio.bars.get(workload)
            side = "≤" if ratio.at_most else "≥"
            row.append(
                (_spread(found) if found else "–") + (f", {side} {bar:g}{said}" if bar else "")
            )
        cells.append(row)
    for name in ("floor_ms", "ms"):
        for one in newest[order[0]][name][order[0][0]]:
            values = [newest[key][name][key[0]].get(one) for key in order]
            cells.append([f"{one} ms", *(_spread(value) if value else "–" for value in values)])
    return markdown(cells, _circumstances(lines))


def _spread(value: Mapping[str, float]) -> str:
    return f"{value['median']:.4g} ({value['low']:.4g} … {value['high']:.4g})"


def _int8(file: Path) -> str:
    newest = {
        tuple(line["result"][key] for key in ("network", "stage", "form", "seed")): line["result"]
        for line in read_lines(file)
    }
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for (network, stage, form, _), result in newest.items():
        groups.setdefault((network, stage, form), []).append(result)
    cells = [
        ["network", "run", "file", "seeds", "network %", "file %", "MB", "latency / PyTorch's"]
    ]
    for (network, stage, form), results in groups.items():
        sizes = [one["bytes"]["exported"] / 1e6 for one in results]
        ratios = [one["latency_ms"]["exported"] / one["latency_ms"]["network"] for one in results]
        cells.append(
            [
                *(network, stage, form, str(len(results))),
                _mean(_percents(results, "network")),
                _mean(_percents(results, "exported")),
                *(f"{fmean(sizes):.2f}", f"{fmean(ratios):.2f}"),
            ]
        )
    found = [_rounding(groups, *key) for key in groups]
    return markdown(cells, [note for note in found if note])


def _rounding(
    groups: Mapping[tuple[str, str, str], list[Mapping[str, Any]]],
    network: str,
    stage: str,
    form: str,
) -> str:
    """What the run that rounded gained over the others; nothing of other runs, or of one seed."""
    results = groups[network, stage, form]
    if not stage.startswith("rounds") or len(results) < 2:
        return ""
    said, over = [], []
    for other in ("first", "goes on"):
        than = groups.get((network, other, form), [])
        both = {one["seed"] for one in results} & {one["seed"] for one in than}
        mine, theirs = (
            _percents([one for one in some if one["seed"] in both], "exported")
            for some in (results, than)
        )
        over.append(paired_interval(mine, theirs))
        if over[-1] is not None:
            mean, low, high = over[-1]
            said.append(f"{mean:+.2f} ({low:+.2f} … {high:+.2f}) over “{other}”")
    if not said:
        return ""
    return f"{network}, {form}, after the run that rounded: {', '.join(said)}; {verdict(over)}."


def _percents(results: Iterable[Mapping[str, Any]], whose: str) -> list[float]:
    ordered = sorted(results, key=lambda one: one["seed"])
    return [100 * one["parity"]["accuracy"][whose] for one in ordered]


_KINDS: Mapping[str, Callable[..., str]] = {
    "stores": _stores,
    "steps": _steps,
    "peers": _peers,
    "compiled": partial(_peers, compiled=True),
    "int8": _int8,
}


def main() -> None:
    """Rewrites the files, and names those that have changed."""
    for path in (*FILES, *WITH_CODE):
        text = path.read_text()
        if (new := renewed(text)) != text:
            write_atomic(path, new)
            print(f"{path.relative_to(ROOT)} is renewed.", file=sys.stderr)


if __name__ == "__main__":
    main()
