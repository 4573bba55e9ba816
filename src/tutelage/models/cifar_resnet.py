"""Residual networks for small pictures: three stages, any depth, any width.

K. He, X. Zhang, S. Ren, J. Sun: Deep Residual Learning for Image Recognition, CVPR 2016,
arXiv:1512.03385, section 4.2. A 3×3 convolution, then three stages of n blocks each, of which the
second and the third halve the picture and double the channels; the mean over all places, and one
linear layer: 6n + 2 layers with weights.

Sub-modules are named as in Y. Idelbayev's public CIFAR-10 weights, so that those load as they are
(akamaster/pytorch_resnet_cifar10). Nothing is normalized inside: `Network` does that.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import gcd
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from tutelage.errors import SettingError, one_of

__all__ = ["CifarResNet", "blocks_per_stage", "cifar_resnet"]

Norm = Callable[[int], nn.BatchNorm2d | nn.GroupNorm]
"""Channels → normalization of that many channels."""

Shortcut = Callable[[int, int, Norm], nn.Module]
"""Channels in, channels out, norm → what leads around a block that halves the picture."""


def cifar_resnet(
    depth: int,
    width: int = 16,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    shortcut: Literal["A", "B"] = "A",
    norm: Literal["batch", "group"] = "batch",
    zero_init: bool = False,
) -> "CifarResNet":
    """Makes a network with weights from the global generator, as in Idelbayev's code.

    Weights of convolutions and of the linear layer are Kaiming normal (by fan-in, gain √2), the
    linear bias is PyTorch's default.

    Args:
        depth: layers with weights, 6n + 2: 8, 14, 20, ...
        width: channels of the first stage; the others have twice and four times as many.
        num_classes: length of the output.
        in_channels: 1 for gray pictures, 3 for RGB.
        shortcut: what leads around a block that changes the shape. "A" takes every other pixel and
            fills new channels with zeros: no parameters, the paper's choice for CIFAR. "B" learns a
            1×1 convolution with a norm: what most published CIFAR-100 costs refer to.
        norm: "batch", or "group" for batches too small for statistics: 8 groups per layer, fewer
            (the greatest common divisor) where 8 does not divide the channels.
        zero_init: the last norm of each block starts at zero, so that every block starts as its
            shortcut (arXiv:1706.02677, section 5.1).

    Raises:
        SettingError: there is no such network.

    >>> cifar_resnet(18)
    Traceback (most recent call last):
    tutelage.errors.SettingError: A CIFAR ResNet has depth 6n + 2, but depth is 18. Use 14 or 20.
    """
    num_blocks = blocks_per_stage(depth)
    counts = {"width": width, "num_classes": num_classes, "in_channels": in_channels}
    for setting, value in counts.items():
        if value < 1:
            raise SettingError(f"{setting} must be at least 1, but is {value}. Raise it.")
    one_of("shortcut", shortcut, _SHORTCUTS, SettingError)
    one_of("norm", norm, _NORMS, SettingError)
    network = CifarResNet(
        num_blocks, width, num_classes, in_channels, _SHORTCUTS[shortcut], _NORMS[norm]
    )
    _initialize(network, zero_init)
    return network


def blocks_per_stage(depth: int) -> int:
    """The n of depth 6n + 2.

    Raises:
        SettingError: there is no network of this depth.

    >>> blocks_per_stage(20)
    3
    """
    num_blocks, odd = divmod(depth - 2, 6)
    if odd or num_blocks < 1:
        below, above = 6 * num_blocks + 2, 6 * num_blocks + 8
        near = f"{below} or {above}" if num_blocks > 0 else "8, the least"
        raise SettingError(f"A CIFAR ResNet has depth 6n + 2, but depth is {depth}. Use {near}.")
    return num_blocks


@final
class CifarResNet(nn.Module):
    """The network; `cifar_resnet` makes it from words.

    Attributes:
        conv1, bn1: the stem.
        layer1, layer2, layer3: the stages; their outputs, after the last ReLU, are what methods
            usually compare. Shapes for pictures of (h, w): (width, h, w), (2 · width, h/2, w/2)
            and (4 · width, h/4, w/4), rounded up.
        linear: mean of the last map → logits.
    """

    def __init__(
        self,
        num_blocks: int,
        width: int,
        num_classes: int,
        in_channels: int,
        shortcut: Shortcut,
        norm: Norm,
    ) -> None:
        super().__init__()
        stage = partial(_stage, num_blocks, shortcut=shortcut, norm=norm)
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = norm(width)
        self.layer1 = stage(width, width)
        self.layer2 = stage(width, 2 * width)
        self.layer3 = stage(2 * width, 4 * width)
        self.linear = nn.Linear(4 * width, num_classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits of normalized images."""
        return self.head(self.layer3(self.layer2(self.layer1(self.stem(images)))))

    def stem(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n width h w"]:
        """What the first stage takes."""
        return relu(self.bn1(self.conv1(images)))

    def head(self, maps: Float[Tensor, "n channels h w"]) -> Float[Tensor, "n classes"]:
        """Logits from the last stage's map."""
        return self.linear(maps.mean((2, 3)))


class _Block(nn.Module):
    """Two 3×3 convolutions and what leads around them."""

    def __init__(self, c_in: int, c_out: int, shortcut: Shortcut, norm: Norm) -> None:
        super().__init__()
        halves = c_in != c_out
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride=2 if halves else 1, padding=1, bias=False)
        self.bn1 = norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = norm(c_out)
        self.shortcut = shortcut(c_in, c_out, norm) if halves else nn.Identity()

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        # Not in place: a tap on a norm would see what came after it.
        inner = relu(self.bn1(self.conv1(maps)))
        return relu(self.bn2(self.conv2(inner)) + self.shortcut(maps))


def _stage(num_blocks: int, c_in: int, c_out: int, *, shortcut: Shortcut, norm: Norm) -> nn.Module:
    widths = [c_in] + [c_out] * num_blocks
    blocks = (_Block(a, b, shortcut, norm) for a, b in pairwise(widths))
    return nn.Sequential(*blocks)


class _SliceAndPad(nn.Module):
    """Shortcut A: every other pixel; as many zero channels before as after."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.before = (c_out - c_in) // 2
        self.after = c_out - c_in - self.before  # one more if the width is odd

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        return pad(maps[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


def _shortcut_a(c_in: int, c_out: int, _: Norm) -> nn.Module:
    return _SliceAndPad(c_in, c_out)


def _shortcut_b(c_in: int, c_out: int, norm: Norm) -> nn.Module:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=2, bias=False), norm(c_out))


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(gcd(8, channels), channels)


_SHORTCUTS: dict[str, Shortcut] = {"A": _shortcut_a, "B": _shortcut_b}
_NORMS: dict[str, Norm] = {"batch": nn.BatchNorm2d, "group": _group_norm}


def _initialize(network: CifarResNet, zero_init: bool) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, _Block) and zero_init:
            nn.init.zeros_(module.bn2.weight)
