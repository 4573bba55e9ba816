"""A moving average of the student's weights, by timm, which is what such a run ends in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """The exponential moving average of a module's weights and buffers.

    The decay rises: after step s (from 1) it is min(decay, 1 - s^(-2/3)), and 0 after the first, so
    that what a run begins with is soon forgotten.

    Args:
        module: is trained by somebody else; where it stays.
        decay: what of the average stays at each step, in the long run; in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._ema = ModelEmaV3(module, decay=decay, use_warmup=True)

    def update(self, step: int) -> None:
        """Takes in the weights after this step, the first being 1."""
        self._ema.update(self._module, step=step)

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return dict(self._ema.module.state_dict())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """As a checkpoint had them."""
        self._ema.module.load_state_dict(dict(tensors))

    def take_over(self) -> None:
        """Puts the average into the module, for good."""
        self._module.load_state_dict(self._ema.module.state_dict())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the average into the module for a while."""
        own = {name: value.clone() for name, value in self._module.state_dict().items()}
        self.take_over()
        try:
            yield
        finally:
            self._module.load_state_dict(own)
