"""Noise: each value of each channel is drawn by itself.

A picture's draws do not depend on the severity, so its five noises differ in strength alone.
Normal and Poisson numbers are looked up in tables of their quantiles: a logarithm's last bit may
depend on the processor and on the place in the batch.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from scipy.special import ndtri, pdtr
from torch import Tensor

from tutelage import rng

__all__ = ["gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise"]

_QUANTILES = 1 << 16


def gaussian_noise(
    images: Float32[Tensor, "n c h w"], deviation: float, keys: Int64[Tensor, " n"]
) -> Float32[Tensor, "n c h w"]:
    """Adds normal numbers of this standard deviation."""
    return images + _normal(keys, images) * deviation


def speckle_noise(
    images: Float32[Tensor, "n c h w"], deviation: float, keys: Int64[Tensor, " n"]
) -> Float32[Tensor, "n c h w"]:
    """Adds normal numbers whose standard deviation is `deviation` times the pixel."""
    return images + images * (_normal(keys, images) * deviation)


def shot_noise(
    images: Float32[Tensor, "n c h w"], photons: int, keys: Int64[Tensor, " n"]
) -> Float32[Tensor, "n c h w"]:
    """Counts light: a pixel x receives Poisson(x · photons) of them, and `photons` are white.

    Pixels are read as bytes.
    """
    levels = (images * 255).round().long()
    draws = rng.uniforms(keys, images.shape[1:])
    # All distributions stand in one ascending row; those of darker pixels lie wholly before.
    row = _poisson_rows(photons).to(images.device).flatten()
    places = (levels + draws.double()).contiguous()
    counts = torch.searchsorted(row, places, right=True) - levels * photons
    return counts.float() * (1 / photons)


def impulse_noise(
    images: Float32[Tensor, "n c h w"], share: float, keys: Int64[Tensor, " n"]
) -> Float32[Tensor, "n c h w"]:
    """Salt and pepper: this share of all values becomes 0 or 1, each half of the time."""
    draws = rng.uniforms(keys, images.shape[1:])
    return images.masked_fill(draws < share / 2, 0.0).masked_fill(draws >= 1 - share / 2, 1.0)


def _normal(
    keys: Int64[Tensor, " n"], images: Float32[Tensor, "n c h w"]
) -> Float32[Tensor, "n c h w"]:
    """Standard normal numbers, one per value."""
    places = (rng.uniforms(keys, images.shape[1:]) * _QUANTILES).long()
    return _normal_quantiles().to(images.device)[places]


@lru_cache(maxsize=1)
def _normal_quantiles() -> Float32[Tensor, " quantiles"]:
    """The quantile function in the middle of 65,536 equal steps; it ends at ±4.3."""
    return torch.from_numpy(ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES)).float()


@lru_cache(maxsize=8)
def _poisson_rows(photons: int) -> Float64[Tensor, "256 {photons}"]:
    """[i, k]: i + the chance that at most k photons come where i/255 · photons are expected.

    Counts from `photons` on are white, so k stops before.
    """
    expected = np.arange(256) / 255 * photons
    rows = pdtr(np.arange(photons), expected[:, None])
    return torch.from_numpy(rows + np.arange(256)[:, None])
