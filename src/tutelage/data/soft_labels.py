"""How often people named each class of a picture, such as CIFAR-10H's counts."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from tutelage.errors import DataError

__all__ = ["read_soft_labels", "require_soft_labels"]


def require_soft_labels(path: Path) -> None:
    """Checks that there is a file.

    Raises:
        DataError: there is none.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path} of soft labels; numpy.save writes one.")


def read_soft_labels(path: Path, pictures: int, classes: int) -> Float64[Tensor, "n k"]:
    """Reads counts or shares, and makes each picture's sum to 1.

    Args:
        path: an .npy file, or an .npz file with a single array, of shape (pictures, classes), in
            the order in which the source has its test pictures.

    Raises:
        DataError: the file is absent or damaged, or its array has another shape, a negative or
            infinite number, or a picture that nobody named.
    """
    require_soft_labels(path)
    try:
        with path.open("rb") as opened:
            loaded = np.load(opened, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                names = loaded.files
                if len(names) != 1:
                    raise DataError(
                        f"{path} holds {len(names)} arrays ({', '.join(names)}), and soft labels "
                        "are one. Save it alone."
                    )
                loaded = loaded[names[0]]
    except (ValueError, OSError, EOFError):
        raise DataError(f"{path} is damaged, or no file that numpy.save wrote.") from None
    if loaded.shape != (pictures, classes) or loaded.dtype.kind not in "iuf":
        raise DataError(
            f"Soft labels are numbers of shape ({pictures}, {classes}), one row per test picture, "
            f"but {path} holds {loaded.dtype} of shape {loaded.shape}."
        )
    values = torch.from_numpy(loaded.astype(np.float64))
    sums = values.sum(dim=1, keepdim=True)
    if not values.isfinite().all() or (values < 0).any() or (sums <= 0).any():
        raise DataError(
            f"Soft labels are counts or shares, at least one above 0 per picture, but {path} holds "
            "negative or infinite numbers, or a row of zeros."
        )
    return values / sums
