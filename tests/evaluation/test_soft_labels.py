"""Against people's doubts, by hand."""

import math

import pytest
import torch

from tutelage.evaluation.predictions import Predictions
from tutelage.evaluation.soft_labels import against_people


def predictions(shares: list[list[float]]) -> Predictions:
    count = len(shares)
    known = torch.ones(count, dtype=torch.bool)
    logits = torch.tensor(shares, dtype=torch.float64).log()
    return Predictions(logits, torch.zeros(count, dtype=torch.int64), known, torch.arange(count))


def test_by_hand():
    people = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    found = against_people(predictions([[0.8, 0.2], [0.25, 0.75]]), people)
    first, second = -0.5 * math.log(0.8 * 0.2), -math.log(0.25)
    assert found["cross_entropy"] == pytest.approx((first + second) / 2)
    assert found["kl"] == pytest.approx((first - math.log(2) + second) / 2)
    assert found["top1"] == 0.5


def test_who_doubts_as_people_do_diverges_by_nothing():
    shares = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]
    found = against_people(predictions(shares), torch.tensor(shares, dtype=torch.float64))
    assert found["kl"] == pytest.approx(0, abs=1e-12)
    assert found["top1"] == 1.0
