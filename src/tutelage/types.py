"""What the parts of the house pass to each other.

Batches and observations are pytrees, so they can be moved, cut and compiled as a whole.

Pixels are float, in [0, 1], channels first, not normalized: a network normalizes inside itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils import _pytree as pytree

from tutelage import rng
from tutelage.errors import SettingError

__all__ = [
    "Batch",
    "Findings",
    "InputSpec",
    "Observation",
    "ObservationShape",
    "OutputKind",
    "Pair",
    "Phase",
    "Shapes",
    "Terms",
    "TransferBatch",
]

OutputKind = Literal["logits"]
"""What a task's raw output means. Later: binary_logits, scalar, map, boxes."""

Terms = dict[str, Tensor]
"""Name → unweighted scalar: summed over classes, mean over the batch."""


class InputSpec(NamedTuple):
    """What a network wants to be shown.

    Attributes:
        height, width: pixels; pictures of another size are resized to these.
        channels: 1 (gray) or 3 (RGB).
        mean, std: one number per channel, for pixels in [0, 1].
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def plain(self) -> "InputSpec":
        """The same pictures, not normalized."""
        return self._replace(mean=(0.0,) * self.channels, std=(1.0,) * self.channels)


@dataclass(frozen=True, eq=False)
class Batch:
    """What a loader yields.

    Attributes:
        images: pixels in [0, 1].
        targets: a tensor, or a tree of tensors; only the task looks into it.
        has_label: False where the target is a placeholder.
        index: source number × 2^40 + position in the undivided source.
        view: number of the sample's earlier visits, modulo the number of views. Both stay on the
            CPU, and are None only in somebody's own loop that does not know them.
        weight: what each sample's supervised loss is multiplied by; None: 1.
    """

    images: Float[Tensor, "n c h w"]
    targets: Any
    has_label: Bool[Tensor, " n"]
    index: Int64[Tensor, " n"] | None
    view: Int64[Tensor, " n"] | None
    weight: Float[Tensor, " n"] | None = None


class Observation(NamedTuple):
    """What a network made of a batch.

    Attributes:
        output: the task's raw output in float32 (a tensor or a tree), None without a head.
        features: tap → map, in the compute dtype.
        subnets: name → what that sub-network made of it; empty for an ordinary network.
    """

    output: Any
    features: dict[str, Tensor] = {}  # noqa: RUF012 - read-only by convention
    subnets: dict[str, "Observation"] = {}  # noqa: RUF012


@dataclass(frozen=True, eq=False)
class TransferBatch:
    """What a method sees: student and teachers after the same pictures.

    Attributes:
        student: with gradient.
        teachers: detached; of several the one answer that an aggregator made of theirs.
        targets, has_label, index, view: as in `Batch`; index and view are None in a loop that does
            not give them.
        seed: of the run; methods do not use it, they call `draw`.
        members: where several teachers were aggregated, what each of them made of the batch; maps
            of the first alone.
    """

    student: Observation
    teachers: tuple[Observation, ...]
    targets: Any
    has_label: Bool[Tensor, " n"]
    index: Int64[Tensor, " n"] | None
    view: Int64[Tensor, " n"] | None
    seed: int
    members: tuple[Observation, ...] = ()

    def draw(self, name: str, shape: tuple[int, ...] = ()) -> Float[Tensor, "n ..."]:
        """Uniform numbers in [0, 1), a pure function of (seed, name, index, view).

        The only randomness that a method may use: anything else would break exact replay,
        permutation invariance and training in several processes.

        Raises:
            SettingError: the loop did not give index and view.
        """
        if self.index is None or self.view is None:
            raise SettingError(
                f"A method draws random numbers ({name!r}), which needs to know the samples; "
                "call the distiller with index=... and view=... for each batch."
            )
        drawn = rng.uniforms(rng.keys(self.seed, name, self.index, self.view), shape)
        return drawn.to(self.has_label.device, non_blocking=True)


for _kind in (Batch, TransferBatch):  # named tuples are pytrees already
    pytree.register_dataclass(_kind)


class Pair(NamedTuple):
    """A tap of the student and the tap of the teacher that corresponds to it."""

    student: str
    teacher: str


class ObservationShape(NamedTuple):
    """The shapes of an `Observation`, without the batch dimension."""

    output: tuple[int, ...] | None
    features: dict[str, tuple[int, ...]] = {}  # noqa: RUF012
    subnets: dict[str, "ObservationShape"] = {}  # noqa: RUF012


class Shapes(NamedTuple):
    """What `Method.build` may know: the shapes, and which taps correspond."""

    student: ObservationShape
    teachers: tuple[ObservationShape, ...]
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Findings:
    """What something decided at the end of a phase.

    Attributes:
        values: JSON values, for the record and the report.
        changed: learned parts were dropped or frozen, so that the optimizer must be told.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    changed: bool = False


@runtime_checkable
class Phase(Protocol):
    """What a method may ask of the engine at the end of a phase."""

    @property
    def number(self) -> int:
        """0 for the first phase."""
        ...

    def held_out(self) -> Iterator[TransferBatch]:
        """Validation pictures without augmentation, seen by student and teachers in eval mode."""
        ...

    def lookahead(self, terms: Iterable[str]) -> float:
        """Supervised loss on held-out pictures after one virtual step on these terms.

        Args:
            terms: names as the asking method gives them in `forward`.

        Returns:
            The loss; weights and buffers are as before.
        """
        ...
