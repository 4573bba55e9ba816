"""What a report is made from: finished runs, or one comparison, read from their files alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.errors import RunError
from tutelage.records import RECORD_SCHEMA, RunFolder, read_lines
from tutelage.report.counting import Choice, Pool, finite, parts_of, sound, that_count
from tutelage.report.declared import late_claims
from tutelage.report.lines import (
    Line,
    Record,
    full_name,
    is_trial,
    require_same,
    teacher_of_any_seed,
)

__all__ = ["Comparison", "Runs", "Source", "finite_only", "read_source"]

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
        folders: of the runs.
        unsound: what in their records is damaged, and counts as not measured; in words.
    """

    records: list[Record]
    metrics: list[list[Record]]
    folders: list[RunFolder]
    unsound: list[str]

    def remarks(self) -> list[str]:
        """What a reader must know beyond the cautions of the table."""
        return self.unsound


class Comparison(NamedTuple):
    """A comparison.

    Attributes:
        spec: the newest in the file, as JSON.
        lines: of the trials and tries that count; each with "part", the title of the combination
            of the axes' values at which it does.
        stale: lines that do not, but for those whose trial was only measured again since.
        choices: in the order of the parts, and of the rows.
        metrics: identity of a trial → the lines that its run has logged.
        folders: identity of a trial → its run folder, if it is still there.
        unsound: what in records is damaged, and counts as not measured; in words.
        late: claim → trials of its rows that had run, with test read, when it was first made; for
            claims that were made after the first.
    """

    spec: Mapping[str, Any]
    lines: list[Line]
    stale: list[Line]
    choices: list[Choice]
    metrics: dict[str, list[Record]]
    folders: dict[str, RunFolder]
    unsound: list[str]
    late: dict[str, int]

    @property
    def parts(self) -> dict[str, Record]:
        """Title and settings of each combination of the axes' values."""
        return parts_of(self.spec)

    def trials(self, row: str, part: str) -> list[Line]:
        """Those of a row that count, by ascending seed."""
        own = [line for line in self.lines if is_trial(line, row) and line["part"] == part]
        return sorted(own, key=lambda line: line["seed"])

    def remarks(self) -> list[str]:
        """What is unfinished or uneven, beyond what the comparison's table says."""
        found = []
        for part in self.parts:
            for row in self.spec["rows"]:
                seeds = {line["seed"] for line in self.trials(row, part)}
                missing = [str(seed) for seed in self.spec["seeds"] if seed not in seeds]
                if seeds and missing:
                    name = full_name(row, part)
                    found.append(f"{name}: seed(s) {', '.join(missing)} not run yet.")
        for choice in self.choices:
            missing = [str(value) for value, line in choice.tried if line is None]
            if missing:
                name = full_name(choice.row, choice.part)
                found.append(f"{name}: {choice.key} was not tried at {', '.join(missing)} yet.")
        trials = [line for line in self.lines if line["kind"] == "trial"]
        for what in ("versions", "device", "threads"):
            if len({_text(line.get("parts", {}).get(what)) for line in trials}) > 1:
                found.append(f"Rows were run with different {what}: run the comparison again.")
        return [*found, *self.unsound]


Source = Runs | Comparison


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
    to `tutelage compare` alone. With axes all of this holds at each combination of their values.

    What a record holds beyond accuracy and costs counts as not measured if it is damaged.

    Args:
        paths: folders of finished runs; or one comparison: its JSON-lines file, or the folder that
            holds it as trials.jsonl.
        runs: where run folders lie, for the curves and pictures of a comparison whose file lies
            elsewhere.

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
    records: list[Record] = []
    unsound: list[str] = []
    for folder in folders:
        record = folder.read_record()
        _require_whole(record, str(folder.record))
        networks = [*record["students"].values()]
        networks += [record["teacher"]] if record["teacher"] else []
        for key in _COSTS:
            if any(finite(network.get(key)) is None for network in networks):
                raise _damaged(str(folder.record), f"its {key} is no number")
        record, bad = sound(record)
        records.append(record)
        unsound += [_in_words(str(record["name"]), what) for what in bad]
    return Runs(records, [_read_metrics(folder) for folder in folders], folders, unsound)


def _in_words(name: str, what: str) -> str:
    return f"{name}: {what} is damaged in its record, and counts as not measured."


def _read_comparison(path: Path, runs: Path) -> Comparison:
    if not path.is_file():
        raise RunError(f"There is no {path}. Name a comparison's JSON-lines file, or its folder.")
    entries = read_lines(path)
    for number, entry in enumerate(entries, start=1):
        require_line(entry, f"line {number} of {path}")
    specs = [entry["spec"] for entry in entries if entry["kind"] == "spec"]
    if not specs:
        raise RunError(
            f"{path} holds no specification, so that it is no comparison's file. Name one that "
            "`tutelage compare` has written."
        )
    spec = specs[-1]
    if len(parts_of(spec)) < math.prod(map(len, spec.get("axes", {}).values())):
        raise RunError(f"An axis in {path} has the same value twice. Name each once.")
    pool = Pool([_judged(entry) for entry in entries if entry["kind"] != "spec"])
    counted, choices = that_count(spec, pool)
    stale = _not_measured_again(pool.unused(), counted)
    lines: list[Line] = []
    unsound: list[str] = []
    for line in counted:
        record, bad = (line["record"], []) if "failed" in line else sound(line["record"])
        lines.append({**line, "record": record})
        name = f"{full_name(line['row'], line['part'])}, seed {line['seed']}"
        unsound += [_in_words(name, what) for what in bad]
    _require_same_data(spec, lines)
    places = [path.parent, runs / spec["name"]]
    folders = {
        line["identity"]: folder
        for line in lines
        if line["kind"] == "trial" and "failed" not in line
        if (folder := _folder_of(line["record"], places)) is not None
    }
    metrics = {
        identity: logged for identity, place in folders.items() if (logged := _read_metrics(place))
    }
    late = late_claims(entries, lines)
    return Comparison(spec, lines, stale, choices, metrics, folders, unsound, late)


def _not_measured_again(unused: Iterable[Line], counted: Iterable[Line]) -> list[Line]:
    """Those that are not merely older lines of a trial that counts, and whose end they share."""
    known = {(line["kind"], line["identity"], _weights(line)) for line in counted}
    return [
        line for line in unused if (line["kind"], line["identity"], _weights(line)) not in known
    ]


def _weights(line: Line) -> Any:
    failed = "failed" in line
    return None if failed else line["record"]["students"]["student"].get("weights")


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


def require_line(entry: Any, where: str) -> None:
    """Checks that a line of a file is one of a comparison's, and of our schema.

    Args:
        where: for the sentence.

    Raises:
        RunError: it is not.
    """
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
    axes = spec.get("axes", {})
    if not isinstance(axes, Mapping) or not all(
        isinstance(values, list) and values for values in axes.values()
    ):
        raise _damaged(where, "an axis of its specification has no values")


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
    folds = spec.get("folds", False)  # each seed has data of its own
    for part, row in product(parts_of(spec), spec["rows"]):
        here = [line for line in works if line["part"] == part]
        own = [line for line in here if line["row"] == row]
        if not own:
            continue
        require_same(full_name(row, part), own, _of_any_fold if folds else _of_a_mean)
        both = [line for line in here if line["row"] in (row, *controls)]
        for seed in {line["seed"] for line in own} if folds else {None}:
            some = [line for line in both if seed in (None, line["seed"])]
            require_same(full_name(row, part), some, _of_a_gain)


_NO_FIELDS = ("test", "duplicates")
"""Of data: a trial that began as a try may count no test pictures, and older records no duplicates;
what `content` names is the same for the same content."""


def _of_a_mean(record: Record) -> Record:
    split = record["recipe"]["data"]
    content = record["content"]
    fields = {f"content.{key}": value for key, value in content.items()}
    fields["content.teacher"] = teacher_of_any_seed(content)
    if "python" in (record["recipe"].get("student") or {}):
        # What its function draws is another at each seed.
        same = {key: value for key, value in content["student"].items() if key != "weights"}
        fields["content.student"] = same
    fields |= {
        f"data.{key}": value for key, value in record["data"].items() if key not in _NO_FIELDS
    }
    return fields | {f"recipe.data.{key}": split.get(key) for key in ("split_seed", "validation")}


def _of_any_fold(record: Record) -> Record:
    """What folds must have in common, whose pictures are others."""
    split = record["recipe"]["data"]
    fields = {f"recipe.data.{key}": split.get(key) for key in ("split_seed", "validation")}
    return fields | {"data.classes": record["data"].get("classes")}


def _of_a_gain(record: Record) -> Record:
    """What a difference must have in common; of corruptions only if they were measured."""
    fields = {"content.test": record["content"].get("test")}
    spoiled = record["students"]["student"].get("robustness")
    if spoiled:
        fields |= {f"robustness.{key}": spoiled[key] for key in ("pictures", "seed")}
        fields["robustness.corruptions"] = ", ".join(
            f"{name} ({len(shares)})" for name, shares in sorted(spoiled["corruptions"].items())
        )
    return fields


# What a run has left


def _read_metrics(folder: RunFolder) -> list[Record]:
    lines = read_lines(folder.metrics)
    return [
        line for line in lines if isinstance(line, Mapping) and finite(line.get("step")) is not None
    ]


def _folder_of(record: Record, places: Iterable[Path]) -> RunFolder | None:
    """Of a trial, if it is still there, and still is that trial's."""
    name = str(record.get("name", ""))
    for place in places:
        folder = RunFolder(place / name)
        if Path(name).name != name or not (folder.recipe.is_file() and folder.finished):
            continue
        if _end(folder.read_record()) == _end(record):
            return folder
    return None


def _end(record: Record) -> tuple[Any, Any]:
    return record.get("began"), record["students"]["student"].get("weights")


def _text(value: Any) -> str:
    return repr(sorted(value.items())) if isinstance(value, Mapping) else repr(value)
