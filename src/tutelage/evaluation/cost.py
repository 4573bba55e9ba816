"""What a network costs, counted: parameters and multiply-accumulates (MACs)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.utils.flop_counter import FlopCounterMode

from tutelage.taps import evaluating

__all__ = ["example", "macs", "num_parameters"]


def num_parameters(module: nn.Module) -> int:
    """Numbers that training can change; one that several modules share counts once.

    Frozen parameters count, buffers (running statistics) do not.

    >>> num_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in module.parameters())


def macs(network: nn.Module, image_size: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one forward pass of one picture in eval mode.

    Counted is what is executed of convolutions and matrix products (linear layers and the products
    inside attention among them), by PyTorch's FLOP counter, whose two FLOPs are one MAC. Not
    counted: biases, norms, activations, pooling, resizing, and all else that works place by place.
    Published costs usually mean the same.

    Args:
        network: any module that takes images; modes, buffers and gradients stay as they are.
        image_size: channels, height, width.

    >>> macs(nn.Conv2d(3, 8, 3, padding=1), (3, 32, 32))  # 32 · 32 · 8 · (3 · 3 · 3)
    221184
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    counter = FlopCounterMode(display=False)
    with evaluating(network), _no_fused_attention(), counter:
        torch.func.functional_call(network, buffers, (example(network, image_size),))
    return counter.get_total_flops() // 2


def example(module: nn.Module, image_size: tuple[int, int, int], batch_size: int = 1) -> Tensor:
    """The same random images in [0, 1) every time, on the device and of the type of the weights.

    Args:
        module: without parameters: float32 on the CPU.
        image_size: channels, height, width.
        batch_size: how many.
    """
    images = torch.rand(batch_size, *image_size, generator=torch.Generator().manual_seed(0))
    return images.to(next(module.parameters(), images))


@contextmanager
def _no_fused_attention() -> Iterator[None]:
    """Attention in eval mode takes a path of its own, which hides its products from the counter."""
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(before)
