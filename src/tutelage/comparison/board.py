"""The table that grows while a comparison runs, on a terminal."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

from rich.live import Live
from rich.table import Table

from tutelage.engine.log import CONSOLE
from tutelage.stats import mean_and_spread

__all__ = ["Board", "showing"]

Line = Mapping[str, Any]


@final
class Board:
    """What has finished and what is running, row by row.

    Args:
        rows: names, in the order of the specification.
        seeds: how many trials a row has in all its groups together.
    """

    def __init__(self, rows: Sequence[str], seeds: int) -> None:
        self._seeds = seeds
        self._running: list[tuple[str, int]] = []
        self._lines: dict[str, dict[tuple[str, str], Line]] = {row: {} for row in rows}
        self._lock = threading.Lock()
        self.live: Live | None = None

    def notice(self, row: str, seed: int, line: Line | None) -> None:
        """A trial or try begins, or has finished with a line, perhaps long ago."""
        with self._lock:
            if line is None:
                self._running.append((row, seed))
            else:
                self._lines[row][line["kind"], line["identity"]] = line
                if (row, seed) in self._running:
                    self._running.remove((row, seed))
        if self.live is not None:
            self.live.update(self.table())

    def table(self) -> Table:
        """As it stands; a row's trials and tries are counted apart."""
        table = Table(box=None, pad_edge=False)
        for name in ("row", "trials", "test accuracy %", "best try %", "running"):
            table.add_column(name, justify="left" if name in ("row", "running") else "right")
        with self._lock:
            for row, lines in self._lines.items():
                trials = [line for line in lines.values() if line["kind"] == "trial"]
                tested = [_student(line)["test_accuracy"] for line in trials if _works(line)]
                tried = [
                    _student(line)["validation_accuracy"]
                    for line in lines.values()
                    if line["kind"] == "try" and _works(line)
                ]
                seeds = ", ".join(f"seed {seed}" for name, seed in self._running if name == row)
                table.add_row(
                    row, f"{len(trials)}/{self._seeds}", _mean(tested), _best(tried), seeds
                )
        return table


def _works(line: Line) -> bool:
    return "failed" not in line


def _student(line: Line) -> Mapping[str, Any]:
    return line["record"]["students"]["student"]


def _mean(shares: Sequence[float]) -> str:
    if not shares:
        return ""
    mean, spread = mean_and_spread([100 * share for share in shares])
    return f"{mean:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")


def _best(shares: Sequence[float]) -> str:
    return f"{100 * max(shares):.1f}" if shares else ""


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
