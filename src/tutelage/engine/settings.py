"""The settings of training. Recipes take them as they stand here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar, Literal

from tutelage.errors import SettingError
from tutelage.models.fake_quantization import Runtime

__all__ = ["OPEN", "EarlyStopping", "TrainSettings"]

OPEN: Mapping[str, tuple[Any, ...]] = {
    "precision": ("bf16", "fp32"),
    "channels_last": (True, False),
}
"""Settings that may be "auto" → the values of which the fastest is taken then."""

_FORBID = {"extra": "forbid"}


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a run that has stopped getting better on validation.

    Attributes:
        patience: how many evaluations in a row may bring no improvement.
        min_delta: by how much accuracy (a share, 0.001 is 0.1 points) must rise to count.
    """

    __pydantic_config__: ClassVar = _FORBID
    patience: int = 5
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        _at_least_one("early_stopping.patience", self.patience)
        if not 0 <= self.min_delta < 1:
            raise SettingError(
                f"early_stopping.min_delta is a share in [0, 1), but is {self.min_delta}; 0.001 is "
                "a tenth of a point."
            )


@dataclass(frozen=True)
class TrainSettings:
    """How a run is trained.

    Attributes:
        steps: number of optimizer steps.
        batch_size: samples per step, over all processes.
        labelled_per_batch: of these, with label; None: in proportion to their number.
        accumulate: micro-batches per step; more need less memory.
        optimizer: name (see `engine.optim.OPTIMIZERS`) and settings.
        schedule: name (see `engine.optim.SCHEDULES`) and settings.
        clip: the gradient's norm, over all that is trained, is scaled down to this at most.
        average: decay of a moving average of the student's weights (EMA), such as 0.999; that is
            what is validated, saved and measured. None: there is none.
        quantization: the student computes as it will in int8 in this runtime, so that it learns
            weights that rounding hurts little (see `models.fake_quantization`). What is validated
            meanwhile is rounded; what is saved, and measured at the end, is not. Needs fp32. None:
            there is no rounding.
        sync_norms: batch norms of several processes share their statistics. In one process it
            changes nothing.
        precision: "bf16" runs under autocast; "fp32" does not. "auto": see `engine.choosing`.
        channels_last: memory format of images and convolutions; faster on most devices, or "auto".
        compile: compile the step with torch.compile.
        fuse_teacher: a copy of the teacher answers in whose convolutions the batch norms are
            folded: the same but for rounding, and faster. What is measured is the teacher itself.
        compile_teacher: the teacher is compiled by itself, its weights being constants.
        device: "auto" takes CUDA where there is one.
        threads: of the CPU; None: as torch chooses, but no more than the process may use. Another
            number gives other bits.
        keep_memory: tell glibc to keep freed memory, which spares page faults in every step.
        phases: equal parts of the run, after each of which methods may decide something.
        log_every, checkpoint_every, evaluate_every: steps. None for `evaluate_every`: at the end.
        early_stopping: needs `evaluate_every`.
        max_minutes: the run ends, as finished, at the first step after so long.
        trackers: names of experiment trackers that accelerate knows, such as "tensorboard".
    """

    __pydantic_config__: ClassVar = _FORBID
    steps: int
    batch_size: int = 128
    labelled_per_batch: int | None = None
    accumulate: int = 1
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "sgd"})
    schedule: dict[str, Any] = field(default_factory=lambda: {"name": "one_cycle"})
    clip: float | None = None
    average: float | None = None
    quantization: Runtime | None = None
    sync_norms: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "bf16"
    channels_last: bool | Literal["auto"] = True
    compile: bool = False
    fuse_teacher: bool = True
    compile_teacher: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    keep_memory: bool = True
    phases: int = 1
    log_every: int = 50
    checkpoint_every: int = 500
    evaluate_every: int | None = None
    early_stopping: EarlyStopping | None = None
    max_minutes: float | None = None
    trackers: tuple[str, ...] = ()

    @property
    def open(self) -> tuple[str, ...]:
        """Those that are to be measured."""
        return tuple(name for name in OPEN if getattr(self, name) == "auto")

    @property
    def channels_lie_last(self) -> bool:
        """`channels_last`, once that is settled."""
        assert self.channels_last != "auto", "see engine.choosing"
        return self.channels_last

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "phases", "log_every"):
            _at_least_one(name, getattr(self, name))
        for name in ("labelled_per_batch", "threads", "checkpoint_every", "evaluate_every"):
            value = getattr(self, name)
            if value is not None:
                _at_least_one(name, value)
        if self.batch_size % self.accumulate:
            raise SettingError(
                f"batch_size {self.batch_size} is no multiple of accumulate {self.accumulate}. "
                "Choose a divisor, so that all micro-batches are equal."
            )
        if self.phases > self.steps:
            raise SettingError(f"{self.steps} steps cannot be cut into {self.phases} phases.")
        if self.early_stopping and not self.evaluate_every:
            raise SettingError("early_stopping needs evaluate_every: a number of steps.")
        if self.clip is not None and not 0 < self.clip < inf:
            raise SettingError(
                f"clip is the largest norm that a gradient may have, above 0, not {self.clip}; 1 "
                "is usual. Leave it out for none."
            )
        if self.average is not None and not 0 < self.average < 1:
            raise SettingError(
                f"average is the decay of a moving average, between 0 and 1, not {self.average}; "
                "0.999 is usual. Leave it out for none."
            )
        if self.quantization is not None and self.precision != "fp32":
            raise SettingError(
                "quantization rounds to 8 bits, which must be computed in fp32, but precision is "
                f"{self.precision}. Set train.precision to fp32."
            )
        if self.quantization is not None and self.compile:
            raise SettingError(
                f"A step that rounds as int8 does is not compiled, but quantization is "
                f"{self.quantization} and compile is true. Leave one of them out."
            )
        if self.sync_norms and self.compile:
            raise SettingError(
                "Norms that ask other processes are not compiled, but sync_norms and compile are "
                "true. Leave one of them out."
            )
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise SettingError(f"max_minutes must be above 0, not {self.max_minutes}.")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise SettingError(f"{name} must be at least 1, not {value}.")
