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
    """There and back through JPEG, with Pillow's codec; works on bytes."""
    spoiled = [
        functional.pil_to_tensor(functional.jpeg(functional.to_pil_image(image), quality))
        for image in _to_bytes(images)
    ]
    return _from_bytes(torch.stack(spoiled)).to(images.device)


def posterize(images: Float32[Tensor, "n c h w"], bits: int) -> Float32[Tensor, "n c h w"]:
    """Keeps the first bits of each byte."""
    return _from_bytes(functional.posterize(_to_bytes(images), bits)).to(images.device)


def pixelate(images: Float32[Tensor, "n c h w"], density: float) -> Float32[Tensor, "n c h w"]:
    """Covers the picture with square cells, from the upper left, and fills each with its mean.

    Args:
        density: cells per pixel (at 32×32) and direction, at most 1. Cells may cut pixels, which
            are then mixed from both.
    """
    side = in_pixels(1 / density, images)
    for dim in (2, 3):
        size = images.shape[dim]
        cells = mix_lines(images, dim, *_touching(size, side, 1.0))
        images = mix_lines(cells, dim, *_touching(size, 1.0, side))
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


def _touching(
    size: int, own: float, other: float
) -> tuple[Int64[Tensor, "k m"], Float64[Tensor, "k m"]]:
    """Two rulers lie side by side: the parts of one that each part of the first touches.

    Args:
        size: length of both, in pixels; last parts may be cut off.
        own, other: length of their parts.

    Returns:
        Numbers of the parts, and how much of the own part each of them covers.
    """
    own_parts, other_parts = (math.ceil(size / part - 1e-9) for part in (own, other))
    start = torch.arange(own_parts, dtype=torch.float64) * own
    stop = (start + own).clamp(max=size)
    places = (start / other).floor() + torch.arange(math.ceil(own / other) + 1)[:, None]
    covered = torch.minimum(stop, (places + 1) * other) - torch.maximum(start, places * other)
    return places.long().clamp(max=other_parts - 1), covered.clamp(min=0) / (stop - start)


def _to_bytes(images: Float32[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """On the CPU, since a GPU divides by 255 with another rounding."""
    return (images * 255).round().to("cpu", torch.uint8)


def _from_bytes(images: UInt8[Tensor, "n c h w"]) -> Float32[Tensor, "n c h w"]:
    return images.float().div_(255)
