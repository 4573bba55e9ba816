"""How often a network is right, and when that is no better than guessing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.evaluation.accuracy import accuracy, near_chance
from tutelage.evaluation.predictions import Predictions


def predictions(classes: list[int], targets: list[int], num_classes: int = 3) -> Predictions:
    """Predictions that name these classes; a target of −1 is no label."""
    outputs = torch.nn.functional.one_hot(torch.tensor(classes), num_classes).float()
    truth = torch.tensor(targets)
    return Predictions(outputs, truth, truth >= 0, torch.arange(len(classes)))


def test_by_hand():
    assert accuracy(predictions([0, 1, 2, 0], [0, 1, 1, 2])) == 0.5


def test_pictures_without_label_do_not_count():
    assert accuracy(predictions([0, 1, 2, 0], [0, -1, 2, 1])) == pytest.approx(2 / 3)


def test_classes_do_not_weigh_equally_but_pictures_do():
    assert accuracy(predictions([0] * 9 + [0], [0] * 9 + [1])) == pytest.approx(0.9)


def test_no_label_is_refused():
    with pytest.raises(DataError, match="none of these pictures"):
        accuracy(predictions([0, 1], [-1, -1]))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_it_is_the_share_of_equal_pairs(pairs: list[tuple[int, int]]):
    share = accuracy(predictions([a for a, _ in pairs], [b for _, b in pairs], 5))
    assert share == pytest.approx(sum(a == b for a, b in pairs) / len(pairs), abs=1e-6)


@pytest.mark.parametrize(
    ("share", "chance"), [(0.1, True), (0.0, True), (0.18, True), (0.2, False), (0.9, False)]
)
def test_near_chance_for_ten_even_classes(share: float, chance: bool):
    # 100 pictures: 0.1 + 3 √(0.1 · 0.9 / 100) = 0.19
    assert near_chance(share, predictions([0] * 100, list(range(10)) * 10, 10)) == chance


def test_naming_the_commonest_class_is_chance():
    targets = [0] * 90 + [1] * 10
    seen = predictions([0] * 100, targets, 2)
    assert accuracy(seen) == pytest.approx(0.9)
    assert near_chance(accuracy(seen), seen)
    assert not near_chance(0.9 + 3 * math.sqrt(0.9 * 0.1 / 100) + 0.001, seen)


def test_more_pictures_make_it_stricter():
    few = predictions([0] * 20, [0, 1] * 10, 2)
    many = predictions([0] * 2000, [0, 1] * 1000, 2)
    assert near_chance(0.6, few)
    assert not near_chance(0.6, many)


def test_pictures_without_label_say_nothing_of_chance():
    assert near_chance(0.5, predictions([0] * 300, [0, 1] * 50 + [-1] * 200, 2))
