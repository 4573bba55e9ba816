from typing import Any

import pytest

from tutelage.engine import EarlyStopping, TrainSettings
from tutelage.errors import SettingError


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    return {"steps": 10} | changes


def test_defaults_are_a_run():
    settings = TrainSettings(steps=10)
    assert (settings.precision, settings.device, settings.phases) == ("bf16", "auto", 1)


@pytest.mark.parametrize(
    "name",
    ["batch_size", "accumulate", "phases", "log_every", "checkpoint_every", "evaluate_every",
     "labelled_per_batch", "threads"],
)  # fmt: skip
def test_counts_are_at_least_one(name: str):
    with pytest.raises(SettingError, match=f"{name} must be at least 1, not 0"):
        TrainSettings(**changed({name: 0}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch_size": 10, "accumulate": 4}, "no multiple of accumulate 4"),
        ({"phases": 11}, "10 steps cannot be cut into 11 phases"),
        ({"early_stopping": EarlyStopping()}, "needs evaluate_every"),
        ({"clip": 0.0}, "above 0, not 0"),
        ({"clip": float("inf")}, "above 0, not inf"),
        ({"average": 1.0}, "between 0 and 1, not 1"),
        ({"average": 0.0}, "between 0 and 1, not 0"),
        ({"quantization": "onnx"}, "precision is bf16. Set train.precision to fp32"),
        ({"quantization": "onnx", "precision": "auto"}, "precision is auto"),
        ({"quantization": "onnx", "precision": "fp32", "compile": True}, "is not compiled"),
        ({"max_minutes": 0.0}, "above 0, not 0"),
        ({"max_minutes": float("nan")}, "above 0, not nan"),
    ],
)
def test_settings_that_contradict_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(SettingError, match=message):
        TrainSettings(**changed(changes))


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"patience": -1}, {"min_delta": -0.1}])
def test_early_stopping_out_of_range_is_refused(wrong: dict):
    with pytest.raises(SettingError, match="early_stopping"):
        EarlyStopping(**wrong)
