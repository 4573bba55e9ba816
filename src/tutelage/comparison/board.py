"""The table that grows while a comparison runs, on a terminal."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

from rich.live import Live
from rich.table import Table

from tutelage.engine.log import CONSOLE
from tutelage.report.lines import (
    Line,
    combinations,
    full_name,
    of_student,
    student_of,
    title_of,
    works,
)
from tutelage.stats import mean_and_spread

__all__ = ["Board", "showing"]


@final
class Board:
    """What has finished and what is running, row by row, at one combination after the other.

    Args:
        rows: names, in the order of the specification → the sub-net that each shows, if any.
        seeds: how many trials a row has at each combination of the axes' values.
        axes: of the specification. Each combination has a line of its own for every row.
    """

    def __init__(
        self,
        rows: Mapping[str, str | None],
        seeds: int,
        axes: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self._rows, self._seeds, self._axes = rows, seeds, axes or {}
        self._running: list[tuple[str, int]] = []
        self._lines: dict[str, dict[tuple[str, str], Line]] = {
            full_name(row, title_of(group)): {}
            for group in combinations(self._axes)
            for row in rows
        }
        self._unasked: dict[str, int] = {}
        self._lock = threading.Lock()
        self.live: Live | None = None

    def note_file(self, lines: Iterable[Line]) -> None:
        """Tells which lines there are before anything runs.

        Those that nothing asks for are counted below the table; at the end they are the stale ones.
        """
        with self._lock:
            for line in lines:
                self._unasked[line["identity"]] = self._unasked.get(line["identity"], 0) + 1

    def notice(
        self, row: str, seed: int, line: Line | None, settings: Mapping[str, Any] | None = None
    ) -> None:
        """A trial or try begins, or has finished with a line, perhaps long ago.

        Args:
            settings: under which it begins; with axes they are needed as long as there is no line.
        """
        known = (line["settings"] if line is not None else settings) or {}
        name = full_name(row, title_of({key: known[key] for key in self._axes}))
        with self._lock:
            if line is None:
                self._running.append((name, seed))
            else:
                seen = of_student(line, self._rows[row])
                self._lines[name][line["kind"], line["identity"]] = seen
                self._unasked.pop(line["identity"], None)
                if (name, seed) in self._running:
                    self._running.remove((name, seed))
        if self.live is not None:
            self.live.update(self.table())

    def table(self) -> Table:
        """As it stands; a row's trials and tries are counted apart."""
        table = Table(box=None, pad_edge=False)
        for name in ("row", "trials", "test accuracy %", "best try %", "running"):
            table.add_column(name, justify="left" if name in ("row", "running") else "right")
        with self._lock:
            for name, lines in self._lines.items():
                trials = [line for line in lines.values() if line["kind"] == "trial"]
                tries = [line for line in lines.values() if line["kind"] == "try"]
                seeds = ", ".join(f"seed {seed}" for own, seed in self._running if own == name)
                table.add_row(
                    name, f"{len(trials)}/{self._seeds}", _tested(trials), _best(tries), seeds
                )
            if unasked := sum(self._unasked.values()):
                table.caption = (
                    f"{unasked} line(s) of the file are not asked for so far, and count for nothing"
                )
        return table


def _tested(trials: Sequence[Line]) -> str:
    """Mean and spread; of a row of which a trial failed or collapsed no number, as in the end."""
    if bad := sum(not works(line) for line in trials):
        return f"{bad} failed"
    if not trials:
        return ""
    mean, spread = mean_and_spread([100 * student_of(line)["test_accuracy"] for line in trials])
    return f"{mean:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")


def _best(tries: Sequence[Line]) -> str:
    scores = [student_of(line)["validation_accuracy"] for line in tries if works(line)]
    return f"{100 * max(scores):.1f}" if scores else ""


@contextmanager
def showing(board: Board, *, shown: bool) -> Iterator[None]:
    """Inside, the board is on the terminal, above any progress bar; elsewhere nothing is."""
    if not shown or not CONSOLE.is_terminal:
        yield
        return
    with Live(board.table(), console=CONSOLE, transient=True, refresh_per_second=2) as live:
        board.live = live
        yield
    board.live = None
