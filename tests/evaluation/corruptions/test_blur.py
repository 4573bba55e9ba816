"""Blurs against scipy's filters, and by hand on single bright pixels."""

import math

import numpy as np
import pytest
import torch
from photographs import crops
from scipy import ndimage
from torch import Tensor

from tutelage import rng
from tutelage.evaluation.corruptions import CORRUPTIONS, corrupt
from tutelage.evaluation.corruptions.blur import (
    defocus_blur,
    gaussian_blur,
    motion_blur,
    zoom_blur,
)

KEYS = torch.arange(6)
BLURS = [name for name, each in CORRUPTIONS.items() if each.group == "blur"]


def point(side: int) -> Tensor:
    """One white pixel in the middle of a black picture."""
    image = torch.zeros(1, 1, side, side)
    image[0, 0, side // 2, side // 2] = 1
    return image


def drawing(value: float):
    """A generator that always draws this."""
    return lambda keys, shape=(): torch.full((len(keys), *shape), value)


@pytest.mark.parametrize("name", BLURS)
@pytest.mark.parametrize("side", [8, 32, 64])
def test_a_plain_picture_stays_plain(name: str, side: int):
    plain = torch.full((6, 3, side, side), 0.3)
    for severity in (1, 5):
        spoiled = corrupt(plain, name, severity, index=KEYS)
        assert torch.allclose(spoiled, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.4, 0.7, 1.0])
@pytest.mark.parametrize("side", [8, 32, 96])
def test_gaussian_blur_is_scipys(sigma: float, side: int):
    images = crops(2, side, side)
    scaled = sigma * max(side / 32, 1)
    expected = ndimage.gaussian_filter(
        images.double().numpy(), (0, 0, scaled, scaled), mode="nearest", truncate=4.0
    )
    assert torch.allclose(gaussian_blur(images, sigma).double(), torch.tensor(expected), atol=1e-6)


def disc(radius: float) -> np.ndarray:
    """Pixel by pixel: 1 where the center is at most `radius` away; of sum 1."""
    reach = int(radius)
    inside = [
        [float(x**2 + y**2 <= radius**2) for x in range(-reach, reach + 1)]
        for y in range(-reach, reach + 1)
    ]
    return np.array(inside) / np.sum(inside)


@pytest.mark.parametrize(
    ("lens", "side"), [((0.5, 0.6), 32), ((1.0, 0.2), 32), ((1.5, 0.1), 32), ((1.5, 0.1), 96)]
)
def test_defocus_blur_is_a_disc_then_a_gaussian(lens: tuple[float, float], side: int):
    images = crops(1, side, side)
    kernel = disc(lens[0] * side / 32)
    for channel, found in zip(images[0], defocus_blur(images, lens)[0], strict=True):
        blurred = ndimage.convolve(channel.double().numpy(), kernel, mode="nearest")
        blurred = ndimage.gaussian_filter(blurred, lens[1], mode="nearest", truncate=4.0)
        assert torch.allclose(found.double(), torch.tensor(blurred), atol=1e-6)


def test_a_disc_of_radius_1_is_a_plus():
    spoiled = defocus_blur(point(5), (1.0, 0.01))[0, 0]
    plus = torch.zeros(5, 5)
    plus[2, 1:4] = plus[1:4, 2] = 1 / 5
    assert torch.allclose(spoiled, plus)


@pytest.mark.parametrize(("radius", "pixels"), [(0.9, 1), (1.5, 9), (2.0, 13), (3.0, 29)])
def test_discs_have_as_many_pixels_as_circles_in_the_grid(radius: float, pixels: int):
    """Gauss's circle problem: 1, 5, 13, 29 … points; 9 at √2 … 2."""
    spoiled = defocus_blur(point(9), (radius, 0.01))
    assert int((spoiled > 1e-6).sum()) == pixels
    assert float(spoiled.max()) == pytest.approx(1 / pixels)


def test_motion_blur_by_hand(monkeypatch: pytest.MonkeyPatch):
    heights = [math.exp(-(tap**2) / 2) for tap in range(5)]  # σ = 1, out to 4 σ
    weights = torch.tensor(heights) / sum(heights)
    monkeypatch.setattr(rng, "uniforms", drawing(0.5))  # straight on
    spoiled = motion_blur(point(11), 1.0, KEYS[:1])[0, 0]
    assert torch.allclose(spoiled[5, 1:6], weights.flip(0))
    assert float(spoiled.sum()) == pytest.approx(1)
    monkeypatch.setattr(rng, "uniforms", drawing(0.0))  # 45° up: steps of 0.7 pixels in either way
    spoiled = motion_blur(point(11), 1.0, KEYS[:1])[0, 0]
    for tap, place in enumerate([0, 1, 1, 2, 3]):
        same = [weights[other] for other, at in enumerate([0, 1, 1, 2, 3]) if at == place]
        assert float(spoiled[5 + place, 5 - place]) == pytest.approx(float(sum(same))), tap


def test_motion_blurs_directions_are_uniform_within_45_degrees():
    """Of an edge, a pixel far to the right of many steps shows how far down the line has gone."""
    count = 4000
    column = torch.arange(41.0).expand(count, 1, 41, -1).transpose(2, 3) / 41  # height in image
    spoiled = motion_blur(column.contiguous(), 3.0, torch.arange(count))[:, 0, 20, 5] * 41 - 20
    assert float(spoiled.mean()) == pytest.approx(0, abs=0.1)
    # The mean tap of half a Gaussian of σ = 3 · 41/32 is near σ √(2/π), and steepest is sin 45°.
    steepest = 3 * 41 / 32 * math.sqrt(2 / math.pi) * math.sin(math.pi / 4)
    assert float(spoiled.max()) == pytest.approx(steepest, rel=0.15)
    assert float(spoiled.min()) == pytest.approx(-steepest, rel=0.15)


@pytest.mark.parametrize("percent", [5, 25])
def test_zoom_blur_is_the_mean_of_scipys_enlargements(percent: int):
    image = crops(1, 32, 48)
    height, width = (np.arange(size) for size in (32, 48))
    total = 2 * image[0].double().numpy()
    for step in range(1, percent + 1):
        rows = 15.5 + (height - 15.5) / (1 + step / 100)
        columns = 23.5 + (width - 23.5) / (1 + step / 100)
        grid = np.meshgrid(rows, columns, indexing="ij")
        total += np.stack(
            [
                ndimage.map_coordinates(channel.double().numpy(), grid, order=1)
                for channel in image[0]
            ]
        )
    expected = torch.tensor(total / (percent + 2))
    assert torch.allclose(zoom_blur(image, percent)[0].double(), expected, atol=1e-6)


@pytest.mark.parametrize("name", BLURS)
def test_lengths_grow_with_the_picture(name: str):
    """A picture of twice the side, and blurred, is about the blurred picture of twice the side."""
    small = corrupt(crops(6, 32, 32), name, 5, index=KEYS)
    large = crops(6, 32, 32).repeat_interleave(2, 2).repeat_interleave(2, 3)
    spoiled = corrupt(large, name, 5, index=KEYS).unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    clean = crops(6, 32, 32)
    assert (spoiled - small).square().mean() < 0.1 * (clean - small).square().mean()
