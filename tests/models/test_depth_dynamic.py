"""One set of weights, several depths: what is shared, what is not, and what is taken out."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
import unchecked
from torch import Tensor, nn

from tutelage.errors import NetworkError, SettingError
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.depth_dynamic import DepthDynamic, Norms
from tutelage.models.network import Network
from tutelage.taps import evaluating
from tutelage.types import InputSpec

MAKERS: dict[str, Callable[[], nn.Module]] = {
    "cifar": lambda: cifar_resnet(20, 4),
    "cifar B": lambda: cifar_resnet(20, 4, shortcut="B"),
    "cifar group": lambda: cifar_resnet(20, 4, norm="group"),
    # Not zero-initialized: every block would begin as its shortcut, and all depths be one.
    "timm basic": lambda: timm.create_model("resnet18", num_classes=10, zero_init_last=False),
    "timm bottleneck": lambda: timm.create_model(
        "resnet26t", num_classes=10, drop_path_rate=0.2, zero_init_last=False
    ),
    "torchvision": lambda: torchvision.models.resnet18(num_classes=10),
}
ALL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
NORMS = pytest.mark.parametrize("norms", ["separate", "shared"])


def depths(network: nn.Module) -> list[int]:
    return [
        len(list(child.children())) for name, child in network.named_children() if "layer" in name
    ]


def images(n: int = 3, size: int = 32) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def trained(network: DepthDynamic, steps: int = 2) -> DepthDynamic:
    """After some steps, so that norms differ from how they began."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for step in range(steps):
        output, _, subnets = network.train().call_all(images(4) + 0.1 * step)
        loss = output.tanh().mean() + sum(s.output.tanh().mean() for s in subnets.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@NORMS
@ALL
def test_the_whole_is_the_plain_network_and_so_is_a_sub_net_of_all_blocks(
    make: Callable[[], nn.Module], norms: Norms
) -> None:
    plain = make().eval()
    network = DepthDynamic(copy.deepcopy(plain), {"all": depths(plain), "few": 1}, norms=norms)
    network.eval()
    with torch.no_grad():
        wanted = plain(images())
        assert torch.equal(network(images()), wanted)
        assert torch.equal(network.use("all")(images()), wanted)
        assert not torch.equal(network.use("few")(images()), wanted)
        assert torch.equal(network.use("full")(images()), wanted)
    assert network.counts["few"] == (1,) * len(depths(plain))
    shared = {key for key in network.state_dict() if not key.startswith("subnet_norms")}
    assert shared == plain.state_dict().keys()


@NORMS
@ALL
def test_what_is_taken_out_answers_the_same_and_holds_nothing_else(
    make: Callable[[], nn.Module], norms: Norms
) -> None:
    plain = make()
    counts = [max(1, count - 1) for count in depths(plain)]
    network = trained(DepthDynamic(plain, {"less": counts, "few": 1}, norms=norms))
    network.tap(["layer1", "layer2"])
    for name in ("full", "less", "few"):
        alone = network.extract(name)
        assert type(alone) is type(plain)
        with torch.no_grad():
            assert torch.equal(alone(images()), network.use(name)(images()))
        blocks = depths(plain) if name == "full" else list(network.counts[name])
        assert depths(alone) == blocks
        assert not any("subnet" in key for key in alone.state_dict())
        assert not any(module._forward_hooks for module in alone.modules())
        before = network(images())
        with torch.no_grad():
            for parameter in alone.parameters():
                parameter.add_(1)
        assert torch.equal(network(images()), before)
        kept = {
            key: value
            for key, value in plain.state_dict().items()
            if not key.startswith("layer")
            or int(key.split(".")[1]) < blocks[int(key.split(".")[0].removeprefix("layer")) - 1]
        }
        found = alone.state_dict()
        assert {key: value.shape for key, value in found.items()} == {
            key: value.shape for key, value in kept.items()
        }


@NORMS
def test_a_depth_runs_its_own_layers_and_no_others(norms: Norms) -> None:
    network = DepthDynamic(cifar_resnet(20, 4), {"14": 2, "8": 1}, norms=norms).eval()
    called: list[nn.Module] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, *_: called.append(module))
    for name, depth in (("8", 8), ("14", 14), ("full", 20), ("8", 8)):
        called.clear()
        network.use(name)(images())
        assert len(called) == depth  # all layers with weights, the linear one among them


def test_a_sub_net_of_a_cifar_resnet_loads_into_the_network_of_its_depth() -> None:
    network = trained(DepthDynamic(cifar_resnet(20, 4), {"14": 2, "8": 1}))
    for name, depth in (("14", 14), ("8", 8), ("full", 20)):
        ordinary = cifar_resnet(depth, 4).eval()
        ordinary.load_state_dict(network.extract(name).state_dict())
        with torch.no_grad():
            assert torch.equal(ordinary(images()), network.use(name)(images()))


@NORMS
@ALL
def test_one_pass_of_all_is_each_by_itself(make: Callable[[], nn.Module], norms: Norms) -> None:
    plain = make()
    network = trained(
        DepthDynamic(plain, {"less": [max(1, c - 1) for c in depths(plain)]}, norms=norms)
    )
    taps = ("layer1", "layer2", "layer1.0", "layer2.0", "layer2.0.conv1", "layer2.0.conv2")
    whole, alone = Network(network), Network(network.extract("full"))
    whole.tap(taps)
    alone.tap(taps)
    with torch.no_grad():
        seen, wanted = whole.observe(images(), taps), alone.observe(images(), taps)
        for tap in taps:  # also of what sub-nets run again
            assert torch.equal(seen.features[tap], wanted.features[tap]), tap
        output, _, subnets = network.call_all(images(), taps)
        assert torch.equal(output, network.use("full")(images()))
        assert torch.equal(subnets["less"].output, network.use("less")(images()))
        alone = Network(network.extract("less"))
        alone.tap(taps)
        seen = alone.observe(images(), taps)
    assert subnets["less"].features.keys() == set(taps)
    for tap in taps:
        assert torch.equal(subnets["less"].features[tap], seen.features[tap]), tap


@pytest.mark.parametrize("training", [True, False])
def test_with_shared_norms_the_first_stage_is_computed_once(training: bool) -> None:
    counted: dict[str, int] = {}
    network = DepthDynamic(cifar_resnet(20, 4), {"14": 2, "8": 1}, norms="shared").train(training)
    for stage in ("layer1", "layer2"):
        for place, block in enumerate(network.get_submodule(stage).children()):
            name = f"{stage}.{place}"
            block.get_submodule(
                "conv1"
            ).register_forward_hook(  # one convolution of the block, whoever runs it
                lambda *_, name=name: counted.update({name: counted.get(name, 0) + 1})
            )
    network.call_all(images())
    assert counted == {
        **{f"layer1.{place}": 1 for place in range(3)},
        "layer2.0": 3,
        "layer2.1": 2,
        "layer2.2": 1,
    }


def test_shared_or_not_the_gradient_of_all_depths_is_the_sum_of_each() -> None:
    for norms in ("separate", "shared"):
        network = DepthDynamic(cifar_resnet(14, 4), {"8": 1}, norms=norms).double().train()
        pictures = images().double()
        together = copy.deepcopy(network)
        output, _, subnets = together.call_all(pictures)
        (output.square().sum() + subnets["8"].output.square().sum()).backward()
        apart = copy.deepcopy(network)
        for name in ("full", "8"):
            apart.use(name)(pictures).square().sum().backward()
        for (key, one), other in zip(together.named_parameters(), apart.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, msg=key)


def test_norms_are_the_sub_nets_own_or_only_their_statistics() -> None:
    plain = cifar_resnet(20, 4)
    in_first_blocks = 2 * 4 + 2 * 8 + 2 * 16
    alone = sum(p.numel() for p in plain.parameters())
    cases: dict[Norms, int] = {"separate": 2 * in_first_blocks, "shared": 0}
    for norms, more in cases.items():
        network = DepthDynamic(copy.deepcopy(plain), {"8": 1}, norms=norms)
        assert sum(p.numel() for p in network.parameters()) == alone + more
        before = copy.deepcopy(network.state_dict())
        network.train().use("8")(images())
        moved = {
            key
            for key, value in network.state_dict().items()
            if key.endswith("running_mean") and not torch.equal(value, before[key])
        }
        own = {key for key in moved if key.startswith("subnet_norms.8_")}
        # With shared norms the first stage is the whole's own.
        assert len(own) == (6 if norms == "separate" else 4)
        rest = moved - own
        assert rest == {"bn1.running_mean"} | (
            set() if norms == "separate" else {f"layer1.0.bn{n}.running_mean" for n in (1, 2)}
        )


def test_what_is_copied_moved_or_loaded_stays_one_network() -> None:
    for norms in ("separate", "shared"):
        network = trained(DepthDynamic(cifar_resnet(14, 4), {"8": 1}, norms=norms))
        twin = copy.deepcopy(network)
        with torch.no_grad():
            assert torch.equal(twin.use("8")(images()), network.use("8")(images()))
            for parameter in twin.parameters():
                parameter.mul_(1.5)
            assert not torch.equal(twin(images()), network(images()))
            fresh = DepthDynamic(cifar_resnet(14, 4), {"8": 1}, norms=norms).eval()
            fresh.load_state_dict(twin.state_dict())
            for name in ("full", "8"):
                assert torch.equal(fresh.use(name)(images()), twin.use(name)(images()))
                assert torch.equal(fresh.extract(name)(images()), twin(images()))
            fresh.double()
            assert fresh.use("8")(images().double()).dtype == torch.float64


def test_modes_reach_every_depth() -> None:
    network = DepthDynamic(timm.create_model("resnet18", num_classes=10), {"few": 1})
    for mode in (False, True):
        network.train(mode)
        assert network.use("few").extract("few").training == mode
        before = copy.deepcopy(network.state_dict())
        network(images())
        same = all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        assert same == (not mode)


@NORMS
def test_a_look_in_eval_mode_leaves_every_depth_training(norms: Norms) -> None:
    network = DepthDynamic(cifar_resnet(14, 4), {"8": 1}, norms=norms).train()
    with evaluating(network):
        before = copy.deepcopy(network.state_dict())
        network.call_all(images())
        assert all(torch.equal(value, before[k]) for k, value in network.state_dict().items())
    network.call_all(images())
    still = {key for key, value in network.state_dict().items() if torch.equal(value, before[key])}
    assert not any("running" in key for key in still)


def test_it_is_pickled_and_taps_are_the_wholes_whatever_is_in_use() -> None:
    network = trained(DepthDynamic(cifar_resnet(14, 4), {"8": 1, "half": 1}))
    again = pickle.loads(pickle.dumps(network))
    assert torch.equal(again.use("half")(images()), network.use("half")(images()))
    wrapped = Network(network, InputSpec(32, 32, 3, (0.5,) * 3, (0.25,) * 3))
    assert [stage.name for stage in wrapped.stages()] == ["layer1", "layer2", "layer3"]
    assert network.in_use == "half"


class Doubled(torchvision.models.ResNet):
    """Of the same parts, which it puts together otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_refuses_a_network_that_only_looks_like_one() -> None:
    doubled = Doubled(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2])
    with pytest.raises(NetworkError, match="this is a Doubled of"):
        DepthDynamic(doubled, {"few": 1})


def test_a_sub_net_taken_out_exports() -> None:
    network = trained(DepthDynamic(cifar_resnet(14, 4), {"8": 1}))
    alone = network.extract("8").eval()
    program = torch.export.export(alone, (images(),))
    assert torch.equal(program.module()(images()), alone(images()))


def test_a_network_observes_its_sub_nets_too() -> None:
    plain = cifar_resnet(14, 4)
    network = Network(DepthDynamic(plain, {"8": 1}), InputSpec(32, 32, 3, (0.5,) * 3, (0.25,) * 3))
    assert network.subnets == ("8",)
    names = [stage.name for stage in network.stages()]
    assert names == ["layer1", "layer2", "layer3"]
    network.tap(names)
    seen = network.eval().observe(images(), names)
    alone = network.extract("8")
    assert alone.subnets == ()
    with torch.no_grad():
        torch.testing.assert_close(alone(images()), seen.subnets["8"].output)
        torch.testing.assert_close(network(images()), seen.output)
    shapes = {tap: maps.shape for tap, maps in seen.features.items()}
    assert {tap: maps.shape for tap, maps in seen.subnets["8"].features.items()} == shapes
    with pytest.raises(NetworkError, match="no sub-nets, so there is no '8'"):
        alone.extract("8")


@pytest.mark.parametrize(
    ("subnets", "words"),
    [
        ({}, "needs a sub-net"),
        ({"full": 1}, "named by letters"),
        ({"student": 1}, "named by letters"),
        ({"a.b": 1}, "named by letters"),
        ({"": 1}, "named by letters"),
        ({"8": 0}, "keeps 1 to 2, 2, 2 blocks of the 3 stages, but '8' is to keep 0, 0, 0"),
        ({"8": [1, 2, 3]}, "is to keep 1, 2, 3"),
        ({"8": [1, 1]}, "is to keep 1, 1"),
    ],
)
def test_refuses_sub_nets_that_are_none(subnets: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        DepthDynamic(cifar_resnet(14, 4), subnets)


def test_refuses_networks_that_are_not_made_of_stages_and_names_that_are_not_there() -> None:
    with pytest.raises(NetworkError, match="this is a Sequential of torch with 0"):
        DepthDynamic(nn.Sequential(nn.Linear(2, 2)), {"8": 1})
    network = DepthDynamic(cifar_resnet(14, 4), {"8": 1})
    for call in (network.use, network.extract):
        with pytest.raises(NetworkError, match="'14'"):
            call("14")


CODE = """
import torch
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.depth_dynamic import DepthDynamic
from tutelage.models.network import Network
for norms in ("separate", "shared"):
    network = Network(DepthDynamic(cifar_resnet(14, 4), {"8": 1}, norms=norms)).eval()
    network.tap(["layer1", "layer3"])
    images = torch.rand(2, 3, 32, 32)
    expected = network.observe(images, ["layer1", "layer3"])
    compiled = torch.compile(network.observe, backend="aot_eager", fullgraph=True)
    seen = compiled(images, ["layer1", "layer3"])
    torch.testing.assert_close(seen.subnets["8"].output, expected.subnets["8"].output)
    torch.testing.assert_close(seen.subnets["8"].features, expected.subnets["8"].features)
"""


@pytest.mark.slow
def test_compiles_as_one_graph() -> None:
    unchecked.run(CODE, beside=__file__)
