"""What training asks of the machine: threads, memory, and a quiet end when it is told to stop."""

import ctypes
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

__all__ = ["Stop", "keep_freed_memory", "stopping"]

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


@final
class Stop:
    """Whether somebody asked the run to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None


@contextmanager
def stopping() -> Iterator[Stop]:
    """Inside, SIGINT and SIGTERM are noted rather than obeyed; a second one is obeyed at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in watched}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        del frame
        stop.signal = number
        restore()

    for number in watched:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
