"""Teachers: something that answers a batch, whether it computes or remembers."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from tutelage.taps import Stage
from tutelage.teachers.live import LiveTeacher
from tutelage.teachers.stored import StoredTeacher
from tutelage.types import Batch, Observation

__all__ = ["LiveTeacher", "StoredTeacher", "Teacher"]


@runtime_checkable
class Teacher(Protocol):
    """What the distiller asks of a teacher."""

    @property
    def takes_pixels(self) -> bool:
        """Whether it wants pixels in [0, 1]; else it takes images as the student gets them."""
        ...

    def tap(self, names: Sequence[str], image_size: tuple[int, int, int] | None = None) -> None:
        """Makes sure that these taps can be observed; called before anything is asked."""
        ...

    def stages(self, image_size: tuple[int, int, int] | None) -> list[Stage]:
        """Candidate taps."""
        ...

    def dry_run(self, taps: Sequence[str], image_size: tuple[int, int, int] | None) -> Observation:
        """An observation of two gray pictures."""
        ...

    def observe(self, batch: Batch, taps: Sequence[str]) -> Observation:
        """The answer to a batch, detached."""
        ...

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Moves or casts whatever tensors it holds, as `nn.Module.to` does."""
        ...
