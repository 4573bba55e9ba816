"""Bytes by hand: what is held at the worst moment of a forward pass."""

import pytest
import torch
from torch import nn

from tutelage.evaluation.memory import file_size, peak_memory

PICTURE = 4 * 16  # bytes of 1 × 4 × 4 numbers in float32


def test_a_chain_holds_two_maps_at_a_time():
    chain = nn.Sequential(*[nn.Conv2d(1, 1, 1, bias=False) for _ in range(5)])
    weights = 5 * 4
    # Beside the input, which the caller holds: the map that goes in and the one that comes out.
    assert peak_memory(chain, (1, 4, 4)) == weights + 3 * PICTURE


def test_in_place_costs_nothing():
    assert peak_memory(nn.ReLU(), (1, 4, 4)) == 2 * PICTURE
    chain = nn.Sequential(nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU(inplace=True))
    assert peak_memory(chain, (1, 4, 4)) == 2 * PICTURE


class Residual(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.relu() + images.relu().relu()


def test_what_is_still_needed_is_held():
    # Input, the first relu, and of the second branch the map that goes in and the one that comes
    # out; the sum comes when one of these is gone.
    assert peak_memory(Residual(), (1, 4, 4)) == 4 * PICTURE


def test_it_grows_with_the_batch_and_counts_shared_weights_once():
    layer = nn.Linear(8, 8)
    shared = nn.Sequential(layer, layer)
    assert file_size(layer) == 4 * (64 + 8)
    one, four = (peak_memory(shared, (1, 1, 8), batch) for batch in (1, 4))
    assert four - one == 3 * (one - file_size(layer))


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_changed(training: bool):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    peak_memory(network, (3, 8, 8), 2)
    assert network.training == training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
