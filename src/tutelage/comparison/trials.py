"""Trials that are run once: a finished one is a line in a file, and the line is enough."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch

from tutelage.build import build, identity_of
from tutelage.engine import resolve_device
from tutelage.errors import NonFiniteError
from tutelage.provenance import git_commit, versions
from tutelage.recipes import Recipe, plain
from tutelage.records import RunFolder, append_line, read_lines
from tutelage.runs import Run, read_test, train

__all__ = ["Trials"]


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
        self.lines: list[dict[str, Any]] = read_lines(records)

    def note_spec(self, spec: Mapping[str, Any]) -> None:
        """Enters the specification, if it is not the newest one there."""
        known = [line for line in self.lines if line["kind"] == "spec"]
        if not known or known[-1]["spec"] != spec:
            self._append({"kind": "spec", "spec": dict(spec)})

    def run(
        self, kind: str, row: str, settings: Mapping[str, Any], recipe: Recipe
    ) -> dict[str, Any]:
        """A trial's line: the one there is, or a new one.

        Args:
            kind: "trial", or "try" for one that a choice is made by: it has no access to test.
        """
        identity = self._identity(recipe)
        for line in self.lines:
            if line["kind"] == kind and line["identity"] == identity:
                # The row may have been renamed since.
                return line | {"row": row}
        line = {"kind": kind, "row": row, "seed": recipe.seed, "settings": dict(settings)}
        line["identity"] = identity
        try:
            line["record"] = self._train(kind, row, recipe, identity).record
        except NonFiniteError as error:
            line["failed"] = str(error).split(";")[0]
            line["record"] = {"commit": git_commit(), "recipe": plain(recipe)}
        self._append(line)
        return line

    def _train(self, kind: str, row: str, recipe: Recipe, identity: str) -> Run:
        name = f"{row}-seed{recipe.seed}-{identity[:8]}"
        folder = RunFolder(self._runs / name)
        if folder.finished and kind == "trial":
            record = folder.read_record()
            if record["readings"]:
                return Run(folder.path, record)
            return read_test(
                folder.path,
                purpose="final measurement of a setting that was chosen on validation",
                command=self._command,
            )
        return train(
            recipe,
            name=name,
            runs=self._runs,
            resume=folder.path.exists(),
            with_test=kind == "trial",
            shown=self._shown,
            command=self._command,
        )

    def _identity(self, recipe: Recipe) -> str:
        if recipe.train.threads is not None:
            torch.set_num_threads(recipe.train.threads)
        device = resolve_device(recipe.train.device).type
        return identity_of(
            build(recipe, with_test=False), torch.get_num_threads(), device, versions()
        )

    def _append(self, line: dict[str, Any]) -> None:
        self._records.parent.mkdir(parents=True, exist_ok=True)
        append_line(self._records, line)
        self.lines.append(line)
