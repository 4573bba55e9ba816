"""What a teacher is asked for a store: which views of which pictures, and how it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from tutelage.data import Pictures, Views
from tutelage.data.views import Mix
from tutelage.engine.loop import resolve_device
from tutelage.engine.phases import move
from tutelage.engine.settings import TrainSettings
from tutelage.teachers import LiveTeacher
from tutelage.teachers.manifest import MEASURED, Manifest
from tutelage.types import Batch, Observation

__all__ = ["LOGITS", "Answers", "Asked", "Question"]

LOGITS = "logits"
"""What `Answers.gaps` calls those of training."""


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

    def answered(
        self,
        manifest: Manifest,
        part: str,
        places: Int64[Tensor, " m"],
        view: Int64[Tensor, " m"],
    ) -> "Answers":
        """The answers for some entries, with what is kept of maps."""
        taps = tuple(manifest.maps_of(part))
        batch = self.parts[part].batch(places, view)
        seen = self.answers(batch, taps, measured=part == "test")
        twice = manifest.answers_twice(part)
        other = self.answers(batch, measured=True).output[: len(places)] if twice else None
        maps = {tap: self.reduce.get(tap, _all)(seen.features[tap])[: len(places)] for tap in taps}
        return Answers(seen.output[: len(places)], maps, other)


def _all(maps: Tensor) -> Tensor:
    return maps


class Answers(NamedTuple):
    """What a teacher says of some entries.

    Attributes:
        logits: as in training.
        maps: tap → what is kept of them.
        measured: logits as they are measured, if they are others.
    """

    logits: Float[Tensor, "m k"]
    maps: Mapping[str, Float[Tensor, "m c h w"]]
    measured: Float[Tensor, "m k"] | None

    def coded(self, manifest: Manifest, part: str) -> dict[str, Tensor]:
        """As they are written."""
        code, maps = manifest.logits_of(part), manifest.maps_of(part)
        coded = code.encode(self.logits)
        if self.measured is not None:
            coded[MEASURED] = code.encode(self.measured)["logits"]
        for tap, values in self.maps.items():
            coded |= maps[tap].encode(tap, values)
        return coded

    def gaps(
        self, manifest: Manifest, part: str, coded: Mapping[str, Tensor]
    ) -> dict[str, Float32[Tensor, " m"]]:
        """How far stored answers are from these: what they are of → share of its largest value."""
        code, maps = manifest.logits_of(part), manifest.maps_of(part)
        found = {LOGITS: code.gap(self.logits, coded)}
        if self.measured is not None:
            found["measured logits"] = code.gap(self.measured, {"logits": coded[MEASURED]})
        for tap, values in self.maps.items():
            found[f"maps of {tap}"] = maps[tap].gap(tap, values, coded)
        return found
