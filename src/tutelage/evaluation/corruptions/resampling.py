"""Sums and choices of neighboring pixels that are the same, bit for bit, in every batch.

A convolution promises no order of its additions: it may change with the size of the batch, the
number of threads and the device, and on a GPU it may multiply in TF32. Here each step is one
multiplication or one addition of whole tensors, which IEEE 754 defines exactly, in an order written
down.
"""

import math

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

__all__ = ["bell", "in_pixels", "mix_lines", "pick", "smooth"]

REFERENCE_SIDE = 32
"""The side of CIFAR's pictures, for which lengths are given."""


def in_pixels(length: float, images: Float32[Tensor, "n c h w"]) -> float:
    """A length given for 32×32 pictures, in pixels of these.

    It grows with the shorter side. Below 32 pixels it does not shrink: a blur over a fraction of a
    pixel would change nothing.

    >>> in_pixels(1.5, torch.zeros(1, 1, 64, 96)), in_pixels(1.5, torch.zeros(1, 1, 8, 8))
    (3.0, 1.5)
    """
    return length * max(min(images.shape[2:]) / REFERENCE_SIDE, 1.0)


def mix_lines(
    images: Float32[Tensor, "n c h w"],
    dim: int,
    places: Int64[Tensor, "k m"],
    weights: Float64[Tensor, "k m"],
) -> Float32[Tensor, "n c h2 w2"]:
    """Line i of m becomes the sum over k of weights[k, i] · line places[k, i].

    Args:
        dim: 2, where lines are rows, or 3, where they are columns.
    """
    shape, size = [1, 1, 1, 1], list(images.shape)
    shape[dim] = size[dim] = places.shape[1]
    total = images.new_zeros(size)
    for lines, shares in zip(places.to(images.device), weights.to(images), strict=True):
        total += images.index_select(dim, lines) * shares.view(shape)
    return total


def bell(sigma: float) -> Float64[Tensor, " k"]:
    """A Gaussian at whole pixels out to 4 σ, of sum 1.

    >>> [round(share, 6) for share in bell(0.25).tolist()]  # e^(-8) on either side of 1
    [0.000335, 0.99933, 0.000335]
    """
    reach = int(4 * sigma + 0.5)
    heights = torch.tensor(
        [math.exp(-(place**2) / (2 * sigma**2)) for place in range(-reach, reach + 1)],
        dtype=torch.float64,
    )
    return heights / math.fsum(heights.tolist())


def smooth(images: Float32[Tensor, "n c h w"], sigma: float) -> Float32[Tensor, "n c h w"]:
    """A Gaussian blur of σ pixels; the border's pixels go on outside."""
    weights = bell(sigma)
    reach = len(weights) // 2
    for dim in (2, 3):
        size = images.shape[dim]
        places = torch.arange(-reach, reach + 1)[:, None] + torch.arange(size)
        places = places.clamp(0, size - 1)
        images = mix_lines(images, dim, places, weights[:, None].expand(-1, size))
    return images


def pick(
    images: Float32[Tensor, "n c h w"],
    rows: Int64[Tensor, "n #h #w"],
    columns: Int64[Tensor, "n #h #w"],
) -> Float32[Tensor, "n c h w"]:
    """Each place of a picture gets the pixel at its row and column; both are cut to the picture."""
    height, width = images.shape[2:]
    places = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    places = places.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, places).view(images.shape)
