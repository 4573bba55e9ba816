"""Networks of equal cost: how much deeper a narrower one may be.

A convolution's cost grows with the product of its widths, so at half the width four times as many
blocks cost the same. These ladders find the depths; costs are multiply-accumulates (MACs) of
convolutions and of the linear layer, as `evaluation.cost.macs` counts them.

The idea of a narrow-deep student is that of Y. Zhou, Z. Wang, J. Li: Knowledge Distillation Based
on Narrow-Deep Networks, Neural Processing Letters 2024, doi:10.1007/s11063-024-11646-5, of which
the abstract could be read: wide nets have "a high risk of overfitting"; an unmodified, a wide and a
narrow-deep ResNet learn a teacher's output; the narrow-deep one has "about the same accuracy rate
as a large model, while dramatically shrinking the response time". Widths, depths and equal cost are
ours. Of its data sets, CIFAR-100 and Pascal VOC, only the first is meant to be shown here
(benchmarks/narrow-deep.yaml): not yet measured.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import ceil
from typing import Literal, NamedTuple

from tutelage.errors import SettingError, one_of
from tutelage.models.cifar_resnet import blocks_per_stage

__all__ = ["FURTHEST", "Rung", "cifar_macs", "iso_cost_blocks", "iso_cost_ladder", "resnet_macs"]

FURTHEST = 0.08
"""The share by which the cost of a rung may differ from the reference's."""

_MOST_BLOCKS = 512  # of a stage


class Rung(NamedTuple):
    """A network of about the reference's cost.

    Attributes:
        width: channels of the first stage.
        blocks: of each stage.
        depth: layers with weights.
        macs: of one picture.
        deviation: share by which `macs` differs from the reference's; below 0 if it is cheaper.
    """

    width: int
    blocks: tuple[int, ...]
    depth: int
    macs: int
    deviation: float


def cifar_macs(
    depth: int,
    width: int,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    size: int = 32,
    shortcut: Literal["A", "B"] = "A",
) -> int:
    """MACs of a CIFAR ResNet for one square picture.

    Raises:
        SettingError: there is no such network, or a number is not positive.

    >>> cifar_macs(8, 16)
    12239488
    """
    per_stage = blocks_per_stage(depth)
    one_of("shortcut", shortcut, ("A", "B"), SettingError)
    _require_positive(width, num_classes, in_channels, size)
    side = size
    total = 9 * in_channels * width * side**2
    channels = width
    for stage in range(3):
        c_out = width * 2**stage
        side = ceil(side / 2) if stage else side
        places = side**2
        if shortcut == "B" and c_out != channels:
            total += channels * c_out * places
        total += 9 * channels * c_out * places + 9 * c_out**2 * places * (2 * per_stage - 1)
        channels = c_out
    return total + channels * num_classes


def iso_cost_ladder(
    reference: tuple[int, int],
    widths: Iterable[int],
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    size: int = 32,
    shortcut: Literal["A", "B"] = "A",
) -> list[Rung]:
    """For each width the CIFAR ResNet of depth 6n + 2 whose cost is nearest to the reference's.

    Args:
        reference: its depth and width.
        num_classes, in_channels, shortcut: as in `cifar_resnet`.
        size: height and width of the pictures.

    Raises:
        SettingError: the nearest is more than 8 % off, or a number is not positive.

    >>> [(rung.depth, rung.width, rung.macs) for rung in iso_cost_ladder((14, 16), [24, 16, 8])]
    [(8, 24, 27206592), (14, 16, 26395264), (50, 8, 27943232)]
    """
    cost = partial(
        cifar_macs,
        num_classes=num_classes,
        in_channels=in_channels,
        size=size,
        shortcut=shortcut,
    )
    wanted = cost(*reference)
    return [
        _nearest(
            width,
            ((count,) * 3 for count in range(1, _MOST_BLOCKS)),
            wanted,
            lambda blocks, width=width: cost(6 * blocks[0] + 2, width),
            layers=2,
        )
        for width in widths
    ]


def resnet_macs(
    blocks: Sequence[int],
    width: int,
    *,
    bottleneck: bool = False,
    num_classes: int = 1000,
    in_channels: int = 3,
    size: int = 224,
    stem_width: int = 64,
) -> int:
    """MACs of a ResNet of timm or torchvision for one square picture.

    Args:
        blocks: of each of the four stages.
        width: channels of the first stage's 3×3 convolutions; those of the others double.
        bottleneck: whether blocks have three convolutions, the last four times as wide.
        stem_width: channels of the first 7×7 convolution.

    Raises:
        SettingError: there are not four stages, or a number is not positive.

    >>> resnet_macs([2, 2, 2, 2], 64)  # ResNet-18
    1814073344
    """
    if len(blocks) != 4:
        raise SettingError(f"A ResNet has blocks of four stages, but these are {len(blocks)}.")
    _require_positive(*blocks, width, num_classes, in_channels, size, stem_width)
    side = ceil(size / 2)
    total = 49 * in_channels * stem_width * side**2
    side, channels = ceil(side / 2), stem_width
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        outer = 4 * inner if bottleneck else inner
        before, side = side, ceil(side / 2) if stage else side
        for block in range(count):
            at = before if block == 0 else side  # a bottleneck halves in its second convolution
            if bottleneck:
                total += channels * inner * at**2 + (9 * inner**2 + inner * outer) * side**2
            else:
                total += (9 * channels * inner + 9 * inner**2) * side**2
            if block == 0 and (stage or channels != outer):
                total += channels * outer * side**2
            channels = outer
    return total + channels * num_classes


def iso_cost_blocks(
    reference: tuple[Sequence[int], int],
    widths: Iterable[int],
    *,
    bottleneck: bool = False,
    num_classes: int = 1000,
    in_channels: int = 3,
    size: int = 224,
    stem_width: int = 64,
) -> list[Rung]:
    """For each width the block counts, in the reference's proportions, of about its cost.

    Args:
        reference: its blocks of each stage, and its width.
        bottleneck, num_classes, in_channels, size, stem_width: as in `resnet_macs`.

    Raises:
        SettingError: the nearest is more than 8 % off, or a number is not positive.

    >>> (rung,) = iso_cost_blocks(([2, 2, 2, 2], 64), [32])
    >>> rung.blocks, rung.depth, round(100 * rung.deviation, 1)
    ((7, 7, 7, 7), 58, -4.4)
    """
    cost = partial(
        resnet_macs,
        bottleneck=bottleneck,
        num_classes=num_classes,
        in_channels=in_channels,
        size=size,
        stem_width=stem_width,
    )
    counts = tuple(reference[0])
    wanted = cost(counts, reference[1])
    # Every proportion at which some count is rounded to another.
    factors = sorted({(2 * n + 1) / (2 * count) for count in counts for n in range(64 * count)})
    ladder = [tuple(max(1, round(count * f + 1e-9)) for count in counts) for f in factors]
    return [
        _nearest(
            width,
            dict.fromkeys(ladder),
            wanted,
            lambda blocks, width=width: cost(blocks, width),
            layers=3 if bottleneck else 2,
        )
        for width in widths
    ]


def _nearest(
    width: int,
    candidates: Iterable[tuple[int, ...]],
    wanted: int,
    cost: Callable[[tuple[int, ...]], int],
    *,
    layers: int,
) -> Rung:
    """The candidate of nearest cost.

    Args:
        layers: with weights, of a block; stem and head have one each.
    """
    best = min(candidates, key=lambda blocks: abs(cost(blocks) - wanted))
    macs = cost(best)
    rung = Rung(width, best, layers * sum(best) + 2, macs, macs / wanted - 1)
    if abs(rung.deviation) > FURTHEST:
        raise SettingError(
            f"At width {width} the nearest cost is {macs / 1e6:.1f} million MACs, "
            f"{100 * rung.deviation:+.0f} % from the {wanted / 1e6:.1f} that were asked for, and "
            f"{100 * FURTHEST:.0f} % are called equal. Take another width, or a larger reference."
        )
    return rung


def _require_positive(*numbers: int) -> None:
    if min(numbers) < 1:
        raise SettingError(
            f"Widths and counts are at least 1, but one is {min(numbers)}. Raise it."
        )
