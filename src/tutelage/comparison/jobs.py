"""Several trials at once, each in a process of its own."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, final, runtime_checkable

import torch

from tutelage.engine.host import num_cores
from tutelage.errors import Interrupted, RunError, SettingError
from tutelage.runs.surroundings import usual_threads

__all__ = ["Jobs", "Pool", "running"]


@runtime_checkable
class Pool(Protocol):
    """Where trials run.

    Attributes:
        count: how many at a time.
        threads: of the CPU, that each has for itself.
        device: kind of it, if it is another than here.
        here: whether they run in this very process, one after the other.
    """

    count: int
    threads: int
    device: str | None
    here: bool

    def start(self, function: Callable[[Any], Any], argument: Any) -> "Future[Any]":
        """Begins a call as soon as there is room for it; what it takes and gives is pickled."""
        ...

    def stop(self, number: int) -> None:
        """Lets nothing new begin, and tells what is running to save and end, as by a signal."""
        ...

    def close(self) -> None:
        """Waits for what is running."""
        ...


@final
class Jobs:
    """Runs functions, at most so many at a time; a single one in this very process.

    Args:
        count: how many at a time.

    Attributes:
        count: as given.
        threads: of the CPU, that each has for itself.
        device: None, which is that of this machine.
        here: whether in this very process, which is so for one at a time.

    Raises:
        SettingError: fewer than one.
    """

    device: str | None = None

    def __init__(self, count: int) -> None:
        if count < 1:
            raise SettingError(f"jobs must be 1 or more, not {count}. 1 runs trials in turn.")
        self.here = count == 1
        self.threads = usual_threads() if self.here else max(1, num_cores() // count)
        self._pool = None if self.here else ThreadPoolExecutor(count)
        self.count = count
        self._children: set[BaseProcess] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def start(self, function: Callable[[Any], Any], argument: Any) -> "Future[Any]":
        """Begins a call as soon as there is room for it.

        Args:
            function, argument: can be pickled; the result, too.
        """
        if self._pool is not None:
            return self._pool.submit(self._in_process, function, argument)
        done: Future[Any] = Future()
        done.set_result(function(argument))
        return done

    def stop(self, number: int) -> None:
        """Lets nothing new begin, and hands a signal to what is running: it saves and ends."""
        if self._pool is None:
            return
        with self._lock:
            self._stopped = True
            for child in self._children:
                if child.pid is not None and child.is_alive():
                    os.kill(child.pid, number)
        self._pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Waits for what is running."""
        if self._pool is not None:
            self._pool.shutdown()

    def _in_process(self, function: Callable[[Any], Any], argument: Any) -> Any:
        context = multiprocessing.get_context("spawn")
        receiving, sending = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(sending, self.threads, function, argument))
        with self._lock:
            if self._stopped:
                raise Interrupted("Stopped before it began.", signal.SIGTERM)
            with _without_interrupts():  # which the child, still importing, would only choke on
                child.start()
            self._children.add(child)
        sending.close()
        try:
            worked, value = receiving.recv()
        except EOFError:
            child.join()
            raise RunError(
                f"The process of a trial was ended from outside (exit code {child.exitcode}), "
                "perhaps for want of memory. Run the same command again, with fewer --jobs."
            ) from None
        finally:
            receiving.close()
            child.join()
            with self._lock:
                self._children.discard(child)
        if not worked:
            raise value
        return value


@contextmanager
def running(pool: Pool) -> Iterator[None]:
    """What runs in it ends in order: a signal, or an error, stops all of it."""
    with _terminable(several=not pool.here):
        try:
            yield
        except BaseException as error:
            pool.stop(error.signal if isinstance(error, Interrupted) else signal.SIGTERM)
            raise
        pool.close()


@contextmanager
def _terminable(*, several: bool) -> Iterator[None]:
    """Inside, SIGTERM raises `Interrupted` where this process only waits for others."""
    if not several or threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        del frame
        raise Interrupted("Stopped; what was running is saved.", number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Inside, this thread holds SIGINT back, and so does a process that it starts."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(
    sending: Connection, threads: int, function: Callable[[Any], Any], argument: Any
) -> None:
    torch.set_num_threads(threads)
    # A terminal's Ctrl-C goes to the whole group: from here on only our parent hands signals on.
    if sys.platform != "win32":
        os.setpgrp()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # forgets one that came meanwhile
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer = (True, function(argument))
    except (Exception, KeyboardInterrupt) as error:
        answer = (False, error)
    sending.send(answer)
    sending.close()


def _end_with_parent() -> None:
    """Asks this process to save and end as soon as its parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
