"""Trials that are run once: a finished one is a line in a file, and the line is enough."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

import torch

from tutelage.build import build
from tutelage.comparison.spec import Spec
from tutelage.engine import resolve_device
from tutelage.errors import NonFiniteError, RunError
from tutelage.identity import identity_parts
from tutelage.provenance import digest, git_commit, versions
from tutelage.recipes import Recipe, plain, read_recipe
from tutelage.records import RunFolder, append_line, read_lines, remove, write_atomic
from tutelage.runs import read_test, train

__all__ = ["Line", "Trials"]

Line = dict[str, Any]
"""What a finished trial leaves: kind, row, seed, settings, identity, its parts, and the record."""


@final
class Trials:
    """The finished trials of a comparison.

    Args:
        records: the JSON-lines file; made when the first trial finishes.
        runs: folder of the run folders, which may be thrown away.
    """

    def __init__(self, records: Path, runs: Path, *, shown: bool, command: str) -> None:
        self._records, self._runs = records, runs
        self._shown, self._command = shown, command
        self._lines: list[Line] = read_lines(records)
        self._known_parts: dict[str, dict[str, Any]] = {}

    @property
    def finished(self) -> list[Line]:
        """All lines of trials and tries, in the order in which they were run."""
        return [line for line in self._lines if line["kind"] != "spec"]

    def note_spec(self, spec: Mapping[str, Any]) -> None:
        """Enters the specification, if it is not the newest one there."""
        known = [line for line in self._lines if line["kind"] == "spec"]
        if not known or known[-1]["spec"] != spec:
            self._append({"kind": "spec", "spec": dict(spec)})

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
                threads=torch.get_num_threads(),
                device=resolve_device(recipe.train.device).type,
                versions=versions(),
            )
        return self._known_parts[key]

    def run(self, kind: str, row: str, settings: Mapping[str, Any], recipe: Recipe) -> Line:
        """A trial's line: the one there is, or a new one.

        Args:
            kind: "trial", or "try" for one that a choice is made by: it has no access to test.
        """
        parts = self.parts(recipe)
        identity = digest(parts)
        for line in self._lines:
            if line["kind"] == kind and line["identity"] == identity:
                # The row may have been renamed since, or another one may be the same.
                return line | {"row": row, "settings": dict(settings)}
        line = {"kind": kind, "row": row, "seed": recipe.seed, "settings": dict(settings)}
        line |= {"identity": identity, "parts": parts}
        line |= self._outcome(kind, row, recipe, identity)
        self._append(line)
        return line

    def restamp(self, lines: Sequence[Line], spec: Spec) -> None:
        """Takes over a row's lines from older code, if it can be shown to do the same.

        Of the lines that differ from what would be run now in the code alone, the first is run
        anew, without test; the others follow if it ends in the same weights bit for bit.

        Args:
            lines: of one row.

        Raises:
            RunError: it ends in others; all lines stay as they are.
        """
        old: dict[str, list[Line]] = {}
        for line in lines:
            now = self.parts(spec.recipe(line["settings"], line["seed"]))
            if line["parts"] != now and line["parts"] | {"code": now["code"]} == now:
                old.setdefault(line["parts"]["code"], []).append(line)
        for code, group in old.items():
            proof = min(group, key=lambda line: line["kind"] != "trial")
            recipe = spec.recipe(proof["settings"], proof["seed"])
            again = self._outcome("try", proof["row"], recipe, digest(self.parts(recipe)))
            if _end(again) != _end(proof):
                raise RunError(
                    f"{proof['row']} cannot be re-stamped: run anew with the code as it is, seed "
                    f"{proof['seed']} ends in other weights than its line says. Its lines stay "
                    "stale; compare without re-stamping to train the row anew."
                )
            self._stamp(group, code, self.parts(recipe)["code"])

    def _stamp(self, lines: Sequence[Line], old: str, new: str) -> None:
        time = datetime.now(UTC).isoformat(timespec="seconds")
        for line in lines:
            line["parts"] = line["parts"] | {"code": new}
            line["identity"] = digest(line["parts"])
            stamps = line.setdefault("restamped", [])
            stamps.append({"code": old, "time": time, "commit": git_commit()})
        texts = [json.dumps(line, allow_nan=False) + "\n" for line in self._lines]
        write_atomic(self._records, "".join(texts))

    def _outcome(self, kind: str, row: str, recipe: Recipe, identity: str) -> Line:
        """The record, or in what words the trial failed."""
        try:
            return {"record": self._train(kind, row, recipe, identity)}
        except NonFiniteError as error:
            record = {"commit": git_commit(), "recipe": plain(recipe)}
            return {"failed": str(error).split(";")[0], "record": record}

    def _train(self, kind: str, row: str, recipe: Recipe, identity: str) -> dict[str, Any]:
        name = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', row)}-seed{recipe.seed}-{identity[:8]}"
        folder = RunFolder(self._runs / name)
        if not folder.finished:
            _clear_other_recipe(folder, recipe)
            return train(
                recipe,
                name=name,
                runs=self._runs,
                resume=folder.path.exists(),
                with_test=kind == "trial",
                shown=self._shown,
                command=self._command,
            ).record
        record = folder.read_record()
        if kind == "try":
            return _without_test(record)
        if record["readings"]:
            return record
        return read_test(
            folder.path,
            purpose="final measurement of a setting that was chosen on validation",
            command=self._command,
        ).record

    def _append(self, line: Line) -> None:
        self._records.parent.mkdir(parents=True, exist_ok=True)
        append_line(self._records, line)
        self._lines.append(line)


def _clear_other_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """Removes an unfinished run of this identity that only its own recipe could continue."""
    if folder.recipe.is_file() and plain(read_recipe(folder.recipe)) != plain(recipe):
        warnings.warn(
            f"The unfinished run in {folder.path} was begun with other settings that change no "
            "weights (such as log_every, or where files lie), and is begun anew.",
            stacklevel=2,
        )
        remove(folder.path)


def _end(line: Line) -> str:
    """What a trial came to, to the last bit."""
    return line.get("failed") or line["record"]["students"]["student"]["weights"]


def _without_test(record: dict[str, Any]) -> dict[str, Any]:
    """The record as it was before test was read."""
    result: dict[str, Any] = deepcopy(record) | {"readings": []}
    result["data"]["test"] = 0
    for key in ("test_accuracy", "agreement"):
        result["students"]["student"].pop(key, None)
    if result["teacher"]:
        result["teacher"].pop("test_accuracy", None)
    return result
