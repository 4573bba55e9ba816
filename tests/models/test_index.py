"""The index of networks: complete, and plain about what is not in it."""

import pytest
import torch
from torch import nn

from tutelage.errors import NetworkError, SettingError
from tutelage.models import NETWORKS, create
from tutelage.models.cifar_resnet import CifarResNet

DEPTHS = (8, 14, 20, 32, 44, 56, 110)


def test_the_index_names_the_published_depths():
    assert list(NETWORKS) == [*(f"resnet{depth}" for depth in DEPTHS), "resnet"]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_gray_digits_and_cifar(name: str):
    digits = create(name, num_classes=10, in_channels=1).eval()
    assert digits(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    cifar = create(name, num_classes=100, in_channels=3).eval()
    assert cifar(torch.zeros(1, 3, 32, 32)).shape == (1, 100)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_name_says_the_depth(depth: int):
    network = create(f"resnet{depth}", num_classes=10, in_channels=3)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


def test_of_the_name_without_a_depth_the_depth_is_a_setting():
    network = create("resnet", num_classes=10, in_channels=3, depth=26, width=4)
    assert len([m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]) == 26
    with pytest.raises(SettingError, match="depth is 27"):
        create("resnet", num_classes=10, in_channels=3, depth=27)


def test_settings_reach_the_network():
    network = create(
        "resnet8", num_classes=5, in_channels=1, width=6, shortcut="B", norm="group", zero_init=True
    )
    assert isinstance(network, CifarResNet)
    assert isinstance(network.bn1, nn.GroupNorm)
    assert network.linear.weight.shape == (5, 24)
    assert len(list(network.layer2[0].shortcut.parameters())) == 3  # pyright: ignore
    assert not network.layer1[0].bn2.weight.any()  # pyright: ignore


def test_the_same_generator_state_gives_the_same_weights():
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return list(create("resnet8", num_classes=3, in_channels=1).parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(1), weights(1), strict=True))
    assert not torch.equal(weights(1)[0], weights(2)[0])


def test_an_unknown_name_is_refused_and_the_nearest_is_named():
    with pytest.raises(NetworkError, match="no network 'resnet65'; did you mean resnet56"):
        create("resnet65", num_classes=10, in_channels=3)


def test_an_unknown_setting_is_refused_and_the_nearest_is_named():
    with pytest.raises(NetworkError, match="no setting of resnet8 'widht'; did you mean width"):
        create("resnet8", num_classes=10, in_channels=3, widht=8)


def test_the_depth_is_in_the_name_and_cannot_be_set():
    with pytest.raises(NetworkError, match="no setting of resnet8 'depth'"):
        create("resnet8", num_classes=10, in_channels=3, depth=14)


def test_a_setting_out_of_range_is_refused():
    with pytest.raises(SettingError, match="width must be at least 1"):
        create("resnet8", num_classes=10, in_channels=3, width=0)
