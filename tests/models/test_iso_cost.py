"""Ladders of equal cost: formulas against counted networks, and the published examples."""

import pytest
import timm
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

from tutelage.errors import SettingError
from tutelage.evaluation.cost import macs
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.iso_cost import (
    FURTHEST,
    cifar_macs,
    iso_cost_blocks,
    iso_cost_ladder,
    resnet_macs,
)


@settings(max_examples=12)
@given(
    st.sampled_from([8, 14, 20]),
    st.integers(1, 12),
    st.sampled_from(["A", "B"]),
    st.sampled_from([8, 15, 32]),
)
def test_a_cifar_resnets_cost_is_what_is_counted(
    depth: int, width: int, shortcut: str, size: int
) -> None:
    how = {"num_classes": 7, "in_channels": 2, "shortcut": shortcut}
    network = cifar_resnet(depth, width, **how)  # pyright: ignore[reportArgumentType]
    counted = macs(network, (2, size, size))
    found = cifar_macs(depth, width, size=size, **how)  # pyright: ignore[reportArgumentType]
    assert found == counted


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize(("blocks", "width"), [((1, 1, 1, 1), 16), ((2, 1, 3, 1), 8)])
def test_a_resnets_cost_is_what_is_counted(
    bottleneck: bool, blocks: tuple[int, ...], width: int
) -> None:
    channels = tuple(width * 2**stage for stage in range(4))
    block = Bottleneck if bottleneck else BasicBlock
    network = ResNet(block, blocks, channels=channels, num_classes=7)  # pyright: ignore[reportArgumentType]
    for size in (64, 70):
        found = resnet_macs(blocks, width, bottleneck=bottleneck, num_classes=7, size=size)
        assert found == macs(network, (3, size, size))


@pytest.mark.parametrize(
    ("name", "blocks"), [("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))]
)
def test_it_knows_the_published_ones(name: str, blocks: tuple[int, ...]) -> None:
    assert resnet_macs(blocks, 64) == macs(timm.create_model(name), (3, 224, 224))


def test_the_ladder_of_a_resnet_14() -> None:
    # 27.2, 26.4 and 27.9 million on CIFAR-100; wide, unmodified, narrow and deep.
    ladder = iso_cost_ladder((14, 16), [24, 16, 8], num_classes=100)
    assert [(rung.depth, rung.width) for rung in ladder] == [(8, 24), (14, 16), (50, 8)]
    assert [round(rung.macs / 1e6, 1) for rung in ladder] == [27.2, 26.4, 27.9]
    assert ladder[1].deviation == 0
    assert ladder[2].blocks == (8, 8, 8)


@given(st.sampled_from([14, 20, 56]), st.sampled_from([8, 16, 24, 32]), st.integers(4, 32))
def test_no_other_depth_is_nearer_and_none_is_far(depth: int, width: int, other: int) -> None:
    wanted = cifar_macs(depth, width)
    nearest = min(range(8, 3000, 6), key=lambda d: abs(cifar_macs(d, other) - wanted))
    off = cifar_macs(nearest, other) / wanted - 1
    if abs(off) > FURTHEST:
        with pytest.raises(SettingError, match=f"At width {other} the nearest cost is"):
            iso_cost_ladder((depth, width), [other])
    else:
        (rung,) = iso_cost_ladder((depth, width), [other])
        assert (rung.depth, rung.deviation) == (nearest, off)


def test_narrower_resnets_keep_the_proportions_of_their_stages() -> None:
    narrow, same = iso_cost_blocks(([3, 4, 6, 3], 64), [32, 64])
    assert same.blocks == (3, 4, 6, 3)
    assert same.depth == 34
    assert same.deviation == 0
    few, many = min(narrow.blocks), max(narrow.blocks)
    assert many / few == pytest.approx(2, rel=0.15)
    assert abs(narrow.deviation) <= FURTHEST
    (deep,) = iso_cost_blocks(([3, 4, 6, 3], 64), [64], bottleneck=True)
    assert deep.depth == 50


@pytest.mark.usefixtures("unchecked")
def test_refuses_numbers_that_are_none() -> None:
    with pytest.raises(SettingError, match="depth 6n"):
        iso_cost_ladder((15, 16), [8])
    for call in (lambda: iso_cost_ladder((14, 16), [0]), lambda: iso_cost_ladder((14, 0), [8])):
        with pytest.raises(SettingError, match="at least 1, but one is 0"):
            call()
    with pytest.raises(SettingError, match="at least 1, but one is 0"):
        iso_cost_blocks(([2, 0, 2, 2], 64), [32])
    for call in (
        lambda: cifar_macs(10, 16),
        lambda: iso_cost_ladder((20, 16), [16], size=0),
        lambda: iso_cost_blocks(([], 64), [4]),
        lambda: iso_cost_blocks(([2, 2], 64), [32]),
        lambda: cifar_macs(8, 16, shortcut="C"),  # pyright: ignore[reportArgumentType]
    ):
        with pytest.raises(SettingError):
            call()
    with pytest.raises(SettingError, match=r"At width 64 .* % from the .* called equal"):
        iso_cost_ladder((8, 16), [64])
