"""What several processes that train one run say to each other, so that all decide alike.

All is said from host to host, by gloo: no device waits, and a process that is gone is noticed by
the next word to it, where NCCL would wait. Every call here is one that all processes make.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any, final

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from tutelage.errors import RunError, SettingError
from tutelage.launcher import Place, place, require_said

__all__ = ["ALONE", "PATIENCE", "Processes", "launched"]

PATIENCE = timedelta(minutes=30)
"""How long one waits for another that neither answers nor is known to be gone."""

_LONG = timedelta(days=7)
"""The same, for what the first one has to say: it may measure for hours before it speaks."""

_MEETINGS = count()


@final
class Processes:
    """This process, and the others; alone, nothing is said to anybody.

    Args:
        patient: group of all in which is said what may be long in coming.

    Attributes:
        rank: of this one, from 0.
        count: of all.
    """

    def __init__(self, rank: int = 0, count: int = 1, patient: Any = None) -> None:
        assert 0 <= rank < count
        self.rank, self.count, self._patient = rank, count, patient

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.count == 1

    def largest(self, *values: int) -> tuple[int, ...]:
        """Of each value, the largest that one of them has."""
        if self.alone:
            return values
        held = torch.tensor(values, dtype=torch.int64)
        distributed.all_reduce(held, distributed.ReduceOp.MAX)
        return tuple(held.tolist())

    def sums(self, values: Tensor) -> Tensor:
        """Of each value the sum over all, on the CPU; alone the tensor itself."""
        if self.alone:
            return values
        held = values.detach().to("cpu", copy=True)
        distributed.all_reduce(held)
        return held

    def tell(self, value: Any) -> Any:
        """The first one's value, which is JSON; the others' does not matter.

        The others wait for as long as the first one lives.
        """
        if self.alone:
            return value
        said = json.dumps(value if self.first else None).encode()
        (length,) = self._of_first(torch.tensor([len(said)]), self._patient).tolist()
        held = torch.zeros(length, dtype=torch.uint8)
        if self.first:
            held.copy_(torch.frombuffer(bytearray(said), dtype=torch.uint8))
        return json.loads(bytes(self._of_first(held).tolist()))

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Gives tensors, of which all have the same, the first one's values."""
        if self.alone:
            return
        with torch.no_grad():
            for one in tensors:
                held = self._of_first(one.detach().to("cpu").contiguous())
                if not self.first:
                    one.copy_(held)

    def collect(self, rows: Tensor) -> list[Tensor]:
        """Everybody's rows, on the CPU, by rank; they may differ in number, not in shape."""
        if self.alone:
            return [rows]
        counts = self._gathered(torch.tensor([len(rows)]))
        longest = max(int(count) for count in counts)
        held = torch.zeros(longest, *rows.shape[1:], dtype=rows.dtype)
        held[: len(rows)] = rows
        return [
            part[: int(count)] for part, count in zip(self._gathered(held), counts, strict=True)
        ]

    def wait(self) -> None:
        """Returns when all have come here."""
        self.largest(0)

    def _of_first(self, values: Tensor, group: Any = None) -> Tensor:
        distributed.broadcast(values, src=0, group=group)
        return values

    def _gathered(self, values: Tensor) -> list[Tensor]:
        held = [torch.empty_like(values) for _ in range(self.count)]
        distributed.all_gather(held, values)
        return held


ALONE = Processes()


@contextmanager
def launched(device: torch.device) -> Iterator[Processes]:
    """The processes that a launcher has started; inside, they can speak to each other.

    Args:
        device: of the run; of CUDA devices, each process takes that of its place on its machine.

    Raises:
        SettingError: the launcher said only half of what is needed, or started more processes than
            this machine has devices.
        RunError: another process ended, or does not answer.
    """
    said = place()
    if said.world_size == 1:
        yield ALONE
        return
    cuda = device.type == "cuda"
    if cuda:
        there = torch.cuda.device_count()
        if said.local_world_size > there:
            raise SettingError(
                f"A launcher has started {said.local_world_size} processes here, and there are "
                f"{there} CUDA devices. Start one for each."
            )
        torch.cuda.set_device(said.local_rank)
    own = not distributed.is_initialized()
    with _in_words(said.rank, said.world_size):
        if own:
            require_said("MASTER_ADDR", "MASTER_PORT")
            _join(said, "cpu:gloo,cuda:nccl" if cuda else "gloo")
        try:
            patient = distributed.new_group(backend="gloo", timeout=_LONG)
            yield Processes(said.rank, said.world_size, patient)
        finally:
            if own:
                distributed.destroy_process_group()


def _join(said: Place, kind: str) -> None:
    """Meets the others where the launcher says.

    A launcher that starts processes anew keeps that place, where those before have left their
    addresses (pytorch/pytorch#135712), and so do meetings that are over; each has its own door.
    """
    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    distributed.init_process_group(
        kind,
        store=PrefixStore(f"start {start}, meeting {next(_MEETINGS)}", store),
        rank=said.rank,
        world_size=said.world_size,
        timeout=PATIENCE,
    )


@contextmanager
def _in_words(rank: int, count: int) -> Iterator[None]:
    """Says in a sentence that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, distributed.DistError) and "gloo" not in text.lower():
            raise
        raise RunError(
            f"Process {rank} of {count} has lost another one, which was killed, has ended, or did "
            f"not answer for {PATIENCE.seconds // 60} minutes; what it said stands above, if "
            "anything. Start all again with --resume: the run goes on from its newest checkpoint."
        ) from None
