"""Attention transfer: the formula against the authors' code, and what the paper claims of it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import SettingError
from tutelage.methods.attention_transfer import (
    AttentionTransfer,
    attention_map,
    attention_transfer_loss,
)

POWERS = [1, 1.5, 2, 3, 4]


def maps(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def attention(channels: list[list[list[float]]], power: float) -> list[float]:
    """Q / ‖Q‖₂ of one picture, one number after the other."""
    height, width = len(channels[0]), len(channels[0][0])
    q = []
    for y in range(height):
        for x in range(width):
            energies = [abs(channel[y][x]) ** power for channel in channels]
            q.append(sum(energies) / len(energies))
    length = math.sqrt(sum(value * value for value in q))
    return [value / length for value in q]


def authors_code(student: torch.Tensor, teacher: torch.Tensor, power: float) -> float:
    """What the authors' code computes for maps of one size."""
    squares = []
    for one, other in zip(student.tolist(), teacher.tolist(), strict=True):
        for a, b in zip(attention(one, power), attention(other, power), strict=True):
            squares.append((a - b) ** 2)
    return sum(squares) / len(squares)


@pytest.mark.parametrize("power", POWERS)
def test_equals_the_authors_code_written_out(power: float) -> None:
    student, teacher = maps(0, 3, 4, 2, 5), maps(1, 3, 6, 2, 5)
    loss = attention_transfer_loss(student, teacher, power=power)
    assert loss.item() == pytest.approx(authors_code(student, teacher, power))


def test_hand_worked_mean_over_batch_and_locations() -> None:
    # Attention (0.6, 0.8) against (0.8, 0.6), and equal ones: (0.04 + 0.04 + 0 + 0) / 4.
    student = torch.tensor([[[[3.0, -4.0]]], [[[1.0, 1.0]]]])
    teacher = torch.tensor([[[[-4.0, 3.0]]], [[[5.0, 5.0]]]])
    assert attention_transfer_loss(student, teacher, power=1).item() == pytest.approx(0.02)


def test_equation_2_is_this_loss_but_for_known_factors() -> None:
    # β/2 times a norm in the paper. Its square, summed over the batch, is n · h · w times ours.
    student, teacher = maps(2, 1, 4, 3, 5), maps(3, 1, 6, 3, 5)
    norm = torch.linalg.norm(attention_map(student, power=2) - attention_map(teacher, power=2))
    loss = attention_transfer_loss(student, teacher, power=2)
    torch.testing.assert_close(norm, (loss * 3 * 5).sqrt())


def test_the_larger_feature_map_is_pooled_before_its_attention_is_taken() -> None:
    # The student's channels alternate in sign at the left and cancel when pooled, so its attention
    # is all at the right, as the teacher's. Pooling attention instead would leave some at the left.
    student = torch.tensor([[[[1.0, -1.0, 2.0, 2.0]]]])
    teacher = torch.tensor([[[[0.0, 3.0]]]])
    assert attention_transfer_loss(student, teacher, power=2).item() == 0
    assert attention_transfer_loss(teacher, student, power=2).item() == 0


@pytest.mark.parametrize(
    ("size_s", "size_t"), [((8, 6), (4, 3)), ((4, 3), (8, 6)), ((8, 3), (4, 6))]
)
def test_pooling_takes_the_smaller_size_in_each_direction(
    size_s: tuple[int, int], size_t: tuple[int, int]
) -> None:
    student, teacher = maps(4, 2, 3, *size_s), maps(5, 2, 5, *size_t)

    def to_4_by_3(features: torch.Tensor) -> torch.Tensor:
        if features.shape[2] == 8:
            features = (features[:, :, 0::2] + features[:, :, 1::2]) / 2
        if features.shape[3] == 6:
            features = (features[..., 0::2] + features[..., 1::2]) / 2
        return features

    loss = attention_transfer_loss(student, teacher, power=2)
    assert loss.item() == pytest.approx(authors_code(to_4_by_3(student), to_4_by_3(teacher), 2))


@given(st.integers(0, 1000), st.sampled_from(POWERS), st.floats(1e-2, 1e2))
def test_where_counts_and_not_which_channel_or_how_strong(
    seed: int, power: float, scale: float
) -> None:
    student, teacher = maps(seed, 2, 4, 3, 3), maps(seed + 1, 2, 6, 3, 3)
    loss = attention_transfer_loss(student, teacher, power=power)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0])[:, None, None]
    for same in (
        student[:, order],
        student * scale,
        student * signs,
        student.repeat(1, 3, 1, 1),
    ):
        torch.testing.assert_close(attention_transfer_loss(same, teacher, power=power), loss)
    moved = attention_transfer_loss(student.roll(1, dims=3), teacher, power=power)
    assert not torch.isclose(moved, loss)


@given(st.integers(0, 1000), st.sampled_from(POWERS))
def test_is_bounded_and_zero_only_for_the_same_pattern(seed: int, power: float) -> None:
    student, teacher = maps(seed, 2, 4, 3, 3), maps(seed + 1, 2, 6, 3, 3)
    loss = attention_transfer_loss(student, teacher, power=power)
    # Unit vectors without negative parts are at most √2 apart.
    assert 0 < loss <= 2 / 9
    torch.testing.assert_close(attention_transfer_loss(teacher, student, power=power), loss)
    assert attention_transfer_loss(teacher, teacher, power=power) == 0


def test_no_overlap_is_the_worst_case() -> None:
    student, teacher = torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 2, 2)
    student[..., 0, 0] = 1
    teacher[..., 1, 1] = 1
    assert attention_transfer_loss(student, teacher, power=2).item() == pytest.approx(2 / 4)


def test_a_high_power_sees_only_the_strongest_place() -> None:
    features = torch.tensor([[[[1.0, 1.1], [0.9, 1.0]]]], dtype=torch.float64)
    strongest = torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(attention_map(features, power=200), strongest, atol=1e-6, rtol=0)


def test_one_location_has_no_pattern() -> None:
    assert attention_transfer_loss(maps(6, 2, 4, 1, 1), maps(7, 2, 6, 8, 8), power=2) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("power", POWERS)
def test_gradient_is_finite_where_the_student_is_silent(power: float, dtype: torch.dtype) -> None:
    teacher = maps(8, 2, 6, 3, 3).to(dtype)
    partly = maps(9, 2, 4, 3, 3).relu()
    partly[:, :, 1] = 0
    partly[0] = 0
    for student in (torch.zeros(2, 4, 3, 3), torch.ones(2, 4, 3, 3), partly, 1e-20 * partly):
        leaf = student.to(dtype).requires_grad_()
        loss = attention_transfer_loss(leaf, teacher, power=power)
        loss.backward()
        assert loss.isfinite()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_a_silent_picture_has_no_attention() -> None:
    assert attention_map(torch.zeros(1, 3, 2, 2), power=2).eq(0).all()


def test_bfloat16_channels_add_up_in_float32() -> None:
    features = maps(10, 2, 512, 4, 4).bfloat16()
    ours = attention_map(features, power=2)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(
        ours.double(), attention_map(features.double(), power=2), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("power", [0.0, 0.5, -2.0, math.inf, math.nan])
def test_refuses_a_power_below_one(power: float) -> None:
    with pytest.raises(SettingError, match=rf"at least 1, but it is {power}: .* Try 2"):
        AttentionTransfer(power=power)


@pytest.mark.parametrize("size", [(4, 4), (2, 3), (8, 8)])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_what_is_kept_of_a_map_serves_in_its_place(size: tuple[int, int], power: float):
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(3, 5, 4, 4, generator=generator)
    student = torch.randn(3, 2, *size, generator=generator)
    kept = AttentionTransfer(power=power).encode(teacher, size)
    assert kept.shape == (3, 1, min(size[0], 4), min(size[1], 4))
    ours = attention_transfer_loss(student, kept, power=power)
    assert torch.allclose(ours, attention_transfer_loss(student, teacher, power=power), rtol=1e-5)
