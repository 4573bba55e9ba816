"""Trials on the machines of a Ray cluster, or on this one by a Ray of its own."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, final

import torch

from tutelage.engine import resolve_device
from tutelage.errors import Interrupted, RunError, SettingError, first_line
from tutelage.exporting.extras import needed, quiet
from tutelage.provenance import code_digest, versions

__all__ = ["Cluster", "Share"]

_LOST = 3
"""How often a trial goes on elsewhere if its worker is lost."""

_PATIENCE = 10.0
"""Seconds."""

_CODE = ("build", "engine.loop", "runs.run")


@dataclass(frozen=True)
class Share:
    """What each trial takes of a cluster, and which cluster that is.

    Attributes:
        cpus: of the machine that it runs on; it computes with as many threads.
        gpus: of that machine; 0.5 lets two trials share one.
        address: of the cluster; None: the one that this process is connected to, or that
            RAY_ADDRESS names, or a Ray that is started here and ends with the comparison.
    """

    cpus: int = 1
    gpus: float = 0.0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise SettingError(f"A trial takes 1 CPU or more, not {self.cpus}.")
        if self.gpus < 0 or (self.gpus > 1 and not float(self.gpus).is_integer()):
            raise SettingError(
                f"A trial takes a part of one GPU, such as 0.5, or whole ones, not {self.gpus:g}."
            )


class _Home(NamedTuple):
    """What a worker must have in common with the process that compares."""

    folder: str
    threads: int
    device: str | None
    versions: Mapping[str, str]
    code: str


@final
class Cluster:
    """Runs functions as Ray tasks; a `comparison.jobs.Pool`.

    A task whose worker is killed, or whose machine is lost, is started again elsewhere, where it
    goes on from its newest checkpoint.

    Args:
        share: of each.

    Attributes:
        count: for how many there is room now.
        threads: that each has.
        device: kind of it: "cuda" if a share holds a GPU, "cpu" if none.
        here: False.

    Raises:
        SettingError: Ray is not installed, the cluster is not there or another than the one that
            this process is connected to, or nothing there has room.
    """

    here: bool = False

    def __init__(self, share: Share) -> None:
        self.threads = share.cpus
        self.device: str | None = "cuda" if share.gpus else "cpu"
        self._ray = needed("ray")
        self._own = not self._ray.is_initialized()
        self._obeyed = signal.getsignal(signal.SIGTERM)  # Ray takes it
        if self._own:
            _connect(self._ray, share.address)
        else:
            _same(self._ray, share.address)
        self.count = self._room(share)
        task = self._ray.remote(_work)
        self._task = task.options(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=_LOST)
        self._home = _Home(str(Path.cwd()), share.cpus, self.device, versions(), code_digest(_CODE))
        self._begun: list[tuple[Any, Future[Any]]] = []
        self._lock = threading.Lock()

    def _room(self, share: Share) -> int:
        """For how many trials, of which none is on two machines."""
        there = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(_holds(one, share) for one in there)
        if room < 1:
            self._leave()
            most = max((one.get("CPU", 0) for one in there), default=0)
            gpus = max((one.get("GPU", 0) for one in there), default=0)
            raise SettingError(
                f"A trial takes {share.cpus} CPUs and {share.gpus:g} GPUs of one machine, and the "
                f"largest machines have {most:g} and {gpus:g}. Ask for less."
            )
        return room

    def start(self, function: Callable[[Any], Any], argument: Any) -> "Future[Any]":
        """Begins a call when there is room for it.

        Args:
            function, argument: can be pickled; the result, too.
        """
        done: Future[Any] = Future()
        reference = self._task.remote(function, argument, self._home)
        with self._lock:
            self._begun.append((reference, done))
        reference.future().add_done_callback(lambda answer: self._finish(answer, done))
        return done

    def _finish(self, answer: "Future[Any]", done: "Future[Any]") -> None:
        try:
            worked, value = answer.result()
        except self._ray.exceptions.TaskCancelledError:
            done.set_exception(Interrupted("Stopped before it began.", signal.SIGTERM))
        except self._ray.exceptions.RayError as error:
            kinds = self._ray.exceptions
            lost = (kinds.WorkerCrashedError, kinds.NodeDiedError, kinds.OutOfMemoryError)
            why = (
                f"was lost {_LOST + 1} times, perhaps for want of memory. Run the same command "
                "again, with more of a machine for each trial."
                if isinstance(error, lost)
                else f"failed: {first_line(error)}."
            )
            done.set_exception(RunError(f"The worker of a trial {why}"))
        else:
            if worked:
                done.set_result(value)
            else:
                done.set_exception(value)

    def stop(self, number: int) -> None:
        """Lets nothing new begin, and tells what is running to save and end."""
        del number  # Ray interrupts in its own way
        with self._lock:
            begun = [(reference, done) for reference, done in self._begun if not done.done()]
        for reference, _ in begun:
            self._ray.cancel(reference, force=False)
        for _, done in begun:
            done.exception()
        self._leave()

    def close(self) -> None:
        """Waits for what is running."""
        with self._lock:
            begun = [done for _, done in self._begun]
        for done in begun:
            done.exception()
        self._leave()

    def _leave(self) -> None:
        if self._own:
            with quiet():
                self._ray.shutdown()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, self._obeyed or signal.SIG_DFL)


def _holds(there: Mapping[str, float], share: Share) -> int:
    """How many shares are in what a machine has."""
    rooms = [there.get("CPU", 0) // share.cpus]
    rooms += [there.get("GPU", 0) // share.gpus] if share.gpus else []
    return int(min(rooms))


def _connect(ray: ModuleType, address: str | None) -> None:
    """To the cluster, or to a new Ray.

    Raises:
        SettingError: there is none at this address.
    """
    # Who has no share of a GPU sees none; said aloud, for Ray warns that it will be otherwise.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    said = address or os.environ.get("RAY_ADDRESS")
    try:
        if said is not None:
            _knock(said)
        with quiet():
            ray.init(
                address=said,
                include_dashboard=None if said else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (OSError, RuntimeError, ValueError) as error:
        if said is None:
            raise SettingError(f"Ray does not start here: {first_line(error)}.") from None
        raise SettingError(
            f"There is no Ray cluster at {said}: {first_line(error)}. Start one (`ray start "
            "--head`), or leave the address out for a Ray on this machine."
        ) from None


def _same(ray: ModuleType, address: str | None) -> None:
    """Refuses an address where there is a connection, unless it is that one's.

    Raises:
        SettingError: another was given; whether it leads to the same cluster is not looked into.
    """
    there = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", there):
        raise SettingError(
            f"This process is connected to the Ray cluster at {there} already, so {address} cannot "
            "be turned to. Leave the address out to use that cluster, or disconnect first "
            "(`ray.shutdown()`)."
        )


def _knock(address: str) -> None:
    """Ray would wait for minutes where nobody answers.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _work(function: Callable[[Any], Any], argument: Any, home: _Home) -> tuple[bool, Any]:
    """In a worker: whether the call worked, and its answer, or what it raised."""
    try:
        _settle(home)
        return True, function(argument)
    except (Exception, KeyboardInterrupt) as error:
        # Ray itself interrupts: SIGTERM is for this machine, which is taken away. All is saved, and
        # a worker that ends so is one that was lost: the trial goes on elsewhere.
        if isinstance(error, Interrupted) and error.signal == signal.SIGTERM:
            os._exit(1)
        return False, error


def _settle(home: _Home) -> None:
    try:
        os.chdir(home.folder)
    except OSError:
        raise RunError(
            f"A machine of the cluster does not see {home.folder}. Call tutelage in a folder that "
            "lies on a file system that all machines share."
        ) from None
    if versions() != home.versions or code_digest(_CODE) != home.code:
        raise RunError(
            "A machine of the cluster has another tutelage, or other versions of what it needs, "
            "than the one that compares. Install the same on all."
        )
    if resolve_device("auto").type != home.device:
        raise RunError(
            f"A trial's share means that it runs on {home.device}, and a machine of the cluster "
            f"would run it on {resolve_device('auto')}. Give --gpus if trials are to have them, "
            "and install what they need."
        )
    torch.set_num_threads(home.threads)
