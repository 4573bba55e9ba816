"""A teacher that looks at every batch anew."""

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from tutelage.models.network import Network
from tutelage.taps import Stage
from tutelage.types import Batch, Observation

__all__ = ["LiveTeacher"]


@final
class LiveTeacher:
    """Runs a network under `no_grad` in eval mode.

    It is deliberately no `nn.Module`: so it is in nobody's checkpoint, no optimizer finds its
    parameters, and DDP or FSDP never wrap it. `no_grad` rather than inference mode, because a
    loss may have to keep the teacher's answer for its backward pass.
    """

    def __init__(self, network: Network) -> None:
        self.network = network.eval().requires_grad_(False)

    @property
    def takes_pixels(self) -> bool:
        """Whether the network normalizes by itself."""
        return self.network.spec is not None

    def tap(self, names: Sequence[str]) -> None:
        """Registers permanent taps."""
        self.network.tap(names, "teacher")

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
            return self.network.observe(batch.images, taps)

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Moves or casts the network."""
        self.network._apply(fn)
