"""What a run's steps spend their time on, as torch's profiler sees it."""

import os
from pathlib import Path
from typing import NamedTuple, final

import torch
from torch.profiler import ProfilerActivity, profile, schedule

__all__ = ["Dear", "Profile"]

_WARM_UP, _STEPS, _DEAREST = 10, 10, 10


class Dear(NamedTuple):
    """An operation.

    Attributes:
        name: as torch calls it.
        calls: per step.
        milliseconds: per step, without what it calls.
        share: of all operations' time, in [0, 1].
    """

    name: str
    calls: float
    milliseconds: float
    share: float


@final
class Profile:
    """Watches ten steps after ten others, or of a short run the last.

    Args:
        path: of the Chrome trace; None: nothing is watched.

    Attributes:
        dearest: the ten operations that took longest, once the steps are over.
    """

    def __init__(self, path: Path | None, device: torch.device) -> None:
        self._path, self._device = path, device
        self._watching: profile | None = None
        self._steps = 0
        self.dearest: tuple[Dear, ...] = ()

    def begin(self, left: int) -> None:
        """From here on there are so many steps."""
        if self._path is None or left < 2:
            return
        self._steps = min(_STEPS, left - 1)
        before = min(_WARM_UP, left - self._steps)
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._watching = profile(
            activities=activities,
            schedule=schedule(wait=before - 1, warmup=1, active=self._steps, repeat=1),
            on_trace_ready=self._write,
            acc_events=True,
        )
        self._watching.start()

    def step(self) -> None:
        """A step is over."""
        if self._watching is not None:
            self._watching.step()

    def end(self) -> None:
        """The run is over, however that came."""
        if self._watching is not None:
            self._watching.stop()
            self._watching = None

    def _write(self, watched: profile) -> None:
        assert self._path is not None
        partial = self._path.with_name(f".{self._path.name}.partial-{os.getpid()}")
        watched.export_chrome_trace(str(partial))
        partial.replace(self._path)
        on_cuda = self._device.type == "cuda"
        times = {
            each.key: (
                each.count,
                each.self_device_time_total if on_cuda else each.self_cpu_time_total,
            )
            for each in watched.key_averages()
            if not each.key.startswith("ProfilerStep")
        }
        whole = sum(time for _, time in times.values()) or 1.0
        ranked = sorted(times.items(), key=lambda each: each[1][1], reverse=True)
        self.dearest = tuple(
            Dear(name, count / self._steps, time / 1000 / self._steps, time / whole)
            for name, (count, time) in ranked[:_DEAREST]
        )
