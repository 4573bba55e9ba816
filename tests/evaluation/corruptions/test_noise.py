"""Noise has the distribution that its name says."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tutelage.evaluation.corruptions.noise import (
    gaussian_noise,
    impulse_noise,
    shot_noise,
    speckle_noise,
)

KEYS = torch.arange(100) * 1_000_003
COUNT = 100 * 3 * 32 * 32


def flat(value: float) -> torch.Tensor:
    return torch.full((100, 3, 32, 32), value)


def passes(draws: torch.Tensor, distribution: object) -> bool:
    """Kolmogorov-Smirnov, at one chance in a thousand."""
    return stats.kstest(draws.flatten().double().numpy(), distribution).pvalue > 1e-3  # pyright: ignore


def test_gaussian_noise_is_normal_with_its_deviation():
    added = gaussian_noise(flat(0.5), 0.04, KEYS) - 0.5
    assert float(added.std()) == pytest.approx(0.04, rel=4 / math.sqrt(2 * COUNT))
    assert abs(float(added.mean())) < 4 * 0.04 / math.sqrt(COUNT)
    assert passes(added, stats.norm(scale=0.04).cdf)


def test_gaussian_noise_of_neighbors_and_channels_is_independent():
    added = gaussian_noise(flat(0.5), 0.04, KEYS) - 0.5
    for first, second in (
        (added[..., 1:], added[..., :-1]),
        (added[:, :, 1:], added[:, :, :-1]),
        (added[:, 1:], added[:, :-1]),
        (added[1:], added[:-1]),
    ):
        pair = torch.stack([first.flatten(), second.flatten()])
        assert torch.corrcoef(pair)[0, 1].abs() < 4 / math.sqrt(pair.shape[1])


@pytest.mark.parametrize("value", [0.0, 0.2, 0.5])
def test_speckle_noise_is_in_proportion_to_the_pixel(value: float):
    spoiled = speckle_noise(flat(value), 0.2, KEYS)
    assert float(spoiled.std()) == pytest.approx(0.2 * value, rel=4 / math.sqrt(2 * COUNT))
    assert float(spoiled.mean()) == pytest.approx(value, abs=4 * 0.2 * value / math.sqrt(COUNT))


@pytest.mark.parametrize("share", [0.01, 0.07])
def test_impulse_noise_hits_its_share_half_black_half_white(share: float):
    spoiled = impulse_noise(flat(0.5), share, KEYS)
    tolerance = 4 * math.sqrt(share / 2 / COUNT)
    assert float((spoiled == 0).float().mean()) == pytest.approx(share / 2, abs=tolerance)
    assert float((spoiled == 1).float().mean()) == pytest.approx(share / 2, abs=tolerance)
    assert int(((spoiled == 0) | (spoiled == 1) | (spoiled == 0.5)).sum()) == COUNT


@pytest.mark.parametrize(("level", "photons"), [(3, 500), (51, 50), (102, 75), (204, 250)])
def test_shot_noise_counts_are_poisson(level: int, photons: int):
    spoiled = shot_noise(flat(level / 255), photons, KEYS).double() * photons
    counts = spoiled.round().long()
    assert (spoiled - counts).abs().max() < 1e-4  # whole photons
    seen = np.bincount(counts.flatten().numpy(), minlength=photons + 1)[:photons]
    chances = stats.poisson.pmf(np.arange(photons), level / 255 * photons)
    likely = chances * COUNT > 10
    rest = COUNT - seen[likely].sum(), COUNT * (1 - chances[likely].sum())
    found = np.append(seen[likely], rest[0])
    awaited = np.append(chances[likely] * COUNT, rest[1])
    assert stats.chisquare(found, awaited).pvalue > 1e-3


def test_shot_noise_stops_at_white_and_leaves_black():
    assert not shot_noise(flat(0.0), 50, KEYS).any()
    white = shot_noise(flat(1.0), 50, KEYS)
    assert white.max() == 1.0
    # More than 50 photons where 50 are expected are as white as 50.
    at_least = float(stats.poisson(50).sf(49))
    assert float((white == 1).float().mean()) == pytest.approx(at_least, abs=4 / math.sqrt(COUNT))


def test_each_picture_has_its_own_noise():
    spoiled = gaussian_noise(flat(0.5), 0.1, KEYS)
    assert len({tuple(picture.flatten()[:5].tolist()) for picture in spoiled}) == 100
