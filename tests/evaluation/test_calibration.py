"""Confidence against accuracy: by hand, and against what is known of the truth."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluation.calibration import NUM_BINS, calibration, fit_temperature
from tutelage.evaluation.predictions import Predictions


def with_logits(logits: torch.Tensor, targets: torch.Tensor) -> Predictions:
    return Predictions(logits, targets, targets >= 0, torch.arange(len(targets)))


def two_classes(shares: list[float], targets: list[int]) -> Predictions:
    """Pictures whose class 0 has these probabilities."""
    share = torch.tensor(shares, dtype=torch.float64)
    return with_logits(torch.stack([share.log(), (1 - share).log()], 1), torch.tensor(targets))


def test_by_hand():
    found = calibration(two_classes([0.9, 0.9, 0.6, 0.2], [0, 1, 0, 1]))
    # Bins of width 1/15: 0.9 twice (one right), 0.6 (right), 0.8 for class 1 (right).
    assert found["ece"] == pytest.approx(2 / 4 * 0.4 + 1 / 4 * 0.4 + 1 / 4 * 0.2)
    assert found["nll"] == pytest.approx(-math.log(0.9 * 0.1 * 0.6 * 0.8) / 4)
    assert found["brier"] == pytest.approx((2 * 0.01 + 2 * 0.81 + 2 * 0.16 + 2 * 0.04) / 4)
    filled = {number: one for number, one in enumerate(found["bins"]) if one[0]}
    assert filled == {9: [1, 0.6, 1.0], 12: [1, 0.8, 1.0], 13: [2, 0.9, 0.5]}


def test_sure_and_right_is_perfect_sure_and_wrong_is_worst():
    sure = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    right = calibration(with_logits(sure, torch.tensor([0, 1])))
    wrong = calibration(with_logits(sure, torch.tensor([1, 0])))
    assert (right["ece"], right["brier"]) == pytest.approx((0, 0), abs=1e-9)
    assert (wrong["ece"], wrong["brier"]) == pytest.approx((1, 2), abs=1e-9)
    assert right["bins"][-1] == [2, 1.0, 1.0]


def test_pictures_without_a_label_do_not_count():
    known = two_classes([0.9, 0.6], [0, 0])
    more = two_classes([0.9, 0.6, 0.1], [0, 0, -1])
    assert calibration(more) == calibration(known)
    assert fit_temperature(more) == fit_temperature(known)


@given(st.integers(0, 1000), st.integers(2, 12), st.floats(0.3, 5))
def test_what_always_holds(seed: int, classes: int, spread: float):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(200, classes, generator=generator)
    seen = with_logits(logits, torch.randint(classes, (200,), generator=generator))
    found = calibration(seen)
    assert sum(count for count, _, _ in found["bins"]) == 200
    assert len(found["bins"]) == NUM_BINS
    by_bins = sum(count * abs(sure - hits) for count, sure, hits in found["bins"]) / 200
    assert found["ece"] == pytest.approx(by_bins, abs=1e-3)
    assert 0 <= found["ece"] <= 1
    assert 0 <= found["brier"] <= 2


def drawn(temperature: float) -> Predictions:
    """Pictures whose classes are drawn as softmax(logits / temperature) says."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, 5, generator=generator)
    shares = (logits / temperature).softmax(dim=1)
    return with_logits(logits, torch.multinomial(shares, 1, generator=generator)[:, 0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_data_is_found(temperature: float):
    seen = drawn(temperature)
    found = fit_temperature(seen)
    assert found == pytest.approx(temperature, rel=0.05)
    assert calibration(seen, temperature=found)["ece"] < 0.01


def test_scaling_changes_no_decision_and_does_not_raise_the_loss():
    seen = drawn(2.5)
    before = calibration(seen)
    after = calibration(seen, temperature=fit_temperature(seen))
    assert after["nll"] < before["nll"]
    assert after["ece"] < before["ece"]


def test_a_temperature_without_bound_stays_within_its_range():
    always_right = two_classes([0.9] * 50, [0] * 50)
    always_wrong = two_classes([0.9] * 50, [1] * 50)
    assert 0.05 <= fit_temperature(always_right) < 0.1  # where the loss is already 0
    assert fit_temperature(always_wrong) == pytest.approx(20, rel=0.01)
