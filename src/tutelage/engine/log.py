"""What training says: a line in metrics.jsonl per interval, and a progress bar.

Sums are gathered on the device and read once per interval, so that no step waits for the device.
Of several processes each gathers its own part of the batches; what is read is of all.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, final

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import Tensor

from tutelage.distiller import Output
from tutelage.engine.processes import ALONE, Processes
from tutelage.errors import NonFiniteError
from tutelage.records import RunFolder, append_line

__all__ = ["CONSOLE", "Display", "Log"]

LOSS = "loss"
_NEVER = 2**62

CONSOLE = Console(stderr=True)
"""Whatever moves on the terminal is drawn by this one: two would draw over each other."""


@final
class Log:
    """Gathers loss, terms and accuracy between two readings.

    Args:
        names: of the terms. A method may stop giving some of them after a phase.
        track: is given each line's numbers and the step.
        together: the processes that train; the first one writes.
    """

    def __init__(
        self,
        folder: RunFolder,
        names: tuple[str, ...],
        device: torch.device,
        track: Callable[[dict[str, float], int], None],
        together: Processes = ALONE,
    ) -> None:
        self._folder, self._together = folder, together
        self._names = (LOSS, *names)
        self._track = track
        zeros = torch.zeros(len(self._names), device=device)
        self._sums = zeros.double()
        self._first_bad = zeros.long() - 1
        self._counts = torch.zeros(2, dtype=torch.float64, device=device)
        self._absent = torch.zeros((), device=device)
        self._times = [0] * len(self._names)
        self._pictures = 0
        self._since = time.perf_counter()

    def add(self, step: int, output: Output, num_correct: Tensor, num_labelled: float) -> None:
        """Takes in one step; does not wait for the device.

        Args:
            step: counted from 1.
            num_correct: labelled samples that the student got right.
        """
        given = {LOSS: output.loss.detach(), **output.terms}
        values = torch.stack([given.get(name, self._absent) for name in self._names]).float()
        bad = ~values.isfinite() & (self._first_bad < 0)
        self._first_bad = torch.where(bad, step, self._first_bad)
        self._sums += values
        self._counts[0] += num_correct
        self._counts[1] += num_labelled
        self._times = [
            n + (name in given) for n, name in zip(self._times, self._names, strict=True)
        ]
        self._pictures += len(output.output)

    def check(self) -> None:
        """Waits for the device and looks for numbers that were not finite.

        Raises:
            NonFiniteError: names the first such step and the terms.
        """
        own = self._first_bad.tolist()
        # So put, the earliest step is the largest, and never is least of all.
        first = [
            -step for step in self._together.largest(*(-s if s >= 0 else -_NEVER for s in own))
        ]
        steps = [step for step in first if step < _NEVER]
        if steps:
            step = min(steps)
            named = [name for name, at in zip(self._names, first, strict=True) if at == step]
            culprits = [name for name in named if name != LOSS] or [LOSS]
            raise NonFiniteError(
                f"{' and '.join(culprits)} became infinite or NaN at step {step}; the run has "
                f"stopped, and the last good checkpoint is in {self._folder.path / 'checkpoints'}. "
                "Lower the learning rate or that term's weight."
            )

    def write(self, step: int, lr: float) -> dict[str, float]:
        """Checks, writes the interval's line and begins the next.

        Returns:
            The numbers of the line.
        """
        self.check()
        now = time.perf_counter()
        sums, counts, pictures = self._of_all()
        read = zip(self._names, sums.tolist(), self._times, strict=True)
        numbers = {name: total / times for name, total, times in read if times}
        correct, labelled = counts.tolist()
        if labelled:
            numbers["accuracy"] = correct / labelled
        numbers["lr"] = lr
        numbers["images_per_second"] = pictures / max(now - self._since, 1e-9)
        self.note(step, numbers)
        self._sums.zero_()
        self._counts.zero_()
        self._times, self._pictures, self._since = [0] * len(self._names), 0, now
        return numbers

    def note(self, step: int, numbers: dict[str, float]) -> None:
        """Writes a line, here and to the trackers."""
        if self._together.first:
            append_line(self._folder.metrics, {"step": step, **numbers})
            self._track(numbers, step)

    def _of_all(self) -> tuple[Tensor, Tensor, int]:
        """Sums as the mean of all processes, counts and pictures of all together."""
        sums = self._together.sums(self._sums) / self._together.count
        pictures = self._together.sums(torch.tensor(self._pictures))
        return sums, self._together.sums(self._counts), int(pictures)

    def gathered(self) -> dict[str, Tensor]:
        """For the checkpoint."""
        sums, counts, pictures = self._of_all()
        times = torch.tensor([*self._times, pictures])
        elapsed = torch.tensor(time.perf_counter() - self._since, dtype=torch.float64)
        return {"sums": sums, "counts": counts, "times": times, "elapsed": elapsed}

    def restore(self, gathered: dict[str, Tensor]) -> None:
        """From a checkpoint; an empty dict leaves everything at zero."""
        if not gathered:
            return
        *self._times, pictures = gathered["times"].tolist()
        if self._together.first:  # which says for all what they had gathered
            self._sums.copy_(gathered["sums"] * self._together.count)
            self._counts.copy_(gathered["counts"])
            self._pictures = pictures
        self._since = time.perf_counter() - gathered["elapsed"].item()


@final
class Display:
    """A progress bar on a terminal, a plain line per interval elsewhere, or nothing.

    Args:
        title: what is being trained.
        shown: False for nothing.
    """

    def __init__(self, title: str, steps: int, *, shown: bool) -> None:
        self._title, self._steps, self._shown = title, steps, shown
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if shown and CONSOLE.is_terminal:
            self._bar = Progress(
                # At 80 columns the name gives way first, then the bar; numbers and time stay.
                TextColumn(
                    "{task.description}",
                    table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1, max_width=32),
                ),
                BarColumn(bar_width=16),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True)),
                TimeRemainingColumn(),
                console=CONSOLE,
                transient=True,
                expand=True,
            )

    def __enter__(self) -> "Display":
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._steps, numbers="")
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=step)

    def numbers(self, step: int, numbers: dict[str, float], seconds_left: float) -> None:
        """Shows an interval's numbers."""
        text = f"loss {numbers[LOSS]:.3f}"
        if "accuracy" in numbers:
            text += f"  accuracy {100 * numbers['accuracy']:.1f} %"
        text += f"  {numbers['images_per_second']:.0f} images/s"
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=step, numbers=text)
        elif self._shown:
            left = f"{seconds_left / 60:.1f} min left"
            print(f"{self._title}  {step}/{self._steps}  {text}  {left}", file=sys.stderr)
