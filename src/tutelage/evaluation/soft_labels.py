"""Whether a network doubts where people doubt (Peterson et al. 2019, arXiv:1908.07086)."""

import torch
from jaxtyping import Float64
from torch import Tensor

from tutelage.evaluation.predictions import Predictions

__all__ = ["against_people"]


def against_people(predictions: Predictions, shares: Float64[Tensor, "n k"]) -> dict[str, float]:
    """A network's probabilities beside the shares of people who named each class.

    Args:
        shares: rows sum to 1; in the order of the predictions.

    Returns:
        "cross_entropy": mean over pictures of −Σ share · log probability, in nats; "kl": the same
        minus the entropy of the shares, 0 for a network that doubts exactly as people do; "top1":
        share of pictures whose most named class (the first of equals) is the network's.
    """
    logits = predictions.outputs.double()
    surprise = -(shares * logits.log_softmax(dim=1)).sum(dim=1)
    entropy = torch.special.entr(shares).sum(dim=1)
    named = logits.argmax(dim=1) == shares.argmax(dim=1)
    return {
        "cross_entropy": float(surprise.mean()),
        "kl": float((surprise - entropy).mean()),
        "top1": int(named.sum()) / len(named),
    }
