"""What the methods that compare paired maps check before they start."""

from tutelage.errors import NetworkError, one_of
from tutelage.types import ObservationShape, Shapes

__all__ = ["MapShape", "paired_maps"]

MapShape = tuple[int, int, int]
"""Channels, height, width."""


def paired_maps(method: str, shapes: Shapes) -> list[tuple[MapShape, MapShape]]:
    """The shapes of student's and teacher's map in every pair, in the order of the pairs.

    Args:
        method: name of the method that asks, for the errors.
        shapes: as `Method.build` gets them; the pairs are those of the first teacher.

    Raises:
        NetworkError: there is no pair, a tap was not observed or is no map, or a tap of the student
            is in two pairs (terms are named after it).
    """
    if not shapes.pairs:
        raise NetworkError(
            f"{method} compares feature maps, but there is no pair of taps. "
            "Give at least one, as [student tap, teacher tap]."
        )
    taps = [pair.student for pair in shapes.pairs]
    doubled = next((tap for tap in taps if taps.count(tap) > 1), None)
    if doubled is not None:
        raise NetworkError(
            f"{method} takes each tap of the student once, but {doubled!r} is in "
            f"{taps.count(doubled)} pairs. Keep one of them."
        )
    return [
        (
            _map(method, "student", shapes.student, pair.student),
            _map(method, "teacher", shapes.teachers[0], pair.teacher),
        )
        for pair in shapes.pairs
    ]


def _map(method: str, role: str, observed: ObservationShape, tap: str) -> MapShape:
    one_of(f"tap of the {role}", tap, observed.features, NetworkError)
    shape = observed.features[tap]
    if len(shape) != 3:
        raise NetworkError(
            f"{method} needs maps of channels, height and width, but the {role}'s tap {tap!r} "
            f"has the shape {shape}. Take the output of a convolutional stage instead."
        )
    return shape
