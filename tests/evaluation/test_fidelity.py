"""How closely a student follows its teacher, by hand."""

import math

import pytest
import torch

from tutelage.evaluation.agreement import agreement
from tutelage.evaluation.fidelity import fidelity
from tutelage.evaluation.predictions import Predictions


def predictions(shares: list[float], targets: list[int]) -> Predictions:
    """Two classes; the probability of class 0."""
    share = torch.tensor(shares)
    labels = torch.tensor(targets)
    logits = torch.stack([share.log(), (1 - share).log()], 1)
    return Predictions(logits, labels, labels >= 0, torch.arange(len(labels)))


def test_by_hand():
    targets = [0, 0, 1, -1]
    teacher = predictions([0.8, 0.3, 0.8, 0.6], targets)  # wrong on the second and the third
    student = predictions([0.8, 0.4, 0.4, 0.4], targets)  # repeats the error on the second
    found = fidelity(student, teacher)
    assert found["top1"] == 0.5 == agreement(student, teacher)
    assert found["on_teacher_errors"] == 0.5
    parts = [(0.3, 0.4), (0.8, 0.4), (0.6, 0.4)]
    divergence = sum(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for p, q in parts)
    assert found["kl"] == pytest.approx(divergence / 4, abs=1e-6)


def test_a_student_that_says_the_same_diverges_by_nothing():
    teacher = predictions([0.8, 0.3], [0, 0])
    assert fidelity(teacher, teacher) == {
        "top1": 1.0,
        "kl": pytest.approx(0, abs=1e-9),
        "on_teacher_errors": 1.0,
    }


def test_a_teacher_without_errors_leaves_none_to_repeat():
    assert fidelity(*[predictions([0.8, 0.3], [0, 1])] * 2)["on_teacher_errors"] is None
    assert fidelity(*[predictions([0.8, 0.3], [-1, -1])] * 2)["on_teacher_errors"] is None


def test_the_direction_is_from_the_teacher():
    """A student that is sure of what the teacher doubts pays more than the reverse."""
    sure, doubting = predictions([0.99], [0]), predictions([0.6], [0])
    assert (fidelity(sure, doubting)["kl"] or 0) > (fidelity(doubting, sure)["kl"] or 0)


def test_other_pictures_are_our_mistake():
    one = predictions([0.8, 0.3], [0, 0])
    other = Predictions(one.outputs, one.targets, one.has_label, one.index + 1)
    with pytest.raises(AssertionError, match="not the same pictures"):
        fidelity(one, other)
