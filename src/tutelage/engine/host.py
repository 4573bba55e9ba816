"""What training asks of its process: memory, a quiet end, and to leave all else as it was."""

import ctypes
import math
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from tutelage.engine.settings import TrainSettings
from tutelage.errors import OutOfMemoryError
from tutelage.launcher import place

__all__ = [
    "Stop",
    "imitates_bf16",
    "keep_freed_memory",
    "memory_in_words",
    "num_cores",
    "stopping",
    "undisturbed",
]

_QUOTA = Path("/sys/fs/cgroup/cpu.max")

# mallopt's parameters, from glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory instead of giving it back to the kernel.

    Without it every step gives its activations back and faults thousands of pages in anew, which
    costs up to a third of a small network's step.

    Returns:
        Whether there was a glibc to tell.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20))
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in settings)


def imitates_bf16(device: torch.device) -> bool:
    """Whether bf16 runs on a processor without instructions for it: slower than float32 by far."""
    known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return device.type == "cpu" and known is not None and not known()


def num_cores() -> int:
    """Cores that this process may use: those it is bound to, or its container's share if less.

    torch takes as many threads as the machine has cores, also where a container may use a few.
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no Linux, no container, or "max"
        return allowed


@contextmanager
def memory_in_words(device: torch.device, settings: TrainSettings) -> Iterator[None]:
    """Turns a device's lack of memory into a sentence.

    Raises:
        OutOfMemoryError: with the remedies.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(
            f"The memory of {device} does not suffice for {settings.batch_size} samples per step. "
            f"Lower train.batch_size, or raise train.accumulate above {settings.accumulate} to "
            "work on smaller pieces."
        ) from None


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Inside, threads, random states and accelerate's state may change; outside they do not.

    accelerate keeps one state per process, the caller's, but runs may differ in precision and
    device.
    """
    shared = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    before = [dict(state) for state in shared]
    num_threads = torch.get_num_threads()
    # On a CPU, CUDA is not even woken up.
    num_devices = torch.cuda.device_count() if _uses_cuda(device) else 0
    for state in shared:
        state.clear()
    try:
        with torch.random.fork_rng(devices=range(num_devices)):
            yield
    finally:
        torch.set_num_threads(num_threads)
        for state, values in zip(shared, before, strict=True):
            state.clear()
            state.update(values)


def _uses_cuda(device: torch.device) -> bool:
    return device.type == "cuda" or torch.cuda.is_initialized()


@final
class Stop:
    """Whether somebody asked the run to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None


@contextmanager
def stopping() -> Iterator[Stop]:
    """Inside, SIGINT and SIGTERM are noted rather than obeyed; a second one is obeyed at once.

    Not a second SIGTERM to one of several processes: a scheduler that tells each of them and a
    launcher that hands it on make two of one.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    # None: a handler that was not installed from Python, and cannot be put back by it
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in watched}

    def restore(only: int | None = None) -> None:
        for number, handler in before.items():
            if only in (None, number):
                signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        del frame
        stop.signal = number
        twice = number == signal.SIGTERM and place().world_size > 1
        restore(signal.SIGINT if twice else None)

    for number in watched:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
