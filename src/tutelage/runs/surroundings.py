"""What a run must find: threads, a device, and the content that it was begun with."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tutelage.build import Built
from tutelage.engine import TrainSettings, memory_in_words, resolve_device
from tutelage.engine.host import num_cores
from tutelage.errors import DataError

__all__ = ["CONTENT", "MEASURED", "require_same_content", "surroundings", "usual_threads"]


def usual_threads() -> int:
    """Of the CPU, where nobody says: as many as torch has, but no more than there are cores."""
    return min(torch.get_num_threads(), num_cores())


@contextmanager
def surroundings(settings: TrainSettings) -> Iterator[torch.device]:
    """The device. Inside, torch has the threads asked for, and lack of memory is said in words."""
    device, before = resolve_device(settings.device), torch.get_num_threads()
    try:
        torch.set_num_threads(settings.threads or usual_threads())
        with memory_in_words(device, settings):
            yield device
    finally:
        torch.set_num_threads(before)


CONTENT = {
    "train": "training pictures",
    "test": "test pictures",
    "picture_weights": "weights of single pictures",
    "source": "classes, or mean and standard deviation of the pixels",
    "student": "weights that the student begins from",
    "teacher": "teacher",
}
"""Parts of a run's content, in words."""

MEASURED = CONTENT.keys() - {"student"}
"""Those that numbers of a trained student depend on."""


def require_same_content(
    built: Built, content: Mapping[str, Any], folder: Path, parts: Iterable[str]
) -> None:
    """Checks that pictures, and networks that are there, are those of the run."""
    for part in sorted(parts):
        if part in built.content and built.content[part] != content.get(part):
            raise DataError(
                f"Since the run in {folder} was begun, this has changed: {CONTENT[part]}. Bring "
                "back what its recipe names, or begin a new run with another --name."
            )
