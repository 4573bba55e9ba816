"""What several teachers say together, as one answer.

Each teacher's answer is softened to shares p_t(k) of the classes k, and the shares are mixed:

    p(k) ∝ Σ_t w_t p_t(k) / n_k      p_t = softmax of z_t / T

with w_t the weight of teacher t and n_k how many teachers know class k. T is 1, or a setting of the
aggregator, `temperature`. A class that a teacher does
not know has the logit -∞ with it (a recipe's `class_map` that leaves classes out makes it so), and
the share 0. Where all know all classes this is the weighted mean of probabilities; of specialists
for disjoint classes it is their answers side by side, each scaled by its weight. What comes out is
T log p: logits that a method may soften at any temperature, and that at T are the mixture itself.
With T that of `kd` the student learns the mean of softened answers (Hinton et al. 2015, section 2);
with T = 1 specialists that are sure of what they have never seen leave the right class and a wrong
one equal.

Maps are the first teacher's; what each made of a batch is in `TransferBatch.members`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tutelage.errors import NetworkError, SettingError
from tutelage.models.class_map import ClassMap, Strange
from tutelage.models.network import Network
from tutelage.types import Findings, Observation, ObservationShape, OutputKind, Phase

__all__ = [
    "AGGREGATORS",
    "AccuracyWeighted",
    "Aggregator",
    "ConfidenceWeighted",
    "Ensemble",
    "Uniform",
    "known_classes",
    "members_of",
    "mixture",
]


def mixture(
    logits: Float[Tensor, "t n k"], weights: Float[Tensor, "t #n"], *, temperature: float = 1.0
) -> Float[Tensor, "n k"]:
    """Logits whose softmax at `temperature` is the weighted mixture of several answers at it.

    In float32 at least; at temperature 1 they are log-probabilities.

    Computed in float64: in float32 the last bits of vectorized code depend on where in a batch a
    picture stands, and an answer from a store must be that of the batch that it is read for.

    Args:
        logits: of each teacher, -∞ for classes that it does not know.
        weights: of each teacher, for all pictures or for each; not negative, none needed to sum to
            one, and not all 0.
        temperature: softens the answers that are mixed; above 0.

    Example:
        Weights 2 and 1; the first says (1/2, 1/2), the second knows the first class alone. Two know
        the first class, (2 · 1/2 + 1) / 2 = 1, and one the second, 2 · 1/2 / 1 = 1: so halves.

        >>> both = torch.tensor([[[0.0, 0.0]], [[3.0, -torch.inf]]])
        >>> mixture(both, torch.tensor([[2.0], [1.0]])).exp()
        tensor([[0.5000, 0.5000]])
    """
    wide = logits.double() / temperature
    knowing = (~wide.isneginf()).sum(dim=0).clamp(min=1)
    shares = wide.log_softmax(dim=2) + weights.double().log()[:, :, None]
    mixed = (shares.logsumexp(dim=0) - knowing.double().log()).log_softmax(dim=1)
    return (temperature * mixed).to(torch.promote_types(logits.dtype, torch.float32))


def known_classes(output: Float[Tensor, "n k"]) -> Bool[Tensor, " k"]:
    """Which classes an answer knows."""
    return ~output.isneginf().all(dim=0)


class Aggregator(nn.Module, ABC):
    """Makes one answer of several. Every subclass is final.

    `__init__(*, settings with defaults)` checks settings and makes no tensors that are learned;
    `build` is called once, when the shapes are known. `forward` changes nothing outside itself.

    Attributes:
        outputs: kinds of output that it can mix.
        lr_factor: times the run's learning rate is that of its parameters, if it has any.
    """

    outputs: tuple[OutputKind, ...] = ("logits",)
    lr_factor: float = 1.0

    def build(self, teachers: Sequence[ObservationShape], student: ObservationShape) -> None:
        """Makes the learned parts. Parameters exist after this, not before."""

    @abstractmethod
    def forward(
        self, answers: tuple[Observation, ...], student: Observation | None = None
    ) -> Observation:
        """The answers as one, with the first teacher's maps.

        Args:
            answers: of the teachers, in their order.
            student: what the student made of the same pictures; None where it was not asked, as
                when the teachers are measured.
        """

    def weigh(self, accuracies: Sequence[float]) -> None:
        """Takes note of the teachers' accuracies, in [0, 1], before the first step.

        Each is measured on validation pictures of the classes that the teacher knows, and what
        chance would reach among these is taken off. Most aggregators have no use for them.
        """

    def end_phase(self, phase: Phase) -> Findings | None:
        """Decides something between phases, as a method may; terms have their full names."""
        return None

    def structure(self) -> Any:
        """What `end_phase` left of the learned parts, as JSON; None if it never drops any."""
        return None

    def restore_structure(self, structure: Any) -> None:
        """Drops what is not in `structure`; called after `build`, before weights are loaded."""


_ROUNDING = 1e-9
_LEAST = 1e-3
"""Every weight is at least this share of the largest, so that no class that only one teacher knows
gets the probability 0."""


class _Mixing(Aggregator):
    """Mixes by weights that a subclass finds.

    Args:
        temperature: at which answers are mixed; see the module.

    Raises:
        SettingError: it is not a positive number.
    """

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 < temperature < inf:
            raise SettingError(
                f"Answers are mixed at a temperature above 0, not {temperature}. Try that of kd, "
                "or 1 to mix them as they are."
            )
        self.temperature = temperature

    @abstractmethod
    def weights(self, logits: Float[Tensor, "t n k"]) -> Float[Tensor, "t #n"]:
        """Of each teacher, for all pictures or for each, by answers at the temperature."""

    def forward(
        self, answers: tuple[Observation, ...], student: Observation | None = None
    ) -> Observation:
        del student
        logits = torch.stack([seen.output for seen in answers])
        weights = self.weights(logits / self.temperature)
        weights = torch.maximum(weights, _LEAST * weights.amax(dim=0, keepdim=True))
        mixed = mixture(logits, weights, temperature=self.temperature)
        return Observation(mixed, answers[0].features)


@final
class Uniform(_Mixing):
    """Every teacher counts alike."""

    def weights(self, logits: Float[Tensor, "t n k"]) -> Float[Tensor, "t #n"]:
        """1 for each."""
        return logits.new_ones(len(logits), 1)


@final
class AccuracyWeighted(_Mixing):
    """A teacher counts by how far its accuracy lies above chance.

    A run measures that on validation before its first step. Without a measurement, and where no
    teacher is better than chance, all count alike.

    Args:
        accuracies: above chance, where somebody has measured them, not negative; a run takes these
            and measures none.
        temperature: at which answers are mixed.

    Raises:
        SettingError: one is negative, or above 1; or the temperature is not positive.
    """

    shares: Tensor

    def __init__(self, *, accuracies: Sequence[float] = (), temperature: float = 1.0) -> None:
        super().__init__(temperature=temperature)
        self.register_buffer("shares", torch.zeros(0))
        self._given = bool(accuracies)
        if accuracies:
            self._take(accuracies)

    def build(self, teachers: Sequence[ObservationShape], student: ObservationShape) -> None:
        """Checks that there is an accuracy for each teacher, if there are any."""
        del student
        if len(self.shares) == 0:
            self.shares = torch.ones(len(teachers))
        if len(self.shares) != len(teachers):
            raise SettingError(
                f"{len(self.shares)} accuracies are given for {len(teachers)} teachers. Give one "
                "for each, or none and let a run measure them."
            )

    def weigh(self, accuracies: Sequence[float]) -> None:
        """Takes them for weights, unless some were given."""
        if not self._given:
            self._take(accuracies)

    def _take(self, accuracies: Sequence[float]) -> None:
        given = torch.tensor(list(accuracies), dtype=torch.float32)
        if not bool(((given >= 0) & (given <= 1)).all()):
            raise SettingError(
                f"Accuracies above chance lie in [0, 1], but these are {list(accuracies)}. Give "
                "them as shares, and 0 for a teacher that is not better than chance."
            )
        if not bool(given.any()):
            given = torch.ones_like(given)
        self.shares = given.to(self.shares)

    def weights(self, logits: Float[Tensor, "t n k"]) -> Float[Tensor, "t #n"]:
        """As they were measured; 1 for each before that."""
        if len(self.shares) == 0:
            return logits.new_ones(len(logits), 1)
        return self.shares[:, None].to(logits.device)  # not rounded to what logits are in


@final
class ConfidenceWeighted(_Mixing):
    """A teacher counts, picture by picture, by how sure it is.

    w_t = 1 - H_t / log K_t, with H_t the entropy of its answer and K_t how many classes it knows: 0
    for one that finds all of them equally likely, 1 for one that is certain. No label is needed.
    Where none is sure of anything, all count alike.
    """

    def weights(self, logits: Float[Tensor, "t n k"]) -> Float[Tensor, "t n"]:
        """One minus each answer's share of the entropy that it could have."""
        wide = logits.double()
        known = ~wide.isneginf()
        logs = wide.log_softmax(dim=2)
        entropy = -torch.where(known, logs.exp() * logs, 0.0).sum(dim=2)
        # One that knows a single class says nothing by naming it; rounding is no sureness either.
        most = known.sum(dim=2).clamp(min=2).double().log()
        sure = 1 - entropy / most
        sure = torch.where((known.sum(dim=2) > 1) & (sure > _ROUNDING), sure, 0.0)
        return torch.where(sure.sum(dim=0) > 0, sure, 1.0)


AGGREGATORS: Mapping[str, Callable[..., Aggregator]] = MappingProxyType(
    {
        "uniform": Uniform,
        "accuracy": AccuracyWeighted,
        "confidence": ConfidenceWeighted,
    }
)


@final
class Ensemble(Network):
    """Several networks that answer as one: what is measured, and stored, of several teachers.

    Its taps and stages are the first network's. A distiller asks its teachers one by one instead,
    and may have other stores for them.

    Args:
        members: at least one; each is given the same pixels, as its own spec wants them.
        aggregator: built for that many teachers; shared with whoever else has it.
    """

    def __init__(self, members: Sequence[Network], aggregator: Aggregator) -> None:
        first, *others = members
        super().__init__(first.module, first.spec, class_map=first.class_map)
        self.others = nn.ModuleList(others)
        self.aggregator = aggregator
        self._members = tuple(members)  # the first has the same module, which is part of this one

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Ensemble":
        """Moves the first member's own buffers along."""
        super()._apply(fn, recurse)
        self._members[0]._apply(fn, recurse)
        return self

    def whole(self) -> "Ensemble":
        """Of the members that have sub-nets the whole alone."""
        wholes = [one.whole() for one in self._members]
        if all(one is other for one, other in zip(wholes, self._members, strict=True)):
            return self
        return Ensemble(wholes, self.aggregator)

    def extract(self, subnet: str) -> Network:
        """Refused: there is no single network to take out."""
        raise NetworkError(
            f"Several networks that answer as one have no sub-net {subnet!r} to take out. Take it "
            "out of one of them."
        )

    def with_class_map(self, class_map: ClassMap | Strange) -> Network:
        """Refused: each member has its own."""
        raise NetworkError(
            "Several networks that answer as one have no classes of their own to map. Give each of "
            "them its class_map."
        )

    @property
    def members(self) -> tuple[Network, ...]:
        """The networks, as they were given."""
        return self._members

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The answers as one, for pixels in [0, 1]."""
        answers = [super().forward(images), *(other(images) for other in self.others)]
        return self.aggregator(tuple(Observation(one) for one in answers)).output


def members_of(network: Network) -> tuple[Network, ...]:
    """The networks that answer: those of an ensemble, or the network itself."""
    return network.members if isinstance(network, Ensemble) else (network,)
