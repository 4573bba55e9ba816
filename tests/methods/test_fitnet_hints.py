"""Hints: the formula against the paper, and what the paper wants of it."""

import pytest
import torch
from torch import nn

from tutelage.methods.fitnet_hints import FitNetHints, hint_loss
from tutelage.types import Observation, ObservationShape, Pair, Shapes, TransferBatch


def maps(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def regressor(c_s: int, c_t: int) -> nn.Conv2d:
    conv = nn.Conv2d(c_s, c_t, 1, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(maps(50, c_t, c_s, 1, 1))
        assert conv.bias is not None
        conv.bias.copy_(maps(51, c_t))
    return conv


def paper(student: torch.Tensor, teacher: torch.Tensor, conv: nn.Conv2d) -> float:
    """Equation 3 with a 1×1 regressor, one number after the other; maps of one size."""
    assert conv.bias is not None
    n, c_s, height, width = student.shape
    total = 0.0
    for sample in range(n):
        for y in range(height):
            for x in range(width):
                for out in range(teacher.shape[1]):
                    guess = conv.bias[out].item()
                    for channel in range(c_s):
                        factor = conv.weight[out, channel, 0, 0].item()
                        guess += factor * student[sample, channel, y, x].item()
                    total += (teacher[sample, out, y, x].item() - guess) ** 2
    return total / teacher.numel()


def halve(features: torch.Tensor) -> torch.Tensor:
    """The mean of each 2×2 square."""
    return sum(features[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / torch.tensor(4.0)


def test_equals_the_paper_written_out() -> None:
    student, teacher, conv = maps(0, 2, 3, 2, 4), maps(1, 2, 5, 2, 4), regressor(3, 5)
    loss = hint_loss(student, teacher, regressor=conv)
    assert loss.item() == pytest.approx(paper(student, teacher, conv))


def test_larger_student_is_pooled() -> None:
    student, teacher, conv = maps(2, 2, 3, 4, 6), maps(3, 2, 5, 2, 3), regressor(3, 5)
    loss = hint_loss(student, teacher, regressor=conv)
    assert loss.item() == pytest.approx(paper(halve(student), teacher, conv))


def test_larger_teacher_is_pooled() -> None:
    student, teacher, conv = maps(4, 2, 3, 2, 3), maps(5, 2, 5, 4, 6), regressor(3, 5)
    loss = hint_loss(student, teacher, regressor=conv)
    assert loss.item() == pytest.approx(paper(student, halve(teacher), conv))


def test_pooling_before_the_regressor_is_pooling_behind_it() -> None:
    student, teacher, conv = maps(6, 2, 3, 8, 8), maps(7, 2, 5, 4, 4), regressor(3, 5)
    behind = hint_loss(conv(student), teacher, regressor=nn.Identity())
    torch.testing.assert_close(hint_loss(student, teacher, regressor=conv), behind)


def test_hand_worked_mean_over_batch_channels_and_locations() -> None:
    # Errors 3 and 1 in one of two channels at one of two samples: (9 + 1) / (2 · 2 · 1 · 2).
    student, teacher = torch.zeros(2, 2, 1, 2), torch.zeros(2, 2, 1, 2)
    teacher[0, 1, 0] = torch.tensor([3.0, -1.0])
    assert hint_loss(student, teacher, regressor=nn.Identity()).item() == pytest.approx(10 / 8)


def test_gradient_is_that_of_the_mean_squared_error() -> None:
    student, teacher, conv = (
        maps(8, 2, 3, 4, 4).requires_grad_(),
        maps(9, 2, 5, 4, 4),
        regressor(3, 5),
    )
    inputs = [student, *conv.parameters()]
    ours = torch.autograd.grad(hint_loss(student, teacher, regressor=conv), inputs)
    plain = torch.autograd.grad(nn.functional.mse_loss(conv(student), teacher), inputs)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_a_student_that_carries_the_teachers_map_can_satisfy_it() -> None:
    # The teacher's map is an affine function of the student's: some regressor leaves nothing. Take
    # one of the student's channels away, and none does.
    student, conv = maps(10, 4, 3, 4, 4), regressor(3, 5)
    teacher = conv(student).detach()
    wanted = teacher.movedim(1, -1).flatten(0, 2)

    def best_loss(carried: torch.Tensor) -> float:
        flat = carried.movedim(1, -1).flatten(0, 2)
        flat = torch.cat([flat, torch.ones(len(flat), 1, dtype=flat.dtype)], dim=1)
        solution = torch.linalg.lstsq(flat, wanted).solution
        best = regressor(carried.shape[1], 5)
        with torch.no_grad():
            best.weight.copy_(solution[:-1].T[:, :, None, None])
            assert best.bias is not None
            best.bias.copy_(solution[-1])
        return hint_loss(carried, teacher, regressor=best).item()

    assert best_loss(student) < 1e-20
    assert best_loss(student[:, :2]) > 0.1


def test_size_of_the_map_does_not_matter() -> None:
    # A mean, so one weight serves all stages: four copies side by side change nothing.
    student, teacher, conv = maps(11, 2, 3, 4, 4), maps(12, 2, 5, 4, 4), regressor(3, 5)
    torch.testing.assert_close(
        hint_loss(student.repeat(1, 1, 2, 2), teacher.repeat(1, 1, 2, 2), regressor=conv),
        hint_loss(student, teacher, regressor=conv),
    )


def test_bfloat16_maps_add_up_in_float32() -> None:
    # 1 + 2⁻⁸ is not a bfloat16: a sum held in bfloat16 would stop growing at 256.
    student, teacher = torch.zeros(8, 64, 16, 16).bfloat16(), torch.ones(8, 64, 16, 16).bfloat16()
    loss = hint_loss(student, teacher, regressor=nn.Identity())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1, rel=1e-6)


def test_learned_parts_are_those_of_the_card() -> None:
    stages = {"layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8)}
    seen = ObservationShape(None, stages)
    hints = FitNetHints()
    hints.build(Shapes(seen, (seen,), tuple(Pair(name, name) for name in stages)))
    assert sum(parameter.numel() for parameter in hints.parameters()) == 5488
    macs = sum(
        conv.weight.numel() * height * width
        for conv, (_, height, width) in zip(hints.regressors, stages.values(), strict=True)
        if isinstance(conv, nn.Conv2d)
    )
    assert macs == 786_432


def test_each_pair_has_its_own_regressor_and_term() -> None:
    shapes_s = ObservationShape(None, {"a.0": (2, 4, 4), "b.1": (3, 2, 2)})
    shapes_t = ObservationShape(None, {"x": (5, 2, 2), "y": (4, 4, 4)})
    hints = FitNetHints()
    hints.build(Shapes(shapes_s, (shapes_t,), (Pair("a.0", "y"), Pair("b.1", "x"))))
    hints.double()
    student = {"a.0": maps(13, 2, 2, 4, 4), "b.1": maps(14, 2, 3, 2, 2)}
    teacher = {"x": maps(15, 2, 5, 2, 2), "y": maps(16, 2, 4, 4, 4)}
    batch = TransferBatch(
        Observation(None, student),
        (Observation(None, teacher),),
        None,
        torch.zeros(2, dtype=torch.bool),
        None,
        None,
        0,
    )
    terms = hints(batch)
    first, second = hints.regressors
    assert list(terms) == ["hint/a.0", "hint/b.1"]
    assert terms["hint/a.0"] == hint_loss(student["a.0"], teacher["y"], regressor=first)
    assert terms["hint/b.1"] == hint_loss(student["b.1"], teacher["x"], regressor=second)
