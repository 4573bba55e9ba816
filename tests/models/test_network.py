"""A network is shown pixels: it resizes and normalizes by itself, and can be observed."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
import unchecked
from layouts_in_use import ChannelsLast, Several, Takes, Tokens
from torch import Tensor, nn

from tutelage.errors import NetworkError
from tutelage.models import create
from tutelage.models.network import Network, shape_of
from tutelage.types import InputSpec, Observation, ObservationShape

RGB = InputSpec(2, 2, 3, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
GRAY = InputSpec(2, 2, 1, (0.5,), (0.25,))


class Echo(nn.Module):
    """Puts out what it is shown."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def small(spec: InputSpec | None = GRAY) -> Network:
    layers = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 3)
    return Network(nn.Sequential(*layers), spec)


def test_each_channel_gets_its_own_mean_and_std():
    images = torch.tensor([0.5, 0.75, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    shown = Network(Echo(), RGB)(images)
    assert shown[0, :, 0, 0].tolist() == [0, 2, 1]
    assert torch.equal(shown, shown[..., :1, :1].expand_as(shown))


def test_pictures_of_another_size_are_resized_before_they_are_normalized():
    # Antialiased, bilinear: to half the size a place sees four, weighed 1, 3, 3, 1.
    row = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)
    shown = Network(Echo(), GRAY)(row)
    left = 1 / 7  # the left place sees three inside, weighed 3, 3, 1
    assert shown[0, 0, 0].tolist() == pytest.approx([(left - 0.5) / 0.25, (1 - left - 0.5) / 0.25])
    large = Network(Echo(), GRAY._replace(height=8, width=6))(row)
    assert large.shape == (1, 1, 8, 6)
    assert large.min() == pytest.approx(-2)
    assert large.max() == pytest.approx(2)


def test_pictures_of_the_right_size_are_not_touched_but_normalized():
    images = torch.rand(3, 1, 2, 2)
    assert torch.equal(Network(Echo(), GRAY)(images), (images - 0.5) / 0.25)


def test_a_constant_picture_stays_constant_in_any_size():
    constant = torch.full((1, 3, 7, 5), 0.75)
    shown = Network(Echo(), RGB._replace(height=3, width=11))(constant)
    for channel, value in zip(shown[0], (0.5, 2, 0.75), strict=True):
        torch.testing.assert_close(channel, torch.full((3, 11), float(value)))


def test_without_a_spec_images_are_handed_on_as_they_come():
    images = torch.randn(2, 5, 3, 4)
    assert Network(Echo())(images) is images


def test_a_gray_picture_is_shown_to_an_rgb_network_three_times():
    shown = Network(Echo(), RGB)(torch.full((1, 1, 2, 2), 0.5))
    assert shown[0, :, 0, 0].tolist() == [0, 1, 0.5]


def test_pictures_of_other_channels_are_refused():
    with pytest.raises(NetworkError, match=r"takes pictures of 1 channel\(s\), but these have 4"):
        Network(Echo(), GRAY)(torch.zeros(1, 4, 2, 2))


@pytest.mark.parametrize(
    "wrong", [{"channels": 3}, {"mean": (0.5, 0.5)}, {"std": (0.0,)}, {"std": ()}]
)
def test_a_spec_that_contradicts_itself_is_refused(wrong: dict):
    with pytest.raises(NetworkError, match="one mean and one std above 0 per channel"):
        Network(Echo(), GRAY._replace(**wrong))


def test_what_it_normalizes_with_is_not_among_the_weights_but_moves():
    network = small()
    assert set(network.state_dict()) == {f"module.{key}" for key in network.module.state_dict()}
    shown = network.double().prepare(torch.full((1, 1, 2, 2), 0.75, dtype=torch.float64))
    assert shown.dtype == torch.float64
    assert shown.unique().tolist() == [1.0]


# Observing


def test_an_observation_is_the_output_with_the_maps_at_the_taps():
    network, images = small().eval(), torch.rand(4, 1, 2, 2)
    network.tap(["0", "1"])
    seen = network.observe(images, ("1",))
    assert torch.equal(seen.output, network(images))
    assert list(seen.features) == ["1"]
    assert torch.equal(seen.features["1"], network.module[:2](network.prepare(images)))  # pyright: ignore
    assert seen.subnets == {}
    assert network.observe(images).features == {}


def test_outputs_are_float32_and_maps_stay_in_the_compute_dtype():
    network, images = small(), torch.rand(4, 1, 2, 2)
    network.tap(["0"])
    with torch.autocast("cpu", torch.bfloat16):
        seen = network.observe(images, ("0",))
    assert seen.output.dtype == torch.float32
    assert seen.features["0"].dtype == torch.bfloat16
    wide = network.double().observe(images.double(), ("0",))
    assert wide.output.dtype == wide.features["0"].dtype == torch.float64


def alive(shape: tuple[int, ...]) -> int:
    gc.collect()
    return sum(type(one) is Tensor and one.shape == shape for one in gc.get_objects())


def test_no_map_is_kept_afterwards():
    network, images = small(), torch.rand(7, 1, 2, 2)
    network.tap(["0"])
    seen = network.observe(images, ("0",))
    kept = weakref.ref(seen.features["0"])
    assert alive((7, 2, 2, 2)) > 0
    del seen
    assert alive((7, 2, 2, 2)) == 0
    assert kept() is None
    network(images)
    assert alive((7, 2, 2, 2)) == 0


class Fails(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise MemoryError


def test_no_map_is_kept_after_a_failure():
    network = Network(nn.Sequential(nn.Conv2d(1, 2, 1), Fails()), GRAY)
    network.tap(["0"])
    with pytest.raises(MemoryError):
        network.observe(torch.rand(7, 1, 2, 2), ("0",))
    assert alive((7, 2, 2, 2)) == 0


def test_a_copy_is_observed_on_its_own():
    network, images = small().eval(), torch.rand(4, 1, 2, 2)
    network.tap(["0"])
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        with torch.no_grad():
            other.module[0].weight.mul_(2)  # pyright: ignore
            other.module[0].bias.mul_(2)  # pyright: ignore
        twice = other.observe(images, ("0",)).features["0"]
        torch.testing.assert_close(twice, 2 * network.observe(images, ("0",)).features["0"])


# Dry runs


def test_a_dry_run_leaves_modes_and_buffers_as_they_were():
    network = small().train()
    network.module.get_submodule("1").eval()
    network.tap(["1"])
    modes = [module.training for module in network.modules()]
    state, generator = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    seen = network.dry_run(("1",))
    assert seen.output.shape == (2, 3)
    assert not seen.output.requires_grad
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_modes_come_back_after_a_failing_dry_run():
    network = Network(nn.Sequential(nn.Dropout(), Fails()), GRAY)
    with pytest.raises(MemoryError):
        network.dry_run(())
    assert all(module.training for module in network.modules())


def test_shapes_are_those_of_an_observation_without_the_batch():
    network = small()
    network.tap(["0"])
    assert shape_of(network.dry_run(("0",))) == ObservationShape((3,), {"0": (2, 2, 2)})
    nested = Observation(None, {}, {"half": Observation(torch.zeros(5, 2))})
    assert shape_of(nested) == ObservationShape(None, {}, {"half": ObservationShape((2,))})


def test_stages_are_found_in_the_networks_own_size():
    network = Network(create("resnet8", num_classes=4, in_channels=1, width=2), GRAY)
    wide = Network(network.module, GRAY._replace(height=12, width=8))
    assert [stage.shape for stage in wide.stages()] == [(2, 12, 8), (4, 6, 4), (8, 3, 2)]
    assert [stage.shape[1:] for stage in network.stages()] == [(2, 2)]


def test_without_a_spec_the_size_must_be_said():
    network = small(None)
    assert shape_of(network.dry_run((), (1, 2, 2))).output == (3,)
    with pytest.raises(NetworkError, match="input size is not known"):
        network.dry_run(())


class Skips(nn.Module):
    """Has a layer that it does not call, and one that puts out no map."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Conv2d(1, 1, 1)
        self.flat = nn.Flatten()

    def forward(self, images: Tensor) -> Tensor:
        return self.flat(images)


def test_a_tap_that_gives_no_map_is_refused():
    network = Network(Skips(), GRAY)
    network.tap(["unused", "flat"])
    with pytest.raises(NetworkError, match="'unused' is not called"):
        network.dry_run(("unused",))
    with pytest.raises(NetworkError, match="'unused' is not called"):
        network.observe(torch.rand(2, 1, 2, 2), ("unused",))
    with pytest.raises(NetworkError, match="'flat' puts out no map"):
        network.dry_run(("flat",))


class Lookup(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return {"a": images}["b"]


def test_a_mistake_inside_the_module_is_not_taken_for_a_missing_tap():
    with pytest.raises(KeyError, match="b"):
        Network(Lookup(), GRAY).dry_run(())


# What is no map by itself


COLOR = InputSpec(32, 32, 3, (0.0,) * 3, (1.0,) * 3)


def test_tokens_are_handed_out_as_maps():
    network, images = Network(Tokens(2), COLOR).eval(), torch.rand(3, 3, 32, 32)
    network.tap(["blocks.0", "norm"])
    seen = network.observe(images, ("blocks.0", "norm")).features
    module = network.module
    assert isinstance(module, Tokens)
    embedded = module.embed(images)
    front = module.front.expand(3, -1, -1)
    rows = module.blocks[0](torch.cat([front, embedded.flatten(2).transpose(1, 2)], dim=1))
    expected = rows[:, 2:].transpose(1, 2).reshape(3, 6, 4, 4)
    torch.testing.assert_close(seen["blocks.0"], expected)
    assert seen["norm"].shape == (3, 6, 4, 4)
    assert network.dry_run(("norm",)).features["norm"].shape == (2, 6, 4, 4)
    assert [stage.name for stage in network.stages()] == ["blocks"]


@pytest.mark.parametrize("channels", [5, 8])
def test_channels_that_lie_last_are_handed_out_first(channels: int):
    network, images = Network(ChannelsLast(channels), COLOR).eval(), torch.rand(3, 3, 32, 32)
    network.tap(["embed", "first"])
    seen = network.dry_run(("embed", "first")).features
    assert {name: value.shape for name, value in seen.items()} == {
        "embed": (2, channels, 8, 8),
        "first": (2, channels, 8, 8),
    }
    module, seen = network.module, network.observe(images, ("first",)).features
    assert isinstance(module, ChannelsLast)
    expected = module.first(module.embed(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(seen["first"], expected)


def test_one_of_several_maps_is_tapped_by_its_place():
    network, images = Network(Takes(Several()), COLOR), torch.rand(3, 3, 32, 32)
    network.tap(["inner", "inner.0", "inner.1", "inner.2", "linear.0"])
    seen = network.dry_run(("inner.0", "inner.1")).features
    assert [value.shape for value in seen.values()] == [(2, 4, 16, 16), (2, 4, 8, 8)]
    seen = network.observe(images, ("inner.1",)).features
    torch.testing.assert_close(seen["inner.1"], network.module.get_submodule("inner")(images)[1])
    with pytest.raises(NetworkError, match=r"'inner' puts out 2 things.*inner\.0"):
        network.dry_run(("inner",))
    for name in ("inner.2", "linear.0"):
        with pytest.raises(NetworkError, match=f"no sub-module '{name}'.*puts out no list"):
            network.dry_run((name,))


def test_a_copy_knows_how_the_outputs_are_maps():
    network = Network(Tokens(1), COLOR).eval()
    network.tap(["blocks"])
    network.dry_run(("blocks",))
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert other.observe(torch.rand(3, 3, 32, 32), ("blocks",)).features["blocks"].ndim == 4


CODE = """
import torch
from layouts_in_use import ChannelsLast, Tokens
from tutelage.models.network import Network

for module, taps in ((Tokens(1), ("blocks.0", "norm")), (ChannelsLast(8), ("embed", "first"))):
    network, images = Network(module), torch.rand(3, 3, 32, 32)
    network.tap(taps)
    network.dry_run(taps, (3, 32, 32))
    compiled = torch.compile(network.observe, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images, taps), network.observe(images, taps))
"""


@pytest.mark.slow
def test_taps_compile_as_one_graph():
    unchecked.run(CODE)
