"""Whether a network is as often right as it is sure (Guo et al. 2017, arXiv:1706.04599)."""

from typing import Any

import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from torchmetrics.functional.classification import multiclass_calibration_error

from tutelage.evaluation.predictions import Predictions

__all__ = ["NUM_BINS", "calibration", "fit_temperature"]

NUM_BINS = 15
_COLDEST, _HOTTEST = 0.05, 20.0


def calibration(predictions: Predictions, *, temperature: float = 1.0) -> dict[str, Any]:
    """How far confidence, the largest probability, can be believed; over labelled pictures.

    Args:
        temperature: logits are divided by it first.

    Returns:
        "ece": expected calibration error, the mean over pictures of |accuracy - confidence| of
        their bin, in [0, 1]; "nll": mean negative log-likelihood of the true class, in nats;
        "brier": mean squared distance between the probabilities and the true class, summed over
        classes, in [0, 2]; "bins": 15 of equal width, each [pictures, mean confidence, accuracy],
        the last two 0 in an empty one.
    """
    logits, targets = _labelled(predictions)
    logits = logits / temperature
    shares = logits.softmax(dim=1)
    classes = shares.shape[1]
    confidence, named = shares.max(dim=1)
    return {
        "ece": float(multiclass_calibration_error(shares, targets, classes, NUM_BINS, "l1")),
        "nll": float(cross_entropy(logits, targets)),
        "brier": float(((shares - one_hot(targets, classes)) ** 2).sum(dim=1).mean()),
        "bins": _bins(confidence, named == targets),
    }


def _bins(confidence: Float[Tensor, " n"], right: Tensor) -> list[list[float]]:
    edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=confidence.dtype)
    place = (torch.bucketize(confidence, edges, right=True) - 1).clamp(max=NUM_BINS - 1)
    counts = place.bincount(minlength=NUM_BINS)
    sums = [
        place.bincount(weights=values.double(), minlength=NUM_BINS) / counts.clamp(min=1)
        for values in (confidence, right)
    ]
    return [
        [int(count), round(float(sure), 4), round(float(hits), 4)]
        for count, sure, hits in zip(counts, *sums, strict=True)
    ]


def fit_temperature(predictions: Predictions) -> float:
    """The temperature at which the negative log-likelihood is smallest, in [0.05, 20].

    To be fitted on validation and used on test. It changes no decision, only how sure they are.
    """
    logits, targets = _labelled(predictions)

    def loss(log_temperature: float) -> float:
        return float(cross_entropy(logits * torch.tensor(-log_temperature).exp(), targets))

    bounds = torch.tensor([_COLDEST, _HOTTEST]).log().tolist()
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(torch.tensor(float(found.x), dtype=torch.float64).exp())


def _labelled(predictions: Predictions) -> tuple[Float[Tensor, "n k"], Tensor]:
    """Logits in float64 and true classes, of the pictures that have one."""
    known = predictions.has_label
    return predictions.outputs[known].double(), predictions.targets[known]
