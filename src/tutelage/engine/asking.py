"""What a teacher is asked for a store: which views of which pictures, and how it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Int64
from torch import Tensor

from tutelage.data import Pictures, Views
from tutelage.data.views import Mix
from tutelage.engine.loop import resolve_device
from tutelage.engine.phases import move
from tutelage.engine.settings import TrainSettings
from tutelage.teachers import LiveTeacher
from tutelage.teachers.manifest import MEASURED, Manifest
from tutelage.types import Batch, Observation

__all__ = ["Asked", "Question"]


@final
class Asked:
    """Pictures of one part of a store, as the teacher is shown them.

    Args:
        pictures: in any order; entries stand in the order of their index.
        views: what happens to them.
        batch_size: the teacher is asked for so many at a time.
        full: whether a batch that would be short is filled with pictures from the beginning, so
            that all answers come from batches of one size.
        seed, mix: as in training.
    """

    def __init__(
        self,
        pictures: Pictures,
        views: Views,
        *,
        batch_size: int,
        full: bool,
        seed: int = 0,
        mix: Mix | None = None,
    ) -> None:
        self.batch_size, self._full = batch_size, full
        self._views, self._seed, self._mix = views, seed, mix
        self._pool = views.prepare(pictures)
        self._rows = torch.argsort(pictures.index, stable=True)
        self.index = pictures.index[self._rows]

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, places: Int64[Tensor, " m"], view: Int64[Tensor, " m"]) -> Batch:
        """Views of the pictures at these places, filled up if it must be full."""
        if self._full and len(places) < self.batch_size:
            more = torch.arange(self.batch_size - len(places)) % len(self)
            places, view = torch.cat([places, more]), torch.cat([view, torch.zeros_like(more)])
        rows = self._rows[places]
        images, targets = self._views.render(
            self._pool, rows, seed=self._seed, view=view, mix=self._mix
        )
        has_label = self._pool.pictures.has_label[rows]
        return Batch(images, targets, has_label, self.index[places], view)


@dataclass(frozen=True)
class Question:
    """Who is asked what, and how.

    Attributes:
        teacher: as in training; its taps are registered.
        measured: as it is measured; the same unless said.
        parts: of the store, by name.
        settings: precision, memory format and device in which the teacher answers.
        reduce: tap → what is kept of its maps; all of them if it is not there.
    """

    teacher: LiveTeacher
    parts: Mapping[str, Asked]
    settings: TrainSettings
    reduce: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    measured: LiveTeacher | None = None

    def place(self) -> torch.device:
        """Moves the teacher to where and how it would answer in a run with these settings."""
        device = resolve_device(self.settings.device)
        for teacher in (self.teacher, self.measured or self.teacher):
            if self.settings.channels_lie_last:
                teacher.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            teacher.network.to(device)
        return device

    def answers(
        self, batch: Batch, taps: tuple[str, ...] = (), *, measured: bool = False
    ) -> Observation:
        """What the teacher, once placed, says of a batch, as it would in such a run.

        Args:
            measured: as it is measured, not as it trains.
        """
        device, settings = resolve_device(self.settings.device), self.settings
        shown = move(batch, device, channels_last=settings.channels_lie_last)
        teacher = (measured and self.measured) or self.teacher
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            return teacher.observe(shown, taps)

    def coded(
        self,
        manifest: Manifest,
        part: str,
        places: Int64[Tensor, " m"],
        view: Int64[Tensor, " m"],
    ) -> dict[str, Tensor]:
        """The answers for some entries, as they are written."""
        maps, code = manifest.maps_of(part), manifest.logits_of(part)
        batch = self.parts[part].batch(places, view)
        seen = self.answers(batch, tuple(maps), measured=part == "test")
        coded = code.encode(seen.output)
        if manifest.answers_twice(part):
            coded[MEASURED] = code.encode(self.answers(batch, measured=True).output)["logits"]
        for tap, code in maps.items():
            values = seen.features[tap]
            coded |= code.encode(tap, self.reduce[tap](values) if tap in self.reduce else values)
        return {name: values[: len(places)] for name, values in coded.items()}
