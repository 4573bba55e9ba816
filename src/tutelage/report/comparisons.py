"""The table of a comparison, from its lines alone."""

from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

from tutelage.report.claims import (
    EQUAL_TIME,
    decide,
    kin_of,
    over_pictures,
    parse_claim,
    times_longer,
)
from tutelage.report.latencies import Timed, of_trials
from tutelage.report.layout import AVERAGED, Table
from tutelage.report.lines import (
    Line,
    by_seed,
    combinations,
    full_name,
    overlap_of,
    require_same_test,
    student_of,
    title_of,
    tries_of,
    works,
)
from tutelage.report.measuring import is_even
from tutelage.report.metrics import measured, measured_of
from tutelage.report.notes import failed, notes
from tutelage.report.robustness import mean_corruption_error
from tutelage.stats import (
    Interval,
    mean_and_spread,
    paired_interval,
    seeds_needed,
    verdict,
)

__all__ = ["make_tables"]


_AS_GOOD_AS_EQUAL = 0.05
"""Points by which accuracy and balanced accuracy may differ before both are shown."""


def make_tables(
    spec: Mapping[str, Any],
    lines: Sequence[Line],
    stale: Sequence[Line] = (),
    late: Mapping[str, int] | None = None,
) -> list[Table]:
    """One table per combination of the axes' values; claims are corrected over all of them.

    Args:
        spec: of the comparison, as JSON.
        lines: of its trials and tries.
        stale: lines that are not used; they are only named, under the last table.
        late: claims that were made after trials of their rows had run, and how many had; from
            `late_claims`.

    Raises:
        RunError: trials of one table were shown different test pictures.
    """
    groups = combinations(spec.get("axes", {}))
    parts = [[line for line in lines if _is_in(line, group)] for group in groups]
    claims = [parse_claim(text, spec["rows"]) for text in spec.get("claims", [])]
    tried = [{row: by_seed(row, part) for row in spec["rows"]} for part in parts]
    for group, trials in zip(groups, tried, strict=True):
        everyone = [line for own in trials.values() for line in own.values()]
        for row, own in trials.items():
            name = full_name(row, title_of(group))
            if not spec.get("folds"):
                require_same_test(name, [*own.values(), *everyone])
            for seed, line in own.items():
                require_same_test(name, [line, *(one for one in everyone if one["seed"] == seed)])
    cases = [(claim, trials) for trials in tried for claim in claims]
    findings = decide(cases, kin=kin_of(spec["rows"]), late=late, folds=spec.get("folds", False))
    timed = Timed(of_trials(lines))
    tables = []
    for number, (group, part) in enumerate(zip(groups, parts, strict=True)):
        last = number == len(groups) - 1
        table = _make_table(spec, part, stale if last else (), timed)
        own = findings[number * len(claims) : (number + 1) * len(claims)]
        tables.append(table._replace(findings=own, title=title_of(group)))
    return tables


def _is_in(line: Line, group: Mapping[str, Any]) -> bool:
    return all(line["settings"].get(key) == value for key, value in group.items())


def _make_table(
    spec: Mapping[str, Any], lines: Sequence[Line], stale: Sequence[Line], timed: Timed
) -> Table:
    """Means and spreads over seeds, and gains over both controls; without findings."""
    trials = {row: by_seed(row, lines) for row in spec["rows"]}
    controls = None if spec["controls"] == "none" else spec["controls"]
    chosen = {
        name: _chosen(row["choose"], trials[name], tries_of([name], lines))
        for name, row in spec["rows"].items()
    }
    folds = spec.get("folds", False)
    rows = [
        _row(name, own, trials, controls, chosen[name], timed, folds=folds)
        for name, own in trials.items()
    ]
    teacher = _teacher_of_folds(trials, timed) if folds else _teacher(lines, timed)
    everyone = ([teacher] if teacher else []) + rows
    if not any(_is_unbalanced(row) for row in everyone):
        for row in everyone:
            row.pop("balanced", None)
    return Table(everyone, notes(spec, lines, chosen, rows, stale, timed), [])


def _is_unbalanced(row: Mapping[str, Any]) -> bool:
    """Whether the mean over classes says something else than the mean over pictures."""
    if row.get("accuracy") is None or row.get("balanced") is None:
        return False
    return abs(row["accuracy"] - row["balanced"]) >= _AS_GOOD_AS_EQUAL


def _points(own: Mapping[int, Line]) -> list[float]:
    """Test accuracies in percent, by ascending seed."""
    return [100 * student_of(own[seed])["test_accuracy"] for seed in sorted(own)]


def _row(
    name: str,
    own: Mapping[int, Line],
    trials: Mapping[str, Mapping[int, Line]],
    controls: Mapping[str, str] | None,
    chosen: Sequence[str],
    timed: Timed,
    *,
    folds: bool,
) -> dict[str, Any]:
    row: dict[str, Any] = {"row": name, "seeds": len(own), "chosen": "; ".join(chosen)}
    if not own:
        return row
    if why := failed(own):
        return row | {"failed": why}
    records = [line["record"] for line in own.values()]
    if is_even(records, "accuracy"):
        row["accuracy"], row["spread"] = mean_and_spread(_points(own))
    else:
        row["uneven"] = True
    row |= {
        "parameters": records[0]["students"]["student"]["parameters"],
        "macs": records[0]["students"]["student"]["macs"],
        "latency_ms": _mean([entry["latency_ms"] for entry in timed.like(records)]),
        "seconds": _mean([record["seconds"] for record in records]),
    }
    for metric in AVERAGED:
        values = [measured(record, metric) for record in records]
        known = [value for value in values if value is not None]
        if len(known) == len(own) and is_even(records, metric):
            row[metric] = _mean(known)
    row |= _corruption_errors(own, trials[controls["short"]] if controls else {})
    if controls and name not in controls.values():
        held = [trials[controls[which]] for which in ("short", "long")]
        row |= _against(own, held, folds=folds)
    return row


def _against(
    own: Mapping[int, Line], held: Sequence[Mapping[int, Line]], *, folds: bool
) -> dict[str, Any]:
    """Gains over the short and the long control, and what they come to."""
    gains = [_gain(own, control, folds=folds) for control in held]
    said = verdict(gains)
    if any(map(failed, held)):
        said = "no control"
    elif not _is_even([own, *held], "accuracy"):
        said = "measured unevenly"
    if said == "shown" and times_longer(own, held[1]) > EQUAL_TIME:
        said = "control too short"
    found = {"over_short": gains[0], "over_long": gains[1], "verdict": said}
    if gains[1] is not None and not folds:
        first, second = _paired(own, held[1])
        spread = stdev(a - b for a, b in zip(first, second, strict=True))
        found["needed"] = seeds_needed(1.0, spread)
    if all(gains):
        found["over_long_and_pictures"] = over_pictures(own, held[1])
    return found


def _is_even(rows: Sequence[Mapping[int, Line]], metric: str) -> bool:
    records = [line["record"] for own in rows for line in own.values() if works(line)]
    return is_even(records, metric)


def _corruption_errors(
    own: Mapping[int, Line], control: Mapping[int, Line]
) -> dict[str, float | None]:
    """Mean corruption errors over the teacher's and, seed by seed, the short control's."""
    ratios: dict[str, list[float | None]] = {"mce_of_teacher": [], "mce_of_control": []}
    for seed, line in own.items():
        ours = student_of(line).get("robustness")
        teacher = (line["record"].get("teacher") or {}).get("robustness")
        held = control.get(seed)
        other = student_of(held).get("robustness") if held and works(held) else None
        for key, reference in zip(ratios, (teacher, other), strict=True):
            if ours is None or reference is None:
                ratios[key].append(None)
            else:
                ratios[key].append(mean_corruption_error(ours, reference))
    means = {}
    for (key, values), rows in zip(ratios.items(), ([own], [own, control]), strict=True):
        known = [value for value in values if value is not None]
        whole = known and len(known) == len(values) and _is_even(rows, "corrupted")
        means[key] = _mean(known) if whole else None
    return means


def _mean(values: Sequence[float]) -> float:
    return mean_and_spread(values)[0]


def _gain(own: Mapping[int, Line], control: Mapping[int, Line], *, folds: bool) -> Interval | None:
    if failed(control) or not _is_even([own, control], "accuracy"):
        return None
    overlap = overlap_of([*own.values(), *control.values()]) if folds else 0.0
    return paired_interval(*_paired(own, control), overlap=overlap)


def _paired(
    own: Mapping[int, Line], control: Mapping[int, Line]
) -> tuple[list[float], list[float]]:
    """Points of both, of the seeds that both have."""
    shared = own.keys() & control.keys()
    first, second = ({seed: lines[seed] for seed in shared} for lines in (own, control))
    return _points(first), _points(second)


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
            f"{_in_words(value)}: {_score(line)}"
            for value in values
            for line in tries
            if line["settings"] == {**settings, **undecided, key: value}
        ]
        if scores:
            said.append(f"{key} {_in_words(settings[key])} of ({', '.join(scores)})")
    return said


def _in_words(value: Any) -> str:
    """A setting as a recipe has it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_in_words(one)}" for key, one in value.items()) + "}"
    return str(value)


def _score(line: Line) -> str:
    """Validation accuracy of a try."""
    return f"{100 * student_of(line)['validation_accuracy']:.1f}" if works(line) else "fails"


def _teacher(lines: Sequence[Line], timed: Timed) -> dict[str, Any] | None:
    for line in lines:
        if line["kind"] == "trial" and "failed" not in line and _knows_teacher(line):
            return _teacher_row([line["record"]], timed)
    return None


def _teacher_of_folds(
    trials: Mapping[str, Mapping[int, Line]], timed: Timed
) -> dict[str, Any] | None:
    """The mean of the folds' teachers, as the first row has them that has one in every fold."""
    for own in trials.values():
        whole = all("failed" not in line and _knows_teacher(line) for line in own.values())
        if not own or not whole:
            continue
        records = [line["record"] for line in own.values()]
        row = _teacher_row(records, timed) | {"seeds": len(own)}
        return row if is_even(records, "accuracy") else row | {"accuracy": None, "uneven": True}
    return None


def _knows_teacher(line: Line) -> bool:
    return "test_accuracy" in (line["record"].get("teacher") or {})


def _teacher_row(records: Sequence[Mapping[str, Any]], timed: Timed) -> dict[str, Any]:
    teachers = [record["teacher"] for record in records]
    accuracy, spread = mean_and_spread([100 * one["test_accuracy"] for one in teachers])
    latencies = [entry["latency_ms"] for one in records for entry in timed.teacher_like(one)]
    row: dict[str, Any] = {
        "row": "teacher",
        "accuracy": accuracy,
        **({} if spread is None else {"spread": spread}),
        **{key: teachers[0][key] for key in ("parameters", "macs")},
        "latency_ms": _mean(latencies),
    }
    for metric in AVERAGED:
        values = [measured_of(one, metric) for one in teachers]
        known = [value for value in values if value is not None]
        row[metric] = _mean(known) if len(known) == len(values) else None
    return row
