"""Codecs, grids and levels, by hand on tiny pictures."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from photographs import crops
from PIL import Image
from scipy import ndimage

from tutelage import rng
from tutelage.evaluation.corruptions.digital import elastic, jpeg, pixelate, posterize

KEYS = torch.arange(50)


@pytest.mark.parametrize("quality", [80, 40])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_reads_from_what_it_wrote(quality: int, channels: int):
    images = crops(3, 24, 40)[:, :channels]
    for image, found in zip(images, jpeg(images, quality), strict=True):
        file = io.BytesIO()
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file)).reshape(pixels.shape)
        assert torch.equal(found, torch.tensor(expected).permute(2, 0, 1) / 255)
        assert not torch.equal(found, image)


def test_jpeg_leaves_a_plain_block_plain():
    plain = torch.full((2, 1, 8, 8), 128 / 255)
    assert torch.equal(jpeg(plain, 40), plain)


@pytest.mark.parametrize(
    ("bits", "expected"), [(1, [0, 0, 128, 128]), (2, [0, 64, 128, 192]), (4, [0, 112, 128, 240])]
)
def test_posterize_by_hand(bits: int, expected: list[int]):
    levels = torch.tensor([0, 127, 128, 255]).reshape(1, 1, 2, 2)
    spoiled = posterize(levels / 255, bits)
    assert torch.equal(spoiled, torch.tensor(expected).reshape(1, 1, 2, 2) / 255)


def test_pixelate_by_hand():
    image = torch.arange(16.0).reshape(1, 1, 4, 4) / 16
    spoiled = pixelate(image, 1 / 2)[0, 0] * 16  # cells of 2 × 2: (0 + 1 + 4 + 5) / 4 = 2.5, …
    blocks = torch.tensor([[2.5, 4.5], [10.5, 12.5]])
    assert torch.equal(spoiled, blocks.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_cells_may_cut_pixels():
    """Cells of 1.5 pixels: the middle pixel belongs half to each."""
    row = torch.tensor([0.0, 0.3, 0.9]).expand(1, 1, 3, 3)
    spoiled = pixelate(row.contiguous(), 1 / 1.5)[0, 0]
    first, second = (0.0 + 0.15) / 1.5, (0.15 + 0.9) / 1.5
    expected = torch.tensor([first, (first + second) / 2, second])
    assert torch.allclose(spoiled, expected.expand(3, 3))


def test_the_last_cell_is_cut_off():
    """Cells of 2 pixels over 3: the second is the last pixel alone."""
    row = torch.tensor([0.2, 0.4, 0.9]).expand(1, 1, 3, 3)
    spoiled = pixelate(row.contiguous(), 1 / 2)[0, 0]
    assert torch.allclose(spoiled, torch.tensor([0.3, 0.3, 0.9]).expand(3, 3))


def test_a_larger_picture_has_as_many_cells():
    """Half a cell per pixel at 32×32 is 16 cells, each of 8 pixels at 128×128."""
    large = crops(2, 128, 128)
    blocks = torch.nn.functional.avg_pool2d(large, 8)
    expected = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.allclose(pixelate(large, 1 / 2), expected, atol=1e-6)


@given(size=st.integers(1, 60), side=st.floats(1, 9))
def test_cells_keep_the_mean_and_a_plain_picture(size: int, side: float):
    image = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    scale = max(size / 32, 1)
    spoiled = pixelate(image, scale / side)
    assert float(spoiled.mean()) == pytest.approx(float(image.mean()), abs=1e-5)
    plain = torch.full_like(image, 0.3)
    assert torch.allclose(pixelate(plain, scale / side), plain, atol=1e-6)


def ways(keys: torch.Tensor, reach: float, height: int, width: int, scale: float) -> np.ndarray:
    """Displacements, by scipy."""
    draws = rng.uniforms(keys, (2, height, width)).double().numpy() * 2 - 1
    sigma = 1.28 * scale
    smooth = ndimage.gaussian_filter(draws, (0, 0, sigma, sigma), mode="nearest", truncate=4.0)
    point = np.zeros((99, 99))
    point[49, 49] = 1
    narrow = ndimage.gaussian_filter(point, sigma, truncate=4.0)
    return smooth * reach * scale / np.sqrt((narrow**2).sum() / 3)


@pytest.mark.parametrize(("height", "width", "scale"), [(8, 8, 1.0), (32, 32, 1.0), (64, 80, 2.0)])
def test_elastic_takes_the_pixel_at_the_end_of_the_way(height: int, width: int, scale: float):
    image = crops(1, height, width)
    down, right = ways(KEYS[:1], 0.4, height, width, scale)[0]
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    places = [rows + down, columns + right]
    found = elastic(image, 0.4, KEYS[:1])[0]
    for channel, moved in zip(image[0].double().numpy(), found, strict=True):
        expected = ndimage.map_coordinates(channel, places, order=1, mode="nearest")
        assert torch.allclose(moved.double(), torch.tensor(expected), atol=1e-4)


@pytest.mark.parametrize("side", [32, 64])
def test_elastic_ways_have_their_deviation(side: int):
    """On a ramp, brightness tells the way; the middle is free of the border."""
    ramp = (torch.arange(side) / side).expand(50, 1, side, side).contiguous()
    moved = (elastic(ramp, 0.4, KEYS) - ramp)[:, :, 8:-8, 8:-8] * side
    assert float(moved.std()) == pytest.approx(0.4 * side / 32, rel=0.05)
    assert abs(float(moved.mean())) < 0.05 * math.sqrt(side / 32)


def test_elastic_leaves_a_plain_picture_plain():
    plain = torch.full((50, 3, 16, 16), 0.3)
    assert torch.allclose(elastic(plain, 0.55, KEYS), plain, atol=1e-6)
