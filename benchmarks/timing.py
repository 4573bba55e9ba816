"""Alternating rounds, what they say together, and the record that they leave.

A lone time on a shared machine says little. So contestants take turns: in each round each has one
turn, in an order that is drawn anew, and what is compared is always two turns of one round. Of the
rounds' ratios the median is given, with the interval between two of them that holds the true median
with 95 % confidence whatever their distribution (the 10th smallest and the 10th largest of 30).
"""

import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch
from scipy.stats import binom

from tutelage.provenance import digest, git_commit, hardware, versions
from tutelage.records import append_line

__all__ = [
    "ENOUGH",
    "Spread",
    "alternate",
    "circumstances",
    "ratio",
    "record",
    "spread",
    "timed",
    "wait_for",
]

ENOUGH = 30
"""Rounds that a record needs."""

_LEVEL = 0.95


class Spread(NamedTuple):
    """A median with its interval."""

    median: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """To five digits."""
        return {name: float(f"{value:.5g}") for name, value in self._asdict().items()}


def spread(values: Sequence[float]) -> Spread:
    """The median, and the order statistics between which the true one lies.

    With n independent values, the true median is below the k-th smallest with the probability that
    a fair coin shows heads fewer than k times in n; k is the largest for which that is at most
    2.5 %. Fewer than six values cannot give 95 %: then the interval is all of them.

    Args:
        values: at least one.
    """
    ranked = sorted(values)
    k = max(int(binom.ppf((1 - _LEVEL) / 2, len(ranked), 0.5)), 1)
    return Spread(median(ranked), ranked[k - 1], ranked[-k])


def ratio(times: Mapping[str, Sequence[float]], above: str, below: str) -> Spread:
    """How many times as long one takes as another, turn by turn of the same round."""
    return spread([a / b for a, b in zip(times[above], times[below], strict=True)])


def alternate(
    turns: Mapping[str, Callable[[], float]], *, rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Lets contestants take turns.

    Args:
        turns: name → takes a turn, and says how long a step of it took.
        rounds: that count.
        warmup: rounds before them.

    Returns:
        Name → the time in each round.
    """
    times: dict[str, list[float]] = {name: [] for name in turns}
    order, draw = list(turns), random.Random(0)
    for number in range(-warmup, rounds):
        draw.shuffle(order)
        for name in order:
            seconds = turns[name]()
            if number >= 0:
                times[name].append(seconds)
        if number > 0 and number % 10 == 9:
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return times


def timed(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Seconds per step, of some in a row, until the last one's result is there."""
    wait_for(device)
    start = perf_counter()
    for _ in range(steps):
        step()
    wait_for(device)
    return (perf_counter() - start) / steps


def wait_for(device: torch.device) -> None:
    """An accelerator answers before it has finished."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def circumstances() -> dict[str, Any]:
    """When, where and with what code something is measured; to be asked for before it begins."""
    scripts = sorted(Path(__file__).parent.glob("*.py"))
    try:
        peer = {"torchdistill": version("torchdistill")}
    except PackageNotFoundError:
        peer = {}
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": [round(one, 2) for one in os.getloadavg()],
        "commit": git_commit(),
        "scripts": digest({path.name: path.read_text() for path in scripts}),
        "versions": versions() | peer,
        "hardware": hardware(),
    }


def record(file: Path, about: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Adds a line: the command, what was around it, and what came out.

    Args:
        about: as `circumstances` gave it.
    """
    words = iter(sys.argv[1:])
    kept: list[str] = []
    for word in words:
        if word == "--record":  # where a machine keeps its files is nobody's business
            next(words)
        elif not word.startswith("--record="):
            kept.append(word)
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *kept])
    append_line(file, {"command": command, **about, "result": result})
