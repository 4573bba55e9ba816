"""How closely a student follows its teacher (Stanton et al. 2021, arXiv:2106.05945)."""

import torch
from torch.nn.functional import kl_div

from tutelage.evaluation.predictions import Predictions

__all__ = ["fidelity"]


def fidelity(student: Predictions, teacher: Predictions) -> dict[str, float | None]:
    """Agreement of two networks that saw the same pictures; it needs no labels.

    Returns:
        "top1": share of pictures for which both name the same class, in [0, 1]; "kl": mean of
        KL(teacher ‖ student) at temperature 1, in nats; "on_teacher_errors": "top1" over the
        labelled pictures that the teacher gets wrong, so how often the student repeats the very
        error; None if there are none.
    """
    assert torch.equal(student.index, teacher.index), "not the same pictures"
    ours, theirs = student.outputs.double(), teacher.outputs.double()
    same = ours.argmax(dim=1) == theirs.argmax(dim=1)
    wrong = teacher.has_label & (theirs.argmax(dim=1) != teacher.targets)
    divergence = kl_div(
        ours.log_softmax(dim=1), theirs.log_softmax(dim=1), reduction="batchmean", log_target=True
    )
    return {
        "top1": int(same.sum()) / len(same),
        "kl": float(divergence),
        "on_teacher_errors": int(same[wrong].sum()) / int(wrong.sum()) if wrong.any() else None,
    }
