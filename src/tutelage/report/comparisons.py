"""The table of a comparison, from its lines alone."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from tutelage.report.claims import decide, over_pictures, parse_claim
from tutelage.report.layout import AVERAGED, Table
from tutelage.report.metrics import measured, measured_of
from tutelage.report.robustness import mean_corruption_error
from tutelage.report.tables import duplicates_in_words
from tutelage.stats import Interval, mean_and_spread, paired_interval, verdict

__all__ = ["make_tables", "title_of"]

Line = Mapping[str, Any]

UNDER_TRAINED = 1.0  # points


def make_tables(
    spec: Mapping[str, Any], lines: Sequence[Line], stale: Sequence[Line] = ()
) -> list[Table]:
    """One table per combination of the axes' values; claims are corrected over all of them.

    Args:
        spec: of the comparison, as JSON.
        lines: of its trials and tries.
        stale: lines that are not used; they are only named, under the last table.
    """
    axes: Mapping[str, Sequence[Any]] = spec.get("axes", {})
    groups = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    parts = [[line for line in lines if _is_in(line, group)] for group in groups]
    claims = [parse_claim(text, spec["rows"]) for text in spec.get("claims", [])]
    cases = [
        (claim, {row: _by_seed(row, part) for row in spec["rows"]})
        for part in parts
        for claim in claims
    ]
    findings = decide(cases)
    tables = []
    for number, (group, part) in enumerate(zip(groups, parts, strict=True)):
        last = number == len(groups) - 1
        table = _make_table(spec, part, stale if last else ())
        own = findings[number * len(claims) : (number + 1) * len(claims)]
        tables.append(table._replace(findings=own, title=title_of(group)))
    return tables


def title_of(group: Mapping[str, Any]) -> str:
    """Values of the axes, in words.

    >>> title_of({"student.width": 8, "data.labelled": 500})
    'student.width 8, data.labelled 500'
    """
    return ", ".join(f"{key} {value}" for key, value in group.items())


def _is_in(line: Line, group: Mapping[str, Any]) -> bool:
    return all(line["settings"].get(key) == value for key, value in group.items())


def _make_table(spec: Mapping[str, Any], lines: Sequence[Line], stale: Sequence[Line]) -> Table:
    """Means and spreads over seeds, and gains over both controls; without findings."""
    trials = {row: _by_seed(row, lines) for row in spec["rows"]}
    controls = None if spec["controls"] == "none" else spec["controls"]
    chosen = {
        name: _chosen(row["choose"], trials[name], _tries(name, lines))
        for name, row in spec["rows"].items()
    }
    rows = [_row(name, own, trials, controls, chosen[name]) for name, own in trials.items()]
    teacher = _teacher(lines)
    return Table(
        ([teacher] if teacher else []) + rows,
        _notes(spec, trials, controls, chosen, rows, stale) + _notes_on_readings(trials, lines),
        [],
    )


def _by_seed(row: str, lines: Sequence[Line]) -> dict[int, Line]:
    return {line["seed"]: line for line in lines if line["kind"] == "trial" and line["row"] == row}


def _tries(row: str, lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if line["kind"] == "try" and line["row"] == row]


def _works(line: Line) -> bool:
    return "failed" not in line and not line["record"]["collapsed"]


def _student(line: Line) -> Mapping[str, Any]:
    return line["record"]["students"]["student"]


def _points(own: Mapping[int, Line]) -> list[float]:
    """Test accuracies in percent, by ascending seed."""
    return [100 * _student(own[seed])["test_accuracy"] for seed in sorted(own)]


def _row(
    name: str,
    own: Mapping[int, Line],
    trials: Mapping[str, Mapping[int, Line]],
    controls: Mapping[str, str] | None,
    chosen: Sequence[str],
) -> dict[str, Any]:
    row: dict[str, Any] = {"row": name, "seeds": len(own), "chosen": "; ".join(chosen)}
    if not own:
        return row
    if failed := _failed(own):
        return row | {"failed": failed}
    accuracy, spread = mean_and_spread(_points(own))
    students = [_student(line) for line in own.values()]
    row |= {
        "accuracy": accuracy,
        "spread": spread,
        "parameters": students[0]["parameters"],
        "macs": students[0]["macs"],
        "latency_ms": _mean([student["latency_ms"] for student in students]),
        "seconds": _mean([line["record"]["seconds"] for line in own.values()]),
    }
    for metric in AVERAGED:
        values = [measured(line["record"], metric) for line in own.values()]
        known = [value for value in values if value is not None]
        if len(known) == len(own):
            row[metric] = _mean(known)
    row |= _corruption_errors(own, trials[controls["short"]] if controls else {})
    if controls and name not in controls.values():
        held = [trials[controls[which]] for which in ("short", "long")]
        gains = [_gain(own, control) for control in held]
        said = "no control" if any(map(_failed, held)) else verdict(gains)
        if _times_longer(own, held[1]) > 1:
            said = "control too short"
        row |= {"over_short": gains[0], "over_long": gains[1], "verdict": said}
        if all(gains):
            row["over_long_and_pictures"] = over_pictures(own, held[1])
    return row


def _corruption_errors(
    own: Mapping[int, Line], control: Mapping[int, Line]
) -> dict[str, float | None]:
    """Mean corruption errors over the teacher's and, seed by seed, the short control's."""
    ratios: dict[str, list[float | None]] = {"mce_of_teacher": [], "mce_of_control": []}
    for seed, line in own.items():
        ours = _student(line).get("robustness")
        teacher = (line["record"].get("teacher") or {}).get("robustness")
        held = control.get(seed)
        other = _student(held).get("robustness") if held and _works(held) else None
        for key, reference in zip(ratios, (teacher, other), strict=True):
            if ours is None or reference is None:
                ratios[key].append(None)
            else:
                ratios[key].append(mean_corruption_error(ours, reference))
    means = {}
    for key, values in ratios.items():
        known = [value for value in values if value is not None]
        means[key] = _mean(known) if known and len(known) == len(values) else None
    return means


def _mean(values: Sequence[float]) -> float:
    return mean_and_spread(values)[0]


def _gain(own: Mapping[int, Line], control: Mapping[int, Line]) -> Interval | None:
    if _failed(control):
        return None
    shared = sorted(own.keys() & control.keys())
    return paired_interval(
        _points({seed: own[seed] for seed in shared}),
        _points({seed: control[seed] for seed in shared}),
    )


def _times_longer(own: Mapping[int, Line], control: Mapping[int, Line]) -> float:
    """How many times the control's training time a row took, on the seeds of both; 0 if none."""
    shared = own.keys() & control.keys()
    if not shared or _failed(own) or _failed(control):
        return 0.0
    row, long = (
        _mean([trials[seed]["record"]["seconds"] for seed in shared]) for trials in (own, control)
    )
    return row / long


def _chosen(
    choose: Mapping[str, Sequence[Any]], own: Mapping[int, Line], tries: Sequence[Line]
) -> list[str]:
    """What a row chose, and among what: one `key value of (value: validation, …)` per key.

    Args:
        choose: the row's keys and values, in the order in which they were chosen.
        own: the row's trials.
        tries: the row's tries.
    """
    if not own:
        return []
    settings = next(iter(own.values()))["settings"]
    said, undecided = [], {key: values[0] for key, values in choose.items()}
    for key, values in choose.items():
        del undecided[key]
        scores = [
            f"{value}: {_score(line)}"
            for value in values
            for line in tries
            if line["settings"] == {**settings, **undecided, key: value}
        ]
        if scores:
            said.append(f"{key} {settings[key]} of ({', '.join(scores)})")
    return said


def _score(line: Line) -> str:
    """Validation accuracy of a try."""
    return f"{100 * _student(line)['validation_accuracy']:.1f}" if _works(line) else "fails"


def _teacher(lines: Sequence[Line]) -> dict[str, Any] | None:
    for line in lines:
        teacher = line["record"].get("teacher")
        if teacher and "test_accuracy" in teacher:
            return {
                "row": "teacher",
                "accuracy": 100 * teacher["test_accuracy"],
                **{key: teacher[key] for key in ("parameters", "macs", "latency_ms")},
                **{metric: measured_of(teacher, metric) for metric in AVERAGED},
            }
    return None


def _notes(
    spec: Mapping[str, Any],
    trials: Mapping[str, Mapping[int, Line]],
    controls: Mapping[str, str] | None,
    chosen: Mapping[str, Sequence[str]],
    rows: Sequence[Mapping[str, Any]],
    stale: Sequence[Line],
) -> list[str]:
    notes = [spec["note"]] if spec["note"] else []
    notes += [f"{name}: {why}." for name, own in trials.items() if (why := _failed(own))]
    notes += [f"{name}: not run yet." for name, own in trials.items() if not own]
    notes += [
        f"{name}: {'; '.join(what)}; validation accuracy in %, first seed."
        for name, what in chosen.items()
        if what
    ]
    if controls:
        notes += _notes_on_controls(controls, trials, rows)
    shared = {
        duplicates_in_words(line["record"].get("data", {}).get("duplicates", {}))
        for own in trials.values()
        for line in own.values()
    }
    notes += [f"{words}." for words in sorted(shared) if words]
    notes += [
        f"{part} was not measured by the same code in all trials: remove the lines of some, and "
        "run the comparison again."
        for part, code in _measuring_code(trials).items()
        if len(code) > 1
    ]
    if stale:
        rows = sorted({line["row"] for line in stale})
        notes.append(
            f"{len(stale)} stale trial(s) of {', '.join(rows)} are left out: they come from "
            "another recipe, code, version or machine, or are no longer asked for."
        )
    return notes


def _measuring_code(trials: Mapping[str, Mapping[int, Line]]) -> dict[str, set[str]]:
    """Part of a record → the digests of the code that measured it."""
    found: dict[str, set[str]] = {}
    for own in trials.values():
        for line in own.values():
            for part, by in line["record"].get("measured", {}).items():
                found.setdefault(part, set()).add(by["code"])
    return found


def _notes_on_controls(
    controls: Mapping[str, str],
    trials: Mapping[str, Mapping[int, Line]],
    rows: Sequence[Mapping[str, Any]],
) -> list[str]:
    held = [trials[controls[which]] for which in ("short", "long")]
    if any(not control or _failed(control) for control in held):
        return []
    notes = [
        "± is the standard deviation over seeds. A gain is shown only if the 95 % intervals of "
        f"the paired differences over both controls ({controls['short']}, {controls['long']}) "
        "lie above 0."
    ]
    for name, own in trials.items():
        factor = 0.0 if name in controls.values() else _times_longer(own, held[1])
        if factor > 1:
            notes.append(
                f"Control too short: {name} took {factor:.2f} times the training time of "
                f"{controls['long']}. Give that more steps."
            )
    for row in rows:
        found = row.get("over_long_and_pictures")
        if found:
            notes.append(
                f"{row['row']} over {controls['long']} with other test pictures too: "
                f"{found.mean:+.1f} ({found.low:+.1f} … {found.high:+.1f}); standard error "
                f"{found.over_seeds:.2f} over seeds, {found.over_pictures:.2f} over pictures "
                "(two-level bootstrap)."
            )
    short, long = (_mean(_points(control)) for control in held)
    if long - short > UNDER_TRAINED:
        notes.append(
            f"Under-trained: the long control is {long - short:.1f} points above the short one."
        )
    return notes


def _notes_on_readings(
    trials: Mapping[str, Mapping[int, Line]], lines: Sequence[Line]
) -> list[str]:
    """Rows of which test was read before their last choice was made."""
    notes = []
    for name, own in trials.items():
        tried = [line["record"].get("began", "") for line in _tries(name, lines) if _works(line)]
        read = [
            reading["time"]
            for line in own.values()
            for reading in line["record"].get("readings", [])
            if reading["split"] == "test"
        ]
        if tried and read and min(read) < max(tried):
            notes.append(
                f"{name}: test was read before the last value was tried; the choice itself was "
                "made on validation."
            )
    return notes


def _failed(own: Mapping[int, Line]) -> str | None:
    """In what words a row failed, if any of its trials did."""
    bad = [line for line in own.values() if not _works(line)]
    if not bad:
        return None
    why = bad[0].get("failed") or "collapsed, no better than chance"
    return f"{len(bad)} of {len(own)} seed(s) failed: {why}"
