"""How an output holds a map: where the channels are, which tokens are places."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.layouts import PREFIXES, Layout, fewer, token_layout, which_axes

SIDES = st.integers(1, 9)


@given(SIDES, SIDES, st.integers(1, 5), st.sampled_from(PREFIXES))
def test_a_map_comes_back_from_each_layout(height: int, width: int, channels: int, prefix: int):
    maps = torch.rand(2, channels, height, width)
    rows = maps.flatten(2).transpose(1, 2)
    tokens = torch.cat([torch.full((2, prefix, channels), 7.0), rows], dim=1)
    last = maps.permute(0, 2, 3, 1).contiguous()
    layouts = [
        (Layout(), maps),
        (Layout("nhwc"), last),
        (Layout("tokens", prefix, (height, width)), tokens),
    ]
    for layout, raw in layouts:
        assert torch.equal(layout.map_of(raw), maps)
        assert layout.shape_of(raw.shape) == maps.shape[1:]
        assert layout.map_of(raw).data_ptr() in (raw.data_ptr(), raw[:, prefix:].data_ptr())


@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 4), st.sampled_from(PREFIXES))
def test_tokens_in_front_of_a_known_grid_are_found(
    height: int, width: int, patch: int, prefix: int
):
    image = (height * patch, width * patch)
    found = token_layout((2, prefix + height * width, 64), image, [(height, width)])
    assert found is not None
    # Such a number may also be a whole grid with fewer tokens, or none, in front.
    assert found.prefix <= prefix
    if prefix in (0, 1) and height != width:
        assert found == Layout("tokens", prefix, (height, width))


@pytest.mark.parametrize(
    ("tokens", "prefix", "grid"),
    [(196, 0, (14, 14)), (197, 1, (14, 14)), (198, 2, (14, 14)), (201, 5, (14, 14))],
)
def test_the_usual_tokens(tokens: int, prefix: int, grid: tuple[int, int]):
    found = token_layout((2, tokens, 192), (224, 224), [(14, 14)])
    assert found == Layout("tokens", prefix, grid)


def test_tokens_of_an_oblong_image_lie_as_it_does():
    assert token_layout((2, 8, 5), (16, 32), []) == Layout("tokens", 0, (2, 4))
    assert token_layout((2, 8, 5), (32, 16), []) == Layout("tokens", 0, (4, 2))


def test_what_is_no_grid_is_no_map():
    assert token_layout((2, 197, 192), (224, 224), []) is None  # nobody has seen 14 × 14
    assert token_layout((2, 77, 512), (224, 224), [(14, 14)]) is None  # words
    assert token_layout((2, 1, 192), (224, 224), [(14, 14)]) is None
    assert token_layout((2, 256, 196), (224, 224), [(14, 14)]) is None  # channels come first


def test_the_axes_of_places_relate_as_the_sides_of_the_image_do():
    assert which_axes((2, 8, 6, 9), (64, 96)) == ("map",)
    assert which_axes((2, 6, 9, 8), (64, 96)) == ("nhwc",)
    assert which_axes((2, 16, 16, 16), (64, 64)) == ("map", "nhwc")
    assert which_axes((2, 16, 8, 22), (28, 56)) == ("map",)  # borders cut off, and not like it
    assert which_axes((2, 3, 197, 64), (224, 224)) == ("map",)


def test_a_border_is_no_step_of_resolution():
    assert not fewer((147, 147), (149, 149))
    assert fewer((5, 5), (9, 9))
    assert not fewer((9, 9), (9, 9))
