"""Embedded distillation: the operators written out, and which side of them moves."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tutelage.errors import SettingError
from tutelage.methods.embedded_distillation import (
    EmbeddedDistillation,
    attention_map,
    embedded_attention_loss,
    embedded_kl_loss,
)
from tutelage.types import Observation, ObservationShape, Shapes, TransferBatch


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def standardized(channels: list[list[list[float]]]) -> list[float]:
    """Of one picture, as the sister code: channel sum, less its mean, over its unbiased std."""
    height, width = len(channels[0]), len(channels[0][0])
    sums = [sum(c[y][x] for c in channels) for y in range(height) for x in range(width)]
    mean, std = statistics.mean(sums), statistics.stdev(sums)
    return [(value - mean) / std for value in sums]


def test_attention_equals_the_sister_code_written_out() -> None:
    subnet, full = maps(0, 3, 4, 2, 5), maps(1, 3, 4, 2, 5)
    squares = [
        (a - b) ** 2
        for one, other in zip(subnet.tolist(), full.tolist(), strict=True)
        for a, b in zip(standardized(one), standardized(other), strict=True)
    ]
    loss = embedded_attention_loss(subnet, full)
    assert loss.item() == pytest.approx(sum(squares) / len(squares))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_is_summed_over_classes_and_goes_from_the_whole(temperature: float) -> None:
    subnet, full = maps(2, 4, 7), maps(3, 4, 7)

    def shares(logits: list[float]) -> list[float]:
        powers = [math.exp(value / temperature) for value in logits]
        return [power / sum(powers) for power in powers]

    each = [
        sum(q * math.log(q / p) for q, p in zip(shares(other), shares(one), strict=True))
        for one, other in zip(subnet.tolist(), full.tolist(), strict=True)
    ]
    loss = embedded_kl_loss(subnet, full, temperature=temperature)
    assert loss.item() == pytest.approx(temperature**2 * sum(each) / 4)
    # As in torch: summed over classes, mean over the batch. The default would divide by classes.
    wanted = torch.nn.functional.kl_div(
        (subnet / temperature).log_softmax(1),
        (full / temperature).softmax(1),
        reduction="batchmean",
    )
    torch.testing.assert_close(loss, temperature**2 * wanted)


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-10, 10))
def test_attention_ignores_order_scale_and_offset(seed: int, scale: float, offset: float) -> None:
    features = maps(seed, 2, 4, 3, 3)
    attention = attention_map(features)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    for same in (features[:, order], scale * features + offset):
        torch.testing.assert_close(attention_map(same), attention)
    torch.testing.assert_close(attention_map(-features), -attention)
    torch.testing.assert_close(attention.std(dim=(1, 2)), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(2, 16, 32, 32), (2, 64, 7, 7), (2, 4, 1, 1)])
@pytest.mark.parametrize("value", [0.0, 1.0, 1.1, 3.337])
def test_a_map_that_does_not_vary_has_no_attention_and_a_finite_gradient(
    shape: tuple[int, ...], value: float
) -> None:
    features = torch.full(shape, value, requires_grad=True)
    loss = embedded_attention_loss(features, torch.randn(shape).detach())
    loss.backward()
    assert attention_map(features).eq(0).all()
    assert features.grad is not None
    assert features.grad.isfinite().all()


# The method

PART = ObservationShape((3,), {"stem": (2, 8, 8), "one": (4, 8, 8), "two": (6, 4, 4)})
OWN = PART._replace(features={"one": (4, 8, 8), "two": (6, 4, 4)})
SHAPES = Shapes(PART._replace(subnets={"b": OWN, "a": OWN}), ())


def seen(shape: ObservationShape, seed: int) -> Observation:
    features = {
        tap: maps(seed + place, 5, *size).requires_grad_()
        for place, (tap, size) in enumerate(shape.features.items())
    }
    subnets = {
        name: seen(part, seed + 10 * place)
        for place, (name, part) in enumerate(shape.subnets.items(), start=1)
    }
    return Observation(maps(seed + 5, 5, 3).requires_grad_(), features, subnets)


def batch_of(student: Observation) -> TransferBatch:
    return TransferBatch(student, (), None, torch.zeros(5, dtype=torch.bool), None, None, 0)


def made(**settings: object) -> EmbeddedDistillation:
    method = EmbeddedDistillation(**settings)  # pyright: ignore[reportArgumentType]
    method.build(SHAPES)
    return method


def test_each_sub_net_has_its_share_of_both_terms() -> None:
    student = seen(SHAPES.student, 20)
    terms = made()(batch_of(student))
    assert list(terms) == ["kl/b", "kl/a", "attention/b", "attention/a"]
    for name, part in student.subnets.items():
        wanted = embedded_kl_loss(part.output, student.output, temperature=3)
        assert terms[f"kl/{name}"].item() == pytest.approx(wanted.item() / 2)
        losses = [
            embedded_attention_loss(part.features[tap], student.features[tap])
            for tap in ("one", "two")  # what sub-nets do not have, such as a stem, is left out
        ]
        wanted = (losses[0] + losses[1]) / 2
        assert terms[f"attention/{name}"].item() == pytest.approx(wanted.item() / 2)


def test_the_last_stage_alone() -> None:
    student = seen(SHAPES.student, 20)
    terms = made(stages="last")(batch_of(student))
    part = student.subnets["a"]
    wanted = embedded_attention_loss(part.features["two"], student.features["two"])
    assert terms["attention/a"].item() == pytest.approx(wanted.item() / 2)


@pytest.mark.parametrize("detach", [True, False])
def test_the_whole_moves_only_if_it_is_not_detached(detach: bool) -> None:
    student = seen(SHAPES.student, 20)
    sum(made(detach=detach)(batch_of(student)).values(), torch.zeros(())).backward()
    for leaf in (student.output, student.features["one"], student.features["two"]):
        assert (leaf.grad is None) == detach
    for part in student.subnets.values():
        assert part.output.grad.abs().sum() > 0
        assert all(leaf.grad is not None for leaf in part.features.values())


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_refuses_a_temperature_that_is_none(temperature: float) -> None:
    with pytest.raises(SettingError, match=r"temperature above 0, .* Try 3"):
        EmbeddedDistillation(temperature=temperature)
