"""A teacher that looks at every batch anew."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from tutelage.models.fusing import Fused, fuse
from tutelage.models.network import Network
from tutelage.taps import Stage
from tutelage.types import Batch, Observation

__all__ = ["ANSWERING", "LiveTeacher"]

ANSWERING = 1
"""Raised with any change after which the same network answers the same pictures otherwise: how
pixels are normalized, what folding does, how a store codes an answer."""

_REASONS = 3
"""So many of the norms that stay are told of in a record."""


@final
class LiveTeacher:
    """Runs a network under `no_grad` in eval mode.

    It is deliberately no `nn.Module`: so it is in nobody's checkpoint, no optimizer finds its
    parameters, and DDP or FSDP never wrap it. `no_grad` rather than inference mode, because a
    loss may have to keep the teacher's answer for its backward pass.

    Args:
        network: is put into eval mode and frozen.
        fuse: from `tap` on, a copy answers in whose convolutions the batch norms are folded: the
            same but for rounding, and faster.
        compile: from `tap` on, a copy answers that torch.compile compiles at the first batch, its
            weights being constants: it must be where it will be by then. Takes up to minutes, once.

    What becomes of the network after `tap` is not seen by a copy, so a teacher that learns, or is
    averaged, must be neither fused nor compiled.

    Attributes:
        network: what answers.
    """

    def __init__(self, network: Network, *, fuse: bool = False, compile: bool = False) -> None:
        self.network = network.eval().requires_grad_(False)
        self._given, self._fuses, self._compiles = self.network, fuse, compile
        self._fused: Fused | None = None
        self._names: dict[str, None] = {}
        self._answer = self._answering()

    def __getstate__(self) -> dict[str, Any]:
        """What answers is bound to one network, so a copy makes its own."""
        return {name: value for name, value in vars(self).items() if name != "_answer"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._answer = self._answering()

    @property
    def takes_pixels(self) -> bool:
        """Whether the network normalizes by itself."""
        return self.network.spec is not None

    @property
    def folded(self) -> dict[str, Any] | None:
        """What folding came to, for a record; None if it was not asked for, or not done yet.

        "norms", how many there are; "folded", how many of them are gone; "left", some of those that
        stay and why.
        """
        if self._fused is None:
            return None
        left = list(self._fused.left.items())
        number = len(self._fused.folded)
        return {"norms": number + len(left), "folded": number, "left": dict(left[:_REASONS])}

    def tap(self, names: Sequence[str], image_size: tuple[int, int, int] | None = None) -> None:
        """Registers permanent taps; if asked to fuse, folds the norms first.

        Raises:
            NetworkError: there is no sub-module of that name.
        """
        wanted = self._names | dict.fromkeys(names)
        if self._fuses and (self._fused is None or wanted != self._names):
            self._fused = _fuse(self._given, tuple(wanted), image_size)
            self.network = self._fused.network
        if self._compiles and self.network is self._given:
            # Constants that need not be laid out anew share their memory with the weights.
            self.network = copy.deepcopy(self._given)
        self._names = wanted
        self.network.tap(tuple(wanted), "teacher")
        self._answer = self._answering()

    def stages(self, image_size: tuple[int, int, int] | None) -> list[Stage]:
        """The network's stages."""
        return self.network.stages(image_size)

    def dry_run(self, taps: Sequence[str], image_size: tuple[int, int, int] | None) -> Observation:
        """One observation of two gray pictures."""
        return self.network.dry_run(taps, image_size)

    def observe(self, batch: Batch, taps: Sequence[str]) -> Observation:
        """The network's answer to the batch's images, detached."""
        if any(part.training for part in self.network.modules()):  # by .train() of some parent
            self.network.eval()
        with torch.no_grad():
            return self._answer(batch.images, taps)

    def stay_eager(self) -> None:
        """Is not compiled, whatever was said."""
        self._compiles, self._answer = False, self.network.observe

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Moves or casts the network."""
        self.network._apply(fn)

    def _answering(self) -> Callable[[Tensor, Sequence[str]], Observation]:
        own = self.network is not self._given
        return _frozen(self.network) if self._compiles and own else self.network.observe


def _fuse(network: Network, taps: Sequence[str], image_size: tuple[int, int, int] | None) -> Fused:
    """As `fuse`, but silent where there is nothing to fold."""
    if not any(isinstance(part, nn.BatchNorm2d) for part in network.modules()):
        return Fused(network, (), {})
    return fuse(network, taps=taps, image_size=image_size)


def _frozen(network: Network) -> Callable[[Tensor, Sequence[str]], Observation]:
    """How a network answers once it is compiled, with weights that are constants of the graph."""
    from torch._inductor import config  # not before somebody compiles: it takes its time

    compiled = torch.compile(network.observe)

    def answer(images: Tensor, taps: Sequence[str]) -> Observation:
        network.learn_layouts(images, taps)
        # Decided when it is traced, for each shape once; `options` of torch.compile do nothing.
        with config.patch(freezing=True):
            return compiled(images, taps)

    # A step that is compiled as a whole must leave this alone.
    return torch.compiler.disable(answer)  # pyright: ignore[reportReturnType]
