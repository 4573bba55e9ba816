"""Light and color: every pixel stays where it is."""

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from tutelage import rng

__all__ = ["brightness", "contrast", "fog", "saturation"]


def brightness(images: Float32[Tensor, "n c h w"], lift: float) -> Float32[Tensor, "n c h w"]:
    """Raises a pixel's value (its largest channel), at most to 1; hue and saturation stay."""
    value = images.amax(dim=1, keepdim=True)
    raised = (value + lift).clamp(max=1)
    return torch.where(value > 0, images * (raised / value), raised)  # black becomes gray


def contrast(images: Float32[Tensor, "n c h w"], factor: float) -> Float32[Tensor, "n c h w"]:
    """Draws every channel together around its mean, to `factor` times its range."""
    # In float64 the sum of pixels that were bytes is exact, so its order does not matter.
    total = images.double().sum(dim=(2, 3), keepdim=True)
    mean = (total * (1 / (images.shape[2] * images.shape[3]))).float()
    return (images - mean) * factor + mean


def saturation(images: Float32[Tensor, "n c h w"], factor: float) -> Float32[Tensor, "n c h w"]:
    """Multiplies the saturation of HSV; gray pictures stay as they are."""
    value = images.amax(dim=1, keepdim=True)
    return value - (value - images) * factor


def fog(
    images: Float32[Tensor, "n c h w"], veil: tuple[float, float], keys: Int64[Tensor, " n"]
) -> Float32[Tensor, "n c h w"]:
    """Adds white clouds and darkens, so that the brightest pixel could be as bright as before.

    Args:
        veil: the clouds' density, and how fast their waves lose height as they get shorter.
    """
    density, decay = veil
    height, width = images.shape[2:]
    clouds = _clouds(keys, 1 << max((max(height, width) - 1).bit_length(), 1), decay)
    brightest = images.amax(dim=(1, 2, 3), keepdim=True)
    veiled = images + clouds[:, None, :height, :width] * density
    return veiled * (brightest / (brightest + density))


def _clouds(
    keys: Int64[Tensor, " n"], side: int, decay: float
) -> Float32[Tensor, "n {side} {side}"]:
    """Landscapes of height 0 to 1 by the diamond-square algorithm, on a torus.

    From coarse to fine, the middle of each square, then of each edge, gets the mean of its four
    neighbors and a random number, whose range is divided by decay² each time.
    """
    noise = rng.uniforms(keys, (side, side)) * 2 - 1
    heights = torch.zeros_like(noise)
    span, swing = side, 1.0
    while span >= 2:
        half = span // 2
        corners = slice(None, None, span)
        middles = slice(half, None, span)
        at = heights[:, corners, corners]
        in_rows, in_columns = at + at.roll(-1, 2), at + at.roll(-1, 1)
        center = (in_rows + in_rows.roll(-1, 1)) * 0.25 + noise[:, middles, middles] * swing
        around = in_rows + (center + center.roll(1, 1))
        heights[:, middles, middles] = center
        heights[:, corners, middles] = around * 0.25 + noise[:, corners, middles] * swing
        around = in_columns + (center + center.roll(1, 2))
        heights[:, middles, corners] = around * 0.25 + noise[:, middles, corners] * swing
        span, swing = half, swing / decay**2
    low, high = heights.amin(dim=(1, 2), keepdim=True), heights.amax(dim=(1, 2), keepdim=True)
    return (heights - low) / (high - low)
