"""Training that knows of int8: the forward pass rounds as a runtime will, the backward does not.

Rounded are, as in static int8 inference,

- weights of convolutions and linear layers: symmetric, one scale per output channel;
- what these layers are given, and what they, or the batch norms behind them, put out, unless that
  goes into a clipping activation, a norm or such a layer first: 256 levels, one scale per tensor;
- for ExecuTorch, which gives the mean over a map the map's own scale, both of these where a layer
  is given such a mean.

Not rounded is what else is computed with maps (other sums, gates, attention), and ranges are those
seen, while ExecuTorch leaves out rare large values. A batch norm needs no folding for it: to
multiply a channel's weights multiplies their scale. The gradient goes through the rounding as if it
were not there, and not to what lies outside of the range (the straight-through estimator; Jacob et
al., *Quantization and training of neural networks for efficient integer-arithmetic-only inference*,
CVPR 2018).
"""

from functools import partial
from typing import Any, Literal, final

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutelage.errors import NetworkError
from tutelage.models.network import Network
from tutelage.taps import evaluating

__all__ = ["FakeQuantization", "Runtime"]

Runtime = Literal["onnx", "executorch"]

_STEPS: dict[Runtime, int] = {"onnx": 64, "executorch": 127}
"""From 0 to a channel's largest weight: seven bits in our ONNX files, eight in ExecuTorch's."""

_LEVELS = 255
_NEW = 0.01
"""Of a range, at each step, is the step's own."""
_SETTLED = 0.5
"""Part of the run after which ranges and the statistics of norms stay."""

_GIVEN, _PUT = "rounds_input", "rounds_output"
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ROUND_LATER = {
    *("relu", "hardtanh", "clamp", "clamp_min"),
    *("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
    *("convolution", "addmm", "mm"),
}
"""Operations whose output is rounded, or that round what they are given."""
_MEANS = {"mean", "_adaptive_avg_pool2d", "avg_pool2d"}
_RESHAPES = {"view", "_unsafe_view", "squeeze", "clone", "alias"}


@final
class _RoundedWeight(nn.Module):
    """A weight as whole numbers times a scale per output channel (the first dimension)."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def forward(self, weight: Tensor) -> Tensor:
        """The weight's value for the forward pass."""
        plain = weight.detach()
        largest = plain.abs().amax(dim=tuple(range(1, plain.ndim)), keepdim=True)
        scale = largest.clamp(min=torch.finfo(plain.dtype).tiny * self._steps) / self._steps
        return weight + ((plain / scale).round() * scale - plain)


@final
class _RoundedMap(nn.Module):
    """A tensor as whole numbers from 0 to 255, less one for zero, times one scale.

    Attributes:
        low, high: the range, a moving average of the steps' own; it always holds 0.
        seen: whether there is one yet; before, nothing is rounded.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("low", "high"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, values: Tensor) -> Tensor:
        """The values for the forward pass; in train mode the range takes them in."""
        if self.training:
            low, high = values.detach().aminmax()
            new = torch.where(self.seen, _NEW, 1.0)
            self.low.lerp_(low.clamp(max=0), new)
            self.high.lerp_(high.clamp(min=0), new)
            self.seen.fill_(value=True)
        return self.rounded(values)

    def rounded(self, values: Tensor) -> Tensor:
        """Values of this tensor, or of another with the same scale."""
        # Copies: a module may be called again, and take more in, before the backward pass.
        low, high, seen = self.low.clone(), self.high.clone(), self.seen.clone()
        tiny = torch.finfo(values.dtype).tiny * _LEVELS
        scale = (high - low).clamp(min=tiny) / _LEVELS
        zero = (-low / scale).round()
        inside = torch.minimum(torch.maximum(values, -zero * scale), (_LEVELS - zero) * scale)
        plain = inside.detach()
        rounded = inside + ((plain / scale).round() * scale - plain)
        return torch.where(seen, rounded, values)


@final
class FakeQuantization:
    """Makes a network compute as if in int8, until `remove` is called.

    Its parameters stay the objects that they are; ranges become buffers of the network, so that a
    checkpoint holds them.

    Args:
        network: in float32; is changed in place.
        images: as the network takes them, shape (n, c, h, w), for one watched pass in eval mode.
        runtime: as whose int8.

    Raises:
        NetworkError: it has no convolution and no linear layer, or one whose weight is computed.
    """

    def __init__(
        self, network: Network, images: Float32[Tensor, "n c h w"], runtime: Runtime
    ) -> None:
        modules = dict(network.module.named_modules())
        self._layers = {name: one for name, one in modules.items() if isinstance(one, _LAYERS)}
        self._norms = [one for one in modules.values() if isinstance(one, _NORMS)]
        if not self._layers:
            raise NetworkError(
                "The student has no convolution and no linear layer, so there is nothing to "
                "quantize. Leave train.quantization out."
            )
        for name, layer in self._layers.items():
            if parametrize.is_parametrized(layer):
                raise NetworkError(
                    f"The weight of {name!r} is computed from others, so it cannot be quantized "
                    "in training. Leave train.quantization out."
                )
        seen = _watch(network, images, modules)
        pooled = seen.pooled if runtime == "executorch" else {}
        self._maps: list[_RoundedMap] = []
        self._owners: list[tuple[nn.Module, str]] = []
        self._handles: list[Any] = []
        for name in dict.fromkeys([*seen.put_out(), *pooled.values()]):
            self._add(modules[name], _PUT, images.device)
            # Taps, which hang there already, see what is rounded.
            hook = modules[name].register_forward_hook(_round_put, prepend=True)
            self._handles.append(hook)
        for name, layer in self._layers.items():
            rounds = _RoundedWeight(_STEPS[runtime])
            parametrize.register_parametrization(layer, "weight", rounds, unsafe=True)
            if name in pooled:
                hook = partial(_round_pooled, modules[pooled[name]])
            else:
                self._add(layer, _GIVEN, images.device)
                hook = _round_given
            self._handles.append(layer.register_forward_pre_hook(hook))
        self.follow(0.0)

    def _add(self, owner: nn.Module, name: str, device: torch.device) -> None:
        made = _RoundedMap().to(device).train(owner.training)
        owner.add_module(name, made)
        self._maps.append(made)
        self._owners.append((owner, name))

    def follow(self, progress: float) -> None:
        """Says how far the run is, before each step in train mode: later on, ranges stay.

        Args:
            progress: finished part of the run, in [0, 1).
        """
        settling = progress < _SETTLED
        for part in (*self._maps, *self._norms):
            part.training = settling

    def remove(self) -> None:
        """Gives the network back as it was, but trained."""
        for handle in self._handles:
            handle.remove()
        for owner, name in self._owners:
            delattr(owner, name)
        for layer in self._layers.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def _round_given(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (getattr(module, _GIVEN)(given[0]), *given[1:])


def _round_pooled(source: nn.Module, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    del module
    return (getattr(source, _PUT).rounded(given[0]), *given[1:])


def _round_put(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
    del given
    return getattr(module, _PUT)(output)


@final
class _Watch(TorchDispatchMode):
    """What becomes of that which is put out, in one pass.

    Attributes:
        pooled: layer that is given the mean over a map → module that put the map out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pooled: dict[str, str] = {}
        self._uses: dict[str, set[str]] = {}
        # By number of the object, with the object, so that no other gets its number.
        self._watched: dict[int, tuple[str, Tensor]] = {}
        self._puts: dict[int, tuple[str, Tensor]] = {}
        self._means: dict[int, tuple[str, Tensor]] = {}

    def note_given(self, name: str, given: Any) -> None:
        """A layer is about to run."""
        if id(given) in self._means:
            self.pooled[name] = self._means[id(given)][0]

    def note_put(self, name: str, output: Any, *, rounds: bool) -> None:
        """A module has run; some round by themselves."""
        if not isinstance(output, Tensor):
            return
        self._puts.setdefault(id(output), (name, output))
        if rounds:
            self._watched[id(output)] = (name, output)
            self._uses.setdefault(name, set())

    def put_out(self) -> list[str]:
        """The layers and norms whose output a runtime rounds by itself."""
        return [name for name, uses in self._uses.items() if not uses or not uses <= _ROUND_LATER]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        del types
        name = func.__name__.partition(".")[0]
        used = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for number in used & self._watched.keys():
            owner, _ = self._watched[number]
            self._uses[owner].add(name.removesuffix("_"))
            if name.endswith("_"):  # what is changed in place is another value from here on
                del self._watched[number]
        made = func(*args, **(kwargs or {}))
        known = self._puts if name in _MEANS else self._means if name in _RESHAPES else {}
        for number in used & known.keys():
            self._means[id(made)] = (known[number][0], made)
        return made


def _watch(network: Network, images: Tensor, modules: dict[str, nn.Module]) -> _Watch:
    watch = _Watch()

    def before(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            del module
            watch.note_given(name, given[0])

        return hook

    def after(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            del given
            watch.note_put(name, output, rounds=isinstance(module, _LAYERS + _NORMS))

        return hook

    handles = []
    for name, one in modules.items():
        handles.append(one.register_forward_hook(after(name)))
        if isinstance(one, _LAYERS):
            handles.append(one.register_forward_pre_hook(before(name)))
    try:
        with evaluating(network), watch:
            network.observe(images, ())
    finally:
        for handle in handles:
            handle.remove()
    return watch
