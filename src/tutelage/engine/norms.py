"""Batch norms whose statistics are those of all processes' pictures together.

torch's own SyncBatchNorm runs on GPUs alone and replaces modules, with which taps would go. Here a
norm stays the object that it is and takes another class for the time of the training. Mean and
variance are two sums over processes, through which gradients flow.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce

from tutelage.errors import SettingError

__all__ = ["synchronized"]


class _Synced(nn.BatchNorm2d):
    def _check_input_dim(self, input: Tensor) -> None:
        """Whatever the class was that this stands for."""

    def forward(self, input: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
        return _normalized(self, input) if self.training else super().forward(input)


class _SyncedAct(BatchNormAct2d):
    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        if not self.training:
            return super().forward(x)
        norm: Any = self  # timm's class says too little of itself
        return norm.act(norm.drop(_normalized(norm, x)))


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Synced,
    nn.BatchNorm2d: _Synced,
    nn.BatchNorm3d: _Synced,
    BatchNormAct2d: _SyncedAct,
}


@contextmanager
def synchronized(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms in training normalize by the statistics of all processes.

    All processes must call them in the same order, with as many pictures each.

    Raises:
        SettingError: there is a batch norm of a class that is not known.
    """
    norms = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    for one in norms:
        if type(one) not in _CLASSES:
            raise SettingError(
                "sync_norms knows the batch norms of torch and timm, and the student has a "
                f"{type(one).__module__}.{type(one).__qualname__}. Leave it out."
            )
    swapped: list[tuple[nn.Module, type[nn.Module]]] = [(one, type(one)) for one in norms]
    for one, kind in swapped:
        one.__class__ = _CLASSES[kind]
    try:
        yield
    finally:
        for one, kind in swapped:
            one.__class__ = kind


def _normalized(norm: nn.BatchNorm2d, maps: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
    dims = [0, *range(2, maps.ndim)]
    shape = (1, -1, *[1] * (maps.ndim - 2))
    values = maps.float()
    count = maps.numel() // maps.shape[1] * distributed.get_world_size()
    mean = all_reduce(values.sum(dims)) / count
    centered = values - mean.view(shape)
    variance = all_reduce((centered**2).sum(dims)) / count
    _follow(norm, mean.detach(), variance.detach() * count / max(count - 1, 1))
    found = centered * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        found = found * norm.weight.view(shape) + norm.bias.view(shape)
    return found.to(maps.dtype)


def _follow(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Moves the running statistics as torch does."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)
