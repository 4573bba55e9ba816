"""What corruption costs one network in units of what it costs another, from their records.

The mean corruption error of Hendrycks and Dietterich, 2019 (arXiv 1903.12261), section 4, with a
reference of one's own (the teacher, a control) in AlexNet's place, as a ratio and not in percent:
1 is as often wrong as the reference, less is better.
"""

import statistics
from collections.abc import Mapping
from typing import Any

from tutelage.errors import DataError

__all__ = ["corruption_errors", "mean_corruption_error"]

ROUNDING = 1e-9
"""Shares are rounded: a difference below this is none."""

Robustness = Mapping[str, Any]
"""A network's entry "robustness": pictures, seed, clean, corruptions."""


def corruption_errors(
    student: Robustness, reference: Robustness, *, relative: bool = False
) -> dict[str, float | None]:
    """By corruption, the student's error over the reference's, each summed over severities.

    Args:
        relative: whether only what a corruption adds to the error on clean pictures counts.

    Returns:
        Ratios; None where the reference has no error that could be divided by: it is never wrong,
        or with `relative` no worse than on clean pictures.

    Raises:
        DataError: the two were not measured on the same pictures.

    >>> student = {"pictures": 9, "seed": 0, "clean": 0.9, "corruptions": {"fog": [0.8, 0.6]}}
    >>> teacher = {"pictures": 9, "seed": 0, "clean": 0.9, "corruptions": {"fog": [0.9, 0.7]}}
    >>> round(corruption_errors(student, teacher)["fog"], 9)  # (0.2 + 0.4) / (0.1 + 0.3)
    1.5
    """
    _same_pictures(student, reference)
    errors = {}
    for name in student["corruptions"]:
        ours, theirs = _error(student, name, relative), _error(reference, name, relative)
        errors[name] = ours / theirs if theirs > ROUNDING else None
    return errors


def mean_corruption_error(
    student: Robustness, reference: Robustness, *, relative: bool = False
) -> float | None:
    """The mean of `corruption_errors`: mCE, or relative mCE, against this reference.

    Returns:
        A ratio; None if there is no corruption, or none for one of them.

    Raises:
        DataError: the two were not measured on the same pictures.
    """
    ratios = corruption_errors(student, reference, relative=relative).values()
    known = [ratio for ratio in ratios if ratio is not None]
    return statistics.fmean(known) if known and len(known) == len(ratios) else None


def _error(network: Robustness, name: str, relative: bool) -> float:
    """Summed over severities."""
    least = 1 - network["clean"] if relative else 0.0
    return sum(1 - share - least for share in network["corruptions"][name])


def _same_pictures(student: Robustness, reference: Robustness) -> None:
    ours, theirs = _conditions(student), _conditions(reference)
    if ours != theirs:
        raise DataError(
            "Corruption errors compare only on the same spoiled pictures, but these networks saw "
            f"others: one {', '.join(sorted(ours - theirs)) or 'nothing else'}; the other "
            f"{', '.join(sorted(theirs - ours)) or 'nothing else'}. Measure both the same way."
        )


def _conditions(network: Robustness) -> set[str]:
    """What was measured, in words."""
    rows = network["corruptions"].items()
    return {
        f"{network['pictures']} pictures",
        f"seed {network['seed']}",
        *(f"{name} at {len(shares)} severities" for name, shares in rows),
    }
