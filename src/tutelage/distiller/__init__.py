"""The distiller: student, teachers, methods and weights as one module."""

from tutelage.distiller.distiller import Distiller, Output
from tutelage.distiller.objective import Objective, Schedule, Weight

__all__ = ["Distiller", "Objective", "Output", "Schedule", "Weight"]
