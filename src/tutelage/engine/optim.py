"""Optimizers and learning-rate schedules, by name; torch does the work.

The signatures here are what a recipe may say of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
)
from torch.optim.optimizer import ParamsT

from tutelage.engine.settings import TrainSettings
from tutelage.errors import SettingError

__all__ = ["OPTIMIZERS", "SCHEDULES", "keep_only", "make_optimizer"]

Parameters = Iterable[nn.Parameter]


def sgd(
    trained: ParamsT,
    *,
    lr: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 5e-4,
) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return SGD(
        trained,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov and momentum > 0,
        weight_decay=weight_decay,
        foreach=True,
    )


def adamw(
    trained: ParamsT,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.01,
) -> Optimizer:
    """Adam with decoupled weight decay."""
    return AdamW(trained, lr=lr, betas=betas, weight_decay=weight_decay, foreach=True)


def one_cycle(
    optimizer: Optimizer,
    steps: int,
    *,
    rise: float = 0.3,
    start_divisor: float = 25.0,
    end_divisor: float = 1e4,
) -> LRScheduler:
    """Cosine rise from lr / start_divisor to lr, then cosine fall to that start / end_divisor.

    The momentum stays as the optimizer has it (torch's default would change it too).
    """
    if steps < 2:
        raise SettingError("The schedule one_cycle needs at least 2 steps. Use constant.")
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=rise,
        div_factor=start_divisor,
        final_div_factor=end_divisor,
        cycle_momentum=False,
    )


def cosine(optimizer: Optimizer, steps: int, *, end_lr: float = 0.0) -> LRScheduler:
    """Half a cosine from lr to end_lr."""
    return CosineAnnealingLR(optimizer, steps, eta_min=end_lr)


def multistep(
    optimizer: Optimizer, steps: int, *, at: Sequence[float] = (0.5, 0.75), factor: float = 0.1
) -> LRScheduler:
    """lr times `factor` at each of the fractions `at` of the run."""
    return MultiStepLR(optimizer, [round(fraction * steps) for fraction in at], gamma=factor)


def constant(optimizer: Optimizer, steps: int) -> LRScheduler:
    """lr throughout."""
    return ConstantLR(optimizer, factor=1.0, total_iters=steps)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": sgd, "adamw": adamw}
SCHEDULES: dict[str, Callable[..., LRScheduler]] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "multistep": multistep,
    "constant": constant,
}


def make_optimizer(
    parameters: Parameters | Sequence[Mapping[str, Any]], settings: TrainSettings
) -> tuple[Optimizer, LRScheduler]:
    """The optimizer and the schedule of a run.

    Args:
        parameters: or groups of them, as `Distiller.parameter_groups` gives; the learning rate of a
            group is the run's times its "lr_factor".

    Raises:
        SettingError: a setting is out of range, or nothing is to be trained.
    """
    trained = list(parameters)
    groups = [dict(one) for one in trained if isinstance(one, Mapping)] or [{"params": trained}]
    factors = [group.pop("lr_factor", 1.0) for group in groups]
    if not any(len(group["params"]) for group in groups):
        raise SettingError("Nothing is to be trained: the student's parameters are all frozen.")
    optimizer, schedule = settings.optimizer, settings.schedule
    try:
        made = OPTIMIZERS[optimizer["name"]](groups, **_without_name(optimizer))
    except (ValueError, ZeroDivisionError) as error:
        raise SettingError(_refusal("optimizer", optimizer, error)) from None
    for group, factor in zip(made.param_groups, factors, strict=True):
        group["lr"] *= factor
    try:
        return made, SCHEDULES[schedule["name"]](made, settings.steps, **_without_name(schedule))
    except (ValueError, ZeroDivisionError) as error:
        raise SettingError(_refusal("schedule", schedule, error)) from None


def _without_name(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "name"}


def _refusal(what: str, entry: dict[str, Any], error: Exception) -> str:
    given = ", ".join(f"{key} {value}" for key, value in _without_name(entry).items())
    return (
        f"The {what} {entry['name']} cannot be made with {given} ({error}). "
        f"Change train.{what} or the number of steps."
    )


def keep_only(optimizer: Optimizer, parameters: Parameters) -> None:
    """Takes out parameters that are no longer trained; the state of the others stays."""
    kept = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in kept:
                optimizer.state.pop(parameter, None)
        group["params"] = [one for one in group["params"] if id(one) in kept]
