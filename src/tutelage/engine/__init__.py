"""The engine: loop, phases, checkpoints, logging. The only user of accelerate."""

from tutelage.engine.host import memory_in_words, require_one_process
from tutelage.engine.loop import Trained, fit, resolve_device
from tutelage.engine.optim import OPTIMIZERS, SCHEDULES, make_optimizer
from tutelage.engine.settings import EarlyStopping, TrainSettings

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "EarlyStopping",
    "TrainSettings",
    "Trained",
    "fit",
    "make_optimizer",
    "memory_in_words",
    "require_one_process",
    "resolve_device",
]
