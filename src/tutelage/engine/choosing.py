"""What a recipe leaves to measuring, precision and memory format: a few steps of each are timed."""

import copy
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from tutelage.data.loader import TrainLoader
from tutelage.distiller import Distiller
from tutelage.engine.host import undisturbed
from tutelage.engine.phases import move
from tutelage.engine.session import Session
from tutelage.engine.settings import OPEN, TrainSettings
from tutelage.records import RunFolder
from tutelage.teachers import LiveTeacher
from tutelage.types import Batch

__all__ = ["Chosen", "choose", "fastest", "settled"]

_SECONDS = 3.5
"""For the timed steps together; copying, and finding out how long they take, come on top."""

_FEW = 8
_STEPS = 4
"""In a row, of each combination; the first is not counted."""
_TIE = 1.03


class Chosen(NamedTuple):
    """What was taken, and why.

    Attributes:
        values: setting → value, of those that were open.
        milliseconds: combination → median time of a step; empty if nothing had to be measured.
        images: that a measured step was shown: the batch, or less where that would take too long.
    """

    values: dict[str, Any]
    milliseconds: dict[str, float] = {}  # noqa: RUF012 - read-only by convention
    images: int = 0

    def __str__(self) -> str:
        taken = ", ".join(f"{key} {json.dumps(value)}" for key, value in self.values.items())
        times = ", ".join(f"{name} {time:.3g}" for name, time in self.milliseconds.items())
        because = f"ms for {self.images} images: {times}" if times else "as the teacher's store"
        return f"{taken} ({because})".replace('"', "")

    def joined(self, later: "Chosen") -> "Chosen":
        """With what was chosen later, of other settings."""
        return Chosen(
            self.values | later.values,
            self.milliseconds | later.milliseconds,
            later.images or self.images,
        )


def settled(settings: TrainSettings, values: Mapping[str, Any]) -> TrainSettings:
    """The settings with these values where they are "auto"; others stay.

    >>> settled(TrainSettings(1, precision="auto"), {"precision": "fp32"}).precision
    'fp32'
    """
    return replace(settings, **{key: values[key] for key in settings.open if key in values})


def fastest(precisions: Sequence[str], milliseconds: Sequence[float]) -> int:
    """Which combination is taken: the fastest; of those within 3 % of it the more precise.

    >>> fastest(["bf16", "fp32", "fp32"], [100.0, 103.0, 102.0])
    2
    >>> fastest(["bf16", "fp32"], [100.0, 104.0])
    0
    """
    close = [n for n, time in enumerate(milliseconds) if time <= _TIE * min(milliseconds)]
    return min(close, key=lambda n: (precisions[n] != "fp32", milliseconds[n]))


def choose(
    distiller: Distiller, data: TrainLoader, settings: TrainSettings, device: torch.device
) -> Chosen:
    """Times whole steps (teacher, student, backward, optimizer) of each combination that is open.

    Copies of the distiller take them, so weights, random states, threads and accelerate's state are
    afterwards as before. It takes less than five seconds, unless steps of eight pictures are
    slower than a fifth of a second, and needs idle cores: on busy ones it measures the others, too.
    Nothing is compiled for it.

    Args:
        settings: at least one of `OPEN` is "auto".
    """
    candidates = [
        dict(zip(settings.open, values, strict=True))
        for values in product(*(OPEN[key] for key in settings.open))
    ]
    timed = [_Timed(distiller, data, _as_timed(settings, one), device) for one in candidates]
    batch = data.batch(0)
    batch = _some(batch, _number_of_images(timed, batch))
    seconds: list[list[float]] = [[] for _ in timed]
    began = time.perf_counter()
    there = list(zip(timed, seconds, strict=True))
    for one, own in [*there, *reversed(there)]:  # and back, so that what drifts meets all alike
        left = began + _SECONDS - time.perf_counter()
        if not own or left > 0:
            # Where the time is over, one step of each must do, but for the first, which is slower.
            own += one.steps(batch, _STEPS if left > 0 else 2)[1:]
    milliseconds = [round(1000 * median(own), 3) for own in seconds]
    taken = fastest([one.settings.precision for one in timed], milliseconds)
    names = [one.name for one in timed]
    return Chosen(candidates[taken], dict(zip(names, milliseconds, strict=True)), len(batch.images))


def _as_timed(settings: TrainSettings, values: Mapping[str, Any]) -> TrainSettings:
    """A run's settings as far as they make a step slow or fast."""
    steps = max(settings.steps, 1000)  # no schedule shall end while it is timed
    return replace(settings, **values, steps=steps, compile=False, trackers=())


class _Timed(NamedTuple):
    """One combination."""

    distiller: Distiller
    data: TrainLoader
    settings: TrainSettings
    device: torch.device

    @property
    def name(self) -> str:
        return self.settings.precision + (
            " channels_last" if self.settings.channels_lie_last else ""
        )

    def steps(self, batch: Batch, number: int) -> list[float]:
        """Seconds of each of some steps in a row, of which the first is slower."""
        with undisturbed(self.device), tempfile.TemporaryDirectory() as folder:
            session = Session(
                self._copy(), self.data, self.settings, RunFolder(Path(folder)), self.device
            )
            try:
                return [self._step(session, batch) for _ in range(number)]
            finally:
                session.close()

    def _copy(self) -> Distiller:
        pupil = copy.deepcopy(self.distiller).train()
        for teacher in pupil.teachers:
            if isinstance(teacher, LiveTeacher):
                teacher.stay_eager()
        last = self.settings.channels_lie_last
        layout = torch.channels_last if last else torch.contiguous_format
        return pupil.to(memory_format=layout)  # pyright: ignore[reportCallIssue]

    def _step(self, session: Session, batch: Batch) -> float:
        began = time.perf_counter()
        last = self.settings.channels_lie_last
        session.train_step(move(batch, self.device, channels_last=last))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began


def _number_of_images(timed: Sequence[_Timed], batch: Batch) -> int:
    """Of the whole batch, or as many as all steps together have the time for."""
    whole = len(batch.images)
    number = min(_FEW * timed[0].settings.accumulate, whole)
    while True:
        shown = _some(batch, number)
        took = 2 * _STEPS * sum(one.steps(shown, 2)[-1] for one in timed)
        most = number * _SECONDS / took
        if most >= whole:
            return whole
        if most < 4 * number:  # small batches take longer per image, so this is cautious
            return max(int(most), number)
        number *= 4


def _some(batch: Batch, number: int) -> Batch:
    return pytree.tree_map_only(torch.Tensor, lambda value: value[:number], batch)
