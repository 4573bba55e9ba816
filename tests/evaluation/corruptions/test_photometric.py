"""Light and color, by hand and against the definitions of HSV."""

import colorsys

import numpy as np
import pytest
import torch
from photographs import crops

from tutelage import rng
from tutelage.evaluation.corruptions.photometric import brightness, contrast, fog, saturation

KEYS = torch.arange(4)


def color(*channels: float) -> torch.Tensor:
    return torch.tensor(channels).reshape(1, -1, 1, 1)


def hsv(images: torch.Tensor) -> np.ndarray:
    """By the standard library, pixel by pixel."""
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3).double().tolist()
    return np.array([colorsys.rgb_to_hsv(*pixel) for pixel in pixels])


def rgb(pixels: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    back = torch.tensor([colorsys.hsv_to_rgb(*pixel) for pixel in pixels])
    count, channels, height, width = like.shape
    return back.reshape(count, height, width, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((0.2, 0.4, 0.1), (0.225, 0.45, 0.1125)),  # 0.4 becomes 0.45: all times 1.125
        ((0.98, 0.49, 0.0), (1.0, 0.5, 0.0)),
        ((0.0, 0.0, 0.0), (0.05, 0.05, 0.05)),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        ((0.3,), (0.35,)),
    ],
)
def test_brightness_by_hand(before: tuple[float, ...], after: tuple[float, ...]):
    assert torch.allclose(brightness(color(*before), 0.05), color(*after))


def test_brightness_raises_the_value_of_hsv_alone():
    images = crops(2, 16, 16)
    expected = hsv(images)
    expected[:, 2] = np.clip(expected[:, 2] + 0.2, 0, 1)
    assert torch.allclose(brightness(images, 0.2), rgb(expected, images).float(), atol=1e-6)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1.0, 0.5, 0.0), (1.0, 0.65, 0.3)),  # 1 − 0.7 · (0, 0.5, 1)
        ((0.4, 0.4, 0.4), (0.4, 0.4, 0.4)),
        ((0.4,), (0.4,)),
    ],
)
def test_saturation_by_hand(before: tuple[float, ...], after: tuple[float, ...]):
    assert torch.allclose(saturation(color(*before), 0.7), color(*after))


@pytest.mark.parametrize("factor", [0.5, 0.1])
def test_saturation_lowers_that_of_hsv_alone(factor: float):
    images = crops(2, 16, 16)
    expected = hsv(images)
    expected[:, 1] *= factor
    assert torch.allclose(saturation(images, factor), rgb(expected, images).float(), atol=1e-6)


def test_without_saturation_every_pixel_is_gray():
    spoiled = saturation(crops(2, 16, 16), 0.0)
    assert torch.equal(spoiled.amin(dim=1), spoiled.amax(dim=1))


def test_contrast_by_hand():
    halves = torch.tensor([0.0, 1.0]).repeat(1, 2, 4, 4)
    halves[:, 1] *= 0.4
    spoiled = contrast(halves, 0.75)
    assert torch.allclose(spoiled[0, 0].unique(), torch.tensor([0.125, 0.875]))  # 0.5 ± 0.375
    assert torch.allclose(spoiled[0, 1].unique(), torch.tensor([0.05, 0.35]))  # 0.2 ± 0.15


def test_contrast_keeps_the_mean_of_each_channel():
    images = crops(3, 32, 32)
    means, spoiled = images.mean((2, 3)), contrast(images, 0.15)
    assert torch.allclose(spoiled.mean((2, 3)), means, atol=1e-5)
    assert torch.allclose(spoiled.std((2, 3)), 0.15 * images.std((2, 3)), rtol=1e-4)


def clouds(draws: np.ndarray, decay: float) -> np.ndarray:
    """Diamond-square, cell by cell: a dull transcription."""
    side = len(draws)
    height, swing, span = np.zeros((side, side)), 100.0**2, side
    while span > 1:
        half = span // 2
        for y in range(half, side, span):
            for x in range(half, side, span):
                corners = [
                    height[(y + a) % side, (x + b) % side]
                    for a in (-half, half)
                    for b in (-half, half)
                ]
                height[y, x] = sum(corners) / 4 + swing * draws[y, x]
        for y in range(0, side, half):
            for x in range((y + half) % span, side, span):
                ends = [(y - half, x), (y + half, x), (y, x - half), (y, x + half)]
                around = [height[a % side, b % side] for a, b in ends]
                height[y, x] = sum(around) / 4 + swing * draws[y, x]
        span, swing = half, swing / decay**2
    return (height - height.min()) / (height.max() - height.min())


@pytest.mark.parametrize(("height", "width", "side"), [(8, 8, 8), (32, 32, 32), (24, 17, 32)])
def test_fog_is_clouds_over_the_picture(height: int, width: int, side: int):
    image = crops(1, height, width)
    draws = rng.uniforms(KEYS[2:3], (side, side))[0].double().numpy() * 2 - 1
    veil = 0.75 * clouds(draws, 2.5)[:height, :width]
    brightest = float(image.max())
    expected = (image[0].double().numpy() + veil) * brightest / (brightest + 0.75)
    found = fog(image, (0.75, 2.5), KEYS[2:3])[0].double()
    assert torch.allclose(found, torch.tensor(expected), atol=1e-5)


def test_fog_by_hand_on_plain_pictures():
    """Where the picture is 0.5 and the clouds 0 … 1: from 0.5 to 1.5, times 0.5 / (0.5 + 1)."""
    spoiled = fog(torch.full((4, 1, 32, 32), 0.5), (1.0, 2.0), KEYS)
    assert torch.allclose(spoiled.amin((1, 2, 3)), torch.full((4,), 0.5 / 3))
    assert torch.allclose(spoiled.amax((1, 2, 3)), torch.full((4,), 0.5))


def test_fog_in_the_dark_is_dark():
    assert not fog(torch.zeros(4, 3, 8, 8), (1.5, 1.75), KEYS).any()
