"""Rounding in training: worked out by hand, against PyTorch's own, and taken away again."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_run import SPEC, Tiny, tiny
from timm import create_model
from torch import Tensor, nn

from tutelage.errors import NetworkError
from tutelage.models import fake_quantization
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.fake_quantization import FakeQuantization, _RoundedMap, _RoundedWeight
from tutelage.models.fusing import fuse
from tutelage.models.network import Network
from tutelage.types import InputSpec

PICTURES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def given_to(module: nn.Module) -> list[Tensor]:
    """What a module will be given, call after call."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...], output: Any) -> None:
        del module, output
        kept.append(given[0])

    module.register_forward_hook(keep)
    return kept


def seen_map(values: Tensor) -> _RoundedMap:
    """Whose range is that of these values."""
    found = _RoundedMap()
    found(values)
    return found.eval()


# Numbers


def test_each_channel_of_a_weight_has_its_own_scale():
    weight = torch.tensor([[0.5, -1.0, 0.01], [0.3, 0.1, 0.0]])
    # Row 1: steps of 1/64: 32, -64, 0.64 → 1. Row 2: of 0.3/64: 64, 21.33 → 21, 0.
    expected = torch.tensor([[32, -64, 1], [64, 21, 0]]) * torch.tensor([[1 / 64], [0.3 / 64]])
    torch.testing.assert_close(_RoundedWeight(64)(weight), expected)


def test_a_weight_of_zeros_stays():
    weight = torch.zeros(2, 3, 3, 3, requires_grad=True)
    rounded = _RoundedWeight(127)(weight)
    rounded.sum().backward()
    assert weight.grad is not None
    assert (rounded == 0).all()
    assert (weight.grad == 1).all()


def test_a_map_is_rounded_to_256_levels_of_which_one_is_zero():
    rounded = seen_map(torch.tensor([-1.0, 2.0]))(torch.tensor([-1.0, 0.0, 0.31, 2.0, -1.5, 7.0]))
    # Steps of 3/255, zero at 85: 0.31 is 26.35 of them, so 26; the last two lie outside.
    expected = torch.tensor([-1.0, 0.0, 26 * 3 / 255, 2.0, -1.0, 2.0])
    torch.testing.assert_close(rounded, expected)


def test_a_range_follows_slowly_and_always_holds_zero():
    found = _RoundedMap()
    found(torch.tensor([0.5, 2.0]))
    assert (found.low.item(), found.high.item()) == (0, 2)
    found(torch.tensor([-3.0, 4.0]))
    assert found.low.item() == pytest.approx(0.01 * -3)
    assert found.high.item() == pytest.approx(2 + 0.01 * 2)
    found.eval()
    found(torch.tensor([-30.0, 40.0]))
    assert found.high.item() == pytest.approx(2 + 0.01 * 2)


def test_what_has_seen_nothing_rounds_nothing():
    values = noise(10)
    assert torch.equal(_RoundedMap().eval()(values), values)


def test_the_gradient_passes_inside_of_the_range_only():
    values = torch.tensor([-1.5, -0.4, 0.3, 1.9, 2.5], requires_grad=True)
    seen_map(torch.tensor([-1.0, 2.0]))(values).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 1, 0]


@given(seed=st.integers(0, 1000), shift=st.floats(-3, 3))
def test_a_map_is_rounded_as_pytorch_does(seed: int, shift: float):
    values = noise(50, seed=seed) + shift
    low, high = min(values.min().item(), 0.0), max(values.max().item(), 0.0)
    scale = (high - low) / 255
    expected = torch.fake_quantize_per_tensor_affine(values, scale, round(-low / scale), 0, 255)
    found = seen_map(values)(values)
    # Where a value lies between two levels, either may be taken.
    assert ((found - expected).abs() <= 1.01 * scale).all()
    assert ((found - expected).abs() < scale / 100).float().mean() > 0.9


def test_for_executorch_a_mean_is_rounded_in_the_steps_of_its_map():
    network = tiny().eval()
    layer, head = network.module.get_submodule("layer2"), network.module.get_submodule("head")
    quantized = FakeQuantization(network, PICTURES, "executorch")
    means, maps = given_to(head), []
    layer.register_forward_hook(lambda *passed: maps.append(passed[2]))
    for one in network.modules():
        one.training = isinstance(one, _RoundedMap)
    network(PICTURES)
    step = maps[0].max() / 255
    for values in (maps[0], means[0]):
        torch.testing.assert_close(values / step, (values / step).round(), atol=1e-3, rtol=0)
    assert not torch.equal(means[0], maps[0].mean(dim=(2, 3)))
    quantized.remove()
    onnx = FakeQuantization(network, PICTURES, "onnx")
    assert "head.rounds_input" in dict(network.module.named_modules())
    assert "layer2.rounds_output" not in dict(network.module.named_modules())
    onnx.remove()


@pytest.mark.parametrize("steps", [64, 127])
def test_a_weight_is_rounded_as_pytorch_does(steps: int):
    weight = noise(5, 4, 3, 3)
    scale = weight.abs().amax(dim=(1, 2, 3)) / steps
    zero = torch.zeros(5, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -steps, steps)
    torch.testing.assert_close(_RoundedWeight(steps)(weight), expected)


def test_to_round_and_to_fold_a_norm_is_to_fold_and_to_round():
    plain = tiny().eval()
    for norm in (one for one in plain.modules() if isinstance(one, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            norm.weight.copy_(noise(len(norm.weight)))  # negative ones, too
            norm.bias.copy_(noise(len(norm.bias), seed=1))
            norm.running_mean.copy_(noise(len(norm.weight), seed=2))
            norm.running_var.copy_(noise(len(norm.weight), seed=3).abs())
    rounds = _RoundedWeight(64)

    def rounded(network: Network) -> Network:
        found = copy.deepcopy(network)
        for one in found.modules():
            if isinstance(one, nn.Conv2d):
                one.weight.data = rounds(one.weight.data)
        return found

    first = fuse(rounded(plain)).network(PICTURES)
    last = rounded(fuse(plain).network)(PICTURES)
    torch.testing.assert_close(first, last)
    assert not torch.allclose(first, plain(PICTURES), atol=1e-4)


# What of a network


def rounded_outputs(network: Network, images: Tensor) -> set[str]:
    quantized = FakeQuantization(network, images, "onnx")
    found = {
        name.removesuffix(".rounds_output")
        for name, _ in network.module.named_modules()
        if name.endswith(".rounds_output")
    }
    quantized.remove()
    return found


def test_what_a_norm_gives_a_sum_is_rounded_and_what_it_gives_an_activation_is_not():
    spec = InputSpec(32, 32, 3, (0.5,) * 3, (0.5,) * 3)
    found = rounded_outputs(Network(cifar_resnet(8), spec), torch.rand(2, 3, 32, 32))
    assert found == {f"layer{n}.0.bn2" for n in (1, 2, 3)} | {"linear"}


def test_what_only_convolutions_are_given_is_rounded_there():
    spec = InputSpec(64, 64, 3, (0.5,) * 3, (0.5,) * 3)
    network = Network(create_model("mobilenetv3_small_050", num_classes=10), spec)
    found = rounded_outputs(network, torch.rand(2, 3, 64, 64))
    assert {"blocks.0.0.bn1", "blocks.1.0.bn3", "classifier"} <= found  # to a gate, a sum, nothing
    assert not {"bn1", "blocks.1.0.bn1", "blocks.1.0.conv_pw"} & found  # to convolutions, a norm


class Changing(nn.Module):
    """An activation in place, then a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(1, 1, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(64, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images).relu_()
        return self.head((maps + self.second(maps)).flatten(1))


def test_what_is_changed_in_place_is_another_value():
    assert rounded_outputs(Network(Changing(), SPEC), PICTURES) == {"second", "head"}


def test_convolutions_get_256_values_and_multiply_by_129():
    network = tiny(width=6)
    quantized = FakeQuantization(network, PICTURES, "onnx")
    network.train()(torch.rand(200, 1, 8, 8))
    network.eval()
    conv = network.module.get_submodule("layer2.0")
    assert isinstance(conv, nn.Conv2d)
    given = given_to(conv)
    network(torch.rand(200, 1, 8, 8))
    assert 30 < len(given[0].unique()) <= 256
    weights = conv.weight.detach()
    scale = weights.abs().amax(dim=(1, 2, 3), keepdim=True) / 64
    torch.testing.assert_close(weights / scale, (weights / scale).round())
    quantized.remove()


def test_a_tap_sees_what_is_rounded():
    network = tiny(norm="group")
    network.tap(["head"], "student")
    quantized = FakeQuantization(network, PICTURES, "executorch")
    network.train().observe(PICTURES)
    network.eval()
    (kept,) = (network.observe(PICTURES, ["head"]).features.values(),)
    (seen,) = kept
    assert torch.equal(seen, network(PICTURES))
    quantized.remove()


def test_parameters_stay_the_same_objects_and_all_is_gone_afterwards():
    network = tiny().eval()
    parameters = {id(one) for one in network.parameters()}
    before = copy.deepcopy(network.state_dict())
    kinds = {name: type(one) for name, one in network.named_modules()}
    answer = network(PICTURES)
    quantized = FakeQuantization(network, PICTURES, "onnx")
    assert {id(one) for one in network.parameters()} == parameters
    network.train()(PICTURES)
    network.eval()
    assert not torch.equal(network(PICTURES), answer)
    quantized.remove()
    for name, value in before.items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(network.state_dict()[name], value)
    assert before.keys() == network.state_dict().keys()
    assert {name: type(one) for name, one in network.named_modules()} == kinds
    network.load_state_dict(before)
    assert torch.equal(network(PICTURES), answer)


def test_ranges_and_norms_stay_in_the_second_half():
    network = tiny()
    quantized = FakeQuantization(network, PICTURES, "onnx")
    network.train()
    quantized.follow(0.49)
    network(PICTURES)
    before = {name: value.clone() for name, value in network.named_buffers()}
    quantized.follow(0.5)
    network(3 * PICTURES)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    quantized.follow(0.0)
    network(3 * PICTURES)
    assert not all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    quantized.remove()


# Refusals


class Without(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3)).unsqueeze(1)


def with_computed_weight() -> Any:
    made = Tiny()
    nn.utils.parametrizations.weight_norm(made.head)
    return made


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Without(), "has no convolution and no linear layer"),
        (with_computed_weight(), "The weight of 'head' is computed from others"),
    ],
)
def test_what_cannot_be_quantized_is_refused_and_stays_as_it_was(module: nn.Module, message: str):
    network = Network(module, SPEC)
    before = set(dict(network.named_modules()))
    with pytest.raises(NetworkError, match=message):
        FakeQuantization(network, PICTURES, "onnx")
    assert set(dict(network.named_modules())) == before


def test_runtimes_are_those_that_settings_know():
    assert set(fake_quantization._STEPS) == {"onnx", "executorch"}
