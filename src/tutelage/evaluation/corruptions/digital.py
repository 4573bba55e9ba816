"""What happens to pictures in computers: codecs, coarse grids, few levels, bent grids."""

import math

import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional

from tutelage import rng
from tutelage.evaluation.corruptions.resampling import bell, in_pixels, mix_lines, pick, smooth

__all__ = ["elastic", "jpeg", "pixelate", "posterize"]

_WAVE = 1.28
"""σ, in pixels at 32×32, of the Gaussian that smooths displacements."""


def jpeg(images: Float32[Tensor, "n c h w"], quality: int) -> Float32[Tensor, "n c h w"]:
    """There and back through JPEG; works on bytes."""
    return _from_bytes(functional.jpeg(_to_bytes(images), quality)).to(images.device)


def posterize(images: Float32[Tensor, "n c h w"], bits: int) -> Float32[Tensor, "n c h w"]:
    """Keeps the first bits of each byte."""
    return _from_bytes(functional.posterize(_to_bytes(images), bits)).to(images.device)


def pixelate(images: Float32[Tensor, "n c h w"], density: float) -> Float32[Tensor, "n c h w"]:
    """Covers the picture with square cells, from the upper left, and fills each with its mean.

    Args:
        density: cells per pixel (at 32×32) and direction; sides need not be whole pixels.
    """
    side = in_pixels(1 / density, images)
    for dim in (2, 3):
        images = mix_lines(images, dim, *_cells(images.shape[dim], side))
    return images


def elastic(
    images: Float32[Tensor, "n c h w"], reach: float, keys: Int64[Tensor, " n"]
) -> Float32[Tensor, "n c h w"]:
    """Moves every pixel a little, neighbors by nearly the same; places between are interpolated.

    Args:
        reach: standard deviation of the way in each direction, in pixels (at 32×32).
    """
    height, width = images.shape[2:]
    sigma = in_pixels(_WAVE, images)
    ways = smooth(rng.uniforms(keys, (2, height, width)) * 2 - 1, sigma)
    # A uniform number on (-1, 1) has deviation 1/√3; smoothing in two directions divides it.
    deviation = float(bell(sigma).square().sum()) / math.sqrt(3)
    ways = ways * (in_pixels(reach, images) / deviation)
    rows = torch.arange(height, device=images.device)[:, None] + ways[:, 0]
    columns = torch.arange(width, device=images.device) + ways[:, 1]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)

    top, left = rows.floor(), columns.floor()
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    top, left = top.long(), left.long()
    above = pick(images, top, left) * (1 - right) + pick(images, top, left + 1) * right
    below = pick(images, top + 1, left) * (1 - right) + pick(images, top + 1, left + 1) * right
    return above * (1 - down) + below * down


def _cells(size: int, side: float) -> tuple[Int64[Tensor, "k {size}"], Float64[Tensor, "k {size}"]]:
    """The lines in the cell that each line's middle lies in, and how much of the cell each is."""
    line = torch.arange(size, dtype=torch.float64)
    start = ((line + 0.5) / side).floor() * side
    stop = (start + side).clamp(max=size)
    places = start.floor() + torch.arange(math.ceil(side) + 1)[:, None]
    covered = torch.minimum(stop, places + 1) - torch.maximum(start, places)
    return places.long().clamp(max=size - 1), covered.clamp(min=0) / (stop - start)


def _to_bytes(images: Float32[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """On the CPU: a GPU has another codec, and divides by 255 with another rounding."""
    return (images * 255).round().to("cpu", torch.uint8)


def _from_bytes(images: UInt8[Tensor, "n c h w"]) -> Float32[Tensor, "n c h w"]:
    return images.float().div_(255)
