"""Measuring networks: predictions, what is read from them, and what a network costs."""

from tutelage.evaluation.accuracy import accuracy, near_chance
from tutelage.evaluation.agreement import agreement
from tutelage.evaluation.cost import macs, num_parameters
from tutelage.evaluation.latency import latency
from tutelage.evaluation.predictions import Predictions, predict

__all__ = [
    "Predictions",
    "accuracy",
    "agreement",
    "latency",
    "macs",
    "near_chance",
    "num_parameters",
    "predict",
]
