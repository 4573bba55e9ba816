"""Reading feature maps out of any network, by the names of its sub-modules.

A tap is a permanent forward hook that writes into a dict while the network is being observed and
does nothing otherwise. Hooks are registered once, before anything is compiled: a hook registered
inside `forward` breaks the graph, one that is already there does not.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import NetworkError, nearest
from tutelage.layouts import Layout
from tutelage.stages import Stage, numbered, survey
from tutelage.types import Pair

__all__ = ["Recorder", "Stage", "evaluating", "find_stages", "pair_stages", "set_mode"]


class Recorder:
    """Keeps the outputs of named sub-modules while a network is observed.

    Attributes:
        layouts: name → how its output is a map. Where that is None, or not known yet, outputs are
            handed out as they are.
    """

    def __init__(self) -> None:
        self.layouts: dict[str, Layout | None] = {}
        self._kept: dict[str, Any] | None = None
        self._names: set[str] = set()

    def attach(self, module: nn.Module, names: Iterable[str], what: str) -> None:
        """Registers a hook for each name that has none yet.

        A number behind the name of a sub-module without numbered children means one of the tensors
        that it puts out as a list.

        Args:
            what: how errors call the network, such as "student".

        Raises:
            NetworkError: there is no sub-module of that name.
        """
        modules = dict(module.named_modules())
        for name in names:
            if name in self._names:
                continue
            owner, _, place = name.rpartition(".")
            is_one_of_several = (
                name not in modules
                and owner in modules
                and place.isdecimal()
                and not numbered(modules[owner])
            )
            if not name or (name not in modules and not is_one_of_several):
                raise NetworkError(
                    f"The {what} has no sub-module {name!r} to tap; "
                    f"{nearest(name, (known for known in modules if known))}. "
                    "`taps: auto` finds the stages, and `tutelage check` lists them."
                )
            # No closure: a copy of the network must write into the copy of this recorder.
            if is_one_of_several:
                modules[owner].register_forward_hook(partial(self._keep, name, int(place)))
            else:
                modules[name].register_forward_hook(partial(self._keep, name, None))
            self._names.add(name)

    def _keep(
        self, name: str, place: int | None, module: nn.Module, inputs: Any, output: Any
    ) -> None:
        del module, inputs
        if self._kept is not None:
            if place is None:
                self._kept[name] = output
            elif isinstance(output, list | tuple) and place < len(output):
                self._kept[name] = output[place]

    def start(self) -> None:
        """From here on, outputs are kept."""
        self._kept = {}

    def stop(self) -> dict[str, Any]:
        """Hands out what was kept, maps where it can be read as such, and lets go of it."""
        kept, self._kept = self._kept, None
        assert kept is not None, "stop without start"
        for name, raw in kept.items():
            layout = self.layouts.get(name)
            if layout is not None:
                kept[name] = layout.map_of(raw)
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


def find_stages(module: nn.Module, images: Tensor) -> list[Stage]:
    """Finds the stages of a network by a dry run in eval mode; `stages.survey` says what they are.

    Args:
        images: as `module` takes them, shape (n, c, h, w).
    """
    with evaluating(module):
        return survey(module, images).stages


def pair_stages(student: Iterable[Stage], teacher: Iterable[Stage]) -> tuple[Pair, ...]:
    """Pairs stages of equal stride; what has no counterpart stays out."""
    by_stride: Mapping[tuple[int, int], str] = {stage.stride: stage.name for stage in teacher}
    return tuple(
        Pair(stage.name, by_stride[stage.stride]) for stage in student if stage.stride in by_stride
    )
