"""The distiller: student, teachers, methods and weights as one module."""

from tutelage.distiller.aggregation import Aggregator, Ensemble
from tutelage.distiller.distiller import Distiller, Output
from tutelage.distiller.objective import Objective, Schedule, Weight

__all__ = ["Aggregator", "Distiller", "Ensemble", "Objective", "Output", "Schedule", "Weight"]
