"""One's own pictures as arrays in an .npz file."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from tutelage.data.pictures import Pictures, Source, pixel_statistics
from tutelage.errors import DataError

__all__ = ["arrays"]

_Arrays = dict[str, np.ndarray]
_REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")


def arrays(*, path: str | Path) -> Source:
    """Reads `train_images`, `train_labels`, `test_images`, `test_labels` and, if there, `classes`.

    Images are uint8 of shape (n, height, width, channels), gray or RGB, all of one size; labels are
    integers of shape (n,), from 0; classes are strings of shape (k,), else the numbers serve as
    names. Other arrays in the file are not read.

    Args:
        path: as `numpy.savez` or `numpy.savez_compressed` wrote it.

    Raises:
        DataError: the file is absent or damaged, or an array is missing or of another form.
    """
    file = Path(path).expanduser()
    found = _load(file)
    for part in ("train", "test"):
        _check_part(file, part, found[f"{part}_images"], found[f"{part}_labels"])
    train_size, test_size = (found[f"{part}_images"].shape[1:] for part in ("train", "test"))
    if train_size != test_size:
        raise DataError(
            f"Training and test pictures must have one size, but in {file} they have "
            f"{_size(train_size)} and {_size(test_size)}; resize one of them."
        )
    train = _pictures(found, "train", 0)
    test = _pictures(found, "test", len(train))
    mean, std = pixel_statistics(train.images)
    return Source(train, test, _classes(file, found), mean, std)


def _load(file: Path) -> _Arrays:
    if not file.is_file():
        raise DataError(f"There is no file {file}; numpy.savez writes one.")
    try:
        # Opened here, because numpy leaves a damaged archive open.
        with file.open("rb") as opened:
            archive = np.load(opened, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{file} holds a single array; write all of {', '.join(_REQUIRED)} into one "
                    "file with numpy.savez."
                )
            missing = [name for name in _REQUIRED if name not in archive.files]
            if missing:
                raise DataError(
                    f"{file} lacks {', '.join(missing)} (it holds "
                    f"{', '.join(archive.files) or 'nothing'}); name the arrays so."
                )
            wanted = [*_REQUIRED, *(["classes"] if "classes" in archive.files else [])]
            return {name: archive[name] for name in wanted}
    # What numpy raises for a file that is cut off, no archive, or would have to be unpickled.
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{file} cannot be read as arrays without objects ({error}); "
            "write it anew with numpy.savez."
        ) from error


def _check_part(file: Path, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    if images.dtype != np.uint8:
        raise DataError(
            f"Pictures must be uint8, 0 to 255, but {part}_images in {file} is {images.dtype}; "
            "convert it, scaled if need be."
        )
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise DataError(
            f"Pictures must have shape (n, height, width, channels) with 1 or 3 channels, but "
            f"{part}_images in {file} has {images.shape}; move the channels last, and give gray "
            "pictures a channel axis of 1."
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise DataError(
            f"Labels must be integers of shape ({len(images)},), one per picture, but "
            f"{part}_labels in {file} is {labels.dtype} of shape {labels.shape}; "
            "store class numbers from 0."
        )


def _pictures(found: _Arrays, part: str, first: int) -> Pictures:
    images = torch.from_numpy(found[f"{part}_images"])
    labels = torch.from_numpy(found[f"{part}_labels"].astype(np.int64))
    return Pictures.with_labels(images, labels, first=first)


def _classes(file: Path, found: _Arrays) -> tuple[str, ...]:
    if "classes" not in found:
        return tuple(str(number) for number in range(int(found["train_labels"].max()) + 1))
    names = found["classes"]
    if names.dtype.kind != "U" or names.ndim != 1 or len(set(names.tolist())) < len(names):
        raise DataError(
            f"classes in {file} must be different strings of shape (k,), but is {names.dtype} of "
            f"shape {names.shape} with {len(np.unique(names))} different values; "
            "name each class once."
        )
    return tuple(names.tolist())


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
