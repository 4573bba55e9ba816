"""What a model says of pictures that somebody has."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutelage.data.listing import seen_in
from tutelage.data.photographs import Photograph, in_threads, middle
from tutelage.errors import DataError
from tutelage.runs.opened import Opened

__all__ = ["Answer", "answers", "files_of"]

_AT_ONCE = 32


class Answer(NamedTuple):
    """Of one picture.

    Attributes:
        path: of the file.
        classes: "name", "number" and "probability" (softmax), the most probable first.
        error: why it could not be read; None if it could.
    """

    path: Path
    classes: tuple[dict[str, Any], ...] = ()
    error: str | None = None


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files among these, and all below the folders among them but hidden ones.

    Raises:
        DataError: one is not there, is no file, or holds none.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = seen_in(path)
            if not inside:
                raise DataError(f"There is no picture in {path}. Name another folder.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            what = "is no file" if path.exists() else "is not there"
            raise DataError(f"The picture {path} {what}. Correct the path.")
    return found


def answers(model: Opened, files: Sequence[Path], *, top: int = 5) -> Iterator[Answer]:
    """What the model says of each file, in order; a file that cannot be read is said so.

    Args:
        top: how many classes of each, at most.
    """
    for begin in range(0, len(files), _AT_ONCE):
        some = files[begin : begin + _AT_ONCE]
        read = in_threads(lambda path: _read(model, path), some)
        pictures = [picture for picture in read if isinstance(picture, Tensor)]
        said = iter(_said(model, pictures, top) if pictures else [])
        for path, picture in zip(some, read, strict=True):
            if isinstance(picture, Tensor):
                yield Answer(path, next(said))
            else:
                yield Answer(path, error=picture)


def _read(model: Opened, path: Path) -> Tensor | str:
    try:
        return middle(Photograph(path, model.rule).decoded(), model.rule)
    except DataError as error:
        return str(error)


def _said(model: Opened, pictures: Sequence[Tensor], top: int) -> list[tuple[dict[str, Any], ...]]:
    images = torch.stack(list(pictures)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        shares = model.network(images).float().softmax(dim=1)
    values, numbers = shares.topk(min(top, shares.shape[1]), dim=1)
    return [
        tuple(
            {"name": _name(model.classes, number), "number": number, "probability": value}
            for value, number in zip(row, places, strict=True)
        )
        for row, places in zip(values.tolist(), numbers.tolist(), strict=True)
    ]


def _name(classes: Sequence[str], number: int) -> str:
    return classes[number] if number < len(classes) else f"class {number}"
