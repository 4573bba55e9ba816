"""Distillation in timm's training script, as one of its tasks.

In train.py, in the place of `task = ClassificationTask(…)`:

    import tutelage
    from timm_task import DistillationTask

    teacher = timm.create_model("resnet50", pretrained=True, num_classes=args.num_classes)
    pupil = tutelage.Distiller(
        model,
        teacher,
        methods={"kd": (tutelage.KD(), 1.0)},
        input_normalized=(data_config["mean"], data_config["std"]),
        image_size=data_config["input_size"],
    )
    task = DistillationTask(pupil, device=device, dtype=model_dtype)

Precision, distribution, averaging (of teachers, too, which costs their memory) and checkpoints stay
the script's, and what it saves is the student's `state_dict`. Labels are class numbers and pictures
come alone: leave out `--mixup`, `--cutmix`, `--aug-splits`, `--jsd-loss` and NaFlex; `--smoothing`
and `--bce-loss` have no effect. Of the optimizer's options `--layer-decay`, and the exceptions that
a student makes from weight decay, are not known to it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from timm.task import TrainingTask
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import tutelage


class DistillationTask(TrainingTask):
    """Any methods, and any teachers.

    Args:
        pupil: student, teacher and methods. Told how the loader normalizes.
        steps: batches of the whole run, if a weight follows a schedule.
        device, dtype: where the script trains, and in which precision.
    """

    def __init__(
        self,
        pupil: tutelage.Distiller,
        steps: int | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(device=device, dtype=dtype)
        self.trainable_module: nn.Module = pupil.to(device=self.device, dtype=self.dtype)
        self.steps, self.done = steps, 0

    def prepare_distributed(
        self, device_ids: list[Any] | None = None, **settings: Any
    ) -> "DistillationTask":
        """Wraps the student and what methods learn, and no teacher."""
        self.trainable_module = DistributedDataParallel(
            self.trainable_module, device_ids=device_ids, **settings
        )
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **settings: Any) -> Any:
        """Compiles student, teacher and methods as one; validation stays as it is."""
        self.trainable_module.compile(backend=backend, mode=mode, **settings)
        return self.get_eval_model()

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """Of the student, without the two of its head if so asked; and what methods learn."""
        pupil = self._pupil(None, ema=False)
        assert pupil is not None
        own = list(pupil.student.parameters())
        return [*(own[:-2] if exclude_head else own), *pupil.methods.parameters()]

    def _pupil(self, module: Any, ema: bool) -> tutelage.Distiller | None:
        """What is inside of a distributed or an averaging module."""
        found = self.get_trainable_module(ema=ema) if module is None else module
        while found is not None and not isinstance(found, tutelage.Distiller):
            found = getattr(found, "module", None)
        return found

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> Any:
        """The student, or its moving average."""
        if module is None and ema and hasattr(self, "eval_model_ema"):
            return self.eval_model_ema  # compiled
        pupil = self._pupil(module, ema)
        return None if pupil is None else pupil.student

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """What methods have learned."""
        pupil = self._pupil(module, ema)
        return {} if pupil is None else {"methods": pupil.methods.state_dict(), "done": self.done}

    def load_task_state(
        self,
        state: Mapping[str, Any] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Goes on with what methods had learned."""
        pupil = self._pupil(module, ema)
        if state and pupil is not None:
            pupil.methods.load_state_dict(state["methods"], strict=strict)
            self.done = state["done"]

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The loss, the logits, and the terms."""
        progress = None if self.steps is None else self.done / self.steps
        out = self.trainable_module(input, target, progress=progress)
        self.done += 1
        return {"loss": out.loss, "output": out.output, **out.terms}
