"""Training that knows of int8: the forward pass rounds as a runtime will, the backward does not.

Rounded are, as in static int8 inference,

- weights of convolutions (not transposed ones) and linear layers that are called as modules:
  symmetric, one scale per output channel;
- what these layers are given, and what they, or the batch norms behind them, put out, unless that
  goes into a clipping activation, a batch norm or such a layer first: 256 levels, of which one is
  zero, and one scale per tensor;
- for ExecuTorch, which gives the mean over a map's places the map's own scale: the map, and the
  mean, where such a layer is given one.

Not rounded is what else is computed with maps: sums, gates, attention, and what activations give to
these or to pooling. A layer that is called several times has one range for all calls. Ranges are
means of those seen, while ONNX's are the widest of the calibration pictures and ExecuTorch leaves
out rare large values. A batch norm needs no folding for it: to multiply a channel's weights
multiplies their scale.

The gradient goes through the rounding as if it were not there, and not to what lies outside of the
range (the straight-through estimator; Jacob et al., *Quantization and training of neural networks
for efficient integer-arithmetic-only inference*, CVPR 2018).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, final, get_args

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # of all dimensions, and over processes

from tutelage.errors import NetworkError, SettingError, one_of
from tutelage.models.network import Network
from tutelage.models.uses import watch

__all__ = ["FakeQuantization", "Runtime"]

Runtime = Literal["onnx", "executorch"]
"""Of our int8 files: .onnx by onnxruntime, .pte by ExecuTorch with XNNPACK."""

_STEPS: dict[Runtime, int] = {"onnx": 64, "executorch": 127}
"""From 0 to a channel's largest weight: seven bits in our ONNX files, eight in ExecuTorch's."""

_HIGHEST = 255
"""Levels are numbered from 0."""
_NEW = 0.01
"""Of a range, is the newest call's own; in the first 100 calls each counts alike."""
_SETTLED = 0.5
"""Part of the run after which ranges and the statistics of batch norms stay."""

_RANGES = "quantization"
"""The network's sub-module that holds the ranges."""
_MULTIPLY = {"convolution", "linear", "t", "addmm", "mm"}
"""Operations that take a weight as it is; `t` turns a linear layer's over for the next."""


def _rounded_weight(weight: Tensor, steps: int) -> Tensor:
    """The values of a weight (out, ...) as whole numbers, at most `steps`, times a scale each."""
    plain = weight.detach()
    largest = plain.abs().amax(dim=tuple(range(1, plain.ndim)), keepdim=True)
    scale = largest.clamp(min=torch.finfo(plain.dtype).tiny * steps) / steps
    return weight + ((plain / scale).round() * scale - plain)


@final
class _Range(nn.Module):
    """Rounds a tensor of any shape to whole numbers from 0 to 255, shifted, times one scale.

    Attributes:
        low, high: the range; it always holds 0.
        calls: of which it is made; before the first, nothing is rounded.
    """

    low: Tensor
    high: Tensor
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("low", "high", "calls"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        """The values for the forward pass; in train mode the range takes them in."""
        if self.training:
            low, high = values.detach().aminmax()
            self.calls.add_(1)
            new = (1 / self.calls).clamp(min=_NEW)
            self.low.lerp_(low.clamp(max=0), new)
            self.high.lerp_(high.clamp(min=0), new)
        return self.rounded(values)

    def rounded(self, values: Tensor) -> Tensor:
        """Values of this tensor, or of another with the same scale."""
        # Copies: a module may be called again, and take more in, before the backward pass.
        low, high, seen = self.low.clone(), self.high.clone(), self.calls > 0
        tiny = torch.finfo(values.dtype).tiny * _HIGHEST
        scale = (high - low).clamp(min=tiny) / _HIGHEST
        zero = (-low / scale).round()
        lowest, highest = -zero * scale, (_HIGHEST - zero) * scale
        plain = values.detach().clamp(lowest, highest)
        # Not clamp(values): its gradient at the bounds, where ReLU's zeros are, would be a half.
        inside = torch.where((values >= lowest) & (values <= highest), values, plain)
        rounded = inside + ((plain / scale).round() * scale - plain)
        return torch.where(seen, rounded, values)


@final
class FakeQuantization:
    """Makes a network compute as if in int8, until `remove` is called.

    Its modules and parameters stay as they are. Ranges are buffers of the network, so that a
    checkpoint holds them. It cannot be compiled meanwhile.

    Args:
        network: in float32; is changed in place.
        images: as the network takes them, shape (n, c, h, w), for one watched pass in eval mode.
        runtime: as whose int8.

    Raises:
        NetworkError: it has no layer that could be rounded, or sub-nets, or a layer that does not
            simply multiply by its weight, or is not in float32; it is then as it was.
        SettingError: there is no such runtime.
    """

    def __init__(
        self, network: Network, images: Float32[Tensor, "n c h w"], runtime: Runtime
    ) -> None:
        one_of("runtime", runtime, get_args(Runtime), SettingError)
        steps = _STEPS[runtime]
        _require_quantizable(network)
        watched = watch(network, images)
        if not watched.called:
            raise NetworkError(
                "No convolution and no linear layer of the student is called, so there is nothing "
                "to quantize. Leave train.quantization out."
            )
        modules = dict(network.module.named_modules())
        for name in watched.called:
            _require_plain(name, modules[name], watched.multiplied_by(modules[name]))
        pooled = watched.pooled() if runtime == "executorch" else {}
        self._network = network
        self._norms = [one for one in modules.values() if isinstance(one, _BatchNorm)]
        self._trained = [False for _ in self._norms]
        self._ranges = nn.ModuleList().train(network.training)
        self._handles: list[Any] = []
        network.add_module(_RANGES, self._ranges)
        by_output = {
            name: self._new(images)
            for name in dict.fromkeys([*watched.put_out(), *pooled.values()])
        }
        for name, rounds in by_output.items():
            # Taps, which hang there already, see what is rounded.
            hook = modules[name].register_forward_hook(partial(_put, rounds), prepend=True)
            self._handles.append(hook)
        for name in watched.called:
            rounds = by_output[pooled[name]].rounded if name in pooled else self._new(images)
            before, after = partial(_begin, rounds, steps), _end
            layer = modules[name]
            self._handles += [
                layer.register_forward_pre_hook(before, with_kwargs=True),
                layer.register_forward_hook(after, always_call=True, prepend=True),
            ]

    def _new(self, images: Tensor) -> _Range:
        made = _Range().to(images.device).train(self._network.training)
        self._ranges.append(made)
        return made

    def follow(self, progress: float) -> None:
        """Says how far the run is, before each step: later on, ranges and norms' statistics stay.

        Args:
            progress: finished part of the run, in [0, 1).
        """
        settling = progress < _SETTLED
        self._trained = [
            was | norm.training for was, norm in zip(self._trained, self._norms, strict=True)
        ]
        for part in (*self._ranges, *self._norms):
            part.training &= settling

    def remove(self) -> None:
        """Gives the network back as it was, but trained; a second call does nothing.

        Norms that `follow` has stopped go on if the network is in train mode.
        """
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if _RANGES in dict(self._network.named_children()):
            delattr(self._network, _RANGES)
        for norm, was in zip(self._norms, self._trained, strict=True):
            norm.training |= was and self._network.training


def _require_quantizable(network: Network) -> None:
    if _RANGES in dict(network.named_children()):
        raise NetworkError(
            "The student, or what it is a copy of, is being quantized already. Call `remove` first."
        )
    dtypes = {str(one.dtype) for one in network.parameters()} - {"torch.float32"}
    if dtypes:
        raise NetworkError(
            f"Rounding to 8 bits is computed in float32, but weights of the student are in "
            f"{', '.join(sorted(dtypes))}. Call float() on it."
        )
    if network.subnets:
        raise NetworkError(
            f"The student has sub-nets ({', '.join(network.subnets)}), and training that knows of "
            "int8 is for one network. Train on what one of them was taken out to: student: {run: "
            "FOLDER, subnet: NAME}."
        )


def _require_plain(name: str, layer: nn.Module, uses: set[str]) -> None:
    if not uses or not uses <= _MULTIPLY:
        raise NetworkError(
            f"The layer {name!r} ({type(layer).__name__}) does more with its weight than multiply "
            "by it, so it cannot be quantized in training. Leave train.quantization out."
        )


def _begin(
    rounds: Callable[[Tensor], Tensor],
    steps: int,
    layer: nn.Module,
    args: tuple[Any, ...],
    named: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A layer is called: what it is given and what it multiplies by are rounded."""
    # What lies in the instance is found before what lies among the parameters.
    layer.__dict__["weight"] = _rounded_weight(layer._parameters["weight"], steps)  # pyright: ignore[reportArgumentType]
    if args:
        return (rounds(args[0]), *args[1:]), named
    return args, named | {"input": rounds(named["input"])}


def _end(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
    """It is over, however that came: its own weight is back."""
    del given, output
    layer.__dict__.pop("weight", None)


def _put(rounds: _Range, module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
    del module, given
    return rounds(output)
