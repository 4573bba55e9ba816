"""Where a network looks: the strength of its maps at each place."""

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from tutelage.models.network import Network
from tutelage.taps import evaluating

__all__ = ["MAX_SIDE", "attention_maps"]

MAX_SIDE = 32
"""Larger maps are average-pooled: they are only looked at."""


def attention_maps(
    network: Network, images: Float[Tensor, "n c h w"], *, device: torch.device
) -> dict[str, Float32[Tensor, "n h2 w2"]]:
    """Of each stage the channel mean of squares, each picture's scaled to a largest value of 1.

    Args:
        network: is moved to `device`, and stays in its mode.
        images: pixels in [0, 1].

    Returns:
        By the name of the stage's last sub-module, from the first stage to the last; on the CPU.
    """
    network.to(device)
    names = [stage.name for stage in network.stages()]
    network.tap(names)
    with evaluating(network):
        seen = network.observe(images.to(device), names).features
    return {name: _scaled(maps.float().square().mean(dim=1)).cpu() for name, maps in seen.items()}


def _scaled(energy: Float[Tensor, "n h w"]) -> Float[Tensor, "n h2 w2"]:
    height, width = (min(side, MAX_SIDE) for side in energy.shape[1:])
    pooled = adaptive_avg_pool2d(energy[:, None], (height, width))[:, 0]
    largest = pooled.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > 0, pooled / largest, pooled)
