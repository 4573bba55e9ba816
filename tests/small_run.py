"""A training that takes a second: a tiny network with dropout, and pictures made of noise.

It is a module of its own so that other processes can import it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage import rng
from tutelage.data import EvalLoader, Pictures, TrainLoader, Views
from tutelage.distiller import Distiller
from tutelage.engine import ALONE, Processes, Trained, TrainSettings, fit
from tutelage.models.network import Network
from tutelage.records import RunFolder, read_lines
from tutelage.runs import train
from tutelage.types import InputSpec

SIZE = (1, 8, 8)
SPEC = InputSpec(8, 8, 1, (0.5,), (0.5,))
NUM_CLASSES = 3


class Tiny(nn.Module):
    """Two convolutions, two norms, dropout, one head."""

    def __init__(
        self,
        num_classes: int = NUM_CLASSES,
        width: int = 4,
        norm: str = "batch",
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        layers = []
        for name, inputs, outputs in (("1", 1, width), ("2", width, 2 * width)):
            normed = nn.BatchNorm2d(outputs) if norm == "batch" else nn.GroupNorm(2, outputs)
            conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
            layers.append(nn.Sequential(conv, normed, nn.ReLU()))
            setattr(self, f"layer{name}", layers[-1])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.get_submodule("layer2")(self.get_submodule("layer1")(images))
        return self.head(self.dropout(maps.mean(dim=(2, 3))))


def tiny(seed: int = 0, **settings: Any) -> Network:
    """A network with weights of its own seed."""
    with rng.part(seed, "tiny"):
        return Network(Tiny(**settings), SPEC)


def pictures(count: int = 60, *, labelled: int | None = None, seed: int = 0) -> Pictures:
    """Noise whose brightness tells the class; the first `labelled` are labelled."""
    with rng.part(seed, "pictures"):
        labels = torch.arange(count) % NUM_CLASSES
        noise = torch.randint(0, 120, (count, 8, 8, 1))
    images = (noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    found = Pictures.with_labels(images, labels)
    if labelled is None:
        return found
    number = torch.arange(count)
    return found.take(number[:labelled]).join(found.take(number[labelled:]).without_labels())


def loader(
    data: Pictures | None = None, *, batch_size: int = 12, rank: int = 0, world_size: int = 1
) -> TrainLoader:
    return TrainLoader(
        data or pictures(),
        Views(crop_padding=1),
        batch_size=batch_size,
        seed=0,
        rank=rank,
        world_size=world_size,
    )


def held_out(rank: int = 0, world_size: int = 1) -> EvalLoader:
    return EvalLoader(pictures(30, seed=1), batch_size=20, rank=rank, world_size=world_size)


def settings(**changes: Any) -> TrainSettings:
    """Of eight steps in float32; `changes` take the place of what stands here."""
    plain: dict[str, Any] = {
        "steps": 8,
        "batch_size": 12,
        "precision": "fp32",
        "optimizer": {"name": "sgd", "lr": 0.05},
        "threads": 1,
        "keep_memory": False,
        "log_every": 3,
        "device": "cpu",
    }
    return TrainSettings(**plain | changes)


def train_tiny(
    folder: Path,
    distiller: Distiller | None = None,
    *,
    data: TrainLoader | None = None,
    validate: Callable[[], float] = lambda: 0.5,
    seed: int = 0,
    together: Processes = ALONE,
    **changes: Any,
) -> Trained:
    """Trains without a recipe; goes on where the folder's newest checkpoint stands."""
    if together.first:
        folder.mkdir(exist_ok=True)
    return fit(
        distiller or Distiller(tiny()),
        data or loader(),
        settings(**changes),
        RunFolder(folder),
        held_out=held_out(),
        validate=validate,
        seed=seed,
        shown=False,
        together=together,
    )


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run without what depends on time."""
    lines = read_lines(RunFolder(folder).metrics)
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def digits_run(runs: Path, name: str, *, seed: int = 0, resume: bool = False) -> Path:
    """A whole run by a recipe, on scanned digits, whose student was made in Python."""
    recipe = {
        "schema": 1,
        "seed": seed,
        "data": {"source": "digits", "validation": 100, "labelled": 300, "unlabelled": True},
        "student": None,
        "train": {
            "steps": 300,
            "batch_size": 50,
            "precision": "fp32",
            "threads": 1,
            "log_every": 9,
            "evaluate_every": 100,
            "checkpoint_every": 7,
        },
    }
    with rng.part(seed, "student"):
        student = Tiny(num_classes=10)
    return train(recipe, name=name, runs=runs, resume=resume, student=student, shown=False).folder
