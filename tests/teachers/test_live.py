"""A teacher answers; it does not learn, and nobody can make it forget that it is one."""

import copy
import warnings
from typing import Any

import pytest
import torch
import unchecked
from torch import nn

from tutelage.distiller import Distiller
from tutelage.errors import NetworkError, NoEffectWarning
from tutelage.methods import KD, AttentionTransfer
from tutelage.models import create
from tutelage.models.fusing import executed_batch_norms
from tutelage.models.network import Network
from tutelage.teachers import LiveTeacher, Teacher
from tutelage.teachers.live import ANSWERING
from tutelage.types import Batch, InputSpec

SPEC = InputSpec(4, 4, 1, (0.5,), (0.5,))
RGB = InputSpec(16, 16, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
TAPS = ("layer1", "layer2.0.conv1")


def module() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 2)
    )


def batch() -> Batch:
    labels = torch.zeros(6, dtype=torch.int64)
    return Batch(torch.rand(6, 1, 4, 4), labels, labels > 0, None, None)


def test_whoever_changes_these_answers_raises_the_number():
    """Stored answers were given by the old ones."""
    network = create("resnet8", num_classes=3, in_channels=3, width=4)
    for name, value in network.state_dict().items():
        steps = torch.arange(value.numel(), dtype=torch.float64).reshape(value.shape)
        wave = torch.sin(1.7 * steps + len(name))
        if value.is_floating_point():
            value.copy_(1 + 0.3 * wave if "var" in name or value.ndim == 1 else 0.3 * wave)
    teacher = LiveTeacher(Network(network, RGB), fuse=True)
    teacher.tap(())
    assert teacher.folded is not None
    assert teacher.folded["folded"] == 7
    images = 0.5 + 0.5 * torch.sin(torch.arange(2 * 3 * 16 * 16.0)).reshape(2, 3, 16, 16)
    labels = torch.zeros(2, dtype=torch.int64)
    answers = teacher.observe(Batch(images, labels, labels > 0, None, None), ()).output
    torch.testing.assert_close(answers, torch.tensor(GIVEN[ANSWERING]), rtol=1e-3, atol=1e-3)


GIVEN = {1: [[-0.33417, 1.42701, 1.95516], [-0.30318, 1.42413, 1.92691]]}


def test_it_is_a_teacher_and_no_module():
    teacher = LiveTeacher(Network(module(), SPEC))
    assert isinstance(teacher, Teacher)
    assert not isinstance(teacher, nn.Module)
    assert teacher.takes_pixels
    assert not LiveTeacher(Network(module())).takes_pixels


def test_it_answers_in_eval_mode_without_gradient():
    network = Network(module(), SPEC)
    teacher, images = LiveTeacher(network), batch()
    images.images.requires_grad_()
    seen = teacher.observe(images, ())
    assert torch.equal(seen.output, network.eval()(images.images))
    assert not seen.output.requires_grad
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("who", ["the wrapper", "the module", "one layer"])
def test_it_stays_in_eval_mode_whoever_calls_train(who: str):
    inner = module()
    network = Network(inner, SPEC)
    teacher, images = LiveTeacher(network), batch()
    before, state = teacher.observe(images, ()), copy.deepcopy(network.state_dict())
    parent = nn.ModuleList({"the wrapper": [network], "the module": [inner]}.get(who, [inner[1]]))
    parent.train()
    assert torch.equal(teacher.observe(images, ()).output, before.output)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_its_answer_may_be_kept_for_a_backward_pass():
    answer = LiveTeacher(Network(module(), SPEC)).observe(batch(), ()).output
    weight = torch.ones((), requires_grad=True)
    (weight * answer).sum().backward()  # refused for what inference mode puts out
    assert weight.grad is not None


def test_it_hands_out_taps():
    teacher, images = LiveTeacher(Network(module(), SPEC)), batch()
    teacher.tap(["0", "1"])
    features = teacher.observe(images, ("1",)).features
    assert list(features) == ["1"]
    assert features["1"].shape == (6, 3, 2, 2)
    assert teacher.dry_run(("0",), None).features["0"].shape == (2, 3, 2, 2)
    assert [stage.name for stage in teacher.stages(None)] == ["1"]  # 2 hands it on
    with pytest.raises(NetworkError, match="The teacher has no sub-module 'fifth'"):
        teacher.tap(["fifth"])


# Folded


def resnet(seed: int = 1) -> Network:
    """With norms that do something."""
    torch.manual_seed(seed)
    module = create("resnet14", num_classes=5, in_channels=3, width=8)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.3)
            nn.init.normal_(part.bias)
            nn.init.normal_(part.get_buffer("running_mean"))
            nn.init.uniform_(part.get_buffer("running_var"), 0.3, 3.0)
    return Network(module, RGB)


def shown() -> Batch:
    labels = torch.zeros(6, dtype=torch.int64)
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    return Batch(images, labels, labels > 0, None, None)


def assert_close(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_folded_copy_answers_and_the_network_stays_as_it_is():
    network = resnet()
    state, modules = copy.deepcopy(network.state_dict()), list(network.module.modules())
    plain, fused = LiveTeacher(copy.deepcopy(network)), LiveTeacher(network, fuse=True)
    assert fused.folded is None
    for teacher in (plain, fused):
        teacher.tap(TAPS)
    assert fused.network is not network
    assert executed_batch_norms(plain.network, shown().images) == 13
    # the norm after the convolution that is looked at stays
    assert executed_batch_norms(fused.network, shown().images) == 1
    seen, again = (one.observe(shown(), TAPS) for one in (plain, fused))
    assert_close(again.output, seen.output)
    assert not torch.equal(again.output, seen.output)
    assert list(again.features) == list(TAPS)
    for tap in TAPS:
        assert_close(again.features[tap], seen.features[tap])
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert list(network.module.modules()) == modules
    assert not any(part._forward_hooks for part in modules)


def test_what_was_folded_is_told():
    teacher = LiveTeacher(resnet(), fuse=True)
    teacher.tap(TAPS)
    assert teacher.folded == {
        "norms": 13,
        "folded": 12,
        "left": {
            "layer2.0.bn1": "the output of layer2.0.conv1 is used, or looked at, elsewhere too"
        },
    }
    plain = LiveTeacher(resnet())
    plain.tap(TAPS)
    assert plain.folded is None


@pytest.mark.parametrize("fuse", [False, True])
def test_only_a_folded_teacher_does_not_see_what_becomes_of_its_network(fuse: bool):
    network = resnet()
    teacher = LiveTeacher(network, fuse=fuse)
    teacher.tap(())
    before = teacher.observe(shown(), ()).output
    with torch.no_grad():
        network.module.get_submodule("linear").get_parameter("bias").add_(1.0)
    after = teacher.observe(shown(), ()).output
    assert torch.equal(after, before) == fuse


def test_another_tap_is_not_folded_away():
    teacher, first = LiveTeacher(resnet(), fuse=True), "layer1.0.conv2"
    plain = LiveTeacher(resnet())
    for one in (teacher, plain):
        one.tap((first,))
        one.tap(TAPS)
    seen, again = (one.observe(shown(), (first, *TAPS)) for one in (plain, teacher))
    for tap in (first, *TAPS):
        assert_close(again.features[tap], seen.features[tap])
    assert teacher.folded is not None
    assert teacher.folded["folded"] == 11


def test_a_network_without_norms_is_taken_as_it_is_and_nothing_is_said():
    network = Network(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 2)), SPEC)
    teacher = LiveTeacher(network, fuse=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        teacher.tap(())
    assert teacher.network is network
    assert teacher.folded == {"norms": 0, "folded": 0, "left": {}}


def test_norms_of_which_none_can_be_folded_are_told_of():
    norm_first = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 3, 3), nn.Flatten())
    teacher = LiveTeacher(Network(norm_first, SPEC), fuse=True)
    with pytest.warns(NoEffectWarning, match="No batch norm could be folded") as said:
        teacher.tap(())
    assert len(said) == 1
    assert teacher.network.module is norm_first
    assert teacher.folded is not None
    assert (teacher.folded["norms"], teacher.folded["folded"]) == (1, 0)


def test_a_network_without_spec_is_folded_if_the_size_is_known():
    network = Network(module())
    teacher = LiveTeacher(network, fuse=True)
    with pytest.raises(NetworkError, match="input size is not known"):
        teacher.tap(())
    teacher.tap((), (1, 4, 4))
    assert teacher.folded is not None
    assert teacher.folded["folded"] == 1
    pupil = Distiller(module(), LiveTeacher(network, fuse=True), image_size=(1, 4, 4),
                      methods={"kd": (KD(), 1.0)})  # fmt: skip
    (guide,) = pupil.teachers
    assert isinstance(guide, LiveTeacher)
    assert guide.network is not network


def test_a_distillers_folded_teacher_moves_with_it_and_its_network_does_not():
    network = resnet()
    teacher = LiveTeacher(network, fuse=True)
    pupil = Distiller(resnet(3), teacher, methods={"at": (AttentionTransfer(), 1.0)})
    pupil.double()
    assert {value.dtype for value in teacher.network.parameters()} == {torch.float64}
    assert {value.dtype for value in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("fuse", [False, True])
def test_a_copy_answers_by_a_network_of_its_own(fuse: bool):
    teacher = LiveTeacher(resnet(), fuse=fuse)
    teacher.tap(TAPS)
    other = copy.deepcopy(teacher)
    before = teacher.observe(shown(), TAPS)
    with torch.no_grad():
        teacher.network.module.get_submodule("linear").get_parameter("bias").add_(1.0)
    assert torch.equal(other.observe(shown(), TAPS).output, before.output)
    assert not torch.equal(teacher.observe(shown(), TAPS).output, before.output)
    assert other.folded == teacher.folded


# Compiled


def check_frozen(fuse: bool) -> None:
    """What the next test runs in a process of its own."""
    from torch._inductor import config

    network = resnet()
    plain = LiveTeacher(copy.deepcopy(network), fuse=fuse)
    compiled = LiveTeacher(network, fuse=fuse, compile=True)
    for teacher in (plain, compiled):
        teacher.tap(TAPS)
    eager, seen = (one.observe(shown(), TAPS) for one in (plain, compiled))
    assert_close(seen.output, eager.output)
    assert not seen.output.requires_grad
    for tap in TAPS:
        assert_close(seen.features[tap], eager.features[tap])
    assert not config.freezing

    kernel = compiled.network.module.get_submodule("layer3.0.conv1").get_parameter("weight")
    before = kernel.clone()
    with torch.no_grad():
        kernel.mul_(3.0)  # a constant by now
        assert torch.equal(compiled.observe(shown(), TAPS).output, seen.output)
        kernel.copy_(before)
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(3.0)
    assert torch.equal(compiled.observe(shown(), TAPS).output, seen.output)

    few = shown()
    few = Batch(few.images[:3], few.targets[:3], few.has_label[:3], None, None)
    for one in (compiled, copy.deepcopy(compiled)):
        assert_close(one.observe(few, TAPS).output, seen.output[:3])
        assert_close(one.observe(shown(), TAPS).output, seen.output)


def check_loss() -> None:
    """What the last test runs in a process of its own."""
    images, labels = shown().images, torch.arange(6) % 5
    losses = []
    for whole, frozen in ((False, False), (False, True), (True, True)):
        teacher = LiveTeacher(resnet(), fuse=True, compile=frozen)
        methods = {"kd": (KD(), 1.0), "at": (AttentionTransfer(), 1.0)}
        pupil = Distiller(resnet(3), teacher, methods=methods)
        if whole:
            pupil.compile()
        loss = pupil(images, labels).loss
        loss.backward()
        losses.append(loss.detach())
        assert all(one.grad is not None for one in pupil.trainable_parameters())
    assert losses[0].isfinite()
    for loss in losses[1:]:
        assert_close(loss, losses[0])


def run(call: str) -> None:
    assert unchecked.call(__file__, f"{call}; print('done')").stdout.strip() == "done"


@pytest.mark.slow
@pytest.mark.parametrize("fuse", [False, True])
def test_compiled_weights_are_constants_and_answers_the_same(fuse: bool):
    run(f"check_frozen(fuse={fuse})")


@pytest.mark.slow
def test_losses_with_a_compiled_teacher_are_the_same_alone_and_within_a_compiled_step():
    run("check_loss()")
