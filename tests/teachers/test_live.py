"""A teacher answers; it does not learn, and nobody can make it forget that it is one."""

import copy

import pytest
import torch
from torch import nn

from tutelage.errors import NetworkError
from tutelage.models.network import Network
from tutelage.teachers import LiveTeacher, Teacher
from tutelage.types import Batch, InputSpec

SPEC = InputSpec(4, 4, 1, (0.5,), (0.5,))


def module() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 2)
    )


def batch() -> Batch:
    labels = torch.zeros(6, dtype=torch.int64)
    return Batch(torch.rand(6, 1, 4, 4), labels, labels > 0, None, None)


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
    assert [stage.name for stage in teacher.stages(None)] == ["2"]
    with pytest.raises(NetworkError, match="The teacher has no sub-module 'fifth'"):
        teacher.tap(["fifth"])
