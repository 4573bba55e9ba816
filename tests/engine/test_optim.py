import math
from typing import Any

import pytest
import torch
from torch import nn

from tutelage.engine import OPTIMIZERS, SCHEDULES, TrainSettings
from tutelage.engine.optim import keep_only, make_optimizer
from tutelage.errors import SettingError


def parameters(*values: float) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([value])) for value in values]


def rates(name: str, steps: int, lr: float = 1.0, **settings: Any) -> list[float]:
    """The rate of each step."""
    optimizer = OPTIMIZERS["sgd"](parameters(1.0), lr=lr)
    schedule = SCHEDULES[name](optimizer, steps, **settings)
    taken = []
    for _ in range(steps):
        taken.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return taken


def test_sgd_by_hand():
    """Nesterov: buffer 1 → step 1 + 0.9; then buffer 1.9 → step 1 + 0.9 × 1.9."""
    (weight,) = parameters(10.0)
    optimizer = OPTIMIZERS["sgd"]([weight], lr=0.1, momentum=0.9, weight_decay=0.0)
    for _ in range(2):
        weight.grad = torch.ones(1)
        optimizer.step()
    assert weight.item() == pytest.approx(10 - 0.1 * (1.9 + 2.71))


def test_sgd_without_momentum_is_no_nesterov():
    (weight,) = parameters(10.0)
    optimizer = OPTIMIZERS["sgd"]([weight], lr=0.1, momentum=0.0, weight_decay=0.5)
    weight.grad = torch.ones(1)
    optimizer.step()
    assert weight.item() == pytest.approx(10 - 0.1 * (1 + 0.5 * 10))


def test_adamw_decays_apart_from_the_gradient():
    """The first step has the size lr whatever the gradient; decay takes lr × 0.1 × weight."""
    (weight,) = parameters(10.0)
    optimizer = OPTIMIZERS["adamw"]([weight], lr=0.1, weight_decay=0.1)
    weight.grad = torch.full((1,), 1e-3)
    optimizer.step()
    assert weight.item() == pytest.approx(10 - 0.1 * 0.1 * 10 - 0.1, abs=1e-4)


def test_schedules_have_the_shape_that_they_are_named_for():
    assert rates("constant", 3) == [1.0, 1.0, 1.0]
    assert rates("multistep", 10, at=(0.2, 0.5), factor=0.1) == pytest.approx(
        2 * [1.0] + 3 * [0.1] + 5 * [0.01]
    )
    cosine = [0.5 + 0.5 * math.cos(math.pi * step / 4) for step in range(4)]
    assert rates("cosine", 4) == pytest.approx(cosine)
    assert rates("cosine", 4, end_lr=0.2)[2] == pytest.approx(0.6)


def test_one_cycle_rises_and_falls():
    taken = rates("one_cycle", 11, lr=0.5, rise=0.3, start_divisor=10, end_divisor=100)
    assert taken[0] == pytest.approx(0.05)
    assert taken[2] < max(taken) == pytest.approx(0.5, abs=0.02)
    assert taken[-1] == pytest.approx(0.0005)
    top = taken.index(max(taken))
    assert taken[: top + 1] == sorted(taken[: top + 1])
    assert taken[top:] == sorted(taken[top:], reverse=True)


def test_one_cycle_leaves_the_momentum():
    optimizer = OPTIMIZERS["sgd"](parameters(1.0), lr=0.1, momentum=0.7)
    SCHEDULES["one_cycle"](optimizer, 10)
    assert optimizer.param_groups[0]["momentum"] == 0.7


def test_one_cycle_needs_two_steps():
    with pytest.raises(SettingError, match=r"at least 2 steps\. Use constant"):
        rates("one_cycle", 1)


def test_what_is_taken_out_leaves_the_rest_alone():
    weights = parameters(1.0, 2.0, 3.0)
    optimizer = OPTIMIZERS["sgd"](weights, lr=0.1)
    for weight in weights:
        weight.grad = torch.ones(1)
    optimizer.step()
    state = optimizer.state[weights[2]]["momentum_buffer"].clone()
    keep_only(optimizer, weights[::2])
    assert [id(one) for one in optimizer.param_groups[0]["params"]] == [
        id(one) for one in weights[::2]
    ]
    assert weights[1] not in optimizer.state
    assert torch.equal(optimizer.state[weights[2]]["momentum_buffer"], state)
    before = weights[1].item()
    optimizer.step()
    assert weights[1].item() == before


@pytest.mark.parametrize(
    ("optimizer", "schedule", "steps", "named"),
    [
        ({"name": "sgd", "lr": -1.0}, {"name": "constant"}, 10, "lr -1.0"),
        ({"name": "sgd", "momentum": -1.0}, {"name": "constant"}, 10, "momentum -1.0"),
        ({"name": "sgd"}, {"name": "one_cycle", "rise": 0.1}, 10, "rise 0.1"),
        ({"name": "sgd"}, {"name": "one_cycle", "rise": 2.0}, 10, "rise 2.0"),
    ],
)
def test_what_torch_refuses_is_said_in_words(
    optimizer: dict, schedule: dict, steps: int, named: str
):
    settings = TrainSettings(steps=steps, optimizer=optimizer, schedule=schedule)
    with pytest.raises(SettingError, match=named):
        make_optimizer(nn.Linear(2, 2).parameters(), settings)


def test_a_student_that_is_all_frozen_is_refused():
    frozen = nn.Linear(2, 2).requires_grad_(False)
    trained = (parameter for parameter in frozen.parameters() if parameter.requires_grad)
    with pytest.raises(SettingError, match="all frozen"):
        make_optimizer(trained, TrainSettings(steps=3))
