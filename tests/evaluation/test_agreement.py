"""How often two networks name the same class, whatever is true."""

import pytest
import torch

from tutelage.evaluation.agreement import agreement
from tutelage.evaluation.predictions import Predictions


def predictions(classes: list[int], first: int = 0) -> Predictions:
    outputs = torch.nn.functional.one_hot(torch.tensor(classes), 3).float()
    count = len(classes)
    labels, known = torch.full((count,), -1), torch.zeros(count, dtype=torch.bool)
    return Predictions(outputs, labels, known, torch.arange(first, first + count))


def test_by_hand():
    assert agreement(predictions([0, 1, 2, 2]), predictions([0, 1, 1, 2])) == 0.75


def test_it_is_symmetric_and_needs_no_labels():
    one, other = predictions([0, 1, 2, 2, 0]), predictions([0, 2, 1, 2, 0])
    assert agreement(one, other) == agreement(other, one)
    assert agreement(one, one) == 1.0


def test_only_the_named_class_counts_not_how_surely():
    one = predictions([0, 1, 2])
    surer = Predictions(9 * one.outputs, one.targets, one.has_label, one.index)
    assert agreement(one, surer) == 1.0


def test_other_pictures_are_our_mistake():
    with pytest.raises(AssertionError, match="not the same pictures"):
        agreement(predictions([0, 1]), predictions([0, 1], first=7))
