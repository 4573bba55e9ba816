"""How the output of a module holds a map, read from shapes alone.

Convolutions put out maps, (n, channels, height, width). Others put channels last, or one row per
token, in front of which may stand tokens that are no place of the picture. What a module does is
decided once, in a dry run; in a step it is a view, without a question to the device.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

__all__ = ["PREFIXES", "Grid", "Layout", "Shape", "fewer", "token_layout", "which_axes"]

Grid = tuple[int, int]
"""Height and width, in places."""

Shape = tuple[int, int, int]
"""Channels, height, width."""

Kind = Literal["map", "nhwc", "tokens"]

PREFIXES = (0, 1, 2, 4, 5, 8)
"""How many tokens may stand in front of those of the places: classes and registers."""


class Layout(NamedTuple):
    """Where channels and places are in an output.

    Attributes:
        kind: "map" is (n, c, h, w), "nhwc" is (n, h, w, c), "tokens" is (n, prefix + h · w, c).
        prefix: tokens in front that are no places.
        grid: height and width of tokens.
    """

    kind: Kind = "map"
    prefix: int = 0
    grid: Grid = (0, 0)

    def map_of(self, raw: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        """The map in an output, as a view.

        >>> import torch
        >>> Layout("tokens", 1, (2, 3)).map_of(torch.zeros(5, 7, 4)).shape
        torch.Size([5, 4, 2, 3])
        """
        if self.kind == "nhwc":
            return raw.permute(0, 3, 1, 2)
        if self.kind == "tokens":
            return raw[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        return raw

    def shape_of(self, raw: Sequence[int]) -> Shape:
        """Channels, height and width of the map in an output of this shape (n first)."""
        if self.kind == "tokens":
            return raw[-1], *self.grid
        channels, height, width = (raw[1], raw[2], raw[3])
        return (width, channels, height) if self.kind == "nhwc" else (channels, height, width)


def fewer(one: Grid, other: Grid) -> bool:
    """Whether one grid has clearly fewer places: by a step of resolution, not by a cut border.

    >>> fewer((4, 4), (8, 8)), fewer((71, 71), (73, 73)), fewer((1, 1), (1, 2))
    (True, False, True)
    """
    return 1.5 * math.prod(one) < math.prod(other)


def which_axes(shape: Sequence[int], image: Grid) -> tuple[Kind, ...]:
    """How an output with four axes can be read; several if its shape leaves that open.

    The places are the two neighboring axes whose sides relate as those of the image do.

    >>> which_axes((2, 96, 7, 7), (224, 224)), which_axes((2, 7, 7, 96), (224, 224))
    (('map',), ('nhwc',))
    >>> which_axes((2, 7, 7, 7), (224, 224))
    ('map', 'nhwc')
    """
    first, second = _misfit(shape[2:], image), _misfit(shape[1:3], image)
    side = max(image)
    if second >= side or (first == 0 < second):
        return ("map",)
    if first >= side or (second == 0 < first):
        return ("nhwc",)
    return ("map", "nhwc")


def _misfit(grid: Sequence[int], image: Grid) -> int:
    """0 if a grid's sides relate as the image's do; less than the image's side if but for rounding.

    A place more or less on one side is worth a side of the image.
    """
    return abs(grid[0] * image[1] - grid[1] * image[0])


def token_layout(shape: Sequence[int], image: Grid, known: Iterable[Grid]) -> Layout | None:
    """How an output with three axes (n, tokens, channels) is a map; None if it is none.

    Tokens in front are believed only where what remains is a grid that was seen before, as a patch
    embedding puts it out.

    Args:
        known: grids of maps that were seen before, the latest first.

    >>> token_layout((2, 197, 192), (224, 224), [(14, 14)])
    Layout(kind='tokens', prefix=1, grid=(14, 14))
    >>> token_layout((2, 49, 192), (224, 224), [])
    Layout(kind='tokens', prefix=0, grid=(7, 7))
    """
    known = list(known)
    number = shape[1]
    if number < 2:
        return None
    seen = {math.prod(grid): grid for grid in reversed(known)}
    grid = seen.get(number)
    if grid is None and shape[2] not in seen:  # else channels come first, and places last
        grid = _proportional(number, image)
    if grid is not None:
        return Layout("tokens", 0, grid)
    for prefix in PREFIXES[1:]:
        if number - prefix > 1 and number - prefix in seen:
            return Layout("tokens", prefix, seen[number - prefix])
    return None


def _proportional(number: int, image: Grid) -> Grid | None:
    """The grid of so many places whose sides relate as the image's do."""
    height = max(1, round(math.sqrt(number * image[0] / image[1])))
    width = number // height
    fits = height * width == number and _misfit((height, width), image) < max(image)
    return (height, width) if fits else None
