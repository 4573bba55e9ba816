"""Where a network looks, by hand."""

import torch
from torch import nn

from tutelage.evaluation.attention import MAX_SIDE, attention_maps
from tutelage.models.network import Network
from tutelage.types import InputSpec


class Doubling(nn.Module):
    """Two stages: the picture beside its double, then every second pixel of that."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.coarse = nn.Conv2d(1, 2, 1, bias=False), nn.AvgPool2d(1, stride=2)
        self.both.weight = nn.Parameter(torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.coarse(self.both(images)).mean(dim=(2, 3))


def test_by_hand():
    network = Network(Doubling(), InputSpec(2, 4, 1, (0.0,), (1.0,))).train()
    images = torch.zeros(2, 1, 2, 4)
    images[0, 0] = torch.tensor([[0.5, 0.0, 1.0, 0.0], [0.0, 0.25, 0.0, 0.0]])
    found = attention_maps(network, images, device=torch.device("cpu"))
    # Squares of x and 2x have the mean 2.5 x²; the largest becomes 1.
    expected = torch.tensor([[0.25, 0.0, 1.0, 0.0], [0.0, 0.0625, 0.0, 0.0]])
    assert list(found) == ["both", "coarse"]
    assert torch.allclose(found["both"][0], expected)
    assert torch.allclose(found["coarse"][0], expected[::2, ::2])
    assert not found["both"][1].any()  # nothing to see stays nothing
    assert network.training


def test_large_maps_are_pooled():
    network = Network(Doubling(), InputSpec(80, 20, 1, (0.0,), (1.0,)))
    found = attention_maps(network, torch.rand(1, 1, 80, 20), device=torch.device("cpu"))
    assert found["both"].shape == (1, MAX_SIDE, 20)
    assert found["coarse"].shape == (1, MAX_SIDE, 10)
