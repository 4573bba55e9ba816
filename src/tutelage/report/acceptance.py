"""A verdict that can gate a release: does the student do the job, fast enough?"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from tutelage.errors import RunError, SettingError, one_of
from tutelage.records import unpack_bits
from tutelage.stats import bootstrap_interval

__all__ = ["EXIT_CODES", "Acceptance", "Limits", "accept", "parse_limits"]

Answer = Literal["yes", "no", "undecided"]
EXIT_CODES: dict[Answer, int] = {"yes": 0, "no": 1, "undecided": 3}


class Limits(NamedTuple):
    """What is asked for; None asks nothing.

    Attributes:
        max_drop: points of test accuracy that the student may lie below its teacher.
        latency_ms: the most that its median latency may be, at batch 1.
    """

    max_drop: float | None = None
    latency_ms: float | None = None


class Acceptance(NamedTuple):
    """The answer, and one sentence per limit."""

    answer: Answer
    reasons: list[str]


def parse_limits(text: str) -> Limits:
    """Reads `max_drop=1.0,latency_ms=10`.

    Raises:
        SettingError: a limit is unknown, said twice, or no number of at least 0.
    """
    said: dict[str, float] = {}
    for part in text.split(","):
        key, _, value = part.strip().partition("=")
        one_of("limit", key, Limits._fields, SettingError)
        if key in said:
            raise SettingError(f"The limit {key} is given twice. Once is enough.")
        try:
            said[key] = float(value)
        except ValueError:
            said[key] = -1
        if not 0 <= said[key] < float("inf"):
            raise SettingError(
                f"{key} must be a number of at least 0, not {value!r}. Write, for example, "
                "max_drop=1.0,latency_ms=10."
            )
    return Limits(**said)


def accept(record: Mapping[str, Any], limits: Limits, name: str = "student") -> Acceptance:
    """Holds a run's record against limits.

    A drop within `max_drop` is certain if the whole 95 % interval is (paired bootstrap over the
    test pictures, which both networks were shown), excluded if none of it is, else undecided.

    Args:
        name: of the student in the record, or of a sub-net.

    Raises:
        RunError: the record does not say what is asked for.
    """
    student, teacher = record["students"][name], record["teacher"]
    answers: list[Answer] = []
    reasons = []
    if limits.max_drop is not None:
        if not teacher or "test" not in student or "test" not in teacher:
            raise RunError(
                f"A drop is measured on test against a teacher, and {record['name']} has no such "
                "reading. `tutelage evaluate RUN --test` makes one, if the run has a teacher."
            )
        drop = _drop(student["test"], teacher["test"])
        answer: Answer = "undecided"
        if drop.high <= limits.max_drop:
            answer = "yes"
        elif drop.low > limits.max_drop:
            answer = "no"
        answers.append(answer)
        reasons.append(
            f"{answer}: {drop.mean:.1f} points below the teacher ({drop.low:.1f} … {drop.high:.1f} "
            f"with other test pictures), {limits.max_drop:g} allowed"
        )
    if limits.latency_ms is not None:
        fast = student["latency_ms"] <= limits.latency_ms
        answers.append("yes" if fast else "no")
        reasons.append(
            f"{answers[-1]}: {student['latency_ms']:.2f} ms at batch {student['latency_batch']} on "
            f"{record['hardware']['threads']} threads of {record['hardware']['processor']}, "
            f"{limits.latency_ms:g} allowed"
        )
    for answer in ("no", "undecided"):
        if answer in answers:
            return Acceptance(answer, reasons)
    return Acceptance("yes", reasons)


def _drop(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Any:
    """Teacher minus student, in points."""
    theirs, ours = (
        unpack_bits(entry["correct"], entry["pictures"]).astype(np.float64)
        for entry in (teacher, student)
    )
    return bootstrap_interval(100 * (theirs - ours))
