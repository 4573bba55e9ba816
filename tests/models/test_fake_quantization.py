"""Rounding in training: worked out by hand, against PyTorch's own, and taken away again."""

import copy
from typing import Any, get_args, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_run import SPEC, Tiny, tiny
from timm import create_model
from timm.layers.std_conv import StdConv2d
from torch import Tensor, nn
from torch.nn import functional

from tutelage.engine import TrainSettings
from tutelage.errors import NetworkError
from tutelage.models import fake_quantization
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.depth_dynamic import DepthDynamic
from tutelage.models.fake_quantization import (
    FakeQuantization,
    Runtime,
    _Range,
    _rounded_weight,
)
from tutelage.models.fusing import fuse
from tutelage.models.network import Network
from tutelage.models.timm_zoo import zoo_factory
from tutelage.models.uses import watch
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


def seen_range(values: Tensor) -> _Range:
    """Whose range is that of these values."""
    found = _Range()
    found(values)
    return found.eval()


# Numbers


def test_each_channel_of_a_weight_has_its_own_scale():
    weight = torch.tensor([[0.5, -1.0, 0.01], [0.3, 0.1, 0.0]])
    # Row 1: steps of 1/64: 32, -64, 0.64 → 1. Row 2: of 0.3/64: 64, 21.33 → 21, 0.
    expected = torch.tensor([[32, -64, 1], [64, 21, 0]]) * torch.tensor([[1 / 64], [0.3 / 64]])
    torch.testing.assert_close(_rounded_weight(weight, 64), expected)


def test_a_weight_of_zeros_stays():
    weight = torch.zeros(2, 3, 3, 3, requires_grad=True)
    rounded = _rounded_weight(weight, 127)
    rounded.sum().backward()
    assert weight.grad is not None
    assert (rounded == 0).all()
    assert (weight.grad == 1).all()


def test_a_map_is_rounded_to_256_levels_of_which_one_is_zero():
    rounded = seen_range(torch.tensor([-1.0, 2.0]))(torch.tensor([-1.0, 0.0, 0.31, 2.0, -1.5, 7.0]))
    # Steps of 3/255, zero at 85: 0.31 is 26.35 of them, so 26; the last two lie outside.
    expected = torch.tensor([-1.0, 0.0, 26 * 3 / 255, 2.0, -1.0, 2.0])
    torch.testing.assert_close(rounded, expected)


def test_a_range_is_a_mean_that_moves_slowly_and_always_holds_zero():
    found = _Range()
    found(torch.tensor([0.5, 2.0]))
    assert (found.low.item(), found.high.item()) == (0, 2)
    found(torch.tensor([-3.0, 4.0]))  # the mean of both
    assert (found.low.item(), found.high.item()) == (-1.5, 3)
    found.calls.fill_(200)
    found(torch.tensor([-3.5, 4.0]))
    assert found.low.item() == pytest.approx(-1.5 - 0.01 * 2)
    assert found.high.item() == pytest.approx(3 + 0.01)
    found.eval()
    found(torch.tensor([-30.0, 40.0]))
    assert found.high.item() == pytest.approx(3 + 0.01)


def test_what_has_seen_nothing_rounds_nothing():
    values = noise(10)
    assert torch.equal(_Range().eval()(values), values)


def test_the_gradient_passes_inside_of_the_range_only():
    values = torch.tensor([-1.5, -1.0, -0.4, 0.0, 1.9, 2.0, 2.5], requires_grad=True)
    seen_range(torch.tensor([-1.0, 2.0]))(values).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


@given(seed=st.integers(0, 1000), shift=st.floats(-3, 3))
def test_a_map_is_rounded_as_pytorch_does(seed: int, shift: float):
    values = noise(50, seed=seed) + shift
    low, high = min(values.min().item(), 0.0), max(values.max().item(), 0.0)
    scale = (high - low) / 255
    expected = torch.fake_quantize_per_tensor_affine(values, scale, round(-low / scale), 0, 255)
    found = seen_range(values)(values)
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
        one.training = isinstance(one, _Range)
    network(PICTURES)
    step = maps[0].max() / 255
    for values in (maps[0], means[0]):
        torch.testing.assert_close(values / step, (values / step).round(), atol=1e-3, rtol=0)
    assert not torch.equal(means[0], maps[0].mean(dim=(2, 3)))
    quantized.remove()
    onnx = FakeQuantization(network, PICTURES, "onnx")
    for one in network.modules():
        one.training = isinstance(one, _Range)
    maps.clear()
    network(PICTURES)
    assert not torch.allclose(maps[0] / step, (maps[0] / step).round(), atol=1e-3)
    onnx.remove()


SOURCES = {
    # Sums and activations in place: what is averaged is what came out of them.
    "torchvision/resnet18": {"fc": "layer4"},
    "timm/resnet10t": {"fc": "layer4"},
    "timm/efficientnet_lite0": {"classifier": "bn2"},
    "timm/mobilenetv3_small_050": {
        **{
            f"blocks.{name}.se.conv_reduce": f"blocks.{name}.aa"
            for name in ("0.0", "2.0", "2.1", "2.2", "3.0", "3.1", "4.0", "4.1", "4.2")
        },
        "conv_head": "blocks",
    },
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_map_that_is_averaged_is_found_behind_what_happens_in_place(name: str):
    spec = InputSpec(64, 64, 3, (0.5,) * 3, (0.5,) * 3)
    network = Network(zoo_factory(name)(num_classes=10, in_channels=3), spec)
    assert watch(network, torch.rand(2, 3, 64, 64)).pooled() == SOURCES[name]


@pytest.mark.parametrize(
    "name",
    ["torchvision/resnet18", "timm/mobilenetv3_small_050", "timm/tf_efficientnet_lite0"],
)
def test_for_executorch_no_mean_is_clipped(name: str):
    """A range of another tensor would cut it."""
    spec = InputSpec(64, 64, 3, (0.5,) * 3, (0.5,) * 3)
    network = Network(zoo_factory(name)(num_classes=10, in_channels=3), spec).eval()
    images = torch.rand(4, 3, 64, 64)
    plain = network(images)
    quantized = FakeQuantization(network, images, "executorch")
    for one in network.modules():
        one.training = isinstance(one, _Range)
    error = (network(images) - plain).abs().max() / plain.abs().max()
    assert 0 < error < 0.2
    quantized.remove()


@pytest.mark.parametrize("steps", [64, 127])
def test_a_weight_is_rounded_as_pytorch_does(steps: int):
    weight = noise(5, 4, 3, 3)
    scale = weight.abs().amax(dim=(1, 2, 3)) / steps
    zero = torch.zeros(5, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -steps, steps)
    torch.testing.assert_close(_rounded_weight(weight, steps), expected)


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

    def rounded(network: Network) -> Network:
        found = copy.deepcopy(network)
        for one in found.modules():
            if isinstance(one, nn.Conv2d):
                one.weight.data = _rounded_weight(one.weight.data, 64)
        return found

    first = fuse(rounded(plain)).network(PICTURES)
    last = rounded(fuse(plain).network)(PICTURES)
    torch.testing.assert_close(first, last)
    assert not torch.allclose(first, plain(PICTURES), atol=1e-4)


# What of a network


def rounded_outputs(network: Network, images: Tensor) -> set[str]:
    return set(watch(network, images).put_out())


def test_what_a_norm_gives_a_sum_is_rounded_and_what_it_gives_an_activation_is_not():
    spec = InputSpec(32, 32, 3, (0.5,) * 3, (0.5,) * 3)
    found = rounded_outputs(Network(cifar_resnet(8), spec), torch.rand(2, 3, 32, 32))
    assert found == {f"layer{n}.0.bn2" for n in (1, 2, 3)} | {"linear"}


def test_of_an_activation_that_does_not_clip_both_sides_are_rounded():
    """Though timm has it inside of the norm."""
    spec = InputSpec(64, 64, 3, (0.5,) * 3, (0.5,) * 3)
    network = Network(create_model("mobilenetv3_small_050", num_classes=10), spec)
    images = torch.rand(2, 3, 64, 64)
    found = rounded_outputs(network, images)
    # Before hard swish; of a linear block, into a sum; the end.
    assert {"bn1.drop", "blocks.1.0.bn3.drop", "classifier"} <= found
    assert not {"blocks.0.0.bn1.drop", "blocks.1.0.conv_pw"} & found  # before ReLU, before a norm
    quantized = FakeQuantization(network, images, "onnx")
    for one in network.modules():
        one.training = isinstance(one, _Range)
    given = given_to(network.module.get_submodule("bn1.act"))
    network(images)
    assert 100 < len(given[0].unique()) <= 256
    quantized.remove()


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


def test_convolutions_get_256_values_and_multiply_by_129(monkeypatch: pytest.MonkeyPatch):
    network = tiny(width=6)
    quantized = FakeQuantization(network, PICTURES, "onnx")
    network.train()(torch.rand(200, 1, 8, 8))
    network.eval()
    seen: list[tuple[Tensor, Tensor]] = []
    plain = functional.conv2d

    def noting(given: Tensor, weight: Tensor, *others: Any) -> Tensor:
        seen.append((given, weight))
        return plain(given, weight, *others)

    monkeypatch.setattr(functional, "conv2d", noting)
    network(torch.rand(200, 1, 8, 8))
    assert len(seen) == 2
    for given_to_it, weight in seen:
        assert 30 < len(given_to_it.unique()) <= 256
        scale = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 64
        torch.testing.assert_close(weight / scale, (weight / scale).round())
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
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in network.modules())
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
    network.train()
    network(3 * PICTURES)
    assert not all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    quantized.follow(0.9)
    quantized.remove()
    assert all(one.training for one in network.modules())


def test_a_norm_that_its_owner_froze_stays_frozen():
    network = tiny().train()
    frozen = network.module.get_submodule("layer1.1").eval()
    quantized = FakeQuantization(network, PICTURES, "onnx")
    quantized.follow(0.1)
    quantized.follow(0.6)
    quantized.remove()
    assert not frozen.training
    assert network.module.get_submodule("layer2.1").training
    quantized.remove()  # does nothing


def test_a_copy_is_rounded_by_ranges_of_its_own():
    network = tiny()
    quantized = FakeQuantization(network, PICTURES, "onnx")
    network.train()(PICTURES)
    other = copy.deepcopy(network)
    with pytest.raises(NetworkError, match="or what it is a copy of, is being quantized already"):
        FakeQuantization(other, PICTURES, "onnx")
    torch.testing.assert_close(other.eval()(PICTURES), network.eval()(PICTURES))
    ranges = {name: value.clone() for name, value in network.named_buffers()}
    other.train()(9 * PICTURES)
    assert all(torch.equal(value, ranges[name]) for name, value in network.named_buffers())
    quantized.remove()
    assert other.eval()(PICTURES).isfinite().all()


def test_a_weight_is_its_own_again_where_a_pass_fails():
    network = tiny()
    quantized = FakeQuantization(network, PICTURES, "onnx")
    with pytest.raises(RuntimeError):
        network.module(torch.rand(2, 7, 8, 8))
    for one in network.modules():
        if isinstance(one, nn.Conv2d | nn.Linear):
            assert one.weight is one._parameters["weight"]
    quantized.remove()


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(input=self.conv(input=images).mean(dim=(2, 3)))


def test_a_layer_may_be_given_its_input_by_name():
    network = Network(ByName(), SPEC)
    quantized = FakeQuantization(network, PICTURES, "executorch")
    answer = network.train()(PICTURES)
    quantized.remove()
    assert not torch.equal(answer, network(PICTURES))


class Residual(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)


def test_a_module_that_runs_its_children_runs_no_more_of_them():
    blocks = nn.Sequential(Residual(nn.Conv2d(1, 1, 3, padding=1)), nn.AdaptiveAvgPool2d(1))
    network = Network(nn.Sequential(blocks, nn.Flatten(), nn.Linear(1, 3)), SPEC)
    names = [name for name, _ in network.module.named_modules()]
    quantized = FakeQuantization(network, PICTURES, "executorch")
    assert [name for name, _ in network.module.named_modules()] == names
    network.train()(PICTURES)
    calls = [int(one.calls) for one in network.modules() if isinstance(one, _Range)]
    assert set(calls) == {1}
    quantized.remove()


# Refusals


class Without(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3)).unsqueeze(1)


def with_computed_weight() -> nn.Module:
    made = Tiny()
    nn.utils.parametrizations.weight_norm(made.head)
    return made


def with_standardized_weight() -> nn.Module:
    made = Tiny()
    made.layer1 = nn.Sequential(StdConv2d(1, 4, 3, stride=2, padding=1), nn.ReLU())
    return made


def with_sub_nets() -> nn.Module:
    return DepthDynamic(cifar_resnet(14, 4, num_classes=3, in_channels=1), {"8": 1})


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Without(), "No convolution and no linear layer of the student is called"),
        (with_computed_weight(), r"'head' \(ParametrizedLinear\) does more with its weight"),
        (with_standardized_weight(), r"'layer1.0' \(StdConv2d\) does more with its weight"),
        (
            Tiny().bfloat16(),
            "computed in float32, but weights of the student are in torch.bfloat16",
        ),
        (with_sub_nets(), r"has sub-nets \(8\), .* student: {run: FOLDER, subnet: NAME}"),
    ],
)
def test_what_cannot_be_quantized_is_refused_and_stays_as_it_was(module: nn.Module, message: str):
    network = Network(module, SPEC)
    before = set(dict(network.named_modules()))
    hooks = [len(one._forward_hooks) for one in network.modules()]
    with pytest.raises(NetworkError, match=message):
        FakeQuantization(network, PICTURES, "onnx")
    assert set(dict(network.named_modules())) == before
    assert [len(one._forward_hooks) for one in network.modules()] == hooks


class Twice(nn.Module):
    """A head that is given the mean over a map, and then something else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        means = self.conv(images).mean(dim=(2, 3))
        return self.head(means) + self.head(100 * means.abs())


def test_a_layer_that_is_called_twice_has_a_range_of_its_own():
    assert watch(Network(Twice(), SPEC), PICTURES).pooled() == {}


def test_one_at_a_time():
    network = tiny()
    quantized = FakeQuantization(network, PICTURES, "onnx")
    with pytest.raises(NetworkError, match="is being quantized already"):
        FakeQuantization(network, PICTURES, "onnx")
    quantized.remove()
    FakeQuantization(network, PICTURES, "executorch").remove()


def test_runtimes_are_those_that_settings_know():
    assert set(fake_quantization._STEPS) == set(get_args(Runtime))
    assert get_type_hints(TrainSettings)["quantization"] == Runtime | None
