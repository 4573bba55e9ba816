"""Folded batch norms: the same answers under the same names, and nothing folded that is needed."""

import warnings
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
from torch import Tensor, nn

from tutelage.errors import NoEffectWarning
from tutelage.models import create
from tutelage.models.class_map import Strange
from tutelage.models.fusing import executed_batch_norms, fuse
from tutelage.models.network import Network
from tutelage.taps import evaluating
from tutelage.types import InputSpec

SPEC = InputSpec(16, 16, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
SMALL = InputSpec(8, 8, 4, (0.0,) * 4, (1.0,) * 4)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def trained(module: nn.Module) -> nn.Module:
    """With norms that do something."""
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d):
            assert one.running_mean is not None
            assert one.running_var is not None
            nn.init.normal_(one.running_mean)
            nn.init.uniform_(one.running_var, 0.3, 3.0)
            nn.init.normal_(one.weight, 1.0, 0.3)
            nn.init.normal_(one.bias)
    return module


def cifar(shortcut: str = "A") -> Network:
    module = create("resnet14", num_classes=5, in_channels=3, width=8, shortcut=shortcut)
    return Network(trained(module), SPEC)


def images(spec: InputSpec = SPEC) -> Tensor:
    shape = (4, spec.channels, spec.height, spec.width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


class Odd(nn.Module):
    """A convolution, a norm, and something else."""

    def __init__(self, forward: Callable[["Odd", Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        for name, part in parts.items():
            self.add_module(name, part)
        self._way = forward

    def forward(self, maps: Tensor) -> Tensor:
        return self._way(self, maps)


def odd(forward: Callable[[Odd, Tensor], Tensor], **parts: nn.Module) -> Network:
    return Network(trained(Odd(forward, **parts)), SMALL)


def close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-5 * one.abs().max())


# What is folded


@pytest.mark.parametrize(("shortcut", "norms"), [("A", 13), ("B", 15)])
def test_a_folded_network_gives_the_same_maps_at_its_stages_and_executes_no_norm(
    shortcut: str, norms: int
):
    network = cifar(shortcut).eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    fused = fuse(network)
    assert len(fused.folded) == norms
    assert fused.left == {}
    assert fused.network is not network
    assert executed_batch_norms(network, images()) == norms
    assert executed_batch_norms(fused.network, images()) == 0
    taps = [stage.name for stage in network.stages()]
    assert [stage.name for stage in fused.network.stages()] == taps
    for one in (network, fused.network):
        one.tap(taps)
    with evaluating(network), evaluating(fused.network):
        seen, again = (one.observe(images(), taps) for one in (network, fused.network))
    assert close(seen.output, again.output)
    for name in taps:
        assert close(seen.features[name], again.features[name])
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_norms_are_replaced_under_their_names():
    network = fuse(cifar()).network
    assert type(network.module.get_submodule("layer1.0.bn1")) is nn.Identity
    conv = network.module.get_submodule("layer1.0.conv1")
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_taps_that_are_there_keep_working():
    network = cifar()
    network.tap(["layer1", "layer2"])
    fused = fuse(network).network
    with evaluating(network), evaluating(fused):
        seen = network.observe(images(), ["layer1"]).features["layer1"]
        assert close(seen, fused.observe(images(), ["layer1"]).features["layer1"])


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolutions_of_every_kind_are_folded(groups: int, dilation: int):
    conv = nn.Conv2d(4, 8, 3, stride=2, groups=groups, dilation=dilation)
    network = Network(trained(nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU())), SMALL)
    fused = fuse(network)
    assert fused.folded == ("1",)
    with evaluating(network), evaluating(fused.network):
        assert close(network(images(SMALL)), fused.network(images(SMALL)))


class Activated(nn.BatchNorm2d):
    """A norm that activates, as timm's do."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = nn.SiLU()

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


def test_the_activation_of_a_norm_stays():
    layers = nn.Sequential(nn.Conv2d(4, 8, 1), Activated(8), nn.Conv2d(8, 4, 1))
    network = Network(trained(layers), SMALL)
    fused = fuse(network)
    assert fused.folded == ("1",)
    assert executed_batch_norms(fused.network, images(SMALL)) == 0
    with evaluating(network), evaluating(fused.network):
        assert close(network(images(SMALL)), fused.network(images(SMALL)))


# What is not


class Scaled(nn.BatchNorm2d):
    """A norm that does more, and does not say so."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Normalized(nn.Conv2d):
    """A convolution that changes its weight on the way."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight / self.weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        return self._conv_forward(input, weight, self.bias)


def _in_place(module: Odd, maps: Tensor) -> Tensor:
    inner = module.conv(maps)
    inner.relu_()
    return module.norm(inner)


def _both(module: Odd, maps: Tensor) -> Tensor:
    inner = module.conv(maps)
    return module.norm(inner) + inner


def _viewed(module: Odd, maps: Tensor) -> Tensor:
    inner = module.conv(maps)
    return module.norm(inner) + inner.view(-1)[0]


def _returned(module: Odd, maps: Tensor) -> Tensor:
    inner = module.conv(maps)
    return torch.stack([module.norm(inner), inner])


def _norm_twice(module: Odd, maps: Tensor) -> Tensor:
    return module.norm(module.norm(module.conv(maps)))


def _conv_twice(module: Odd, maps: Tensor) -> Tensor:
    return module.norm(module.conv(module.conv(maps)))


def _norm_first(module: Odd, maps: Tensor) -> Tensor:
    return module.conv(module.norm(maps))


def _no_norm(module: Odd, maps: Tensor) -> Tensor:
    return module.conv(maps)


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (_both, "the output of conv is used, or looked at, elsewhere too"),
        (_viewed, "the output of conv is used, or looked at, elsewhere too"),
        (_returned, "the output of conv is used, or looked at, elsewhere too"),
        (_in_place, "the output of conv is used, or looked at, elsewhere too"),
        (_norm_twice, "it or conv is used several times"),
        (_conv_twice, "it or conv is used several times"),
        (_norm_first, "what it normalizes does not come from a convolution"),
        (_no_norm, "it is not called"),
    ],
)
def test_what_has_another_use_is_left_and_said(way: Callable[[Odd, Tensor], Tensor], reason: str):
    network = odd(way)
    with pytest.warns(NoEffectWarning, match=f"No batch norm could be folded.*; norm: {reason}"):
        fused = fuse(network)
    assert fused.network is network
    assert fused.folded == ()
    assert fused.left == {"norm": reason}


def test_what_has_another_use_hinders_nobody_else():
    network = odd(
        lambda module, maps: _both(module, module.get_submodule("stem")(maps)),
        stem=nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
    )
    fused = fuse(network)
    assert fused.folded == ("stem.1",)
    assert list(fused.left) == ["norm"]
    assert executed_batch_norms(fused.network, images(SMALL)) == 1
    with evaluating(network), evaluating(fused.network):
        assert close(network(images(SMALL)), fused.network(images(SMALL)))


@pytest.mark.parametrize(
    "layers",
    [
        nn.Sequential(nn.Conv2d(4, 4, 3), Scaled(4)),
        nn.Sequential(Normalized(4, 4, 3), nn.BatchNorm2d(4)),
    ],
)
def test_what_does_more_than_its_name_says_is_left(layers: nn.Module):
    network = Network(trained(layers), SMALL)
    with pytest.warns(NoEffectWarning, match="does more than its name says"):
        assert fuse(network).network is network


def test_a_norm_without_statistics_is_left():
    layers = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.warns(NoEffectWarning, match="it keeps no running statistics"):
        fuse(Network(layers, SMALL))


def test_a_convolution_that_is_looked_at_keeps_its_output():
    network = cifar()
    fused = fuse(network, taps=["layer1.0.conv1"])
    assert list(fused.left) == ["layer1.0.bn1"]
    network.tap(["layer1.0.conv2"])
    assert list(fuse(network).left) == ["layer1.0.bn2"]


def test_a_network_without_norms_says_so():
    with pytest.warns(NoEffectWarning, match="folded into a convolution: the network has none"):
        fuse(Network(nn.Sequential(nn.Conv2d(4, 4, 3)), SMALL))


@pytest.mark.parametrize("mapped", [False, True])
def test_a_copy_that_answers_otherwise_is_thrown_away(mapped: bool):
    class Aware(nn.Module):
        """Looks whether somebody has changed it."""

        def __init__(self) -> None:
            super().__init__()
            self.body = trained(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))

        def forward(self, maps: Tensor) -> Tensor:
            last = self.body.get_submodule("1")
            return self.body(maps) * (1 if isinstance(last, nn.BatchNorm2d) else 2)

    strange = Strange(3) if mapped else None  # which leaves nothing of the answers
    network = Network(Aware(), SMALL, class_map=strange)
    with pytest.warns(NoEffectWarning, match="folded, the network answers otherwise"):
        assert fuse(network).network is network


class Asking(nn.BatchNorm2d):
    """Wants to be told something."""

    def forward(self, input: Tensor, twice: bool = True) -> Tensor:
        return super().forward(input) * (2 if twice else 1)


@pytest.mark.parametrize(
    ("way", "norm", "reason"),
    [
        (
            lambda net, maps: net.norm(net.conv(maps)) * net.norm.num_features,
            nn.BatchNorm2d(4),
            "does not run",
        ),
        (lambda net, maps: net.norm(net.conv(maps), False), Asking(4), "more than its name says"),
    ],
)
def test_a_network_that_a_folded_norm_would_break_stays_as_it_is(
    way: Callable[[Odd, Tensor], Tensor], norm: nn.Module, reason: str
):
    network = odd(way, norm=norm)
    with pytest.warns(NoEffectWarning, match=reason):
        fused = fuse(network)
    assert fused.network is network
    assert fused.folded == ()


@pytest.mark.parametrize("parametrization", ["weight_norm", "spectral_norm", "orthogonal"])
def test_computed_weights_are_left(parametrization: str):
    conv = getattr(nn.utils.parametrizations, parametrization)(nn.Conv2d(4, 4, 3))
    network = Network(trained(nn.Sequential(conv, nn.BatchNorm2d(4))), SMALL)
    with pytest.warns(NoEffectWarning, match="are computed from others"):
        assert fuse(network).network is network


def test_a_shared_convolution_is_left():
    shared = nn.Conv2d(4, 4, 3, padding=1)
    network = Network(
        trained(nn.Sequential(shared, nn.BatchNorm2d(4), shared, nn.BatchNorm2d(4))), SMALL
    )
    with pytest.warns(NoEffectWarning, match="used several times"):
        assert set(fuse(network).left) == {"1", "3"}


# Families whose traced graphs lose everything


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folded", "left"),
    [
        ("resnet18", 20, 0),
        ("mobilenetv3_small_100", 34, 0),
        ("efficientnet_b0", 49, 0),
        ("regnetx_002", 44, 0),
        ("vgg11_bn", 8, 0),
        ("densenet121", 59, 62),
    ],
)
def test_families_of_timm_are_folded_under_their_names(name: str, folded: int, left: int):
    module = trained(timm.create_model(name, num_classes=7))
    network = Network(module, InputSpec(64, 64, 3, (0.5,) * 3, (0.2,) * 3))
    fused = fuse(network)
    assert (len(fused.folded), len(fused.left)) == (folded, left)
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert executed_batch_norms(fused.network, pictures) == left
    stages = [stage.name for stage in network.stages()]
    assert [stage.name for stage in fused.network.stages()] == stages
    with evaluating(network), evaluating(fused.network):
        ours, theirs = network(pictures), fused.network(pictures)
    assert (ours - theirs).abs().max() <= 1e-4 * ours.abs().max()
