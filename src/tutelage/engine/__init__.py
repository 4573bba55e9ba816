"""The engine: loop, phases, checkpoints, logging. The only user of accelerate."""

from tutelage.engine.loop import Trained, fit, resolve_device
from tutelage.engine.optim import OPTIMIZERS, SCHEDULES
from tutelage.engine.settings import EarlyStopping, TrainSettings

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "EarlyStopping",
    "TrainSettings",
    "Trained",
    "fit",
    "resolve_device",
]
