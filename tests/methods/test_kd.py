"""Knowledge distillation: the formula against the paper, and what the paper claims of it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, pad

from tutelage.errors import SettingError
from tutelage.methods.kd import KD, kd_loss


def logits(seed: int, n: int = 6, k: int = 5) -> torch.Tensor:
    return 3 * torch.randn(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def paper(z: list[list[float]], v: list[list[float]], temperature: float) -> float:
    """Equation 1 and the divergence, one number after the other."""

    def softened(row: list[float]) -> list[float]:
        powers = [math.exp(value / temperature) for value in row]
        return [power / sum(powers) for power in powers]

    total = 0.0
    for row_s, row_t in zip(z, v, strict=True):
        for q, p in zip(softened(row_s), softened(row_t), strict=True):
            total += p * math.log(p / q)
    return temperature * temperature * total / len(z)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_equals_the_paper_written_out(temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    expected = paper(student.tolist(), teacher.tolist(), temperature)
    assert kd_loss(student, teacher, temperature=temperature).item() == pytest.approx(expected)


def test_hand_worked_batch() -> None:
    # First sample: (3/4, 1/4) against (1/2, 1/2) at T = 2; second: equal. The mean halves it.
    student = torch.tensor([[0.0, 0.0], [1.0, 7.0]], dtype=torch.float64)
    teacher = torch.tensor([[2 * math.log(3), 0.0], [1.0, 7.0]], dtype=torch.float64)
    by_hand = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert kd_loss(student, teacher, temperature=2).item() == pytest.approx(by_hand)


def test_teacher_is_the_reference_distribution() -> None:
    # KL(teacher ‖ student) is huge where the student rules out what the teacher believes; the
    # other direction would be mild here.
    unsure, sure = torch.tensor([[0.0, 0.0]]), torch.tensor([[20.0, 0.0]])
    assert kd_loss(sure, unsure, temperature=1).item() == pytest.approx(10 - math.log(2), rel=1e-5)
    assert kd_loss(unsure, sure, temperature=1).item() == pytest.approx(math.log(2), rel=1e-5)


def test_is_soft_cross_entropy_without_the_teachers_entropy() -> None:
    student, teacher = logits(2), logits(3)
    soft = (teacher / 3).softmax(dim=1)
    entropy = -(soft * soft.log()).sum(dim=1).mean()
    expected = 9 * (cross_entropy(student / 3, soft) - entropy)
    torch.testing.assert_close(kd_loss(student, teacher, temperature=3), expected)


def test_gradient_is_the_difference_of_the_softened_answers() -> None:
    # T · (q − p), averaged over the batch: the paper's equation 2, times T².
    student, teacher = logits(4).requires_grad_(), logits(5)
    kd_loss(student, teacher, temperature=4).backward()
    q, p = (student.detach() / 4).softmax(dim=1), (teacher / 4).softmax(dim=1)
    torch.testing.assert_close(student.grad, 4 * (q - p) / len(student))


def test_high_temperature_matches_logits() -> None:
    # The paper's equation 4, times T²: for logits of mean zero the gradient tends to (z − v) / N,
    # that of the squared difference of logits.
    student, teacher = (z - z.mean(dim=1, keepdim=True) for z in (logits(6), logits(7)))
    student = student.requires_grad_()
    loss = kd_loss(student, teacher, temperature=1e4)
    loss.backward()
    n, k = student.shape
    difference = student.detach() - teacher
    torch.testing.assert_close(student.grad, difference / (n * k), rtol=1e-2, atol=1e-4)
    assert loss.item() == pytest.approx(difference.square().sum().item() / (2 * n * k), rel=1e-3)


def test_size_of_the_gradient_hardly_depends_on_temperature() -> None:
    # Why T² is there. Without it this ratio would be 4.
    sizes = []
    for temperature in (10, 20):
        student = logits(8).requires_grad_()
        kd_loss(student, logits(9), temperature=temperature).backward()
        assert student.grad is not None
        sizes.append(student.grad.norm().item())
    assert sizes[0] / sizes[1] == pytest.approx(1, abs=0.2)


def test_does_not_depend_on_the_number_of_classes() -> None:
    # A hundred classes that neither network thinks possible change nothing: no mean over classes.
    student, teacher = logits(10), logits(11)
    wider = [pad(z, (0, 100), value=-1e4) for z in (student, teacher)]
    torch.testing.assert_close(
        kd_loss(wider[0], wider[1], temperature=4), kd_loss(student, teacher, temperature=4)
    )


@given(st.integers(0, 1000), st.floats(0.3, 30), st.floats(-50, 50))
def test_is_a_divergence(seed: int, temperature: float, shift: float) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    loss = kd_loss(student, teacher, temperature=temperature)
    assert loss > 0
    assert kd_loss(teacher, teacher, temperature=temperature) == 0
    # Only differences between logits mean anything, and the names of the classes nothing.
    torch.testing.assert_close(kd_loss(student + shift, teacher, temperature=temperature), loss)
    order = torch.randperm(student.shape[1], generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        kd_loss(student[:, order], teacher[:, order], temperature=temperature), loss
    )


def test_survives_certainty() -> None:
    student = torch.tensor([[1e4, -1e4], [0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4], [1e4, -1e4]])
    loss = kd_loss(student, teacher, temperature=1)
    loss.backward()
    assert loss.item() == pytest.approx((2e4 + math.log(2)) / 2)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_bfloat16_logits_are_compared_in_float32() -> None:
    student, teacher = logits(12).bfloat16(), logits(13).bfloat16()
    loss = kd_loss(student, teacher, temperature=4)
    exact = kd_loss(student.double(), teacher.double(), temperature=4)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_refuses_a_temperature_that_is_none(temperature: float) -> None:
    with pytest.raises(SettingError, match=rf"above 0, but it is {temperature}\. Try 4"):
        KD(temperature=temperature)
