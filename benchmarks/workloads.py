"""What is distilled: the networks, the pictures and the batch, the same for every contestant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, final

import timm
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from tutelage import rng
from tutelage.data import Pictures, TrainLoader, Views
from tutelage.engine import TrainSettings
from tutelage.engine.phases import move
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.network import Network
from tutelage.types import Batch, InputSpec

__all__ = ["KD_WEIGHT", "TASK_WEIGHT", "TEMPERATURE", "WORKLOADS", "Setup", "Workload"]

TEMPERATURE, KD_WEIGHT, TASK_WEIGHT = 4.0, 0.9, 0.1
SGD: Mapping[str, Any] = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class Workload:
    """A teacher, a student, and how large a batch of which pictures.

    Attributes:
        title: for people.
        teacher, student: make a network whose weights come from the global generator.
        side: of the square pictures.
        batch_size, num_classes: of course.
        num_pictures: whole batches; the store that is built holds one view of each.
        padding: of the random crop.
        steps: in one turn.
        precision: of those that do not insist on another; "fp32" is for tests.
    """

    title: str
    teacher: Callable[[], nn.Module]
    student: Callable[[], nn.Module]
    side: int
    batch_size: int
    num_classes: int
    num_pictures: int
    padding: int
    steps: int
    precision: Literal["bf16", "fp32"] = "bf16"


def _cifar(title: str, student: int) -> Workload:
    return Workload(
        title, partial(cifar_resnet, 56), partial(cifar_resnet, student), 32, 128, 10, 2048, 4, 3
    )


WORKLOADS: dict[str, Workload] = {
    "resnet20": _cifar("ResNet-56 → ResNet-20, 32×32, batch 128", 20),
    "resnet8": _cifar("ResNet-56 → ResNet-8, 32×32, batch 128", 8),
    "mobilenet": Workload(
        "ResNet-50 → MobileNetV3-small, 224×224, batch 16",
        partial(timm.create_model, "resnet50"),
        partial(timm.create_model, "mobilenetv3_small_100"),
        *(224, 16, 1000, 64, 16, 1),
    ),
    "tiny": Workload(
        "two tiny ResNet-8, 8×8, batch 4: only to try the scripts",
        partial(cifar_resnet, 8, 2),
        partial(cifar_resnet, 8, 2),
        *(8, 4, 10, 8, 1, 1),
    ),
}
"""Weights and pictures are random: neither changes how long anything takes."""


@final
class Setup:
    """A workload on a device, with what all contestants of a process share.

    Args:
        workload: what is distilled.
        device: where.
        store: of the teacher's answers; it is made when it is first needed if None.
        options: settings of our own training beyond the usual ones; "compile_teacher" alone also
            changes what stands beside it.
    """

    def __init__(
        self,
        workload: Workload,
        device: torch.device,
        *,
        store: Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.workload, self.device, self.store = workload, device, store
        self.options = options or {}
        self._scratch = TemporaryDirectory(prefix="tutelage-benchmark-")
        self._folders = 0

    def close(self) -> None:
        """Removes all that was written."""
        self._scratch.cleanup()

    def new_folder(self) -> Path:
        """An empty folder, gone at the end."""
        self._folders += 1
        folder = Path(self._scratch.name) / str(self._folders)
        folder.mkdir()
        return folder

    @property
    def autocast(self) -> torch.autocast:
        """A context of the workload's precision."""
        wanted = self.workload.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)

    @property
    def settings(self) -> TrainSettings:
        """Of our own steps: those that a recipe has, but for the length."""
        return TrainSettings(
            steps=1_000_000,
            batch_size=self.workload.batch_size,
            optimizer={"name": "sgd", **SGD},
            schedule={"name": "constant"},
            precision=self.workload.precision,
            device="cuda" if self.device.type == "cuda" else "cpu",
            threads=torch.get_num_threads(),
            **self.options,
        )

    def make(self, role: Literal["student", "teacher"]) -> nn.Module:
        """A network with the same weights each time, normalized pictures in, on the device.

        The teacher's batch norms have seen some pictures, so that its answers have a usual size.
        """
        network: Callable[[], nn.Module] = getattr(self.workload, role)
        with rng.part(0, f"benchmark/{role}"):
            made = network()
        if role == "teacher":
            update_bn([self.normalized(channels_last=False)[:8].cpu()], made)
        return made.to(self.device)

    def network(self, role: Literal["student", "teacher"]) -> Network:
        """The same, which normalizes pictures by itself."""
        spec = InputSpec(self.workload.side, self.workload.side, 3, MEAN, STD)
        return Network(self.make(role), spec).to(self.device)

    @cached_property
    def pictures(self) -> Pictures:
        """Bytes, as a data set holds them."""
        workload, generator = self.workload, torch.Generator().manual_seed(0)
        shape = (workload.num_pictures, workload.side, workload.side, 3)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, workload.num_classes, shape[:1], generator=generator)
        return Pictures.with_labels(images, labels)

    @property
    def views(self) -> Views:
        """The usual crop and flip."""
        return Views(crop_padding=self.workload.padding, flip=True)

    def loader(self) -> TrainLoader:
        """Batches as the engine draws them; each picture in one view, which the store has."""
        return TrainLoader(
            self.pictures, self.views, batch_size=self.workload.batch_size, seed=0, num_views=1
        )

    @cached_property
    def resident(self) -> Batch:
        """One batch of pixels, on the device, as our steps get it."""
        return move(self.loader().batch(0), self.device, channels_last=True)

    def normalized(self, *, channels_last: bool) -> Tensor:
        """The resident pictures, as networks without a `Network` around them want them."""
        images = (self.resident.images - MEAN[0]) / STD[0]
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout)

    @property
    def labels(self) -> Tensor:
        """Of the resident pictures."""
        return self.resident.targets
