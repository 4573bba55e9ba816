"""Reading maps out of networks: nothing stays, nothing changes, stages are where one expects."""

import copy
import gc
import weakref
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small, resnet18

from tutelage.errors import NetworkError
from tutelage.layouts import Layout
from tutelage.models import create
from tutelage.taps import Recorder, Stage, find_stages, pair_stages
from tutelage.types import Pair


def chain() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(1, 2, 3, padding=1),
            second=nn.Conv2d(2, 3, 3, stride=2, padding=1),
            pool=nn.AdaptiveAvgPool2d(1),
        )
    )


def recorded(names: list[str]) -> tuple[nn.Sequential, Recorder]:
    module, recorder = chain(), Recorder()
    recorder.attach(module, names, "student")
    return module, recorder


def test_what_the_sub_modules_put_out_is_kept_between_start_and_stop():
    module, recorder = recorded(["first", "second"])
    images = torch.rand(2, 1, 8, 8)
    module(images)
    recorder.start()
    module(images)
    kept = recorder.stop()
    assert torch.equal(kept["first"], module[0](images))
    assert torch.equal(kept["second"], module[1](kept["first"]))
    recorder.start()
    assert recorder.stop() == {}


def test_a_name_is_hooked_once():
    module, recorder = recorded(["first"])
    recorder.attach(module, ["first", "second"], "student")
    assert [len(child._forward_hooks) for child in module] == [1, 1, 0]


@pytest.mark.parametrize("name", ["0.1", "second.x", "nowhere.0", "."])
def test_places_are_counted_behind_sub_modules_without_numbered_ones(name: str):
    inner = nn.Sequential(chain(), nn.ReLU())
    with pytest.raises(NetworkError, match="has no sub-module"):
        Recorder().attach(nn.Sequential(nn.Sequential(inner)), [name], "student")


def test_what_is_known_to_be_no_map_is_handed_out_as_one():
    module, recorder = recorded(["second"])
    recorder.layouts["second"] = Layout("nhwc")
    recorder.start()
    module(torch.rand(2, 1, 8, 6))
    assert recorder.stop()["second"].shape == (2, 3, 3, 4)


def test_a_copy_of_a_network_writes_to_the_copy_of_its_recorder():
    module, recorder = recorded(["first"])
    other, copied = copy.deepcopy((module, recorder))
    copied.start()
    recorder.start()
    other(torch.zeros(1, 1, 8, 8))
    assert recorder.stop() == {}
    assert copied.stop().keys() == {"first"}


def test_no_map_outlives_the_observation():
    module, recorder = recorded(["first", "second"])
    recorder.start()
    module(torch.rand(2, 1, 8, 8))
    kept = recorder.stop()
    maps = [weakref.ref(value) for value in kept.values()]
    assert all(one() is not None for one in maps)
    del kept
    gc.collect()
    assert all(one() is None for one in maps)


@pytest.mark.parametrize("name", ["frist", ""])
def test_an_unknown_tap_is_refused_with_the_nearest(name: str):
    with pytest.raises(NetworkError, match="The teacher has no sub-module") as caught:
        Recorder().attach(chain(), [name], "teacher")
    assert "Known: first, pool, second" in str(caught.value)
    assert ("did you mean first?" in str(caught.value)) == (name == "frist")


# Stages


@pytest.mark.parametrize("name", ["resnet8", "resnet56"])
def test_the_stages_of_a_small_residual_network_are_its_layers(name: str):
    network = create(name, num_classes=10, in_channels=3)
    assert find_stages(network, torch.zeros(1, 3, 32, 32)) == [
        Stage("layer1", (16, 32, 32), (1, 1)),
        Stage("layer2", (32, 16, 16), (2, 2)),
        Stage("layer3", (64, 8, 8), (4, 4)),
    ]


def test_the_stages_of_resnet18_are_its_stem_and_layers():
    stages = find_stages(resnet18(), torch.zeros(1, 3, 64, 64))
    assert [stage.name for stage in stages] == ["relu", "layer1", "layer2", "layer3", "layer4"]
    assert [stage.stride[0] for stage in stages] == [2, 4, 8, 16, 32]
    assert [stage.shape[0] for stage in stages] == [64, 64, 128, 256, 512]


def test_mobilenet_has_one_stage_per_stride_and_so_pairs_with_a_resnet():
    images = torch.zeros(1, 3, 64, 64)
    mobile, residual = find_stages(mobilenet_v3_small(), images), find_stages(resnet18(), images)
    assert [stage.stride[0] for stage in mobile] == [2, 4, 8, 16, 32]
    assert [pair.teacher for pair in pair_stages(mobile, residual)] == [
        stage.name for stage in residual
    ]


class Shared(nn.Module):
    """One rectifier for all, as many write it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1)
        self.second = nn.Conv2d(2, 3, 2, stride=2)
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(images))))


def test_a_sub_module_called_twice_stands_for_its_last_call():
    stages = find_stages(Shared(), torch.zeros(1, 1, 8, 4))
    assert stages == [Stage("first", (2, 8, 4), (1, 1)), Stage("relu", (3, 4, 2), (2, 2))]


def test_single_places_and_vectors_are_no_stages():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    assert find_stages(flat, torch.zeros(1, 1, 4, 4)) == []
    assert [stage.name for stage in find_stages(chain(), torch.zeros(1, 1, 8, 8))] == [
        "first",
        "second",
    ]


def test_the_search_leaves_the_network_as_it_was():
    network = resnet18().train()
    network.layer1.eval()
    modes = [module.training for module in network.modules()]
    state = copy.deepcopy(network.state_dict())
    find_stages(network, torch.rand(1, 3, 32, 32))
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_failing_search_leaves_no_hook():
    network = chain()
    with pytest.raises(RuntimeError):
        find_stages(network, torch.zeros(1, 5, 8, 8))
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def stage(name: str, stride: int) -> Stage:
    return Stage(name, (1, 1, 1), (stride, stride))


def test_stages_of_equal_stride_are_pairs():
    student = [stage("a", 1), stage("b", 4), stage("c", 8)]
    teacher = [stage("z", 8), stage("x", 2), stage("y", 4)]
    assert pair_stages(student, teacher) == (Pair("b", "y"), Pair("c", "z"))
    assert pair_stages(student, []) == ()


STRIDES = st.lists(st.sampled_from([1, 2, 4, 8, 16]), unique=True)


@given(STRIDES, STRIDES)
def test_pairs_are_the_common_strides_in_the_order_of_the_student(one: list[int], two: list[int]):
    pairs = pair_stages([stage(f"s{n}", n) for n in one], [stage(f"t{n}", n) for n in two])
    assert pairs == tuple(Pair(f"s{n}", f"t{n}") for n in one if n in two)
