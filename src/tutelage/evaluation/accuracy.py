"""How often a network is right."""

import math

from torchmetrics.functional.classification import multiclass_accuracy

from tutelage.errors import DataError
from tutelage.evaluation.predictions import Predictions

__all__ = ["accuracy", "near_chance"]


def accuracy(predictions: Predictions) -> float:
    """Share of labelled pictures whose largest logit is the true class, in [0, 1].

    Raises:
        DataError: no picture has a label.
    """
    labelled = predictions.has_label
    if not labelled.any():
        raise DataError("Accuracy needs labels, and none of these pictures has one.")
    outputs, targets = predictions.outputs[labelled], predictions.targets[labelled]
    share = multiclass_accuracy(outputs, targets, outputs.shape[1], average="micro")
    return round(float(share) * len(targets)) / len(targets)  # without float32's rounding


def near_chance(share: float, predictions: Predictions) -> bool:
    """Whether an accuracy could be that of always naming the most frequent class.

    The bound is three standard deviations of a binomial above that class's share. All right is
    never near, unless there is one class alone.
    """
    labels = predictions.targets[predictions.has_label]
    commonest = float(labels.bincount().max()) / len(labels)
    bound = commonest + 3 * math.sqrt(commonest * (1 - commonest) / len(labels))
    return share <= bound and (share < 1 or commonest == 1)
