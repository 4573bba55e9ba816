"""Where the stages of a network end, found by watching one forward pass.

Every call of a sub-module is noted: what it was given and what it put out. A stage ends with the
last map of its resolution, but not every map counts: see `survey`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn

from tutelage.layouts import Grid, Layout, Shape, fewer, token_layout, which_axes

__all__ = ["Stage", "Survey", "numbered", "survey"]


class Stage(NamedTuple):
    """The last map that a network makes at one resolution.

    Attributes:
        name: of the sub-module that puts it out; with a number behind, if it is one of several.
        shape: channels, height, width.
        stride: input pixels per location, down and across. A step from one resolution to the next
            is a whole number: 35 places out of 299 pixels are stride 8.
        layout: how the sub-module puts it out: "map" is (n, c, h, w), "nhwc" has channels last,
            "tokens" is (n, tokens, c).
    """

    name: str
    shape: Shape
    stride: tuple[int, int]
    layout: str = "map"


class Survey(NamedTuple):
    """What one forward pass shows.

    Attributes:
        stages: in the order in which they end.
        layouts: name → how its output is a map, of every sub-module that puts out one.
    """

    stages: list[Stage]
    layouts: dict[str, Layout]


def survey(module: nn.Module, images: Tensor) -> Survey:
    """Finds the stages of a network, in the mode in which it is.

    A stage ends with the last map of its resolution. Of a sub-module that is called several times
    the last call counts, as for a tap. Maps of a single location are pooled vectors. No stage ends

    - inside a block that goes on to a lower resolution, such as where one widens its channels
      before it strides, if there is another map of that resolution;
    - with what is finer than what the block around it takes and gives: attention, token by token;
    - in the head: norms, activations and 1×1 convolutions that the network itself calls after its
      last block; without blocks, from such a convolution on that adds channels.

    If several put out the same tensor, it is named after the outermost that is no more than this
    stage.

    Args:
        images: as `module` takes them, shape (n, c, h, w).
    """
    calls = _watch(module, images)
    height, width = images.shape[-2:]
    image = (height, width)
    _read(calls, image, len(images), {})
    if any(put.unsure for call in calls for put in call.puts):
        _read(calls, image, len(images), _sure(calls, _widened(module, images)))
    puts = list(_last_puts(calls))
    layouts = {put.name: put.layout for put in puts if put.layout is not None}
    return Survey(_stages(puts, calls, image), layouts)


# What is noted


@dataclass(eq=False)
class _Put:
    """A tensor that a call put out.

    Attributes:
        call: that put it out.
        name: by which it can be tapped; empty if it cannot.
        number: of the tensor; equal if it is the same object.
        shape: with the batch dimension.
        made: it is new, or was changed in place; else it was only handed on.
        alone: it is all that the call put out.
        layout: how it is a map; None if it is none.
        unsure: its shape leaves open which axes are places.
    """

    call: "_Call"
    name: str
    number: int
    shape: tuple[int, ...]
    made: bool
    alone: bool
    layout: Layout | None = None
    unsure: bool = False

    @property
    def grid(self) -> Grid | None:
        """Height and width of the map."""
        return None if self.layout is None else self.layout.shape_of(self.shape)[1:]


@dataclass(eq=False)
class _Call:
    """One call of a sub-module.

    Attributes:
        name, module: what was called.
        inside: the calls around it, the innermost first.
        given: shapes of the tensors it was given.
        puts: what it put out.
        makes: grids of maps made by calls inside.
        takes: the finest grid that it was given.
        gives: the finest that it put out; one place if that is no map.
    """

    name: str
    module: nn.Module
    inside: tuple["_Call", ...]
    given: list[tuple[int, ...]] = field(default_factory=list)
    puts: list[_Put] = field(default_factory=list)
    makes: set[Grid] = field(default_factory=set)
    takes: Grid | None = None
    gives: Grid = (1, 1)

    @property
    def shrinks(self) -> bool:
        """Whether it puts out a lower resolution than it was given."""
        return self.takes is not None and fewer(self.gives, self.takes)

    @property
    def spans(self) -> bool:
        """Whether resolutions begin and end inside it: it is more than one stage."""
        grids = {put.grid for put in self.puts if put.grid is not None}
        return len(grids) > 1 or any(
            self.takes is not None and fewer(grid, self.takes) and fewer(self.gives, grid)
            for grid in self.makes
        )


def _watch(module: nn.Module, images: Tensor) -> list[_Call]:
    """All calls of one forward pass, in the order in which they end."""
    names = {name for name, _ in module.named_modules()}
    calls: list[_Call] = []
    running: list[tuple[_Call, dict[int, int]]] = []  # with the versions of what was given
    numbers: dict[int, tuple[ref[Tensor], int]] = {}
    new = count()

    def number_of(tensor: Tensor) -> int:
        known = numbers.get(id(tensor))
        if known is None or known[0]() is not tensor:  # the id of one that is gone comes again
            known = numbers[id(tensor)] = (ref(tensor), next(new))
        return known[1]

    def enter(name: str) -> Any:
        def hook(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = [tensor for value in (*args, *kwargs.values()) for _, tensor in _tensors(value)]
            around = (running[-1][0], *running[-1][0].inside) if running else ()
            call = _Call(name, part, around, [tuple(one.shape) for one in given])
            running.append((call, {id(one): _version(one) for one in given}))

        return hook

    def leave(name: str) -> Any:
        def hook(part: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            del args
            call, versions = running.pop()
            while call.name != name:  # one inside has failed, and was caught
                call, versions = running.pop()
            for element, tensor in _tensors(output):
                tap = name if element is None else f"{name}.{element}"
                if element is not None and (tap in names or numbered(part)):
                    tap = ""
                made = versions.get(id(tensor), -1) < _version(tensor)
                shape = tuple(tensor.shape)
                call.puts.append(_Put(call, tap, number_of(tensor), shape, made, element is None))
            calls.append(call)

        return hook

    handles = []
    for name, part in module.named_modules():
        if name:
            handles.append(part.register_forward_pre_hook(enter(name), with_kwargs=True))
            handles.append(part.register_forward_hook(leave(name)))
    try:
        module(images)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _version(tensor: Tensor) -> int:
    """Rises with each change in place; tensors of inference mode keep no count."""
    return 0 if tensor.is_inference() else tensor._version


def numbered(module: nn.Module) -> bool:
    """Whether a number behind its name means one of its sub-modules."""
    return any(name.isdigit() for name, _ in module.named_children())


def _tensors(value: Any) -> Iterator[tuple[int | None, Tensor]]:
    """A tensor; or those in a list, with their places."""
    if isinstance(value, Tensor):
        yield None, value
    elif isinstance(value, list | tuple):
        yield from ((place, one) for place, one in enumerate(value) if isinstance(one, Tensor))


def _last_puts(calls: Sequence[_Call]) -> Iterator[_Put]:
    """What can be tapped: of each sub-module, what its last call put out."""
    last = {call.name: call for call in calls}
    for call in calls:
        if last[call.name] is call:
            yield from (put for put in call.puts if put.name)


# Which axes are places


def _read(calls: Sequence[_Call], image: Grid, number: int, sure: Mapping[int, Layout]) -> None:
    """Decides how what was put out is a map.

    Args:
        number: pictures in the batch; what has another length is no map (windows of a map are not).
        sure: number of a tensor whose shape leaves it open → its layout.
    """
    known: list[Grid] = []  # the latest first

    def read(shape: tuple[int, ...]) -> tuple[Layout | None, bool]:
        if shape[:1] != (number,) or len(shape) not in (3, 4):
            return None, False
        if len(shape) == 3:
            return token_layout(shape, image, known), False
        kinds = which_axes(shape, image)
        return Layout(kinds[0]), len(kinds) > 1

    for call in calls:
        convolves = any(one.ndim == 4 for one in call.module.parameters(recurse=False))
        for put in call.puts:
            put.layout, put.unsure = read(put.shape)
            if put.layout is not None and convolves and len(put.shape) == 4:
                put.layout, put.unsure = Layout(), False
            if put.unsure and put.number in sure:
                put.layout = sure[put.number]
            if put.grid is not None and math.prod(put.grid) < 2:
                put.layout, put.unsure = None, False
            if put.grid is not None and put.grid not in known[:1]:
                known.insert(0, put.grid)
    for call in calls:
        call.makes.clear()
    for call in calls:
        grids = [put.grid for put in call.puts if put.grid is not None]
        call.gives = max(grids, key=math.prod, default=(1, 1))
        taken = [
            layout.shape_of(shape)[1:]
            for shape in call.given
            if (layout := read(shape)[0]) is not None
        ]
        call.takes = max(taken, key=math.prod, default=None)
        for around in call.inside:
            around.makes |= {put.grid for put in call.puts if put.made and put.grid is not None}


def _widened(module: nn.Module, images: Tensor) -> list[_Call]:
    """The same calls for images twice as wide; none if the network does not take such."""
    try:
        return _watch(module, torch.cat([images, images], dim=-1))
    except Exception:  # whatever somebody's network says to another size
        return []


def _sure(calls: Sequence[_Call], widened: Sequence[_Call]) -> dict[int, Layout]:
    """The layouts of tensors whose shape leaves them open.

    The axis that grows with the image is its width. If the network takes one size only, a tensor
    is as the next that is clear: where a stage has as many channels as places, another has not.
    """
    puts = [put for call in calls for put in call.puts]
    wide = [put.shape for call in widened for put in call.puts]
    wide = wide if len(wide) == len(puts) else []
    sure: dict[int, Layout] = {}
    clear = Layout()
    for place, put in reversed(list(enumerate(puts))):
        if len(put.shape) != 4 or put.layout is None:
            continue
        if not put.unsure:
            clear = put.layout
        elif wide and wide[place][2] != wide[place][3]:
            grown = [now > before for now, before in zip(wide[place], put.shape, strict=True)]
            sure[put.number] = Layout("nhwc" if grown[2] and not grown[3] else "map")
        else:
            sure.setdefault(put.number, clear)
    return sure


# Which maps end a stage


def _stages(puts: Sequence[_Put], calls: Sequence[_Call], image: Grid) -> list[Stage]:
    """Of each stride the last map that may end a stage; else the last that is hidden in a block."""
    alone = {put.number for put in puts if put.alone and put.made and not put.call.spans}
    head = _head(calls)
    candidates = [
        put
        for put in puts
        if put.made
        and put.grid is not None
        and not ((put.call.spans or not put.alone) and put.number in alone)
        and not any(_is_finer(put.grid, around) for around in put.call.inside)
    ]
    grids = [put.grid for put in candidates if put.grid is not None]
    down, across = (_strides(image[axis], [grid[axis] for grid in grids]) for axis in (0, 1))
    last: dict[tuple[int, int], _Put] = {}
    for hidden in (True, False):  # what is not hidden comes later, and takes the place
        for put in candidates:
            height, width = put.grid or (1, 1)
            if hidden == _is_hidden(put, head):
                last[down[height], across[width]] = put
    return [
        Stage(put.name, put.layout.shape_of(put.shape), stride, put.layout.kind)
        for stride, put in sorted(last.items(), key=lambda item: candidates.index(item[1]))
        if put.layout is not None
    ]


def _is_finer(grid: Grid, around: _Call) -> bool:
    """Whether a map is finer, down or across, than what the call around it takes and gives."""
    return around.takes is not None and any(
        2 * sides[0] > 3 * max(sides[1:])
        for sides in zip(grid, around.takes, around.gives, strict=True)
    )


def _is_hidden(put: _Put, head: set[_Call]) -> bool:
    """Whether a map is part of the head, or inside a block that goes on to a lower resolution."""
    outermost = (put.call, *put.call.inside)[-1]
    return outermost in head or any(
        _hides(around, put) for around in put.call.inside if put.grid is not None
    )


def _hides(around: _Call, put: _Put) -> bool:
    assert put.grid is not None
    if around.takes is None or not around.shrinks or around.spans:
        return False
    # Of blocks in a row, those before the one that strides are a stage.
    in_a_row = isinstance(around.module, nn.Sequential) and put.call.inside[0] is around
    return not fewer(put.grid, around.takes) and not (in_a_row and _is_block(put.call.module))


def _is_block(module: nn.Module) -> bool:
    """Whether it is made of parts, and more than a norm."""
    has_parts = next(module.children(), None) is not None
    return has_parts and any(one.ndim > 1 for one in module.parameters())


def _head(calls: Sequence[_Call]) -> set[_Call]:
    """The network's own last calls, which ready its last map for the classifier."""
    own = [
        call
        for call in calls
        if not call.inside and any(put.grid is not None and put.made for put in call.puts)
    ]
    pointwise: list[_Call] = []
    while own and _is_pointwise(own[-1].module) and own[-1].takes == own[-1].gives:
        pointwise.insert(0, own.pop())
    if own and _is_block(own[-1].module):
        return set(pointwise)
    widening = [place for place, call in enumerate(pointwise) if _widens(call.module)]
    return set(pointwise[widening[0] :]) if widening else set()


def _is_pointwise(module: nn.Module) -> bool:
    """Whether it is a norm, an activation, or one 1×1 convolution with such."""
    large = [one for one in module.parameters() if one.ndim > 1 and one.numel() > max(one.shape)]
    return len(large) < 2 and all(one.ndim == 4 and one[0, 0].numel() == 1 for one in large)


def _widens(module: nn.Module) -> bool:
    """Whether it has a convolution that adds channels."""
    return any(one.ndim == 4 and one.shape[0] > one.shape[1] for one in module.parameters())


def _strides(side: int, places: Sequence[int]) -> dict[int, int]:
    """How many pixels a place spans, for every number of places on a side of the image.

    From one number to the next, smaller one it is a whole step: 2 where 35 become 18, or 17, and 1
    where a convolution only cuts the border. Where what lies between are no such steps, the last
    number that began one counts.

    >>> _strides(299, [149, 147, 73, 71, 35, 17, 8])
    {149: 2, 147: 2, 73: 4, 71: 4, 35: 8, 17: 16, 8: 32}
    """
    strides: dict[int, int] = {}
    first = last = side  # numbers of places: the largest of this stride, and the latest
    stride = 1
    for number in sorted(set(places), reverse=True):
        step = _step(last, number) or _step(first, number) or _nearest(first / number)
        if number < last and step > 1:
            first, stride = number, stride * step
        last = min(last, number)
        strides[number] = stride
    return strides


def _step(before: int, after: int) -> int | None:
    """The step, above 1, by which one number of places becomes another but for rounding."""
    if before % after == 0 and before > after:
        return before // after
    return next((s for s in range(2, before + 1) if abs(before - s * after) < s), None)


def _nearest(ratio: float) -> int:
    """To a whole number, halves down; at least 1."""
    return max(1, math.ceil(ratio - 0.5))
