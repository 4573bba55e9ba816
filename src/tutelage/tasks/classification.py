"""Single-label classification: one class out of several."""

from typing import final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from tutelage.errors import SettingError
from tutelage.types import OutputKind

__all__ = ["Classification"]

Targets = Int64[Tensor, " n"] | Float[Tensor, "n k"]


@final
class Classification:
    """Logits of shape (n, k); targets are class numbers (n,), or shares (n, k) of mixed pictures.

    Args:
        label_smoothing: share of the target that is spread over all classes, in [0, 1).

    Raises:
        SettingError: it lies outside.
    """

    kind: OutputKind = "logits"

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise SettingError(
                f"label_smoothing must lie in [0, 1), but is {label_smoothing}; 0.1 is usual."
            )
        self.label_smoothing = label_smoothing

    def supervised_loss(
        self,
        output: Float[Tensor, "n k"],
        targets: Targets,
        has_label: Bool[Tensor, " n"],
        num_labelled: float | Tensor,
    ) -> Float[Tensor, ""]:
        """Cross-entropy, summed over the labelled samples, divided by `num_labelled`.

        Args:
            num_labelled: how many labelled samples the stream guarantees per batch.
        """
        if targets.ndim == 1:
            targets = targets.clamp(min=0)  # the placeholder of an unlabelled sample
        losses = cross_entropy(
            output, targets, reduction="none", label_smoothing=self.label_smoothing
        )
        return torch.where(has_label, losses, 0).sum() / num_labelled

    def example_targets(self, count: int) -> Int64[Tensor, " n"]:
        """Class 0, `count` times."""
        return torch.zeros(count, dtype=torch.int64)

    def mix_targets(
        self, first: Targets, second: Targets, share: Float[Tensor, " n"], num_classes: int
    ) -> Float[Tensor, "n k"]:
        """The targets of pictures that are `share` the first and the rest the second."""
        both = [
            one_hot(part.clamp(min=0), num_classes).float() if part.ndim == 1 else part
            for part in (first, second)
        ]
        return share[:, None] * both[0] + (1 - share[:, None]) * both[1]

    def num_correct(
        self, output: Float[Tensor, "n k"], targets: Targets, has_label: Bool[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """How many labelled samples the largest logit names rightly."""
        truth = targets if targets.ndim == 1 else targets.argmax(dim=1)
        return ((output.argmax(dim=1) == truth) & has_label).sum().float()
