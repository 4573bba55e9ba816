"""Batch norms folded into the convolutions before them, inside the module tree.

In eval mode a batch norm multiplies each channel and adds to it, which the convolution before it
can do by itself: one pass over the map less. The folded network keeps its modules and their names,
so that it can be tapped as before; a traced graph (`torch.fx`) would lose them, and finds nothing
to fuse in many families.

What follows what is seen in one dry run, not read from the code: a norm is folded if its input is
the very tensor that a convolution put out, no other operation used that tensor, both were called
once, and nobody looks at the convolution. All others stay, and their reason is given. A folded
convolution that is tapped later puts out what its norm did.
"""

import copy
import warnings
from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutelage.errors import NoEffectWarning
from tutelage.models.network import Network
from tutelage.taps import evaluating

__all__ = ["Fused", "executed_batch_norms", "fuse"]

_TOLERANCE = 1e-4
"""Largest difference that float32 rounding explains, as a share of the largest value."""


class Fused(NamedTuple):
    """What became of a network.

    Attributes:
        network: a folded copy, in eval mode; the network itself if nothing was folded.
        folded: names of the norms that are gone.
        left: name of a norm that stays → why.
    """

    network: Network
    folded: tuple[str, ...]
    left: dict[str, str]


def fuse(
    network: Network,
    *,
    taps: Collection[str] = (),
    image_size: tuple[int, int, int] | None = None,
) -> Fused:
    """Folds what can be folded, in a copy, and compares it with the original.

    Warns if nothing could be folded, or if the copy answers otherwise and is thrown away.

    Args:
        taps: sub-modules that will be looked at, and so must put out what they did.
        image_size: channels, height, width, for a network without a spec.
    """
    folded = copy.deepcopy(network).eval()
    images = _pictures(folded, image_size)
    pairs, left = _pairs(folded, images, taps)
    done = []
    for norm, conv in pairs.items():
        reason = _fold(folded.module, conv, norm)
        if reason is None:
            done.append(norm)
        else:
            left[norm] = reason
    if done and (reason := _difference(network, folded, images)):
        left |= dict.fromkeys(done, f"folded, the network {reason}")
        done = []
    if not done:
        first = next(iter(left.items()), None)
        why = f"; {first[0]}: {first[1]}" if first else ": the network has none"
        warnings.warn(
            f"No batch norm could be folded into a convolution{why}. The network stays as it is.",
            NoEffectWarning,
            stacklevel=2,
        )
        return Fused(network, (), left)
    return Fused(folded.requires_grad_(False), tuple(done), left)


def executed_batch_norms(network: nn.Module, images: Float[Tensor, "n c h w"]) -> int:
    """How many batch norms one forward pass in eval mode executes."""
    with evaluating(network), _Counting() as counting:
        network(images)
    return counting.number


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        del types
        self.number += "batch_norm" in func.__name__
        return func(*args, **(kwargs or {}))


def _pictures(network: Network, image_size: tuple[int, int, int] | None) -> Tensor:
    """Two pictures of noise, the same every time: on gray ones, differences could hide."""
    gray = network.example(image_size)
    noise = torch.rand(gray.shape, generator=torch.Generator().manual_seed(0))
    return noise.to(gray)


# What follows what


class _Uses(TorchDispatchMode):
    """Counts by how many operations the watched tensors are used."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[int, Tensor] = {}  # held, so that no other tensor gets their number
        self.number: Counter[int] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        del types
        used = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        self.number.update(used & self.watched.keys())
        return func(*args, **(kwargs or {}))


def _pairs(
    network: Network, images: Tensor, taps: Collection[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Norm → the convolution that it can be folded into; and norm → why there is none."""
    modules = dict(network.module.named_modules())
    aliases = Counter(map(id, dict(network.module.named_modules(remove_duplicate=False)).values()))
    looked_at = {name for name, module in modules.items() if name in taps or _has_hooks(module)}
    norms = {name for name, module in modules.items() if isinstance(module, nn.BatchNorm2d)}
    uses, calls = _Uses(), Counter[str]()
    makers: dict[int, str] = {}  # number of a convolution's output → its name
    sources: dict[str, int] = {}  # norm → number of its input, if a convolution put that out

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            calls[name] += 1
            if isinstance(module, nn.Conv2d):
                uses.watched[id(output)] = output
                makers[id(output)] = name
            if name in norms and id(given[0]) in makers:
                sources[name] = id(given[0])
            if name in looked_at and id(output) in makers:
                uses.number[id(output)] += 1

        return hook

    wanted = looked_at | norms | {n for n, one in modules.items() if isinstance(one, nn.Conv2d)}
    handles = [modules[name].register_forward_hook(note(name)) for name in wanted]
    try:
        with evaluating(network), uses:
            answer = network(images)
    finally:
        for handle in handles:
            handle.remove()
    uses.number.update(id(leaf) for leaf in tree_leaves(answer))

    pairs, left = {}, {}
    for norm in (name for name in modules if name in norms):
        conv = makers.get(sources.get(norm, -1))
        if not calls[norm]:
            left[norm] = "it is not called"
        elif conv is None:
            left[norm] = "what it normalizes does not come from a convolution"
        elif any(calls[one] > 1 or aliases[id(modules[one])] > 1 for one in (norm, conv)):
            left[norm] = f"it or {conv} is used several times"
        elif _has_hooks(modules[norm]):
            left[norm] = "something hangs on it that would be lost"
        elif uses.number[sources[norm]] > 1:
            left[norm] = f"the output of {conv} is used, or looked at, elsewhere too"
        else:
            pairs[norm] = conv
    return pairs, left


def _has_hooks(module: nn.Module) -> bool:
    """Whether somebody has hung something on it."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


# Folding


def _fold(root: nn.Module, conv_name: str, norm_name: str) -> str | None:
    """Folds a norm into its convolution; or says why that would not do, and changes nothing."""
    conv, norm = root.get_submodule(conv_name), root.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    if norm.running_mean is None or norm.running_var is None:
        return "it keeps no running statistics"
    if is_parametrized(conv) or is_parametrized(norm):
        return "its weights, or its convolution's, are computed from others"
    rest = _rest(norm)
    new = copy.deepcopy(conv)
    with evaluating(root):
        weight, bias = fuse_conv_bn_weights(
            conv.weight.double(),
            None if conv.bias is None else conv.bias.double(),
            norm.running_mean.double(),
            norm.running_var.double(),
            norm.eps,
            None if norm.weight is None else norm.weight.double(),
            None if norm.bias is None else norm.bias.double(),
        )
        new.weight = nn.Parameter(weight.to(conv.weight.dtype))
        new.bias = nn.Parameter(bias.to(conv.weight.dtype))
        maps = _noise(conv)
        try:
            same = _close(norm(conv(maps)), rest(new(maps)))
        except Exception:  # whatever somebody's own class asks for
            same = False
        if not same:
            return "it, or its convolution, does more than its name says"
    root.set_submodule(conv_name, new)
    root.set_submodule(norm_name, rest)
    return None


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What remains to be done: nothing, or what a norm with an activation does afterwards."""
    if type(norm).forward is nn.BatchNorm2d.forward:
        return nn.Identity()
    return nn.Sequential(*norm.children()).eval()


def _noise(conv: nn.Conv2d) -> Tensor:
    """A map of positive and negative numbers that the convolution can take."""
    sides = [
        max(8, size + (size - 1) * (dilation - 1))
        for size, dilation in zip(conv.kernel_size, conv.dilation, strict=True)
    ]
    noise = torch.randn(1, conv.in_channels, *sides, generator=torch.Generator().manual_seed(1))
    return noise.to(conv.weight)


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    unknown = one.isneginf()  # classes that the network does not know
    if not torch.equal(unknown, other.isneginf()):
        return False
    one, other = one[~unknown], other[~unknown]
    if not one.numel():
        return True
    largest = one.abs().max().clamp(min=1e-6)
    # Of weights in half precision, rounding explains more.
    tolerance = max(_TOLERANCE, 8 * torch.finfo(one.dtype).eps)
    return bool((one - other).abs().max() <= tolerance * largest)


def _difference(one: Network, folded: Network, images: Tensor) -> str | None:
    """What a folded network does that the one as it was does not; rounding aside, None.

    Compared is what their modules put out: class maps may leave nothing of it.
    """
    with evaluating(one), evaluating(folded):
        mine = tree_leaves(one.module(one.prepare(images)))
        try:
            theirs = tree_leaves(folded.module(folded.prepare(images)))
        except Exception:  # somebody's own code looks at a norm that is gone
            return "does not run"
    same = all(
        _close(left, right)
        for left, right in zip(mine, theirs, strict=True)
        if isinstance(left, Tensor) and left.is_floating_point()
    )
    return None if same else "answers otherwise"
