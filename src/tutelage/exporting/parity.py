"""Whether an exported file still says what the network says."""

import math
from typing import Any, NamedTuple

import torch

from tutelage.errors import ExportError, SettingError
from tutelage.evaluation.accuracy import accuracy
from tutelage.evaluation.agreement import agreement
from tutelage.evaluation.predictions import Predictions
from tutelage.exporting.form import Precision

__all__ = ["Tolerance", "checked", "compare", "require_parity", "usual"]


class Tolerance(NamedTuple):
    """How far an exported file may be from the network.

    Attributes:
        difference: largest difference of a logit, as a share of the largest logit of all pictures;
            None: any, which is what int8 needs: a class is named by order, not by size.
        drop: points of accuracy, in percent, that may be lost.
    """

    difference: float | None
    drop: float


_USUAL: dict[Precision, Tolerance] = {
    "fp32": Tolerance(1e-4, 0.1),
    "fp16": Tolerance(2e-2, 0.5),
    "int8": Tolerance(None, 2.0),
}


def checked(tolerance: Tolerance) -> Tolerance:
    """Itself.

    Raises:
        SettingError: it is no number, or below 0.
    """
    for name, value in tolerance._asdict().items():
        if value is not None and not 0 <= value < math.inf:
            raise SettingError(
                f"What an export may differ by is a number from 0, but its {name} is {value}. "
                "Give one, or leave it out."
            )
    return tolerance


def usual(precision: Precision) -> Tolerance:
    """What is allowed where nobody says."""
    return _USUAL[precision]


def compare(
    exported: Predictions, network: Predictions, teacher: Predictions | None = None
) -> dict[str, Any]:
    """What a file and the network that it was made of say of the same pictures.

    Args:
        teacher: what it says of them, if it is there.

    Returns:
        "pictures"; "largest_difference" of a logit, and the same "relative" to the network's
        largest logit; "same_answer", the share of pictures for which both name one class;
        "accuracy" of "network" and "exported"; "teacher_agreement" of both, None without one.
    """
    assert torch.equal(exported.index, network.index), "not the same pictures"
    difference = float((exported.outputs - network.outputs).abs().max())
    largest = float(network.outputs.abs().max())
    both = {"network": network, "exported": exported}
    return {
        "pictures": len(network.index),
        "largest_difference": difference,
        "relative": difference / largest if largest else difference,
        "same_answer": agreement(exported, network),
        "accuracy": {name: accuracy(seen) for name, seen in both.items()},
        "teacher_agreement": None
        if teacher is None
        else {name: agreement(seen, teacher) for name, seen in both.items()},
    }


def require_parity(
    found: dict[str, Any], tolerance: Tolerance, what: str, *, remedy: str = ""
) -> None:
    """Refuses a file that says something else.

    Args:
        found: as `compare` returns it.
        what: the form's name.
        remedy: against a drop, beside the usual ones.

    Raises:
        ExportError: it is beyond the tolerance.
    """
    network, exported = found["accuracy"]["network"], found["accuracy"]["exported"]
    drop = 100 * (network - exported)
    allowed = tolerance.difference
    # Not "greater than": NaN must not pass.
    if allowed is not None and not found["relative"] <= allowed:
        raise ExportError(
            f"{what} was not written: one of its logits is {found['largest_difference']:.3g} off, "
            f"{found['relative']:.2g} of the largest, and {allowed:g} is allowed. Take another "
            "precision or target, or allow more with --max-difference."
        )
    if not drop <= tolerance.drop + 1e-9:
        raise ExportError(
            f"{what} was not written: it is right on {100 * exported:.1f} % of "
            f"{found['pictures']} test pictures and the network on {100 * network:.1f} %, a drop "
            f"of {drop:.1f} points where {tolerance.drop:g} are allowed. Take another "
            f"precision, {f'{remedy}, ' if remedy else ''}or allow more with --max-drop."
        )
