"""Single-label classification: one class out of several."""

from math import inf
from typing import Literal, final

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
        class_weights: by which the loss of each class's samples is multiplied, one number per
            class; or "balanced", which `fit` turns into these. Smoothed and mixed targets are
            weighed class by class. None: all alike.

    Raises:
        SettingError: a number lies outside.
    """

    kind: OutputKind = "logits"

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | list[float] | None = None,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise SettingError(
                f"label_smoothing must lie in [0, 1), but is {label_smoothing}; 0.1 is usual."
            )
        if isinstance(class_weights, list) and not all(0 <= w < inf for w in class_weights):
            raise SettingError(
                f"class_weights must be 0 or more, one per class, but are {class_weights}; "
                "`balanced` weighs classes against their number of samples."
            )
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self._weights: Tensor | None = None

    def fit(self, labels: Int64[Tensor, " m"], num_classes: int) -> "Classification":
        """The same task with weights for these classes, if it has any.

        Balanced ones are m / (k · m_c): a class's whole weight is the same, and the mean over
        samples is 1.

        Args:
            labels: of the training pictures that have one.

        Raises:
            SettingError: there are not as many weights as classes, or a class has no sample.

        >>> task = Classification(class_weights="balanced")
        >>> task.fit(torch.tensor([0, 0, 0, 1]), 2).class_weights
        [0.6666666666666666, 2.0]
        """
        if self.class_weights is None:
            return self
        if isinstance(self.class_weights, list):
            weights = self.class_weights
        else:
            counts = torch.bincount(labels, minlength=num_classes)
            if not counts.all():
                raise SettingError(
                    "class_weights: balanced needs a labelled picture of every class, but of class "
                    f"{int(counts.argmin())} there is none. Label some, or leave it out."
                )
            weights = (len(labels) / (num_classes * counts.double())).tolist()
        if len(weights) != num_classes:
            raise SettingError(
                f"class_weights has {len(weights)} numbers, but there are {num_classes} classes. "
                "Give one for each."
            )
        made = Classification(label_smoothing=self.label_smoothing, class_weights=weights)
        made._weights = torch.tensor(weights, dtype=torch.float32)
        return made

    def supervised_loss(
        self,
        output: Float[Tensor, "n k"],
        targets: Targets,
        has_label: Bool[Tensor, " n"],
        num_labelled: float | Tensor,
        weight: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Cross-entropy, summed over the labelled samples, divided by `num_labelled`.

        Args:
            num_labelled: how many labelled samples the stream guarantees per batch.
            weight: what each sample's loss is multiplied by.
        """
        if targets.ndim == 1:
            targets = targets.clamp(min=0)  # the placeholder of an unlabelled sample
        weights = self._weights
        if weights is not None and weights.device != output.device:
            weights = self._weights = weights.to(output.device)
        losses = cross_entropy(
            output,
            targets,
            weight=weights,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        if weight is not None:
            losses = losses * weight
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
