"""Real pictures that come with scikit-learn: crops of its two photographs, and its digits."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float32
from sklearn.datasets import load_sample_images
from torch import Tensor

from tutelage.data.digits import digits


@lru_cache(maxsize=1)
def _photographs() -> list[np.ndarray]:
    """At half of their resolution, as bytes."""
    halves = []
    for image in load_sample_images().images:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        blocks = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
        halves.append(blocks.mean(axis=(1, 3)).round().astype(np.uint8))
    return halves


@lru_cache(maxsize=16)
def crops(count: int, height: int, width: int) -> Float32[Tensor, "{count} 3 {height} {width}"]:
    """Half of them from one photograph, half from the other, spread over it."""
    found = []
    for number in range(count):
        image = _photographs()[number % 2]
        share = (number + 0.5) / count
        top = int(share * (image.shape[0] - height))
        left = int((share * 7.3) % 1 * (image.shape[1] - width))
        found.append(image[top : top + height, left : left + width])
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255


def pictures(
    count: int, channels: int, height: int, width: int
) -> Float32[Tensor, "{count} {channels} {height} {width}"]:
    """Digits, if gray, of 8×8; crops otherwise."""
    if channels == 3:
        return crops(count, height, width)
    assert (channels, height, width) == (1, 8, 8)
    return _digits()[:count].permute(0, 3, 1, 2).float() / 255


@lru_cache(maxsize=1)
def _digits() -> Tensor:
    return digits().test.images
