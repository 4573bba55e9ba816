"""How a teacher's answer becomes few bytes, and what that changes of a loss.

Logits are kept whole (float32: exact; float16: 11 bits, which holds a bfloat16 teacher's 8 exactly
down to 6e-5), or as their `top` largest with all that is left of the probability mass: at one
temperature T these classes keep their probabilities and the others share theirs evenly.

**Bound.** Let p be the teacher's softened answer, m the mass outside the top, r the number of
classes there, q and z the student's softened answer and its logits. Then the distribution p' that
is given back agrees with p on the top and has m/r elsewhere, and Σ (p − p') = 0 over the rest, so

    KL(p ‖ q) − KL(p' ‖ q) = Σ_rest p log p − m log(m/r)  −  Σ_rest (p − p') log q
                             in [0, m log r], no gradient     at most m (max z − min z) / T

since Σ |p − p'| ≤ 2m. `kd`, which multiplies by T², changes by at most T² m (log r + (max z −
min z) / T), and its gradient, T (q − p), by at most 2 T m in the sum over classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from tutelage.errors import StoreError

__all__ = [
    "ROUNDED",
    "Kept",
    "LogitsCode",
    "LogitsKind",
    "MapCode",
    "change_of_kd",
    "fewest_classes",
    "keep_top",
    "spread_rest",
]

LogitsKind = Literal["fp16", "fp32", "top"]

Kept = Literal["whole", "pooled", "encoded"]
"""What is kept of a map: all of it; its means at the student's size; what its method needs of it.
"""

ROUNDED = 2**-8
"""Share of a map's largest value by which bfloat16 may change any of it."""

Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]
"""Tensor's name in a shard → type, and shape of one entry."""


def keep_top(
    logits: Float[Tensor, "n k"], *, count: int, temperature: float
) -> tuple[Float32[Tensor, "n {count}"], Int[Tensor, "n {count}"], Float32[Tensor, " n"]]:
    """The largest logits, their classes, and one logit that stands for each of the others.

    Args:
        count: how many stay, fewer than there are classes.
        temperature: at which the others' probabilities add up to what they really are.

    Example:
        At temperature 1 the classes that go have e⁰ + e⁰ = 2, so each stands for log(2 / 2) = 0.

        >>> keep_top(torch.tensor([[0.0, 3.0, 0.0]]), count=1, temperature=1.0)
        (tensor([[3.]]), tensor([[1]]), tensor([0.]))
    """
    wide = logits.float()
    classes = wide.topk(count, dim=1).indices
    values, rest = _without(wide, classes, temperature)
    return values, classes, rest


def _without(
    logits: Float32[Tensor, "n k"], classes: Int64[Tensor, "n top"], temperature: float
) -> tuple[Float32[Tensor, "n top"], Float32[Tensor, " n"]]:
    """The logits of these classes, and the one that stands for each of the others."""
    others = logits.scatter(1, classes, -math.inf) / temperature
    num_rest = logits.shape[1] - classes.shape[1]
    rest = temperature * (others.logsumexp(dim=1) - math.log(num_rest))
    return logits.gather(1, classes), rest


def spread_rest(
    values: Float[Tensor, "n top"],
    classes: Int[Tensor, "n top"],
    rest: Float[Tensor, " n"],
    *,
    num_classes: int,
) -> Float32[Tensor, "n {num_classes}"]:
    """Logits again: those that stayed, and the one that stands for each of the others.

    >>> top = torch.tensor([[3.0]]), torch.tensor([[1]]), torch.tensor([0.0])
    >>> spread_rest(*top, num_classes=3)
    tensor([[0., 3., 0.]])
    """
    whole = rest.float()[:, None].repeat(1, num_classes)
    return whole.scatter_(1, classes.long(), values.float())


def fewest_classes(
    logits: Float[Tensor, "n k"], *, share: float, of: float = 0.99, temperature: float = 1.0
) -> int:
    """The fewest classes that hold a share of the probability mass for most samples.

    Args:
        share: of the mass, in (0, 1).
        of: share of the samples for which they must.
        temperature: of the probabilities.

    Example:
        Answers of (0.9, 0.1, 0) and (0.5, 0.3, 0.2): two classes hold 80 % in both.

        >>> fewest_classes(torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.3, 0.2]]).log(), share=0.8)
        2
    """
    mass = (logits.double() / temperature).softmax(dim=1).sort(dim=1, descending=True).values
    needed = (mass.cumsum(dim=1) < share - 1e-12).sum(dim=1) + 1
    needed = needed.clamp(max=logits.shape[1]).sort().values
    return int(needed[math.ceil(of * len(needed)) - 1])


def change_of_kd(mass: float, spread: float, *, temperature: float, num_rest: int) -> float:
    """What leaving classes out changes of `kd`'s value for one sample, at most.

    Args:
        mass: softened probability that the teacher gives to the classes that were left out.
        spread: the student's largest logit among them minus its smallest.
        num_rest: how many they are.

    Example:
        2² × 0.01 × (log 1 + 3 / 2).

        >>> round(change_of_kd(0.01, 3.0, temperature=2.0, num_rest=1), 6)
        0.06
    """
    return temperature**2 * mass * (math.log(num_rest) + spread / temperature)


@dataclass(frozen=True)
class LogitsCode:
    """How logits lie in a store.

    Attributes:
        kind: "fp32" and "fp16" are whole; "top" keeps the largest.
        num_classes: how many logits there are.
        top: how many stay, for "top".
        temperature: for "top", at which their mass is exact.
    """

    kind: LogitsKind
    num_classes: int
    top: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        assert self.kind in get_args(LogitsKind)
        assert self.kind != "top" or 1 <= self.top < self.num_classes

    def layout(self) -> Layout:
        """The tensors of one entry."""
        if self.kind == "top":
            classes = torch.int16 if self.num_classes <= 2**15 else torch.int32
            return {
                "top/values": (torch.float16, (self.top,)),
                "top/classes": (classes, (self.top,)),
                "top/rest": (torch.float32, ()),
            }
        whole = torch.float32 if self.kind == "fp32" else torch.float16
        return {"logits": (whole, (self.num_classes,))}

    def encode(self, logits: Float[Tensor, "n k"]) -> dict[str, Tensor]:
        """What is written, on the CPU.

        Raises:
            StoreError: a logit is not finite, or too large for float16.
        """
        if self.kind == "top":
            parts = keep_top(logits, count=self.top, temperature=self.temperature)
        else:
            parts = (logits,)
        coded = {
            name: part.to("cpu", kind)
            for part, (name, (kind, _)) in zip(parts, self.layout().items(), strict=True)
        }
        if not all(bool(part.isfinite().all()) for part in coded.values()):
            largest = float(logits.abs().max())
            raise StoreError(
                "A teacher's logits must be finite, and below 65,504 for float16, but the largest "
                f"is {largest:g}. Store them with --logits fp32, or mend the teacher."
            )
        return coded

    def decode(self, coded: Mapping[str, Tensor]) -> Float32[Tensor, "n k"]:
        """Logits again."""
        if self.kind == "top":
            parts = [coded[name] for name in self.layout()]
            return spread_rest(*parts, num_classes=self.num_classes)
        return coded["logits"].float()

    def gap(
        self, logits: Float[Tensor, "n k"], coded: Mapping[str, Tensor]
    ) -> Float32[Tensor, " n"]:
        """Largest difference of what is stored from what it should be, as share of the largest.

        For "top" the stored classes stay, even if others are the largest now: near ties they may.
        """
        wide = logits.float().cpu()
        largest = wide.abs().amax(dim=1).clamp(min=1e-6)
        if self.kind != "top":
            return (wide - self.decode(coded)).abs().amax(dim=1) / largest
        values, classes, rest = (coded[name] for name in self.layout())
        kept, now = _without(wide, classes.long(), self.temperature)
        apart = (kept - values.float()).abs().amax(dim=1)
        return torch.maximum(apart, (now - rest).abs()) / largest


@dataclass(frozen=True)
class MapCode:
    """How the maps of one tap lie in a store: bfloat16, in the memory format they were seen in.

    Attributes:
        shape: channels, height, width of what is stored.
        channels_last: whether a location's channels lie together.
        dtype: of the maps as the teacher gives them, and as they are given back.
        kept: what was kept of the map.
        size: of the student's map, if less than all is kept.
        method: if `kept` is "encoded", the one that the encoding is for → its settings.
    """

    shape: tuple[int, int, int]
    channels_last: bool
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    kept: Kept = "whole"
    size: tuple[int, int] | None = None
    method: Mapping[str, object] | None = None

    def layout(self, tap: str) -> Layout:
        """The tensor of one entry."""
        channels, height, width = self.shape
        shape = (height, width, channels) if self.channels_last else self.shape
        return {f"maps/{tap}": (torch.bfloat16, shape)}

    def encode(self, tap: str, maps: Float[Tensor, "n c h w"]) -> dict[str, Tensor]:
        """What is written, on the CPU."""
        assert maps.shape[1:] == self.shape
        coded = maps.to("cpu", torch.bfloat16)
        if self.channels_last:
            coded = coded.permute(0, 2, 3, 1)
        return {f"maps/{tap}": coded.contiguous()}

    def decode(self, tap: str, coded: Mapping[str, Tensor]) -> Float[Tensor, "n c h w"]:
        """Maps again."""
        maps = coded[f"maps/{tap}"].to(self.type)
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps

    @property
    def type(self) -> torch.dtype:
        """The dtype that `dtype` names."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    def gap(
        self, tap: str, maps: Float[Tensor, "n c h w"], coded: Mapping[str, Tensor]
    ) -> Float32[Tensor, " n"]:
        """Largest difference of what is stored from what it should be, as share of the largest."""
        wide, stored = maps.float().cpu().flatten(1), self.decode(tap, coded).float().flatten(1)
        largest = wide.abs().amax(dim=1).clamp(min=1e-6)
        return (wide - stored).abs().amax(dim=1) / largest
