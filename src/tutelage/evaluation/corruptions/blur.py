"""Blurs: a pixel becomes a mean of its neighborhood. The border's pixels go on outside."""

import math

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from tutelage import rng
from tutelage.evaluation.corruptions.resampling import in_pixels, mix_lines, pick, smooth

__all__ = ["defocus_blur", "gaussian_blur", "motion_blur", "zoom_blur"]

_DIRECTIONS = 1024


def gaussian_blur(images: Float32[Tensor, "n c h w"], sigma: float) -> Float32[Tensor, "n c h w"]:
    """A Gaussian of σ pixels (at 32×32)."""
    return smooth(images, in_pixels(sigma, images))


def defocus_blur(
    images: Float32[Tensor, "n c h w"], lens: tuple[float, float]
) -> Float32[Tensor, "n c h w"]:
    """A lens out of focus: every point becomes a disc, whose stairs a Gaussian smooths.

    Args:
        lens: radius of the disc in pixels (at 32×32), and σ in pixels of any picture, since stairs
            are as high as a pixel. Below radius 1 the disc is its center.
    """
    radius, sigma = lens
    return smooth(_disc_mean(images, in_pixels(radius, images)), sigma)


def motion_blur(
    images: Float32[Tensor, "n c h w"], sigma: float, keys: Int64[Tensor, " n"]
) -> Float32[Tensor, "n c h w"]:
    """The camera moves: half a Gaussian along a line within 45° of the horizontal.

    Args:
        sigma: of the Gaussian, in pixels (at 32×32); it ends at 4 σ.
    """
    sigma = in_pixels(sigma, images)
    taps = torch.arange(int(4 * sigma + 0.5) + 1)
    heights = [math.exp(-(tap**2) / (2 * sigma**2)) for tap in taps.tolist()]
    down, right = _steps(taps, rng.uniforms(keys))
    y, x = (torch.arange(size, device=images.device) for size in images.shape[2:])
    total = torch.zeros_like(images)
    for tap, height in enumerate(heights):
        rows, columns = y + down[:, tap, None], x + right[:, tap, None]
        seen = pick(images, rows[:, :, None], columns[:, None, :])
        total += seen * (height / math.fsum(heights))
    return total


def zoom_blur(images: Float32[Tensor, "n c h w"], percent: int) -> Float32[Tensor, "n c h w"]:
    """The camera approaches: the mean of the picture, counted twice, and its enlargements.

    Args:
        percent: the last enlargement; there is one per percent, around the center.
    """
    total = 2 * images
    for step in range(1, percent + 1):
        enlarged = images
        for dim in (2, 3):
            enlarged = mix_lines(enlarged, dim, *_enlarged(images.shape[dim], 1 + step / 100))
        total += enlarged
    return total * (1 / (percent + 2))


def _disc_mean(images: Float32[Tensor, "n c h w"], radius: float) -> Float32[Tensor, "n c h w"]:
    """The mean of all pixels at most `radius` away."""
    reach = int(radius)
    height, width = images.shape[2:]
    framed = pad(images, (reach, reach, reach, reach), mode="replicate")
    half_widths = [math.isqrt(int(radius**2 - down**2)) for down in range(-reach, reach + 1)]
    strip = framed[..., reach : reach + width]
    total = torch.zeros_like(images)
    for half in range(reach + 1):
        if half:
            left, right = reach - half, reach + half
            strip = strip + framed[..., left : left + width] + framed[..., right : right + width]
        for top, own in enumerate(half_widths):
            if own == half:
                total += strip[:, :, top : top + height]
    return total * (1 / sum(2 * half + 1 for half in half_widths))


def _steps(
    taps: Int64[Tensor, " k"], draws: Float32[Tensor, " n"]
) -> tuple[Int64[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """Pixels down and to the right, for each tap, in each picture's direction."""
    turns = (torch.arange(_DIRECTIONS, dtype=torch.float64) + 0.5) / _DIRECTIONS
    angles = (turns - 0.5) * (math.pi / 2)
    down = (angles.sin()[:, None] * taps).round().long().to(draws.device)
    right = (angles.cos()[:, None] * taps).round().long().to(draws.device)
    chosen = (draws * _DIRECTIONS).long()
    return down[chosen], right[chosen]


def _enlarged(
    size: int, factor: float
) -> tuple[Int64[Tensor, "2 {size}"], Float64[Tensor, "2 {size}"]]:
    """The two lines that each line of an enlargement lies between, and their shares."""
    center = (size - 1) / 2
    place = (torch.arange(size, dtype=torch.float64) - center) * (1 / factor) + center
    low = place.floor()
    share = place - low
    places = torch.stack([low, low + 1]).long().clamp(0, size - 1)
    return places, torch.stack([1 - share, share])
