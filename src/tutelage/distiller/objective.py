"""The only place where weights are applied: loss = Σ weight × term.

A method's terms are unweighted means over the batch; here each gets its weight, which may depend on
how far the run has come.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from tutelage.errors import SettingError, nearest, one_of
from tutelage.types import Terms

__all__ = ["Objective", "Schedule", "Weight", "part_of"]

Kind = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """A weight that changes during the run.

    Attributes:
        kind: "constant" (`from_` throughout), "linear" or "cosine" (half a period).
        from_, to: the weight before `start` and after `end`.
        start, end: fractions of the run, 0 ≤ start < end ≤ 1.

    Raises:
        SettingError: the kind is unknown, a weight is negative, or the fractions are not so.
    """

    kind: Kind = "constant"
    from_: float = 1.0
    to: float = 0.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        one_of("schedule", self.kind, get_args(Kind), SettingError)
        if not 0.0 <= self.start < self.end <= 1.0:
            raise SettingError(
                "A schedule needs 0 <= start < end <= 1, as fractions of the run, but has "
                f"start {self.start:g} and end {self.end:g}. Leave them out for the whole run."
            )
        for value in (self.from_, self.to):
            _check_weight("a schedule", value)

    def value(self, progress: float | Tensor) -> float | Tensor:
        """The weight at `progress`, the finished fraction of the run.

        >>> Schedule("linear", from_=4.0, to=1.0, start=0.0, end=0.5).value(0.25)
        2.5
        """
        if self.kind == "constant":
            return self.from_
        done = (progress - self.start) / (self.end - self.start)
        if isinstance(done, Tensor):
            done = done.clamp(0.0, 1.0)
            cosine = 0.5 - 0.5 * torch.cos(math.pi * done)
        else:
            done = min(max(done, 0.0), 1.0)
            cosine = 0.5 - 0.5 * math.cos(math.pi * done)
        return self.from_ + (self.to - self.from_) * (done if self.kind == "linear" else cosine)


Weight = float | Schedule | Mapping[str, float | Schedule]
"""One weight for all terms of a method, or one for each part before `/` in a term's name."""


def part_of(term: str) -> str:
    """The part of a term's name that weights refer to.

    >>> part_of("at/layer1")
    'at'
    """
    return term.split("/", maxsplit=1)[0]


def _check_weight(what: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise SettingError(
            f"A weight is a finite number and not negative, but {what} has {value}. Give 0 to "
            "switch a term off."
        )


class Objective:
    """Adds up the supervised term and the methods' terms.

    Args:
        task_weight: weight of the supervised term.
        weights: method name → its weight.
        terms: method name → the names of its terms, as one dry run gave them.
        subnet_weight: weight of the mean of the sub-nets' supervised terms, within `task_weight`.

    Raises:
        SettingError: a weight is negative, or names a part that the method does not have.
    """

    def __init__(
        self,
        task_weight: float | Schedule,
        weights: Mapping[str, Weight],
        terms: Mapping[str, list[str]],
        *,
        subnet_weight: float = 1.0,
    ) -> None:
        self.task_weight, self.subnet_weight = task_weight, subnet_weight
        self.weights: dict[tuple[str, str], float | Schedule] = {}
        for method, weight in weights.items():
            parts = {part_of(term) for term in terms[method]}
            if isinstance(weight, Mapping):
                for part in weight:
                    if part not in parts:
                        raise SettingError(
                            f"{method} has no terms {part!r} to weigh; {nearest(part, parts)}."
                        )
                for part in sorted(parts - weight.keys()):
                    raise SettingError(
                        f"{method} has terms {part!r} but its weights do not name them; "
                        f"add a number for {part!r}, 0 to leave them out."
                    )
            for part in sorted(parts):
                self.weights[method, part] = weight[part] if isinstance(weight, Mapping) else weight
        named = {f"{method}.{part}": value for (method, part), value in self.weights.items()}
        given = {"the task": task_weight, "subnet_weight": subnet_weight, **named}
        for what, value in given.items():
            if not isinstance(value, Schedule):
                _check_weight(what, value)

    def __call__(
        self,
        supervised: Float[Tensor, ""],
        terms: Mapping[str, Terms],
        progress: float | Tensor | None,
        *,
        subnets: Sequence[Float[Tensor, ""]] = (),
    ) -> Float[Tensor, ""]:
        """The loss: weight × term, summed.

        Args:
            terms: method name → its terms.
            progress: the finished fraction of the run; required if a weight is scheduled.
            subnets: the supervised term of each sub-net.
        """
        if len(subnets) > 0:
            supervised = supervised + self.subnet_weight * sum(subnets) / len(subnets)
        loss = _now(self.task_weight, progress) * supervised
        for method, values in terms.items():
            for name, value in values.items():
                loss = loss + _now(self.weights[method, part_of(name)], progress) * value
        return loss


def _now(weight: float | Schedule, progress: float | Tensor | None) -> float | Tensor:
    if not isinstance(weight, Schedule):
        return weight
    if progress is None:
        raise SettingError(
            "A weight follows a schedule, which needs to know how far the run has come; call the "
            "distiller with progress=step / steps."
        )
    return weight.value(progress)
