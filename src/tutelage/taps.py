"""Reading feature maps out of any network, by the names of its sub-modules.

A tap is a permanent forward hook that writes into a dict while the network is being observed and
does nothing otherwise. Hooks are registered once, before anything is compiled: a hook registered
inside `forward` breaks the graph, one that is already there does not.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tutelage.errors import NetworkError, nearest
from tutelage.types import Pair

__all__ = ["Recorder", "Stage", "evaluating", "find_stages", "pair_stages", "set_mode"]


class Recorder:
    """Keeps the outputs of named sub-modules while a network is observed."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] | None = None
        self._names: set[str] = set()

    def attach(self, module: nn.Module, names: Iterable[str], what: str) -> None:
        """Registers a hook for each name that has none yet.

        Args:
            what: how errors call the network, such as "student".

        Raises:
            NetworkError: there is no sub-module of that name.
        """
        modules = dict(module.named_modules())
        for name in names:
            if name in self._names:
                continue
            if not name or name not in modules:
                raise NetworkError(
                    f"The {what} has no sub-module {name!r} to tap; "
                    f"{nearest(name, (known for known in modules if known))}. "
                    "`taps: auto` finds the stages, and `tutelage check` lists them."
                )
            # No closure: a copy of the network must write into the copy of this recorder.
            modules[name].register_forward_hook(partial(self._keep, name))
            self._names.add(name)

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        if self._kept is not None:
            self._kept[name] = output

    def start(self) -> None:
        """From here on, outputs are kept."""
        self._kept = {}

    def stop(self) -> dict[str, Tensor]:
        """Hands out what was kept and lets go of it."""
        kept, self._kept = self._kept, None
        assert kept is not None, "stop without start"
        return kept


@contextmanager
def set_mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Inside, all of the module trains or evaluates; then each part does again what it did."""
    modes, before = {part: part.training for part in module.modules()}, module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(before)  # for what goes along without being a part
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, eval mode without gradients."""
    with set_mode(module, training=False), torch.no_grad():
        yield


class Stage(NamedTuple):
    """The last map that a network makes at one resolution.

    Attributes:
        name: of the sub-module that puts it out.
        shape: channels, height, width.
        stride: input pixels per location, each side rounded up.
    """

    name: str
    shape: tuple[int, int, int]
    stride: tuple[int, int]


def find_stages(module: nn.Module, images: Tensor) -> list[Stage]:
    """Finds the stages of a network by one dry run in eval mode.

    A stage ends with the last sub-module that puts out a map of its resolution. Maps of a single
    location are pooled vectors, not stages. Of a sub-module that is called several times only the
    last call counts, since that is what a tap keeps.

    Args:
        images: as `module` takes them, shape (n, c, h, w).
    """
    maps: dict[str, tuple[int, int, int]] = {}  # in the order in which they are put out
    handles = []

    def note(name: str):
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            del module, inputs
            maps.pop(name, None)
            if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
                channels, height, width = output.shape[1:]
                maps[name] = (channels, height, width)

        return hook

    for name, child in module.named_modules():
        if name:
            handles.append(child.register_forward_hook(note(name)))
    try:
        with evaluating(module):
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    last = {shape[1:]: name for name, shape in maps.items()}
    height, width = images.shape[-2:]
    return [
        Stage(name, shape, (math.ceil(height / shape[1]), math.ceil(width / shape[2])))
        for name, shape in maps.items()
        if last[shape[1:]] == name
    ]


def pair_stages(student: Iterable[Stage], teacher: Iterable[Stage]) -> tuple[Pair, ...]:
    """Pairs stages of equal stride; what has no counterpart stays out."""
    by_stride: Mapping[tuple[int, int], str] = {stage.stride: stage.name for stage in teacher}
    return tuple(
        Pair(stage.name, by_stride[stage.stride]) for stage in student if stage.stride in by_stride
    )
