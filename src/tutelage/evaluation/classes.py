"""Which classes a network gets right, and what it takes the others for."""

import base64
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
)

from tutelage.evaluation.predictions import Predictions

__all__ = ["MOST_CLASSES", "by_class", "correct_bits"]

MOST_CLASSES = 20
"""Of more the confusion matrix is left out: nobody reads it, and it would swell every record."""

_TOP = 5


def by_class(predictions: Predictions) -> dict[str, Any]:
    """What labelled pictures say of each class.

    Returns:
        "top1": share of pictures that are right, in [0, 1]; "top5": share whose class is among the
        five largest logits, None for five classes or fewer; "per_class": top-1 share of each
        class's pictures, None for a class without any; "balanced": the mean of these; "confusion":
        numbers of pictures, true classes in rows, None for more than 20 classes; "pictures": how
        many there were.
    """
    known = predictions.has_label
    outputs, targets = predictions.outputs[known], predictions.targets[known]
    classes = outputs.shape[1]
    confusion = multiclass_confusion_matrix(outputs, targets, classes)
    counts = confusion.sum(dim=1)
    right = confusion.diagonal()
    per_class = [
        hits / count if count else None
        for hits, count in zip(right.tolist(), counts.tolist(), strict=True)
    ]
    present = [share for share in per_class if share is not None]
    top5 = None
    if classes > _TOP:
        top5 = float(multiclass_accuracy(outputs, targets, classes, "micro", top_k=_TOP))
    return {
        "top1": int(right.sum()) / len(targets),
        "top5": top5,
        "balanced": sum(present) / len(present),
        "per_class": per_class,
        "confusion": confusion.tolist() if classes <= MOST_CLASSES else None,
        "pictures": len(targets),
    }


def correct_bits(predictions: Predictions) -> str:
    """One bit per labelled picture, in ascending order of index: whether its class was named.

    Bits are packed as by `numpy.packbits` and written in base64; `tutelage.records.unpack_bits`
    reads them.
    """
    right = predictions.outputs.argmax(dim=1) == predictions.targets
    order = torch.argsort(predictions.index)
    ordered = right[order][predictions.has_label[order]].numpy()
    return base64.b64encode(np.packbits(ordered).tobytes()).decode("ascii")
