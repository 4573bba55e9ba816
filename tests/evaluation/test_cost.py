"""Costs by hand, and the published costs of the CIFAR ResNets."""

import pytest
import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.evaluation.cost import example, macs, num_parameters
from tutelage.models import create
from tutelage.taps import evaluating


@pytest.mark.parametrize(
    ("layer", "by_hand"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), 8 * 10 * 6 * (4 * 9)),
        (nn.Conv2d(4, 6, 3, padding=1, bias=False), 8 * 10 * 6 * (4 * 9)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), 4 * 5 * 6 * (4 * 9)),
        (nn.Conv2d(4, 4, 3, groups=4), 6 * 8 * 4 * 9),
        (nn.Conv2d(4, 6, 3, dilation=2), 4 * 6 * 6 * (4 * 9)),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), 8 * 10 * 4 * (6 * 4)),
        (nn.Sequential(nn.Flatten(), nn.Linear(320, 7)), 320 * 7),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2)), 0),
    ],
    ids=["conv", "no bias", "stride", "depthwise", "dilated", "transposed", "linear", "no product"],
)
def test_a_layer_costs_what_the_hand_counts(layer: nn.Module, by_hand: int):
    assert macs(layer, (4, 8, 10)) == by_hand


class Attention(nn.Module):
    """Locations attend to each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(channels, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        return self.attend(tokens, tokens, tokens, need_weights=False)[0]


def test_attention_counts_its_products_too():
    projections, products = 4 * 12 * 16 * 16, 2 * 12 * 12 * 16  # 12 places, 16 channels
    assert macs(Attention(16), (16, 3, 4)) == projections + products
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("depth", "millions", "mmacs"),
    [
        (8, 0.084, 12.5),
        (14, 0.181, 26.7),
        (20, 0.278, 40.8),
        (32, 0.473, 69.1),
        (44, 0.667, 97.4),
        (56, 0.862, 125.8),
        (110, 1.737, 253.2),
    ],
)
def test_cifar_resnets_cost_what_is_published(depth: int, millions: float, mmacs: float):
    """RepDistiller's networks for CIFAR-100 have shortcut B."""
    network = create(f"resnet{depth}", num_classes=100, in_channels=3, shortcut="B")
    assert round(num_parameters(network) / 1e6, 3) == millions
    assert round(macs(network, (3, 32, 32)) / 1e6, 1) == mmacs


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_with_shortcut_a_they_are_those_of_the_paper(depth: int, millions: float):
    """He et al., table 6."""
    network = create(f"resnet{depth}", num_classes=10, in_channels=3)
    assert num_parameters(network) / 1e6 == pytest.approx(millions, abs=0.005)


def test_shared_parameters_count_once_and_frozen_ones_too():
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    assert num_parameters(nn.Sequential(first, second)) == 32
    second.weight = first.weight
    first.weight.requires_grad_(False)
    assert num_parameters(nn.Sequential(first, second)) == 16


class Counts(nn.Module):
    """Has a buffer that every forward pass moves."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images


def test_counting_leaves_modes_buffers_gradients_and_the_generator_alone():
    frozen = nn.BatchNorm2d(3).eval()
    network = nn.Sequential(Counts(), nn.BatchNorm2d(3), frozen, nn.Dropout(), nn.Conv2d(3, 2, 1))
    modes = [part.training for part in network.modules()]
    buffers = {name: (value, value.clone()) for name, value in network.named_buffers()}
    generator = torch.get_rng_state()
    assert macs(network, (3, 4, 4)) == 16 * 6
    assert [part.training for part in network.modules()] == modes
    for name, value in network.named_buffers():
        assert value is buffers[name][0]
        assert torch.equal(value, buffers[name][1])
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()


def test_modes_come_back_after_an_error_too():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Dropout().eval())
    with pytest.raises(RuntimeError, match="channels"):
        macs(network, (4, 8, 8))
    assert [part.training for part in network.modules()] == [True, True, False]
    with pytest.raises(TutelageError), evaluating(network):
        raise TutelageError
    assert network.training


def test_the_example_has_the_type_of_the_weights():
    images = example(nn.Conv2d(3, 2, 1, dtype=torch.float64), (3, 4, 5), batch_size=2)
    assert (images.dtype, images.shape) == (torch.float64, (2, 3, 4, 5))
    assert 0 <= images.min() < images.max() < 1
    assert torch.equal(example(nn.ReLU(), (3, 4, 5), 2), images.float())
    assert macs(nn.Conv2d(3, 2, 1, dtype=torch.bfloat16), (3, 4, 4)) == 16 * 6
