"""Checkpoints: tensors as safetensors, the rest as JSON, in a folder that appears as a whole.

Not accelerate's `save_state`: that writes pickles. What is saved is everything that the next step
depends on (weights, buffers, optimizer, schedule, random states) and what the log had gathered.
The loader has no state: a batch is a pure function of its step. Of several processes, whose weights
are the same, the first one writes for all.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tutelage.distiller import Distiller
from tutelage.engine.averaging import Average
from tutelage.engine.optim import keep_only
from tutelage.engine.processes import ALONE, Processes
from tutelage.errors import CheckpointError, NonFiniteError
from tutelage.records import RunFolder, write_folder

__all__ = [
    "Progress",
    "random_states",
    "require_finite",
    "restore",
    "restore_structures",
    "save_checkpoint",
    "structures",
]

KEPT = 2
_TENSORS, _VALUES = "tensors.safetensors", "state.json"
_SCHEDULE = ("last_epoch", "_step_count", "_last_lr")  # the rest is made anew from the recipe


class Progress(NamedTuple):
    """Where a run stands, beside its tensors.

    Attributes:
        step: finished steps.
        seconds: spent in training, over all sessions.
        best, waited: of early stopping: best validation accuracy, evaluations since.
        phases: what was found at the end of each phase.
        setting: what bits depend on beside the recipe: threads, device, versions; None at first.
    """

    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    waited: int = 0
    phases: tuple[dict[str, Any], ...] = ()
    setting: dict[str, Any] | None = None


def save_checkpoint(
    folder: RunFolder,
    progress: Progress,
    distiller: Distiller,
    optimizer: Optimizer,
    schedule: LRScheduler,
    gathered: dict[str, Tensor],
    random: dict[str, Tensor],
    average: Average | None = None,
) -> None:
    """Writes the checkpoint of a step and keeps the last two.

    Args:
        gathered: by the log.
        random: states of all processes, as `random_states` gives them.

    Raises:
        RunError: no space is left on the device.
    """
    names = _names(distiller)
    tensors = {f"model.{key}": value for key, value in distiller.state_dict().items()}
    scalars: dict[str, Any] = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            name = f"optimizer.{names[id(parameter)]}.{key}"
            if isinstance(value, Tensor):
                tensors[name] = value
            else:
                scalars[name] = value
    if average is not None:
        tensors |= {f"average.{key}": value for key, value in average.tensors().items()}
    tensors |= {f"log.{key}": value for key, value in gathered.items()}
    tensors |= {f"rng.{key}": value for key, value in random.items()}
    values = {
        "progress": progress._asdict(),
        "groups": [_settings(group) for group in optimizer.param_groups],
        "optimizer": scalars,
        "schedule": {key: schedule.state_dict()[key] for key in _SCHEDULE},
        "structure": structures(distiller),
    }
    detached = {name: _alone(value) for name, value in tensors.items()}
    path = folder.checkpoint(progress.step)
    write_folder(path, {_TENSORS: save(detached), _VALUES: json.dumps(values).encode()})
    folder.sweep(keep=folder.checkpoints[-KEPT:])


def restore(
    folder: RunFolder,
    distiller: Distiller,
    optimizer: Optimizer,
    schedule: LRScheduler,
    average: Average | None = None,
    together: Processes = ALONE,
) -> tuple[Progress, dict[str, Tensor]]:
    """Loads the newest checkpoint into everything; without one, changes nothing.

    What methods had dropped is dropped again, before any weight is loaded.

    Args:
        together: the processes that train; each takes its own random states.

    Returns:
        Where the run stands, and what the log had gathered.

    Raises:
        CheckpointError: the newest checkpoint is damaged, or of another run.
    """
    if not folder.checkpoints:
        return Progress(), {}
    path = folder.checkpoints[-1]
    tensors, values = _read(path)
    restore_structures(distiller, values["structure"])
    keep_only(optimizer, distiller.trainable_parameters())
    try:
        distiller.load_state_dict(_under("model.", tensors))
        if average is not None:
            average.restore(_under("average.", tensors))
    except RuntimeError as error:
        raise CheckpointError(
            f"The checkpoint {path} does not fit its recipe: {str(error).splitlines()[-1].strip()} "
            "Resume with the recipe and the code that began the run."
        ) from None
    _restore_optimizer(optimizer, _names(distiller), tensors, values)
    schedule.load_state_dict(values["schedule"])
    _restore_random_states(_under("rng.", tensors), together)
    progress = Progress(**values["progress"] | {"phases": tuple(values["progress"]["phases"])})
    return progress, _under("log.", tensors)


def structures(distiller: Distiller) -> dict[str, Any]:
    """What phases have left of the learned parts of those that decide, as JSON."""
    found = {name: part.structure() for name, part in distiller.deciding()}
    return {name: structure for name, structure in found.items() if structure is not None}


def restore_structures(distiller: Distiller, left: dict[str, Any]) -> None:
    """Drops what was dropped when these were taken."""
    for name, part in distiller.deciding():
        if name in left:
            part.restore_structure(left[name])


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        return load_file(path / _TENSORS), json.loads((path / _VALUES).read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"The checkpoint {path} is damaged ({error}). Remove that folder and resume from the "
            "one before."
        ) from None


def _restore_optimizer(
    optimizer: Optimizer, names: dict[int, str], tensors: dict[str, Tensor], values: dict[str, Any]
) -> None:
    for group, settings in zip(optimizer.param_groups, values["groups"], strict=True):
        group.update({key: _tuple(value) for key, value in settings.items()})
        for parameter in group["params"]:
            prefix = f"optimizer.{names[id(parameter)]}."
            state = {
                # AdamW counts steps in a tensor on the CPU
                key: value if key == "step" else _like(value, parameter)
                for key, value in _under(prefix, tensors).items()
            }
            state |= _under(prefix, values["optimizer"])
            if state:
                optimizer.state[parameter] = state


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """In the parameter's memory format: vectorized code may round differently in another."""
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _alone(value: Tensor) -> Tensor:
    """A copy: safetensors takes no two tensors that share memory, as tied weights do."""
    return value.detach().to("cpu").clone(memory_format=torch.contiguous_format)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _names(module: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in module.named_parameters()}


def _under(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def require_finite(distiller: Distiller, step: int) -> None:
    """Refuses to save what is of no use.

    Raises:
        NonFiniteError: a weight is not finite; the checkpoints before stay as they are.
    """
    finite = {name: value.isfinite().all() for name, value in distiller.named_parameters()}
    finite |= {
        # A mask may hold -inf on purpose; a running variance never does.
        name: (value.isfinite() | value.isneginf()).all()
        for name, value in distiller.named_buffers()
        if value.is_floating_point()
    }
    if not finite:
        return
    read = torch.stack(list(finite.values())).tolist()
    bad = [name for name, is_finite in zip(finite, read, strict=True) if not is_finite]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise NonFiniteError(
            f"{bad[0]}{more} became infinite or NaN by step {step}; the run has stopped, and the "
            "last good checkpoint is as it was. Lower the learning rate or the methods' weights."
        )


def random_states(together: Processes) -> dict[str, Tensor]:
    """Of the CPU's generator and the devices', of all processes."""
    own = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        # Of several processes each has one device, whatever its number.
        states = torch.cuda.get_rng_state_all() if together.alone else [torch.cuda.get_rng_state()]
        own |= {f"cuda{i}": state for i, state in enumerate(states)}
    collected = {key: together.collect(state) for key, state in own.items()}
    return {
        f"{rank}/{key}" if rank else key: state
        for key, states in collected.items()
        for rank, state in enumerate(states)
    }


def _restore_random_states(states: dict[str, Tensor], together: Processes) -> None:
    """A process that was not there when they were saved keeps its own."""
    rank = together.rank
    own = _under(f"{rank}/", states) if rank else {k: v for k, v in states.items() if "/" not in k}
    if "cpu" in own:
        torch.set_rng_state(own.pop("cpu"))
    for key, state in own.items() if torch.cuda.is_initialized() else ():
        torch.cuda.set_rng_state(state, int(key.removeprefix("cuda")) if together.alone else "cuda")
