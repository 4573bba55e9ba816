"""What is said of a network's answers in one line each."""

from typing import Any

import pytest

from tutelage.report.measures import measures


def calibrated(scaled_nll: float) -> dict[str, Any]:
    scaled = {"ece": 0.04, "nll": scaled_nll, "brier": 0.3}
    found = {"ece": 0.1, "nll": 0.5, "brier": 0.4, "temperature": 1.5, "scaled": scaled}
    return {"test": {"top1": 0.7, "per_class": [], "classes": [], "calibration": found}}


@pytest.mark.parametrize(("scaled_nll", "worse"), [(0.45, False), (0.55, True)])
def test_a_temperature_that_fits_test_worse_says_so(scaled_nll: float, worse: bool):
    told = dict(measures(calibrated(0.3), calibrated(scaled_nll)))["calibration"]
    ours, _, theirs = told.partition("(teacher ")
    assert f"at temperature 1.50 ECE 4.0 %, NLL {scaled_nll:.3f}" in theirs
    assert ("which is worse: what fits validation does not fit test" in theirs) == worse
    assert "worse" not in ours
