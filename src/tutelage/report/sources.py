"""What a report is made from: finished runs, or one comparison, read from their files alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.errors import RunError
from tutelage.records import RECORD_SCHEMA, RunFolder, read_lines
from tutelage.report.counting import Choice, Line, Pool, Record, is_trial, that_count

__all__ = [
    "Comparison",
    "Runs",
    "Source",
    "finite",
    "finite_only",
    "read_source",
]

_TRIALS = "trials.jsonl"
_NEEDED = (
    *("name", "command", "began", "commit", "code", "content", "versions", "hardware", "recipe"),
    *("seconds", "steps", "ended", "collapsed", "phases", "readings", "data", "students"),
    "teacher",
)
_COSTS = ("parameters", "macs", "latency_ms")


class Runs(NamedTuple):
    """Finished runs.

    Attributes:
        records: one per run.
        metrics: the lines that each run has logged, none if they were thrown away.
    """

    records: list[Record]
    metrics: list[list[Record]]


class Comparison(NamedTuple):
    """A comparison.

    Attributes:
        spec: the newest in the file, as JSON.
        lines: of the trials and tries that count.
        stale: lines that do not.
        choices: in the order of the rows.
        metrics: identity of a trial → the lines that its run has logged.
    """

    spec: Mapping[str, Any]
    lines: list[Line]
    stale: list[Line]
    choices: list[Choice]
    metrics: dict[str, list[Record]]

    def remarks(self) -> list[str]:
        """What is unfinished or uneven, beyond what the comparison's table says."""
        found = []
        for row in self.spec["rows"]:
            seeds = {line["seed"] for line in self.lines if is_trial(line, row)}
            missing = [str(seed) for seed in self.spec["seeds"] if seed not in seeds]
            if seeds and missing:
                found.append(f"{row}: seed(s) {', '.join(missing)} not run yet.")
        for row, key, tried, _ in self.choices:
            missing = [str(value) for value, line in tried if line is None]
            if missing:
                found.append(f"{row}: {key} was not tried at {', '.join(missing)} yet.")
        trials = [line for line in self.lines if line["kind"] == "trial"]
        for what in ("versions", "device", "threads"):
            if len({_text(line.get("parts", {}).get(what)) for line in trials}) > 1:
                found.append(f"Rows were run with different {what}: run the comparison again.")
        return found


Source = Runs | Comparison


def finite(value: Any) -> float | None:
    """A number if it is one, and finite; else None.

    >>> finite(3), finite(float("nan")), finite("3"), finite(None)
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def finite_only(value: Any) -> Any:
    """A JSON value in which null stands for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): finite_only(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite_only(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_source(paths: Sequence[Path], *, runs: Path = Path("runs")) -> Source:
    """Reads what a report is asked of.

    Of a comparison's lines the newest of a kind, row, seed and settings counts. Whether a line is
    stale is decided without torch, from the file alone: its settings must be what the newest
    specification asks for, with what its tries have chosen (while tries are missing, what the
    newest trial of the row has), its seed among the seeds, and the trials of a row must agree in
    code, versions, device and threads with the newest. That the code has changed *since* is known
    to `tutelage compare` alone.

    Args:
        paths: folders of finished runs; or one comparison: its JSON-lines file, or the folder that
            holds it as trials.jsonl.
        runs: where run folders lie, for the curves of a comparison whose file lies elsewhere.

    Raises:
        RunError: something is absent, unfinished, damaged, of another schema, or of several kinds;
            or trials of one mean were run on different data.
    """
    files = [path / _TRIALS if (path / _TRIALS).is_file() else path for path in paths]
    comparisons = [file for file in files if file.suffix == ".jsonl"]
    if not comparisons:
        return _read_runs(paths)
    if len(files) > 1:
        raise RunError(
            "A report is of runs, or of one comparison, and this names a comparison and "
            f"{len(files) - 1} more. Report on each by itself."
        )
    return _read_comparison(comparisons[0], runs)


def _read_runs(paths: Sequence[Path]) -> Runs:
    folders = [RunFolder(path) for path in paths]
    records: list[Record] = [folder.read_record() for folder in folders]
    for folder, record in zip(folders, records, strict=True):
        _require_whole(record, str(folder.record))
        networks = [*record["students"].values()]
        networks += [record["teacher"]] if record["teacher"] else []
        for key in _COSTS:
            if any(finite(network.get(key)) is None for network in networks):
                raise _damaged(str(folder.record), f"its {key} is no number")
    return Runs(records, [_read_metrics(folder) for folder in folders])


def _read_comparison(path: Path, runs: Path) -> Comparison:
    if not path.is_file():
        raise RunError(f"There is no {path}. Name a comparison's JSON-lines file, or its folder.")
    entries = read_lines(path)
    for number, entry in enumerate(entries, start=1):
        _require_line(entry, f"line {number} of {path}")
    specs = [entry["spec"] for entry in entries if entry["kind"] == "spec"]
    if not specs:
        raise RunError(
            f"{path} holds no specification, so that it is no comparison's file. Name one that "
            "`tutelage compare` has written."
        )
    spec = specs[-1]
    pool = Pool([_judged(entry) for entry in entries if entry["kind"] != "spec"])
    lines, choices = that_count(spec, pool)
    stale = pool.unused()
    _require_same_data(spec, lines)
    folders = [path.parent, runs / spec["name"]]
    metrics = {
        line["identity"]: found
        for line in lines
        if line["kind"] == "trial" and "failed" not in line
        if (found := _metrics_of(line["record"], folders))
    }
    return Comparison(spec, lines, stale, choices, metrics)


# What is refused


def _damaged(where: str, what: str) -> RunError:
    return RunError(f"{where} is damaged: {what}. Remove it, and run its recipe anew.")


def _require_whole(record: Any, where: str) -> None:
    """Checks that a record is one, and of our schema."""
    if not isinstance(record, Mapping):
        raise _damaged(where, "it holds no record")
    schema = record.get("schema")
    if schema != RECORD_SCHEMA:
        raise RunError(
            f"{where} holds a record of schema {schema}, and this version reads {RECORD_SCHEMA}. "
            "Report with the version that wrote it, or run it anew."
        )
    for key in _NEEDED:
        if key not in record:
            raise _damaged(where, f"its record says nothing of {key}")
    students = record["students"]
    if not isinstance(students, Mapping) or not isinstance(students.get("student"), Mapping):
        raise _damaged(where, "its record says nothing of its student")


_OF_A_LINE = ("row", "seed", "settings", "identity", "record")
_OF_A_SPEC = ("name", "base", "seeds", "controls", "rows", "note")


def _require_line(entry: Any, where: str) -> None:
    kind = entry.get("kind") if isinstance(entry, Mapping) else None
    if kind == "spec":
        _require_spec(entry.get("spec"), where)
        return
    if kind not in ("trial", "try"):
        raise _damaged(where, "it is no specification, trial or try")
    for key in _OF_A_LINE:
        if key not in entry:
            raise _damaged(where, f"it says nothing of {key}")
    if "failed" not in entry:
        _require_whole(entry["record"], where)


def _require_spec(spec: Any, where: str) -> None:
    if not isinstance(spec, Mapping):
        raise _damaged(where, "it holds no specification")
    if spec.get("schema") != RECORD_SCHEMA:
        raise RunError(
            f"{where} holds a specification of schema {spec.get('schema')}, and this version reads "
            f"{RECORD_SCHEMA}. Report with the version that wrote it."
        )
    for key in _OF_A_SPEC:
        if key not in spec:
            raise _damaged(where, f"its specification says nothing of {key}")


def _judged(line: Line) -> Line:
    """The line; failed, if a number that every line has is none."""
    if "failed" in line:
        return line
    student = line["record"]["students"]["student"]
    numbers = {key: student.get(key) for key in ("validation_accuracy", *_COSTS)}
    numbers["seconds"] = line["record"]["seconds"]
    if line["kind"] == "trial":
        numbers["test_accuracy"] = student.get("test_accuracy")
    bad = [key for key, value in numbers.items() if finite(value) is None]
    return {**line, "failed": f"its {bad[0]} is no number"} if bad else line


def _require_same_data(spec: Record, lines: Sequence[Line]) -> None:
    """Checks that what enters one mean, or one paired difference, was measured on the same."""
    works = [line for line in lines if line["kind"] == "trial" and "failed" not in line]
    controls = () if spec["controls"] == "none" else tuple(spec["controls"].values())
    for row in spec["rows"]:
        own = [line for line in works if line["row"] == row]
        held = [line for line in works if line["row"] in controls]
        _require_same(row, own, _of_a_mean)
        if own:
            _require_same(row, [*own, *held], _of_a_gain)


def _require_same(row: str, lines: Sequence[Line], fields: Any) -> None:
    for line in lines[1:]:
        first, other = fields(lines[0]["record"]), fields(line["record"])
        for field in sorted(first.keys() | other.keys()):
            if first.get(field) != other.get(field):
                raise RunError(
                    f"{row}: {field} is {first.get(field)} in one trial ({lines[0]['row']}, seed "
                    f"{lines[0]['seed']}) and {other.get(field)} in another ({line['row']}, seed "
                    f"{line['seed']}), and what was measured on different data enters no common "
                    "mean. Run the comparison again, or remove the lines of one of them."
                )


def _of_a_mean(record: Record) -> Record:
    split = record["recipe"]["data"]
    fields = {f"content.{key}": value for key, value in record["content"].items()}
    # A trial that began as a try may count no test pictures; content.test names them.
    fields |= {f"data.{key}": value for key, value in record["data"].items() if key != "test"}
    return fields | {f"recipe.data.{key}": split.get(key) for key in ("split_seed", "validation")}


def _of_a_gain(record: Record) -> Record:
    return {"content.test": record["content"].get("test")}


# What a run has logged


def _read_metrics(folder: RunFolder) -> list[Record]:
    lines = read_lines(folder.metrics)
    return [
        line for line in lines if isinstance(line, Mapping) and finite(line.get("step")) is not None
    ]


def _metrics_of(record: Record, places: Iterable[Path]) -> list[Record]:
    """Of a trial whose run folder is still there, and still is that trial's."""
    name = str(record.get("name", ""))
    for place in places:
        folder = RunFolder(place / name)
        if Path(name).name != name or not (folder.recipe.is_file() and folder.finished):
            continue
        if _end(folder.read_record()) == _end(record):
            return _read_metrics(folder)
    return []


def _end(record: Record) -> tuple[Any, Any]:
    return record.get("began"), record["students"]["student"].get("weights")


def _text(value: Any) -> str:
    return repr(sorted(value.items())) if isinstance(value, Mapping) else repr(value)
