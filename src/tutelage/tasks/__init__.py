"""Tasks: what an output means, how it is scored against a target, and how it is read."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from tutelage.tasks.classification import Classification
from tutelage.types import OutputKind

__all__ = ["Classification", "Task"]


@runtime_checkable
class Task(Protocol):
    """What the distiller and the engine ask of a task."""

    kind: OutputKind

    def supervised_loss(
        self,
        output: Any,
        targets: Any,
        has_label: Bool[Tensor, " n"],
        num_labelled: float | Tensor,
        weight: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, ""]:
        """The sum over labelled samples, each times its weight, divided by `num_labelled`."""
        ...

    def num_correct(
        self, output: Any, targets: Any, has_label: Bool[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """How many labelled samples the output is right about."""
        ...

    def example_targets(self, count: int) -> Any:
        """Targets of the right form for a dry run."""
        ...
