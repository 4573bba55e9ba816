"""Stages of networks that do not simply put out one map after the other."""

import pytest
import torch
from layouts_in_use import ChannelsLast, Several, Takes, Tokens
from torch import Tensor, nn

from tutelage.stages import Stage, survey
from tutelage.taps import find_stages

SQUARE = torch.zeros(2, 3, 32, 32)


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_tokens_are_one_stage_that_ends_before_the_norm(prefix: int):
    found = survey(Tokens(prefix).eval(), torch.zeros(2, 3, 32, 48))
    assert found.stages == [Stage("blocks", (6, 4, 6), (8, 8), "tokens")]
    assert found.layouts["blocks.0"].prefix == prefix
    assert found.layouts["embed"].kind == "map"
    assert "head" not in found.layouts


@pytest.mark.parametrize("channels", [4, 6, 8, 16])
@pytest.mark.parametrize("one_size", [False, True])
def test_channels_last_are_known_even_if_they_are_as_many_as_places(channels: int, one_size: bool):
    found = survey(ChannelsLast(channels, one_size=one_size), SQUARE)
    assert found.stages == [
        Stage("first", (channels, 8, 8), (4, 4), "nhwc"),
        Stage("second", (2 * channels, 4, 4), (8, 8), "nhwc"),
    ]
    assert found.layouts["embed"].kind == "map"


@pytest.mark.parametrize("flattens", [False, True])
def test_channels_first_are_known_even_if_they_are_as_many_as_places(flattens: bool):
    pool = nn.Identity() if flattens else nn.AdaptiveAvgPool2d(1)
    head = nn.Linear(4 * 16 if flattens else 4, 5)  # which takes one size only, if it flattens
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        pool,
        nn.Flatten(),
        head,
    )
    assert find_stages(module, SQUARE) == [
        Stage("1", (8, 8, 8), (4, 4)),
        Stage("3", (4, 4, 4), (8, 8)),
    ]


def test_an_entry_of_a_list_is_named_by_its_place_unless_a_sub_module_puts_it_out():
    assert find_stages(Takes(Several()), SQUARE) == [
        Stage("inner.fine", (4, 16, 16), (2, 2)),
        Stage("inner.1", (4, 8, 8), (4, 4)),
    ]


def test_behind_numbered_sub_modules_places_are_not_counted():
    stages = find_stages(Takes(nn.Sequential(Several())), SQUARE)
    assert [stage.name for stage in stages] == ["inner.0.fine", "inner.0.1"]


# Which of several


class Widens(nn.Module):
    """A block that adds channels before it strides, and weighs places against each other."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(c_in, 6 * c_in, 1)
        self.depthwise = nn.Conv2d(6 * c_in, 6 * c_in, 3, stride, padding=1, groups=c_in)
        self.weigh = nn.Softmax(dim=-1)
        self.project = nn.Conv2d(6 * c_in, c_out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.depthwise(self.expand(maps))
        rows = maps.flatten(2).transpose(1, 2)
        self.weigh(rows @ rows.transpose(1, 2))[:, None].expand(-1, 3, -1, -1).sum()
        return self.project(maps)


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(
            nn.Sequential(Widens(4, 4, 1), Widens(4, 5, 1)),
            nn.Sequential(Widens(5, 6, 2), nn.Identity()),
            nn.Sequential(Widens(6, 7, 2), nn.Dropout()),
        )
        self.widen = nn.Conv2d(7, 50, 1)
        self.norm = nn.BatchNorm2d(50)
        self.act = nn.ReLU(inplace=True)
        self.linear = nn.Linear(50, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.act(self.norm(self.widen(self.blocks(self.stem(images)))))
        return self.linear(maps.mean((2, 3)))


def test_neither_insides_of_blocks_nor_the_head_end_a_stage():
    assert find_stages(Mobile(), SQUARE) == [
        Stage("blocks.0", (5, 16, 16), (2, 2)),
        Stage("blocks.1", (6, 8, 8), (4, 4)),
        Stage("blocks.2", (7, 4, 4), (8, 8)),
    ]


def test_where_a_resolution_has_nothing_else_the_inside_of_a_block_is_its_stage():
    module = nn.Sequential(Widens(3, 4, 2), Widens(4, 5, 1))
    assert [stage.name for stage in find_stages(module, SQUARE)] == ["0.expand", "1"]


def test_of_blocks_in_a_row_those_before_the_one_that_strides_are_a_stage():
    body = nn.Sequential(Widens(4, 6, 1), Widens(6, 8, 2))
    module = nn.Sequential(nn.Conv2d(3, 4, 1), body, nn.Flatten())
    assert [(stage.name, stage.shape[0]) for stage in find_stages(module, SQUARE)] == [
        ("1.0", 6),
        ("1", 8),
    ]


def test_what_is_changed_in_place_is_named_after_what_changed_it_last():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    assert [stage.name for stage in find_stages(module, SQUARE)] == ["2"]


class Inferred(nn.Module):
    """A part that runs in inference mode, as frozen ones may."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.part(images)


def test_a_part_in_inference_mode_has_stages_too():
    stages = find_stages(nn.Sequential(Inferred(nn.Conv2d(3, 4, 3, padding=1))), SQUARE)
    assert [stage.name for stage in stages] == ["0"]


# Strides


@pytest.mark.parametrize("side", [32, 33, 35, 36, 47, 299])
def test_steps_of_two_are_powers_of_two_at_any_size(side: int):
    module = nn.Sequential(*(nn.Conv2d(3, 3, 3, stride=2, padding=1) for _ in range(4)))
    stages = find_stages(module, torch.zeros(1, 3, side, side))
    assert [stage.stride for stage in stages] == [(2, 2), (4, 4), (8, 8), (16, 16)]


def test_a_cut_border_is_no_step():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.MaxPool2d(2), nn.Conv2d(4, 5, 5), nn.MaxPool2d(2), nn.ReLU()
    )
    assert find_stages(module, torch.zeros(1, 3, 28, 28)) == [
        Stage("0", (4, 24, 24), (1, 1)),
        Stage("2", (5, 8, 8), (2, 2)),
        Stage("4", (5, 4, 4), (4, 4)),
    ]


def test_each_side_of_an_oblong_step_counts_by_itself():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3, stride=(2, 1), padding=1))
    stages = find_stages(module, torch.zeros(1, 3, 16, 24))
    assert [stage.stride for stage in stages] == [(1, 1), (2, 1)]


def test_patches_of_fourteen_pixels_are_stride_fourteen():
    assert find_stages(Tokens(1, patch=14), torch.zeros(1, 3, 56, 56))[0].stride == (14, 14)
