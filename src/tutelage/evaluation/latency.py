"""How long a network takes for a batch, measured on this machine as it is now."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from tutelage.errors import SettingError
from tutelage.evaluation.cost import example
from tutelage.taps import evaluating

__all__ = ["Latency", "latency", "middle_and_slow"]


@dataclass(frozen=True)
class Latency:
    """Times of single forward passes, and what they depend on.

    Attributes:
        median_ms, p95_ms: median and 95th percentile in milliseconds, per batch (not per image),
            interpolated linearly between rounds.
        batch_size: images per round.
        threads: of PyTorch on the CPU, within one operation.
        rounds: how many were timed.
    """

    median_ms: float
    p95_ms: float
    batch_size: int
    threads: int
    rounds: int


def latency(
    module: nn.Module,
    image_size: tuple[int, int, int],
    *,
    batch_size: int = 1,
    rounds: int = 30,
    warmup: int = 5,
    device: torch.device | str | None = None,
) -> Latency:
    """Times forward passes in eval mode without gradients, each until its result is there.

    The images are on the device already. Whatever the caller has chosen counts: thread count,
    autocast, memory format, compilation (which the warm-up then contains).

    Args:
        module: any module that takes images; mode and place are the same afterwards.
        image_size: channels, height, width.
        batch_size: images per round.
        rounds: timed forward passes.
        warmup: forward passes before, not timed.
        device: where to measure; None is where the module is.

    Raises:
        SettingError: nothing would be timed.
    """
    if batch_size < 1 or rounds < 1 or warmup < 0:
        raise SettingError(
            "A latency needs at least 1 image, 1 round and 0 rounds of warm-up, but got "
            f"batch_size={batch_size}, rounds={rounds}, warmup={warmup}. Raise what is too small."
        )
    with _moved(module, device), evaluating(module):
        images = example(module, image_size, batch_size)
        images = images if device is None else images.to(device)
        seconds = [_time(module, images) for _ in range(warmup + rounds)][warmup:]
    median, p95 = middle_and_slow(seconds)
    return Latency(1000 * median, 1000 * p95, batch_size, torch.get_num_threads(), rounds)


def middle_and_slow(times: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile, interpolated linearly.

    >>> middle_and_slow([1.0, 2.0, 4.0])
    (2.0, 3.8)
    """
    ends = torch.tensor([0.5, 0.95], dtype=torch.float64)
    median, p95 = torch.tensor(times, dtype=torch.float64).quantile(ends).tolist()
    return median, p95


@contextmanager
def _moved(module: nn.Module, device: torch.device | str | None) -> Iterator[None]:
    """Inside, `module` is on `device`; after, where its first parameter was."""
    first = next(module.parameters(), None)
    if device is None or first is None:
        yield
        return
    home = first.device
    try:
        module.to(device)
        yield
    finally:
        module.to(home)


def _time(module: nn.Module, images: Tensor) -> float:
    _wait_for(images.device)
    start = perf_counter()
    module(images)
    _wait_for(images.device)
    return perf_counter() - start


def _wait_for(device: torch.device) -> None:
    """An accelerator answers before it has finished."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
