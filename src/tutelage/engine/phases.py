"""The end of a phase: what a method may look at before it decides."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import final

import torch
from torch.utils import _pytree as pytree

from tutelage.data.loader import EvalLoader
from tutelage.distiller import Distiller
from tutelage.taps import evaluating, set_mode
from tutelage.types import Batch, Findings, TransferBatch

__all__ = ["end_phase", "phase_ends"]


def phase_ends(steps: int, phases: int) -> list[int]:
    """The steps after which a phase ends.

    >>> phase_ends(10, 3)
    [3, 7, 10]
    """
    return [round(steps * (number + 1) / phases) for number in range(phases)]


def end_phase(
    distiller: Distiller,
    number: int,
    held_out: EvalLoader,
    training: Batch,
    *,
    lr: float,
    progress: float,
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, Findings]:
    """Lets every method decide, and then the aggregator.

    Args:
        held_out: validation pictures.
        training: the batch that a virtual step is taken on.
        lr: of that step.
        progress: finished fraction of the run.
        autocast: makes the context of the run's precision.

    Returns:
        Method, or "aggregator" → what it found; who decides nothing is left out.
    """
    found = {}
    for name, part in distiller.deciding():
        phase = _Phase(distiller, name, number, held_out, training, lr, progress, autocast)
        findings = part.end_phase(phase)
        if findings is not None:
            found[name] = findings
    return found


@final
class _Phase:
    """What `types.Phase` promises, for one that decides."""

    def __init__(
        self,
        distiller: Distiller,
        method: str,
        number: int,
        held_out: EvalLoader,
        training: Batch,
        lr: float,
        progress: float,
        autocast: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._distiller, self._method = distiller, method
        self._number, self._held_out, self._training = number, held_out, training
        self._lr, self._progress, self._autocast = lr, progress, autocast

    @property
    def number(self) -> int:
        return self._number

    def held_out(self) -> Iterator[TransferBatch]:
        for batch in self._held_out:
            with evaluating(self._distiller), self._autocast():
                seen = _observe(self._distiller, _move_like(batch, self._training))
            yield seen

    def lookahead(self, terms: Iterable[str]) -> float:
        module = self._distiller
        before = {name: value.clone() for name, value in module.state_dict().items()}
        groups = module.parameter_groups()
        parameters = [one for group in groups for one in group["params"]]
        rates = [self._lr * group["lr_factor"] for group in groups for _ in group["params"]]
        try:
            with (
                torch.random.fork_rng(devices=_cuda_devices()),
                set_mode(module, training=True),
                self._autocast(),
            ):
                loss = module.weighted_terms(
                    self._method, tuple(terms), _observe(module, self._training), self._progress
                )
            if loss.requires_grad:  # not if no terms are named: no step
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                with torch.no_grad():
                    for parameter, rate, gradient in zip(parameters, rates, gradients, strict=True):
                        if gradient is not None:
                            parameter -= rate * gradient
            return self._supervised_loss()
        finally:
            module.load_state_dict(before)

    def _supervised_loss(self) -> float:
        total, count = 0.0, 0
        for seen in self.held_out():
            loss = self._distiller.task.supervised_loss(
                seen.student.output, seen.targets, seen.has_label, 1.0
            )
            total += float(loss)
            count += int(seen.has_label.sum())
        return total / max(count, 1)


def _cuda_devices() -> range:
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)


def _observe(distiller: Distiller, batch: Batch) -> TransferBatch:
    return distiller.observe(
        batch.images, batch.targets, index=batch.index, view=batch.view, has_label=batch.has_label
    )


def move(batch: Batch, device: torch.device, *, channels_last: bool) -> Batch:
    """The batch on a device, its images in a memory format.

    Index and view stay on the host, where a store is looked up: asking a device would wait for it.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    moved = pytree.tree_map_only(
        torch.Tensor, lambda value: value.to(device, non_blocking=True), batch
    )
    images = moved.images.contiguous(memory_format=layout)
    return replace(moved, images=images, index=batch.index, view=batch.view)


def _move_like(batch: Batch, other: Batch) -> Batch:
    images = other.images
    last = images.is_contiguous(memory_format=torch.channels_last)
    return move(batch, images.device, channels_last=last)
