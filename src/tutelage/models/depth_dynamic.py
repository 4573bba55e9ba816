"""One set of weights, several depths: a residual network whose sub-nets keep its first blocks.

A sub-net keeps the first blocks of each stage, so the first one, which changes the shape, always;
stem and head are common to all. Q. Zhao, S. Lyu, Z. Zhang, T. Xu, G. Cheng: Embedded Knowledge
Distillation in Depth-Level Dynamic Neural Network, 2021, arXiv:2103.00793, of which the abstract
could be read; which blocks stay, and what becomes of the norms, is reconstructed. First blocks are
Once-for-All's elastic depth (arXiv:1908.09791).

A batch norm sees other numbers in a sub-net than in the whole. With `norms: separate` each sub-net
has norms of its own, 2 parameters per channel; with `norms: shared` scale and shift are common and
only the running statistics are its own: they are gathered while it trains, so nothing has to be
recalibrated afterwards. Other norms have no statistics and are simply shared.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from typing import Any, Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tutelage.errors import NetworkError, SettingError, one_of
from tutelage.models.cifar_resnet import CifarResNet
from tutelage.taps import Recorder

__all__ = ["FULL", "DepthDynamic", "Norms", "Seen"]

Norms = Literal["separate", "shared"]

FULL = "full"
"""The name of the whole among its sub-nets."""

_TAKEN = (FULL, "student", "teacher")


class Seen(NamedTuple):
    """What one depth made of a batch: its output, and the maps at its taps."""

    output: Any
    features: dict[str, Tensor]


@final
class DepthDynamic(nn.Module):
    """A residual network and its sub-nets, as one module.

    It keeps the names of what it wraps, so that weights of the plain network load. What is called
    is the depth in use: the whole, unless `use` says otherwise. What it is made of is shared by all
    depths and is not to be replaced afterwards: change a network (its head, its norms to
    `SyncBatchNorm`) before it is wrapped.

    Args:
        network: a CIFAR ResNet, or a ResNet of timm or torchvision.
        subnets: name → how many blocks of each stage it keeps; one number for the same in all.
        norms: what of a batch norm each sub-net has for itself; see above.

    Attributes:
        names: of the sub-nets, in the order given, without the whole.
        counts: name → blocks of each stage; the whole's under "full".
        in_use: name of the depth that is called.

    Raises:
        NetworkError: the network is not made of stages.
        SettingError: a sub-net has no name of its own, or more blocks than there are.
    """

    def __init__(
        self,
        network: nn.Module,
        subnets: Mapping[str, int | Sequence[int]],
        *,
        norms: Norms = "separate",
    ) -> None:
        super().__init__()
        one_of("norms", norms, ("separate", "shared"), SettingError)
        self._family = _family_of(network)
        # In a tuple: the network is no part of this one, its children are.
        self._plain = (network,)
        for name, child in network.named_children():
            self.add_module(name, child)
        stages = self._family.stages
        whole = tuple(len(_blocks(network, stage)) for stage in stages)
        depths = _checked(subnets, whole)
        self.names = tuple(depths)
        self.counts = {FULL: whole} | depths
        self.in_use = FULL
        # An underscore, because a ModuleDict takes no key that is a name of its own, such as half.
        self.subnet_norms = nn.ModuleDict({f"{name}_": nn.ModuleDict() for name in depths})
        # With shared norms, or none, a sub-net's first stage is the beginning of the whole's.
        first = stages[0]
        self._shares_first = norms == "shared" or not _norms_in(network.get_submodule(first))
        self._paths = {
            name: _path(
                network, stages, kept, norms, self._shares_first, self.subnet_norms[f"{name}_"]
            )
            for name, kept in depths.items()
        }
        self._inside = {
            name: {inner for inner, _ in path.named_modules()} for name, path in self._paths.items()
        }
        self._recorders = {name: Recorder() for name in depths}
        self._ends = {name: f"{first}.{kept[0] - 1}" for name, kept in depths.items()}
        self._beginning = Recorder()
        if self._shares_first:
            self._beginning.attach(self, self._ends.values(), "network")

    def use(self, name: str) -> "DepthDynamic":
        """From here on a call runs this depth; switching costs nothing.

        `call_all`, and so `Network.observe`, runs the whole and all sub-nets whatever is in use.

        Args:
            name: of a sub-net, or "full".

        Raises:
            NetworkError: there is none of that name.
        """
        one_of("sub-net", name, self.counts, NetworkError)
        self.in_use = name
        return self

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits of the depth in use."""
        return self._head(self._stages(self.in_use, self._stem(images)))

    def call_all(
        self,
        images: Float[Tensor, "n c h w"],
        taps: Sequence[str] = (),
        recorder: Recorder | None = None,
    ) -> tuple[Float[Tensor, "n classes"], dict[str, Tensor], dict[str, Seen]]:
        """One pass of the whole and of all sub-nets; what they have in common is computed once.

        That is the stem, and with shared norms a sub-net's first stage, which is the beginning of
        the whole's.

        Args:
            taps: registered before by `tap`; a sub-net gives those that it has.
            recorder: of the whole, which must not see the parts that sub-nets run again.

        Returns:
            The whole's logits and what the recorder kept; and what each sub-net made of the images.
        """
        recorder = Recorder() if recorder is None else recorder
        recorder.start()
        self._beginning.start()
        try:
            stem = self._stem(images)
            output = self._head(self._stages(FULL, stem))
        finally:
            beginning, kept = self._beginning.stop(), recorder.stop()
        return output, kept, {n: self._seen(n, stem, beginning, taps) for n in self.names}

    def _seen(
        self, name: str, stem: Tensor, beginning: dict[str, Tensor], taps: Sequence[str]
    ) -> Seen:
        recorder, first = self._recorders[name], self._family.stages[0]
        recorder.start()
        try:
            if self._shares_first:
                maps = self._stages(name, beginning[self._ends[name]], begin=1)
            else:
                maps = self._stages(name, stem)
            output = self._head(maps)
        finally:
            kept = recorder.stop()
        if self._shares_first:
            kept |= {tap: maps for tap, maps in beginning.items() if tap in self._inside[name]}
            kept[first] = beginning[self._ends[name]]
        return Seen(output, {tap: kept[tap] for tap in taps if tap in kept})

    def _stem(self, images: Tensor) -> Tensor:
        return self._family.stem(self._plain[0], images)

    def _stages(self, name: str, maps: Tensor, *, begin: int = 0) -> Tensor:
        path = self._paths.get(name, self)  # the whole is no path of its own
        for stage in self._family.stages[begin:]:
            maps = path.get_submodule(stage)(maps)
        return maps

    def _head(self, maps: Tensor) -> Tensor:
        return self._family.head(self._plain[0], maps)

    def tap(self, names: Sequence[str]) -> None:
        """Registers permanent taps in each sub-net that has a sub-module of that name."""
        for subnet, path in self._paths.items():
            own = [name for name in names if name in self._inside[subnet]]
            self._recorders[subnet].attach(path, own, "sub-net")
        if self._shares_first:
            inside = self._family.stages[0] + "."
            inner = [name for name in names if name.startswith(inside)]
            self._beginning.attach(self, inner, "network")

    def extract(self, name: str) -> nn.Module:
        """An ordinary network of one depth, with equal outputs and weights of its own.

        Args:
            name: of a sub-net, or "full".

        Raises:
            NetworkError: there is none of that name.
        """
        one_of("sub-net", name, self.counts, NetworkError)
        bare = _twin(self._plain[0])
        if name != FULL:
            bare._modules |= self._paths[name]._modules
        network = deepcopy(bare)
        for module in network.modules():  # taps
            module._forward_hooks.clear()
        return network.train(self.training)

    def train(self, mode: bool = True) -> "DepthDynamic":
        """As of any module; what was copied for sub-nets goes along."""
        super().train(mode)
        for module in (*self._plain, *self._paths.values()):
            module.train(mode)
        return self


def _twin(module: nn.Module) -> nn.Module:
    """Another module around the same children and parameters, with hooks of its own."""
    twin = copy(module)
    twin._modules = dict(module._modules)
    twin._forward_hooks = copy(module._forward_hooks)
    return twin


def _norms_in(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [inner for inner in module.modules() if isinstance(inner, nn.BatchNorm2d)]


def _path(
    network: nn.Module,
    stages: Sequence[str],
    kept: Sequence[int],
    norms: Norms,
    shares_first: bool,
    own: nn.Module,
) -> nn.Module:
    """The stages of a sub-net: the same convolutions, and what of norms is its own.

    Args:
        shares_first: whether the first stage has nothing of its own.
        own: where that is registered, so that it is saved, moved and trained.
    """
    path = nn.Module()
    for stage, count in zip(stages, kept, strict=True):
        blocks = _blocks(network, stage)[:count]
        if not (shares_first and stage == stages[0]):
            blocks = [
                _with_own_norms(block, norms, own, f"{stage}/{place}")
                for place, block in enumerate(blocks)
            ]
        path.add_module(stage, nn.Sequential(*blocks))
    return path


def _with_own_norms(module: nn.Module, norms: Norms, own: nn.Module, name: str) -> nn.Module:
    """The same module, but for its batch norms."""
    if isinstance(module, nn.BatchNorm2d):
        if norms == "separate":
            norm = deepcopy(module)
            own.add_module(name, norm)
            return norm
        norm, statistics = _twin(module), nn.Module()  # the same parameters
        norm._buffers = {key: deepcopy(value) for key, value in module._buffers.items()}
        statistics._buffers = norm._buffers  # one dict: what moves or loads one, does the other
        own.add_module(name, statistics)
        return norm
    if not _norms_in(module):
        return module
    twin = _twin(module)
    for inner, child in module.named_children():
        twin._modules[inner] = _with_own_norms(child, norms, own, f"{name}/{inner}")
    return twin


def _checked(
    subnets: Mapping[str, int | Sequence[int]], whole: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    if not subnets:
        raise SettingError("A network of several depths needs a sub-net. Name at least one.")
    depths = {}
    for name, asked in subnets.items():
        if name in _TAKEN or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise SettingError(
                f"A sub-net is named by letters, digits, - and _, and not {', '.join(_TAKEN)}, "
                f"but this one is {name!r}. Choose another name."
            )
        kept = (asked,) * len(whole) if isinstance(asked, int) else tuple(asked)
        if len(kept) != len(whole) or not all(
            1 <= count <= most for count, most in zip(kept, whole, strict=True)
        ):
            raise SettingError(
                f"A sub-net keeps 1 to {', '.join(map(str, whole))} blocks of the {len(whole)} "
                f"stages, but {name!r} is to keep {', '.join(map(str, kept))}. Change that."
            )
        depths[name] = kept
    return depths


# How networks of one make are taken apart


class _Family(NamedTuple):
    """Stem, stages and head of a network.

    Attributes:
        stages: names of the children whose blocks may be left out, in order.
        stem, head: what comes before and after them.
    """

    stages: tuple[str, ...]
    stem: Callable[[Any, Tensor], Tensor]
    head: Callable[[Any, Tensor], Tensor]


_FOUR = ("layer1", "layer2", "layer3", "layer4")


def _cifar_stem(network: Any, images: Tensor) -> Tensor:
    return network.stem(images)


def _cifar_head(network: Any, maps: Tensor) -> Tensor:
    return network.head(maps)


def _timm_stem(network: Any, images: Tensor) -> Tensor:
    return network.maxpool(network.act1(network.bn1(network.conv1(images))))


def _timm_head(network: Any, maps: Tensor) -> Tensor:
    return network.forward_head(maps)


def _torchvision_stem(network: Any, images: Tensor) -> Tensor:
    return network.maxpool(network.relu(network.bn1(network.conv1(images))))


def _torchvision_head(network: Any, maps: Tensor) -> Tensor:
    return network.fc(torch.flatten(network.avgpool(maps), 1))


_FAMILIES = {
    "timm": (
        {"conv1", "bn1", "act1", "maxpool", *_FOUR, "global_pool", "fc"},
        _Family(_FOUR, _timm_stem, _timm_head),
    ),
    "torchvision": (
        {"conv1", "bn1", "relu", "maxpool", *_FOUR, "avgpool", "fc"},
        _Family(_FOUR, _torchvision_stem, _torchvision_head),
    ),
}
"""Package → names of the children of its ResNets, and how they are taken apart."""


def _family_of(network: nn.Module) -> _Family:
    if isinstance(network, CifarResNet):
        return _Family(_FOUR[:3], _cifar_stem, _cifar_head)
    children = {name for name, _ in network.named_children()}
    # A subclass from elsewhere may do something else between the same parts.
    package = type(network).__module__.partition(".")[0]
    known, family = _FAMILIES.get(package, (set(), None))
    if family is not None and children == known:
        return family
    raise NetworkError(
        "Sub-nets are made of a CIFAR ResNet, or of a ResNet of timm or torchvision, whose stages "
        f"are layer1, layer2 and so on, but this is a {type(network).__name__} of {package} with "
        f"{', '.join(sorted(children)) or 'no parts'}. Take one of those."
    )


def _blocks(network: nn.Module, stage: str) -> list[nn.Module]:
    return list(network.get_submodule(stage).children())
