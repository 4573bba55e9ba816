"""Trials that are run once: a finished one is a line in a file, and the line is enough."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

from tutelage.build import build
from tutelage.comparison.jobs import Pool
from tutelage.comparison.outcome import Task, outcome
from tutelage.comparison.spec import Spec
from tutelage.engine import resolve_device
from tutelage.engine.choosing import Chosen
from tutelage.errors import RunError
from tutelage.identity import identity_parts, what_counts
from tutelage.provenance import digest, git_commit, versions
from tutelage.recipes import Recipe, plain
from tutelage.records import append_line, read_lines, write_atomic
from tutelage.report.sources import require_line
from tutelage.runs import NOTHING, Extras, evaluate, measuring_code

__all__ = ["Line", "Started", "Trials"]

_MACHINE = ("versions", "device", "threads")
_PROVING = "proving that other code trains and measures the same"

Line = dict[str, Any]
"""What a finished trial leaves: kind, row, seed, settings, identity, its parts, and the record."""


class Started(NamedTuple):
    """A trial that has begun, or is already there.

    Attributes:
        row, settings: under which it was asked for; the same trial may be asked for twice.
    """

    future: "Future[Line]"
    row: str
    settings: dict[str, Any]

    def line(self) -> Line:
        """Its line, once it is finished."""
        return self.future.result() | {"row": self.row, "settings": self.settings}


@final
class Trials:
    """The finished trials of a comparison.

    Args:
        records: the JSON-lines file; made when the first trial finishes.
        runs: folder of the run folders, which may be thrown away.
        jobs: run them.
        extras: what is measured of each trial on test beside its answers.
        notice: is told of what begins and of what has finished; see `Board.notice`.
    """

    def __init__(
        self,
        records: Path,
        runs: Path,
        jobs: Pool,
        *,
        extras: Extras,
        notice: Callable[..., None],
        shown: bool,
        command: str,
    ) -> None:
        self._records, self._runs, self._jobs, self._extras = records, runs, jobs, extras
        self._notice, self._shown, self._command = notice, shown, command
        self._lines: list[Line] = []
        self._known_parts: dict[str, dict[str, Any]] = {}
        self._begun: dict[tuple[str, str], Future[Line]] = {}
        self._lock = threading.Lock()

    def read_lines(self) -> None:
        """Takes up what is finished.

        Raises:
            RunError: the file is damaged, of another schema, or no comparison's.
        """
        self._lines = read_lines(self._records)
        for number, line in enumerate(self._lines, start=1):
            require_line(line, f"line {number} of {self._records}")

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The whole file: specifications, trials and tries, in their order."""
        return list(self._lines)

    @property
    def finished(self) -> list[Line]:
        """All lines of trials and tries, in the order in which they were run."""
        return [line for line in self._lines if line["kind"] != "spec"]

    @property
    def decided(self) -> Chosen:
        """What was measured once for all trials, as `note_spec` has entered it last."""
        known = [line["decided"] for line in self._specs if "decided" in line]
        return Chosen(**known[-1]) if known else Chosen({})

    @property
    def _specs(self) -> list[Line]:
        return [line for line in self._lines if line["kind"] == "spec"]

    def note_spec(self, spec: Mapping[str, Any], decided: Chosen) -> None:
        """Enters the specification and what was decided, if they are not the newest ones there."""
        line: Line = {"kind": "spec", "spec": dict(spec)}
        if decided.values:
            line["decided"] = decided._asdict()
        if not self._specs or self._specs[-1] != line:
            self._append(line)

    def parts(self, recipe: Recipe) -> dict[str, Any]:
        """What the identity of a recipe's trial consists of, as it would be run now.

        Raises:
            TutelageError: it cannot be built.
        """
        key = digest(plain(recipe))
        if key not in self._known_parts:
            built = build(recipe, with_test=False)
            self._known_parts[key] = identity_parts(
                recipe,
                built.content,
                built.code,
                threads=self._jobs.threads,
                device=self._jobs.device or resolve_device(recipe.train.device).type,
                versions=versions(),
            )
        return self._known_parts[key]

    def start(
        self, kind: Literal["trial", "try"], row: str, settings: Mapping[str, Any], recipe: Recipe
    ) -> Started:
        """Begins a trial, unless there is a line of it.

        A line that lacks what is now to be measured is not enough: its student is measured, or
        trained anew if its run folder is gone.

        Args:
            kind: "trial", or "try" for one that a choice is made by: it has no access to test.
        """
        parts = self.parts(recipe)
        identity = digest(parts)
        key = (kind, identity)
        if key not in self._begun:
            line = self._line_of(kind, identity)
            if line is None:
                begun = {"kind": kind, "row": row, "seed": recipe.seed, "settings": dict(settings)}
                begun["jobs"] = self._jobs.count
                self._begun[key] = self._begin(
                    begun | {"identity": identity, "parts": parts}, recipe
                )
            else:
                self._begun[key] = Future()
                self._begun[key].set_result(line)
        # The row may have been renamed since, or another one may be the same.
        started = Started(self._begun[key], row, dict(settings))
        if started.future.done():
            self._notice(row, recipe.seed, started.line())
        return started

    def _line_of(self, kind: str, identity: str) -> Line | None:
        """The newest that is enough."""
        for line in reversed(self._lines):
            same = line["kind"] == kind and line["identity"] == identity
            if same and (kind == "try" or self._is_complete(line)):
                return line
        return None

    def _begin(self, begun: Line, recipe: Recipe) -> "Future[Line]":
        finished: Future[Line] = Future()

        def finish(done: "Future[dict[str, Any]]") -> None:
            try:
                line = begun | done.result()
                self._append(line)
            except Exception as error:
                finished.set_exception(error)
                return
            finished.set_result(line)
            self._notice(line["row"], line["seed"], line)

        self._notice(begun["row"], begun["seed"], None, begun["settings"])
        task = self._task(begun["kind"], begun["row"], recipe, begun["parts"])
        self._jobs.start(outcome, task).add_done_callback(finish)
        return finished

    def _task(
        self, kind: Literal["trial", "try"], row: str, recipe: Recipe, parts: Mapping[str, Any]
    ) -> Task:
        return Task(
            kind,
            row,
            recipe,
            digest(parts),
            self._runs,
            self._extras,
            self._measured_teacher(recipe, parts),
            self._shown,
            self._command,
        )

    def _measured_teacher(self, recipe: Recipe, parts: Mapping[str, Any]) -> dict[str, Any] | None:
        """The entry of the same teacher, measured on the same as now, in a complete line."""
        if not self._extras.keys or not (recipe.teacher or recipe.teachers):
            return None
        wanted = _conditions(plain(recipe), parts)
        now = {key: measuring_code(key) for key in self._extras.keys}
        codes = {known["code"] for known in self._known_parts.values()}  # of rows as they are now
        for line in self.finished:
            if line["kind"] != "trial" or "failed" in line or not self._is_complete(line):
                continue
            if line["parts"]["code"] not in codes:
                continue
            record = line["record"]
            by = {key: record.get("measured", {}).get(key, {}).get("code") for key in now}
            if by == now and _conditions(record["recipe"], line["parts"]) == wanted:
                return record["teacher"]
        return None

    def _is_complete(self, line: Line) -> bool:
        if "failed" in line:
            return True
        record, keys = line["record"], self._extras.keys
        if not keys or record["collapsed"]:
            return True
        student, asked = record["students"]["student"], self._extras
        alone = {"similarity"} if record["teacher"] is None else set()
        if not {"test", *keys} - alone <= student.keys():
            return False
        if asked.corruptions:
            shown = student["robustness"]["pictures"]
            if shown != min(asked.corruptions, record["data"]["test"]):
                return False
        by = record.get("measured", {}).get("people", {})
        return asked.soft_labels is None or by.get("file") == asked.digest()

    def restamp(self, lines: Sequence[Line], spec: Spec) -> None:
        """Takes over a row's lines from older code, if it can be shown to do the same.

        Of the lines that differ from what would be run now in the code alone, in settings that
        their recipes, or the fingerprints of their stores, did not have yet, or in the code by
        which answers to test were measured, the first is run anew; the others follow if it ends in
        the same weights bit for bit. It reads test only if the measuring code differs, and then
        answers must be the same, too: that reading is entered in it. What was not measured yet
        when it was written is entered as well.

        Args:
            lines: of one row.

        Raises:
            RunError: it ends in others; all lines stay as they are.
        """
        old: dict[tuple[str, str], dict[str | None, list[Line]]] = {}
        for line in lines:
            recipe = spec.recipe(line["settings"], line["seed"])
            now = self.parts(recipe)
            then = line["parts"]
            apart = {key for key in then.keys() | now.keys() if then.get(key) != now.get(key)}
            measured = _measured_by(line)
            added = [_added(line, recipe), _fingerprinted(line, now)]
            if not apart <= {"code", "recipe", "content"} or None in added:
                continue
            if apart or measured is not None:
                alike = old.setdefault((then["code"], digest(added)), {})
                alike.setdefault(measured, []).append(line)
        for alike in old.values():
            groups = list(alike.values())
            if len(groups) > 1 and not any(line["kind"] == "trial" for line in alike.get(None, [])):
                # Tries, and trials that failed, follow a trial that is run anew.
                groups = [group for measured, group in alike.items() if measured is not None]
                groups[0] = [*groups[0], *alike.get(None, [])]
            for group in groups:
                self._prove(group, spec)

    def _prove(self, group: Sequence[Line], spec: Spec) -> None:
        """Runs the first trial of lines of one code anew, and takes them over.

        Raises:
            RunError: it ends otherwise.
        """
        proof = min(group, key=lambda line: (line["kind"] != "trial", "failed" in line))
        recipe = spec.recipe(proof["settings"], proof["seed"])
        reads = _measured_by(proof) is not None
        task = self._task("trial" if reads else "try", proof["row"], recipe, self.parts(recipe))
        again = self._jobs.start(outcome, replace(task, extras=NOTHING)).result()
        what = "" if _end(again) == _end(proof) else "ends in other weights"
        if not what and reads:
            again = _measured_anew(task, again)
            if _measured_by(again) is not None or _answers(again) != _answers(proof):
                what = "answers test otherwise"
        if what:
            raise RunError(
                f"{proof['row']} cannot be re-stamped: run anew with the code as it is, seed "
                f"{proof['seed']} {what} than its line says. Its lines stay stale; compare without "
                "re-stamping to train the row anew."
            )
        if reads:
            reading = again["record"]["readings"][-1] | {"purpose": _PROVING}
            proof["record"]["readings"].append(reading)
        _complete(proof, again)
        self._stamp(group, spec, again["record"]["measured"]["test"] if reads else None)

    def _stamp(self, lines: Sequence[Line], spec: Spec, measured: Mapping[str, Any] | None) -> None:
        """Writes that these lines hold of the code as it is.

        Args:
            measured: by which code and versions answers to test were; None: as they say.
        """
        time = datetime.now(UTC).isoformat(timespec="seconds")
        for line in lines:
            recipe = spec.recipe(line["settings"], line["seed"])
            stamp = {"code": line["parts"]["code"], "time": time, "commit": git_commit()}
            now = self.parts(recipe)
            for what, added in (
                ("settings", _added(line, recipe)),
                ("content", _fingerprinted(line, now)),
            ):
                if added:
                    stamp[what] = added
            if measured is not None and (known := _measured_by(line)) is not None:
                stamp["measured"] = known
                line["record"]["measured"]["test"] = dict(measured)
            line.setdefault("restamped", []).append(stamp)
            line["parts"] = now
            line["identity"] = digest(line["parts"])
        texts = [json.dumps(line, allow_nan=False) + "\n" for line in self._lines]
        write_atomic(self._records, "".join(texts))

    def _append(self, line: Line) -> None:
        with self._lock:
            self._records.parent.mkdir(parents=True, exist_ok=True)
            append_line(self._records, line)
            self._lines.append(line)


def _complete(line: Line, again: Line) -> None:
    """Enters what was not measured yet when a line was written; its network is the same."""
    if "failed" in line:
        return
    then, now = line["record"], again["record"]
    for name, measured in now["students"].items():
        then["students"][name] = measured | then["students"][name]
    then["data"] = now["data"] | then["data"]


def _added(line: Line, recipe: Recipe) -> dict[str, Any] | None:
    """Settings that a line's recipe did not have yet, by dotted key; None if it differs otherwise.

    Another method is no setting.
    """
    content = line["parts"]["content"]
    then, now = (what_counts(said, content) for said in (line["record"]["recipe"], plain(recipe)))
    if then["methods"].keys() != now["methods"].keys():
        return None
    return _more(then, now, "")


def _fingerprinted(line: Line, now: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the fingerprint of a line's store did not say yet; None if the content is another."""
    found = _more(line["parts"]["content"], now["content"], "")
    if found is None or not all(key.startswith("teacher.fingerprint.") for key in found):
        return None
    return found


def _more(then: Any, now: Any, above: str) -> dict[str, Any] | None:
    if not isinstance(then, dict) or not isinstance(now, dict):
        return {} if then == now else None
    found: dict[str, Any] = {}
    for key in [*now, *(key for key in then if key not in now)]:
        if key not in then:
            found[f"{above}{key}"] = now[key]
            continue
        below = _more(then[key], now[key], f"{above}{key}.") if key in now else None
        if below is None:
            return None
        found |= below
    return found


def _conditions(recipe: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """What a teacher's numbers depend on."""
    how = {key: recipe["train"][key] for key in ("precision", "channels_last")}
    shown = {key: parts["content"].get(key) for key in ("teacher", "test", "source")}
    who = {key: recipe.get(key) for key in ("teacher", "teachers", "aggregation")}
    return how | shown | who | {key: parts[key] for key in _MACHINE}


def _measured_anew(task: Task, line: Line) -> Line:
    """A trial that was just run, or, if its run folder was still there, measured on test again."""
    if _measured_by(line) is None:
        return line
    found = evaluate(task.runs / task.name, with_test=True, command=task.command, purpose=_PROVING)
    return {"record": found["record"]}


def _measured_by(line: Line) -> str | None:
    """Digest of the code by which answers to test were measured, if that is another now."""
    code = line["record"].get("measured", {}).get("test", {}).get("code")
    return None if code == measuring_code("test") else code


def _answers(line: Line) -> list[Any]:
    """What a trial's networks said on test, to the last bit that counts."""
    record = line["record"]
    keys = ("test_accuracy", "agreement")
    return [
        [entry["test"]["correct"], *(entry.get(key) for key in keys)]
        for entry in record["students"].values()
    ]


def _end(line: Line) -> str:
    """What a trial came to, to the last bit."""
    if "failed" in line:
        return line["failed"]
    return " ".join(entry["weights"] for entry in line["record"]["students"].values())
