"""What every transfer method is: needs, two moments, and nothing else."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from tutelage.types import Findings, OutputKind, Phase, Shapes, Terms, TransferBatch

__all__ = ["Method", "Needs"]


@dataclass(frozen=True)
class Needs:
    """What a method needs of the run; checked before the first step.

    Attributes:
        outputs: kinds of output it can compare; empty if it looks at no output.
        taps: "none"; "pairs" (corresponding taps of student and teacher); "all" (every candidate).
        labels: "class" if it looks at class labels, else "none".
        teachers: number of teachers; 0 if the student teaches itself.
        subnets: whether the student must have sub-networks.
        compares_samples: whether its value depends on which samples share a batch.
    """

    outputs: tuple[OutputKind, ...] = ()
    taps: Literal["none", "pairs", "all"] = "none"
    labels: Literal["none", "class"] = "none"
    teachers: int = 1
    subnets: bool = False
    compares_samples: bool = False

    @property
    def reads_teacher(self) -> bool:
        """Whether it looks at maps of a teacher."""
        return self.taps != "none" and self.teachers > 0


class Method(nn.Module, ABC):
    """A transfer method. Every subclass is final.

    `__init__(*, settings with defaults)` checks settings and makes no tensors. `build` is called
    once, when the shapes are known. `forward` runs no network, reads no file, knows no weight and
    no epoch, and changes nothing outside itself.

    Attributes:
        needs: of the class, those with default settings; other settings may ask for more or less.
    """

    needs: Needs

    def build(self, shapes: Shapes) -> None:
        """Checks shapes and makes the learned parts. Parameters exist after this, not before.

        Raises:
            NetworkError: student and teacher do not fit this method.
        """

    def encode(
        self, maps: Float[Tensor, "n c h w"], size: tuple[int, int]
    ) -> Float[Tensor, "n c_2 h_2 w_2"]:
        """What this method needs of a teacher's map: another map, which `forward` takes for it.

        A store may keep that instead, where this method alone looks at the map. Most methods need
        all of it.

        Args:
            maps: of the teacher.
            size: height and width of the student's map.
        """
        return maps

    @abstractmethod
    def forward(self, batch: TransferBatch) -> Terms:
        """The unweighted terms of one batch, each mean over the batch."""

    def end_phase(self, phase: Phase) -> Findings | None:
        """Decides something between phases; most methods do not."""
        return None

    def structure(self) -> Any:
        """What `end_phase` left of the learned parts, as JSON; None if it never drops any."""
        return None

    def restore_structure(self, structure: Any) -> None:
        """Drops what is not in `structure`; called after `build`, before weights are loaded."""
