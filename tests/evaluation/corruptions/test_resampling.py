"""The sums that blurs and grids are made of."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluation.corruptions.resampling import bell, in_pixels, mix_lines, pick


@pytest.mark.parametrize(
    ("height", "width", "pixels"), [(8, 8, 2.0), (32, 32, 2.0), (64, 48, 3.0), (224, 224, 14.0)]
)
def test_a_length_grows_with_the_shorter_side(height: int, width: int, pixels: float):
    assert in_pixels(2.0, torch.zeros(1, 3, height, width)) == pixels


@given(sigma=st.floats(0.05, 20))
def test_a_bell_is_symmetric_and_of_sum_1(sigma: float):
    weights = bell(sigma)
    assert len(weights) % 2 == 1
    assert torch.equal(weights, weights.flip(0))
    assert float(weights.sum()) == pytest.approx(1)
    assert int(weights.argmax()) == len(weights) // 2


def test_lines_are_mixed_by_hand():
    image = torch.tensor([[1.0, 2.0], [3.0, 5.0]]).reshape(1, 1, 2, 2)
    places = torch.tensor([[0, 0], [1, 1]])
    weights = torch.tensor([[1.0, 0.5], [0.0, 0.5]], dtype=torch.float64)
    rows = mix_lines(image, 2, places, weights)
    assert rows[0, 0].tolist() == [[1.0, 2.0], [2.0, 3.5]]
    columns = mix_lines(image, 3, places, weights)
    assert columns[0, 0].tolist() == [[1.0, 1.5], [3.0, 4.0]]


def test_pixels_are_picked_and_the_border_goes_on():
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    rows, columns = torch.tensor([[[-1], [1]]]), torch.tensor([[[2, 9, 0]]])
    assert pick(image, rows, columns)[0, 0].tolist() == [[2.0, 2.0, 0.0], [5.0, 5.0, 3.0]]
