"""What becomes of what a network's modules put out: seen in one pass, not read from the code."""

from collections import Counter
from typing import Any, final

from jaxtyping import Float32
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutelage.models.network import Network
from tutelage.taps import evaluating

__all__ = ["Watch", "watch"]

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMALIZE = {"native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"}
_PRODUCTS = {"convolution", "addmm", "mm"}
_ROUND_LATER = {"relu", "hardtanh", "clamp", "clamp_min", *_NORMALIZE, *_PRODUCTS}
"""Operations whose output is rounded, or that round what they are given."""
_RESHAPES = {"view", "_unsafe_view", "squeeze", "clone", "alias"}


@final
class Watch(TorchDispatchMode):
    """What becomes of that which is put out, in one pass.

    Attributes:
        called: names of convolutions and linear layers, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []
        self._uses: dict[str, set[str]] = {}
        self._calls: Counter[str] = Counter()
        self._pooled: dict[str, str] = {}
        self._weights: dict[int, set[str]] = {}
        # By number of the object, with the object, so that no other gets its number.
        self._made: dict[int, Tensor] = {}  # by a product, or by a norm
        self._watched: dict[int, tuple[str, Tensor]] = {}
        self._puts: dict[int, tuple[str, Tensor]] = {}
        self._means: dict[int, tuple[str, Tensor]] = {}

    def note_given(self, name: str, layer: nn.Module, given: Any) -> None:
        """A layer is about to run."""
        if name not in self.called:
            self.called.append(name)
        if (weight := layer._parameters.get("weight")) is not None:
            self._weights.setdefault(id(weight), set())
        if id(given) in self._means:
            self._pooled[name] = self._means[id(given)][0]

    def note_put(self, name: str, output: Any) -> None:
        """A module has run."""
        self._calls[name] += 1
        if not isinstance(output, Tensor):
            return
        self._puts[id(output)] = (name, output)  # of several the outermost
        if id(output) in self._made:  # and here the innermost
            self._watched.setdefault(id(output), (name, output))
            self._uses.setdefault(self._watched[id(output)][0], set())

    def pooled(self) -> dict[str, str]:
        """Layer that is given the mean over a map's places → module that put the map out.

        Where one of them is called several times it is not told which call is meant, and left out.
        """
        return {
            layer: source
            for layer, source in self._pooled.items()
            if self._calls[layer] == self._calls[source] == 1
        }

    def multiplied_by(self, layer: nn.Module) -> set[str]:
        """The operations that took the layer's weight; none if it has no such parameter."""
        return self._weights.get(id(layer._parameters.get("weight")), set())

    def put_out(self) -> list[str]:
        """The modules that put out what a product or a norm made and a runtime rounds by itself."""
        return [name for name, uses in self._uses.items() if not uses or not uses <= _ROUND_LATER]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        del types
        name = func.__name__.partition(".")[0]
        used = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for number in used & self._watched.keys():
            self._uses[self._watched[number][0]].add(name.removesuffix("_"))
        for number in used & self._weights.keys():
            self._weights[number].add(name)
        if name.endswith("_"):  # what is changed in place is another value from here on
            for known in (self._made, self._watched, self._puts, self._means):
                known.pop(id(args[0]), None)
        made = func(*args, **(kwargs or {}))
        if name in _PRODUCTS | _NORMALIZE:
            first = made if isinstance(made, Tensor) else made[0]
            self._made[id(first)] = first
        known = {}
        if _is_mean(name, args, made):
            known = self._puts
        elif name in _RESHAPES:
            known = self._means
        for number in used & known.keys():
            self._means[id(made)] = (known[number][0], made)
        return made


def _is_mean(name: str, args: tuple[Any, ...], made: Any) -> bool:
    """Whether this is the mean over all places of a map."""
    if name not in ("mean", "_adaptive_avg_pool2d"):
        return False
    shape = args[0].shape
    return len(shape) == 4 and made.shape[:2] == shape[:2] and made.shape[2:].numel() == 1


def watch(network: Network, images: Float32[Tensor, "n c h w"]) -> Watch:
    """One pass in eval mode; modes are restored.

    Args:
        images: as the network takes them.
    """
    seen = Watch()

    def before(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            seen.note_given(name, module, args[0] if args else named["input"])

        return hook

    def after(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            del module, given
            seen.note_put(name, output)

        return hook

    handles = []
    for name, one in network.module.named_modules():
        handles.append(one.register_forward_hook(after(name)))
        if isinstance(one, _LAYERS):
            handles.append(one.register_forward_pre_hook(before(name), with_kwargs=True))
    try:
        with evaluating(network), seen:
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return seen
