"""Weights: schedules by hand and by their properties, and one plain sum."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tutelage.distiller import Objective, Schedule, Weight
from tutelage.distiller.objective import part_of
from tutelage.errors import SettingError

Kind = Literal["constant", "linear", "cosine"]
FRACTION = st.floats(0, 1)
WEIGHT = st.floats(0, 1e6)


# Schedules


@pytest.mark.parametrize(
    ("kind", "progress", "expected"),
    [
        ("constant", 0.9, 4.0),
        ("linear", 0.1, 4.0),
        ("linear", 0.2, 4.0),
        ("linear", 0.35, 3.0),
        ("linear", 0.5, 2.0),
        ("linear", 0.8, 0.0),
        ("linear", 1.0, 0.0),
        ("cosine", 0.2, 4.0),
        ("cosine", 0.35, 2 + math.sqrt(2)),  # a quarter of the way: 4 × (1 + cos 45°) / 2
        ("cosine", 0.5, 2.0),
        ("cosine", 0.8, 0.0),
    ],
)
def test_values_by_hand(kind: Kind, progress: float, expected: float):
    schedule = Schedule(kind, from_=4.0, to=0.0, start=0.2, end=0.8)
    assert schedule.value(progress) == pytest.approx(expected)
    value = schedule.value(torch.tensor(progress, dtype=torch.float64))
    assert float(value) == pytest.approx(expected)


SCHEDULES = st.tuples(FRACTION, FRACTION).filter(lambda ends: ends[0] < ends[1])


@given(st.sampled_from(["linear", "cosine"]), WEIGHT, WEIGHT, SCHEDULES, FRACTION, FRACTION)
def test_a_schedule_goes_from_its_first_to_its_last_weight_and_never_back(
    kind: Kind, first: float, last: float, ends: tuple[float, float], one: float, two: float
):
    schedule = Schedule(kind, first, last, *ends)
    early, late = (float(schedule.value(moment)) for moment in sorted((one, two)))
    low, high = sorted((first, last))
    slack = 1e-9 * high
    assert low - slack <= min(early, late)
    assert max(early, late) <= high + slack
    assert (late - early) * (last - first) >= -slack * high
    assert float(schedule.value(ends[0])) == pytest.approx(first)
    assert float(schedule.value(ends[1])) == pytest.approx(last, abs=slack)


@given(st.sampled_from(["constant", "linear", "cosine"]), SCHEDULES, FRACTION)
def test_a_tensor_gives_the_same_weight(kind: Kind, ends: tuple[float, float], moment: float):
    schedule = Schedule(kind, 3.0, 1.0, *ends)
    as_tensor = schedule.value(torch.tensor(moment, dtype=torch.float64))
    assert float(as_tensor) == pytest.approx(float(schedule.value(moment)), abs=1e-9)


def test_a_weight_that_ends_at_zero_is_zero_then():
    assert Schedule("linear", 0.1, 0.0).value(1.0) == 0
    assert Schedule("cosine", 0.1, 0.0).value(1.0) == 0


@pytest.mark.parametrize(
    ("start", "end"), [(0.5, 0.5), (0.6, 0.4), (-0.1, 1), (0, 1.1), (0, math.nan)]
)
def test_fractions_out_of_order_are_refused(start: float, end: float):
    with pytest.raises(SettingError, match="0 <= start < end <= 1"):
        Schedule("linear", start=start, end=end)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_that_are_none_are_refused(weight: float):
    for arguments in ({"from_": weight}, {"to": weight}):
        with pytest.raises(SettingError, match="finite number and not negative"):
            Schedule("linear", **arguments)
    with pytest.raises(SettingError, match=r"but kd\.kl has"):
        Objective(1.0, {"kd": weight}, {"kd": ["kl"]})
    with pytest.raises(SettingError, match="but the task has"):
        Objective(weight, {}, {})


# The sum


def scalars(**values: float) -> dict[str, Tensor]:
    return {name.replace("_", "/"): torch.tensor(value) for name, value in values.items()}


TERMS = {"one": ["kl", "at/a", "at/b"], "two": ["kl"]}
VALUES = {"one": scalars(kl=1, at_a=10, at_b=100), "two": scalars(kl=1000)}


def loss(task: float | Schedule, progress: float | None = None, **weights: Weight) -> float:
    objective = Objective(task, weights, TERMS)
    return objective(torch.tensor(0.5), VALUES, progress).item()


def test_the_loss_is_the_plain_sum_of_weight_times_term():
    assert loss(1.0, one=1.0, two=1.0) == 1111.5
    assert loss(3.0, one=2.0, two=0.5) == 1.5 + 2 * 111 + 500


def test_a_mapping_weighs_the_part_before_the_slash():
    assert loss(0.0, one={"kl": 7.0, "at": 2.0}, two={"kl": 0.0}) == 7 + 220
    assert (
        loss(0.0, one={"kl": 0.0, "at": Schedule("linear", 4.0, 0.0)}, two=0.0, progress=0.5) == 220
    )


def test_schedules_move_the_task_and_the_methods():
    task, method = Schedule("linear", 0.0, 2.0), Schedule("linear", 1.0, 0.0)
    assert loss(task, 0.25, one=0.0, two=method) == 0.25 + 750
    assert loss(task, 1.0, one=0.0, two=method) == 1.0


def test_the_gradient_of_a_term_is_its_weight():
    terms = {"two": {"kl": torch.tensor(5.0, requires_grad=True)}}
    supervised = torch.tensor(2.0, requires_grad=True)
    Objective(0.25, {"two": 3.0}, {"two": ["kl"]})(supervised, terms, None).backward()
    assert supervised.grad == 0.25
    assert terms["two"]["kl"].grad == 3


def test_an_unknown_part_is_refused_with_the_nearest():
    with pytest.raises(SettingError, match=r"one has no terms 'att' to weigh; did you mean at\?"):
        loss(1.0, one={"kl": 1.0, "att": 1.0}, two=1.0)


def test_a_part_without_a_weight_is_refused():
    with pytest.raises(SettingError, match="one has terms 'at' but its weights do not name them"):
        loss(1.0, one={"kl": 1.0}, two=1.0)


def test_a_schedule_needs_progress_and_a_constant_does_not():
    with pytest.raises(SettingError, match=r"progress=step / steps"):
        loss(1.0, one=Schedule("linear"), two=1.0)


def test_parts_are_what_stands_before_the_first_slash():
    assert [part_of(name) for name in ("kl", "at/layer1", "at/block/2")] == ["kl", "at", "at"]


def test_an_unknown_kind_is_refused_with_the_nearest():
    schedule = Schedule("cosine")
    object.__setattr__(schedule, "kind", "cosin")  # past the check of types, as in a user's process
    with pytest.raises(SettingError, match="no schedule 'cosin'; did you mean cosine"):
        schedule.__post_init__()
