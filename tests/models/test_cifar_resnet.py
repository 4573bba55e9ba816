"""CIFAR ResNets: the published networks, their costs and their weights."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import cifar10_test
from torch import Tensor, nn

from tutelage.errors import SettingError
from tutelage.models.checkpoints import load_into, read_state
from tutelage.models.cifar_resnet import CifarResNet, cifar_resnet


def stages(network: CifarResNet, images: Tensor) -> list[Tensor]:
    """The maps after the stem and after each stage."""
    maps = [torch.relu(network.bn1(network.conv1(images)))]
    for stage in (network.layer1, network.layer2, network.layer3):
        maps.append(stage(maps[-1]))
    return maps


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("depth", "remedy"),
    [(18, "14 or 20"), (21, "20 or 26"), (7, "8, the least"), (2, "8, the"), (0, "8"), (-4, "8")],
)
def test_another_depth_is_refused_and_the_nearest_are_named(depth: int, remedy: str):
    with pytest.raises(SettingError, match=rf"6n \+ 2, but depth is {depth}\. Use {remedy}"):
        cifar_resnet(depth)


@pytest.mark.parametrize("setting", ["width", "num_classes", "in_channels"])
def test_counts_below_one_are_refused(setting: str):
    with pytest.raises(SettingError, match=f"{setting} must be at least 1, but is 0"):
        cifar_resnet(8, **{setting: 0})  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("setting", "known"), [("shortcut", "A, B"), ("norm", "batch, group")])
def test_unknown_words_are_refused(setting: str, known: str):
    with pytest.raises(SettingError, match=f"no {setting} 'layer'; Known: {known}"):
        cifar_resnet(8, **{setting: "layer"})  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------------------------- structure


@pytest.mark.parametrize("depth", [8, 14, 20, 26, 56])
def test_depth_counts_the_layers_with_weights(depth: int):
    layers = [m for m in cifar_resnet(depth).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


@settings(max_examples=20)
@given(
    width=st.integers(1, 20),
    height=st.integers(4, 17),
    breadth=st.integers(4, 17),
    in_channels=st.sampled_from([1, 3]),
    shortcut=st.sampled_from(["A", "B"]),
    norm=st.sampled_from(["batch", "group"]),
)
def test_stages_double_channels_and_halve_sizes(
    width, height, breadth, in_channels, shortcut, norm
):
    network = cifar_resnet(
        8, width, num_classes=7, in_channels=in_channels, shortcut=shortcut, norm=norm
    )
    images = torch.rand(2, in_channels, height, breadth)
    shapes = [tuple(maps.shape) for maps in stages(network, images)]
    half, quarter = (-(-height // 2), -(-breadth // 2)), (-(-height // 4), -(-breadth // 4))
    assert shapes == [
        (2, width, height, breadth),
        (2, width, height, breadth),
        (2, 2 * width, *half),
        (2, 4 * width, *quarter),
    ]
    assert network(images).shape == (2, 7)


@pytest.mark.parametrize("width", [4, 5])
def test_with_zero_init_each_block_starts_as_its_shortcut(width: int):
    """So the second stage shows shortcut A bare: every other pixel, and zeros around."""
    network = cifar_resnet(14, width, zero_init=True)
    _, first, second, _ = stages(network, torch.randn(2, 3, 7, 7))
    stem = torch.relu(network.bn1(network.conv1(torch.randn(2, 3, 7, 7))))
    torch.testing.assert_close(network.layer1(stem), stem)
    kept = range(width // 2, width // 2 + width)
    for channel in range(2 * width):
        for row in range(4):
            for column in range(4):
                wanted = torch.zeros(2)
                if channel in kept:
                    wanted = first[:, channel - kept.start, 2 * row, 2 * column]
                torch.testing.assert_close(second[:, channel, row, column], wanted)


def test_without_zero_init_blocks_do_something_from_the_start():
    network = cifar_resnet(14, 4)
    stem, first, *_ = stages(network, torch.randn(2, 3, 8, 8))
    assert not torch.allclose(stem, first)


def test_weights_are_kaiming_normal_by_fan_in():
    network = cifar_resnet(8, 64, num_classes=100)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
            assert module.weight.mean().item() == pytest.approx(0, abs=0.1 * fan_in**-0.5)


def test_with_group_norm_a_picture_does_not_see_its_batch():
    torch.manual_seed(0)
    network = cifar_resnet(8, 6, norm="group").double()
    images = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone)
    assert not any(True for _ in network.buffers())


def test_with_batch_norm_it_does_in_training_only():
    network = cifar_resnet(8, 6).double()
    images = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    assert not torch.allclose(network(images)[:2], network(images[:2]))
    network.eval()
    torch.testing.assert_close(network(images)[:2], network(images[:2]))


def test_every_parameter_gets_a_gradient():
    network = cifar_resnet(14, 5, in_channels=1, shortcut="B")
    network(torch.randn(4, 1, 8, 8)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_it_compiles_as_one_graph(shortcut, norm):
    torch.compiler.reset()
    network = cifar_resnet(8, 4, in_channels=1, shortcut=shortcut, norm=norm)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(compiled(images), network(images))


# ---------------------------------------------------------------------- the published networks


@cache
def normalized(shared: Path) -> tuple[Tensor, Tensor]:
    """Normalized as the public weights want it."""
    pixels, labels = cifar10_test(shared)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((pixels / 255 - mean) / std).permute(0, 3, 1, 2), labels


@pytest.mark.parametrize(
    ("depth", "file", "percent"),
    [
        (20, "resnet20-12fca82f.th", 91.75),
        pytest.param(32, "resnet32-d509ac18.th", 92.62, marks=pytest.mark.slow),
        pytest.param(44, "resnet44-014dd654.th", 93.09, marks=pytest.mark.slow),
        pytest.param(56, "resnet56-4bfd9763.th", 93.46, marks=pytest.mark.slow),
    ],
)
def test_public_weights_load_strictly_and_know_cifar10(
    shared_data: Path, depth: int, file: str, percent: float
):
    weights = shared_data / "cifar10_teachers" / file
    network = cifar_resnet(depth).to(memory_format=torch.channels_last)  # pyright: ignore
    load_into(network, read_state(weights), str(weights))
    images, labels = normalized(shared_data)
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        answers = torch.cat([network(part).argmax(1) for part in images.split(500)])
    assert 100 * (answers == labels).double().mean().item() == pytest.approx(percent, abs=0.15)
