"""The errors a user can meet, each one or two plain sentences: rule, value, remedy.

The command line prints the sentence and exits with code 2. Whoever uses the library catches
`TutelageError`, or one of its kinds below.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial
from typing import Any

__all__ = [
    "CheckpointError",
    "DataError",
    "ExportError",
    "Interrupted",
    "NetworkError",
    "NoEffectWarning",
    "NonFiniteError",
    "OutOfMemoryError",
    "RecipeError",
    "RunError",
    "SettingError",
    "StoreError",
    "TeacherError",
    "TutelageError",
    "first_line",
    "nearest",
    "one_of",
]


class TutelageError(Exception):
    """Root of all errors that are the input's fault, not ours."""


class RecipeError(TutelageError):
    """A recipe or specification that cannot be read, or says something that is not known."""


class SettingError(TutelageError):
    """A setting outside its range, or settings that contradict each other."""


class DataError(TutelageError):
    """Data that is missing, unreadable, or not what it is said to be."""


class NetworkError(TutelageError):
    """A network that is unknown, or does not fit what is asked of it."""


class CheckpointError(TutelageError):
    """A weight file that is absent, damaged, or does not fit its network."""


class TeacherError(TutelageError):
    """A teacher that cannot teach: without weights, at chance, or of another kind."""


class StoreError(TutelageError):
    """A store of a teacher's answers that is absent, unfinished, damaged, or of something else."""


class RunError(TutelageError):
    """A run folder that is absent, taken, unfinished, or does not fit what is asked of it."""


class ExportError(TutelageError):
    """A network that cannot be handed out in a form, or is not the same in it."""


class NonFiniteError(TutelageError):
    """A loss term became infinite or NaN; the run has stopped at its last good checkpoint."""


class OutOfMemoryError(TutelageError):
    """The device's memory did not suffice."""


class Interrupted(TutelageError):
    """The run was asked to stop; everything needed to resume is saved.

    Attributes:
        signal: number of the signal that asked, as in `signal.Signals`.
        finished: whether the run had come to its end all the same.
    """

    def __init__(self, message: str, signal: int, *, finished: bool = False) -> None:
        super().__init__(message)
        self.signal, self.finished = signal, finished

    def __reduce__(self) -> tuple[Any, ...]:
        """It must reach another process as a whole."""
        return partial(Interrupted, finished=self.finished), (str(self), self.signal)


class NoEffectWarning(UserWarning):
    """A setting was given that changes nothing here."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Ends an error about an unknown name: the nearest known one, or all of them if few.

    >>> nearest("temprature", ["temperature", "power"])
    'did you mean temperature? Known: power, temperature'
    """
    names = sorted(known)
    listing = f"Known: {', '.join(names)}" if len(names) <= 12 else f"{len(names)} are known"
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]}? {listing}" if close else listing


def first_line(error: Exception) -> str:
    """What somebody else's error says in its first line, without its dot; if nothing, its kind.

    >>> first_line(ValueError("no such size.")), first_line(KeyError())
    ('no such size', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def one_of(what: str, name: str, known: Iterable[str], error: type[TutelageError]) -> None:
    """Raises `error` unless `name` is among `known`."""
    names = list(known)
    if name not in names:
        raise error(f"There is no {what} {name!r}; {nearest(name, names)}.")
