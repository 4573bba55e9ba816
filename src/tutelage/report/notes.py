"""What must be read with the table of a comparison."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from tutelage.report.claims import EQUAL_TIME, power, times_longer
from tutelage.report.latencies import Timed, network_kind, teacher_weights
from tutelage.report.lines import (
    Line,
    by_seed,
    lineage,
    student_of,
    subnet_of,
    tries_of,
    works,
)
from tutelage.report.measuring import codes
from tutelage.report.tables import duplicates_in_words

__all__ = ["UNDER_TRAINED", "failed", "notes"]

UNDER_TRAINED = 1.0
"""So many points of the long control above the short one are pointed out."""

Trials = Mapping[str, Mapping[int, Line]]


def _on_folds(trials: Trials, chosen: Mapping[str, Sequence[str]]) -> list[str]:
    """What must be known of a cross-validation beside its intervals."""
    said = []
    if any(chosen.values()):
        said.append(
            "What was chosen was chosen on the first fold's validation pictures, which other folds "
            "test."
        )
    for name, own in trials.items():
        weights = [teacher_weights(line["record"].get("content", {})) for line in own.values()]
        again = sum(w is not None and w in weights[:place] for place, w in enumerate(weights))
        if again:
            what = "all folds" if again == len(weights) - 1 else "several folds"
            said.append(
                f"{name}: one teacher for {what}. If it has seen pictures that a fold tests, "
                "numbers are too high."
            )
    return said


def _depths(spec: Mapping[str, Any], trials: Trials) -> list[str]:
    """How the wall time of rows that are depths of one run is to be read."""
    rows = [name for name in spec["rows"] if subnet_of(spec["rows"], name)]
    if not rows:
        return []
    took = []
    for name, own in trials.items():
        records = [line["record"] for line in own.values()]
        whole = [one["seconds_of_all_depths"] for one in records if "seconds_of_all_depths" in one]
        if name not in rows and whole:
            took.append(f"{name} {fmean(whole):.0f} s")
    return [
        f"{', '.join(rows)}: sub-nets. A run that trains several depths takes its wall time for "
        "all of them; each shows a share of it, in proportion to its MACs."
        + (f" All depths together: {', '.join(took)}." if took else "")
    ]


def notes(
    spec: Mapping[str, Any],
    lines: Sequence[Line],
    chosen: Mapping[str, Sequence[str]],
    rows: Sequence[Mapping[str, Any]],
    stale: Sequence[Line],
    timed: Timed,
) -> list[str]:
    """Everything that must be read with a table.

    Args:
        spec: of the comparison, as JSON.
        lines: trials and tries of this table.
        chosen: row → what it chose, in words.
        rows: of the table, but for the teacher's.
        stale: lines that are not used.
        timed: latencies of equal networks.
    """
    trials = {row: by_seed(row, lines) for row in spec["rows"]}
    said = [spec["note"]] if spec["note"] else []
    if spec.get("folds"):
        said.append(
            f"Cross-validation: each of {len(spec['seeds'])} seeds tests a part of the pictures of "
            "its own. ± is over these folds, and intervals allow for what folds share of their "
            "training pictures (Nadeau and Bengio, 2003)."
        )
        said += _on_folds(trials, chosen)
    said += [f"{name}: {why}." for name, own in trials.items() if (why := failed(own))]
    said += [f"{name}: not run yet." for name, own in trials.items() if not own]
    said += [
        f"{name}: {'; '.join(what)}; validation accuracy in %, first seed."
        for name, what in chosen.items()
        if what
    ]
    said += [_on_tuning(name, found) for name, found in spec.get("tuned", {}).items()]
    if spec["controls"] != "none":
        said += _on_controls(spec["controls"], trials, rows)
    said += _depths(spec, trials)
    said += _on_fit(trials)
    said += _on_latencies(trials, timed)
    said += _on_data(trials)
    if stale:
        named = sorted({line["row"] for line in stale})
        said.append(
            f"{len(stale)} stale trial(s) of {', '.join(named)} are left out: they come from "
            "another recipe, code, version or machine, or are no longer asked for."
        )
    return said + _on_readings(spec, trials, lines)


def _on_tuning(name: str, found: Mapping[str, Any]) -> str:
    taken = ", ".join(f"{key} {value}" for key, value in found["settings"].items())
    return (
        f"{name}: {taken}, tuned on validation ({100 * found['validation']:.1f} %) in "
        f"{found['tries']} tries of up to {found['steps']:,} steps with seed {found['seed']}, of "
        f"which {found['pruned']} ended early."
    )


def failed(own: Mapping[int, Line]) -> str | None:
    """In what words a row failed, if any of its trials did."""
    bad = [line for line in own.values() if not works(line)]
    if not bad:
        return None
    why = bad[0].get("failed") or "collapsed, no better than chance"
    return f"{len(bad)} of {len(own)} seed(s) failed: {why}"


def _on_controls(
    controls: Mapping[str, str], trials: Trials, rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    held = [trials[controls[which]] for which in ("short", "long")]
    if any(not control or failed(control) for control in held):
        return []
    said = [
        "± is the standard deviation over seeds. A gain is shown only if the 95 % intervals of "
        f"the paired differences over both controls ({controls['short']}, {controls['long']}) "
        "lie above 0."
    ]
    for name, own in trials.items():
        if name in controls.values() or failed(own):
            continue
        if (factor := times_longer(own, held[1])) > EQUAL_TIME:
            said.append(
                f"Control too short: {name} took {factor:.2f} times the training time of "
                f"{controls['long']}. Give that more steps."
            )
    for row in rows:
        if found := row.get("over_long_and_pictures"):
            said.append(
                f"{row['row']} over {controls['long']} with other test pictures too: "
                f"{found.mean:+.1f} ({found.low:+.1f} … {found.high:+.1f}); standard error "
                f"{found.over_seeds:.2f} over seeds, {found.over_pictures:.2f} over pictures "
                "(two-level bootstrap)."
            )
    said += _on_power(controls["long"], rows)
    short, long = (
        fmean(100 * student_of(line)["test_accuracy"] for line in control.values())
        for control in held
    )
    if long - short > UNDER_TRAINED:
        said.append(
            f"Under-trained: the long control is {long - short:.1f} points above the short one."
        )
    return said


def _on_power(control: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What more seeds would do for each row."""
    known = [
        f"{row['row']}: {row['needed'] or 'more than 1000'}" for row in rows if "needed" in row
    ]
    if not known:
        return []
    return [
        f"Seeds that {power(1)}, over {control} and with the spread found here: {', '.join(known)}."
    ]


def _on_fit(trials: Trials) -> list[str]:
    """How much better each row is on what it was trained on than on test."""
    said = []
    for name, own in trials.items():
        if failed(own):
            continue
        entries = [student_of(line) for line in own.values()]
        apart = [
            100 * (entry["train_accuracy"] - entry["test_accuracy"])
            for entry in entries
            if "train_accuracy" in entry
        ]
        if apart:
            some = "" if len(apart) == len(entries) else f" ({len(apart)} of {len(entries)} seeds)"
            said.append(f"{name} {fmean(apart):+.1f}{some}")
    if not said:
        return []
    return [
        "Accuracy on labelled training pictures, without augmentation, over that on test, in "
        f"points: {', '.join(said)}."
    ]


def _on_latencies(trials: Trials, timed: Timed) -> list[str]:
    """Which rows are one network, and how far measurements of its latency lie apart."""
    names: dict[str, list[str]] = {}
    entries = {}
    for name, own in trials.items():
        records = [line["record"] for line in own.values()]
        if not records or failed(own):
            continue
        kinds = {network_kind(record) for record in records}
        names.setdefault(" ".join(sorted(kinds)), []).append(name)
        entries[name] = timed.like(records)
        if records[0]["teacher"]:
            entries["the teacher"] = timed.teacher_like(records[0])
    several = [(", ".join(rows), entries[rows[0]]) for rows in names.values() if len(rows) > 1]
    if len(entries.get("the teacher", ())) > 1:
        several.append(("the teacher", entries["the teacher"]))
    said = []
    for name, measured in several:
        values = [entry["latency_ms"] for entry in measured]
        said.append(f"{name} {min(values):.2f} … {max(values):.2f} ms in {len(values)}")
    if not said:
        return []
    return [
        "A latency is the mean of all measurements of one architecture, so that equal networks "
        f"are equally fast: {'; '.join(said)}."
    ]


def _on_data(trials: Trials) -> list[str]:
    records = [line["record"] for own in trials.values() for line in own.values()]
    shared = {
        duplicates_in_words(record.get("data", {}).get("duplicates", {})) for record in records
    }
    said = [f"{words}." for words in sorted(shared) if words]
    return said + [
        f"{part} was not measured by the same code in all trials, and is averaged over none that "
        "differ: remove the lines of some, and run the comparison again."
        for part, known in codes(records).items()
        if len(known) > 1
    ]


def _on_readings(spec: Mapping[str, Any], trials: Trials, lines: Sequence[Line]) -> list[str]:
    """Rows of which test was read before the last choice that shaped them was made."""
    said = []
    for name, own in trials.items():
        tries = tries_of(lineage(spec["rows"], name), lines)
        tried = [line["record"].get("began", "") for line in tries if works(line)]
        found = spec.get("tuned", {})
        tried += [found[row]["until"] for row in lineage(spec["rows"], name) if row in found]
        read = [
            reading["time"]
            for line in own.values()
            for reading in line["record"].get("readings", [])
            if reading["split"] == "test"
        ]
        if tried and read and min(read) < max(tried):
            said.append(
                f"{name}: test was read before the last value was tried; the choice itself was "
                "made on validation."
            )
    return said
