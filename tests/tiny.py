"""A world small enough to train in: digits, and ResNet-8 of a few channels.

Runs last a fraction of a second, so they learn little; the teacher learns enough to be one.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tutelage.engine import TrainSettings
from tutelage.engine.choosing import Chosen
from tutelage.runs import settling, train

TRAIN = {"steps": 3, "batch_size": 50, "precision": "fp32", "keep_memory": False, "threads": 1}
RECIPE: dict[str, Any] = {
    "schema": 1,
    "data": {"source": {"name": "digits"}, "validation": 100, "labelled": 200},
    "student": {"name": "resnet8", "width": 2},
    "train": TRAIN,
}
"""From labels alone."""


def recipe(**changes: Any) -> dict[str, Any]:
    """The recipe with other entries; those of `train` go into it."""
    own = {key: value for key, value in changes.items() if key not in SETTINGS}
    train = {key: value for key, value in changes.items() if key in SETTINGS}
    return RECIPE | own | {"train": TRAIN | train}


SETTINGS = {field.name for field in fields(TrainSettings)}


def distilled(run: Path | str, **changes: Any) -> dict[str, Any]:
    """The recipe with distillation from the student of a run."""
    kd = {"teacher": {"run": str(run)}, "methods": {"kd": {"weight": 0.9}}, "task_weight": 0.1}
    return recipe(**kd | changes)


def train_teacher(runs: Path) -> Path:
    """Trains a network that is right more often than chance; its run folder."""
    learned = recipe(student={"name": "resnet8", "width": 8}, steps=40, batch_size=100)
    return train(learned, name="teacher", runs=runs, with_test=False, shown=False).folder


def taking(monkeypatch: pytest.MonkeyPatch, **values: Any) -> list[tuple[str, ...]]:
    """What is taken in the place of what is fastest; what was open each time."""
    asked: list[tuple[str, ...]] = []

    def choose(distiller: Any, data: Any, settings: Any, device: Any) -> Chosen:
        asked.append(settings.open)
        return Chosen({key: values[key] for key in settings.open}, {"x": 1.5}, 7)

    monkeypatch.setattr(settling, "choose", choose)
    return asked


class Pool(nn.Module):
    """A student of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))
