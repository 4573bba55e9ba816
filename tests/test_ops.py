"""Operations on maps that methods share."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.ops import pool_to_smaller

SIDE = st.integers(1, 9)


def test_the_larger_map_is_averaged():
    large = torch.arange(16.0).reshape(1, 1, 4, 4)
    small = torch.zeros(1, 3, 2, 2)
    first, second = pool_to_smaller(large, small)
    # The upper left quarter holds 0, 1, 4, 5; one place right adds 2, one down adds 8.
    assert first.tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert second is small
    swapped = pool_to_smaller(small, large)
    assert torch.equal(swapped[1], first)


def test_each_direction_has_its_own_smaller_map():
    wide = torch.tensor([[[[1.0, 3.0, 5.0, 7.0]]]])
    tall = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    first, second = pool_to_smaller(wide, tall)
    assert first.tolist() == [[[[2.0, 6.0]]]]
    assert second.tolist() == [[[[2.0, 3.0]]]]


def test_maps_of_one_size_are_handed_back():
    one, other = torch.rand(2, 3, 4, 5), torch.rand(2, 1, 4, 5)
    first, second = pool_to_smaller(one, other)
    assert first is one
    assert second is other


@given(SIDE, SIDE, SIDE, SIDE)
def test_sizes_agree_and_values_stay_in_their_range(h_1: int, w_1: int, h_2: int, w_2: int):
    one, other = torch.rand(2, 3, h_1, w_1), torch.rand(2, 2, h_2, w_2)
    first, second = pool_to_smaller(one, other)
    assert first.shape[-2:] == second.shape[-2:] == (min(h_1, h_2), min(w_1, w_2))
    assert first.shape[:2] == (2, 3)
    assert one.min() <= first.min() + 1e-6
    assert first.max() <= one.max() + 1e-6
