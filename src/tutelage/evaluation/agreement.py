"""How often student and teacher say the same, right or wrong."""

import torch

from tutelage.evaluation.predictions import Predictions

__all__ = ["agreement"]


def agreement(student: Predictions, teacher: Predictions) -> float:
    """Share of pictures for which both name the same class, in [0, 1]."""
    assert torch.equal(student.index, teacher.index), "not the same pictures"
    same = student.outputs.argmax(dim=1) == teacher.outputs.argmax(dim=1)
    return int(same.sum()) / len(same)
