"""Right and wrong by class, by hand."""

import numpy as np
import pytest
import torch

from tutelage.evaluation.classes import MOST_CLASSES, by_class, correct_bits
from tutelage.evaluation.predictions import Predictions
from tutelage.records import unpack_bits


def predictions(named: list[int], targets: list[int], classes: int = 3) -> Predictions:
    """Whatever is named gets the largest logit; −1 is a picture without a label."""
    outputs = torch.nn.functional.one_hot(torch.tensor(named), classes).float()
    labels = torch.tensor(targets)
    return Predictions(outputs, labels, labels >= 0, torch.arange(len(named)))


def test_by_hand():
    found = by_class(predictions([0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 2, -1]))
    assert found["pictures"] == 5
    assert found["top1"] == 3 / 5
    assert found["per_class"] == [2 / 3, 1.0, 0.0]
    assert found["balanced"] == pytest.approx(5 / 9)
    assert found["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 1, 0]]  # true classes in rows
    assert found["top5"] is None


def test_a_class_without_pictures_has_no_share():
    found = by_class(predictions([0, 1], [0, 1]))
    assert found["per_class"] == [1.0, 1.0, None]
    assert found["balanced"] == 1.0


def test_five_tries():
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1, 0]] * 4)
    targets = torch.tensor([0, 4, 5, 6])
    found = by_class(Predictions(logits, targets, targets >= 0, torch.arange(4)))
    assert found["top1"] == 0.25
    assert found["top5"] == 0.5


def test_of_many_classes_no_matrix_is_kept():
    many = MOST_CLASSES + 1
    assert by_class(predictions([0], [0], many))["confusion"] is None
    assert by_class(predictions([0], [0], many - 1))["confusion"] is not None


def test_bits_come_in_the_order_of_the_pictures():
    found = predictions([0, 1, 2, 0, 1, 2, 0, 1, 2], [0, 1, 0, -1, 1, 2, 0, 1, 1])
    order = torch.tensor([8, 3, 1, 0, 2, 7, 6, 5, 4])
    shuffled = Predictions(*(column[order] for column in vars(found).values()))
    expected = [True, True, False, True, True, True, True, False]  # the fourth has no label
    assert correct_bits(shuffled) == correct_bits(found)
    assert unpack_bits(correct_bits(shuffled), 8).tolist() == expected


def test_bits_take_an_eighth_of_a_byte_each():
    many = np.zeros(10_000, dtype=int).tolist()
    assert len(correct_bits(predictions(many, many))) == 4 * -(-1250 // 3)
