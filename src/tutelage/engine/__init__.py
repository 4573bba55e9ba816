"""The engine: loop, phases, checkpoints, logging. The only user of accelerate."""

from tutelage.engine.host import memory_in_words
from tutelage.engine.loop import fit, resolve_device
from tutelage.engine.optim import OPTIMIZERS, SCHEDULES, make_optimizer
from tutelage.engine.processes import ALONE, Processes, launched
from tutelage.engine.session import Trained
from tutelage.engine.settings import EarlyStopping, TrainSettings

__all__ = [
    "ALONE",
    "OPTIMIZERS",
    "SCHEDULES",
    "EarlyStopping",
    "Processes",
    "TrainSettings",
    "Trained",
    "fit",
    "launched",
    "make_optimizer",
    "memory_in_words",
    "resolve_device",
]
