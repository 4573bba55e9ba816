"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) in their official files, read by torchvision.

The official files are pickles. torchvision compares their MD5 with the published ones before it
unpickles them, so nothing but the original is ever executed.
"""

from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from tutelage.data.pictures import Pictures, Source
from tutelage.errors import DataError

__all__ = ["cifar10", "cifar100"]

# Of all training pixels, as everybody uses them.
_STATISTICS_10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_STATISTICS_100 = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


def cifar10(*, root: str | Path, download: bool = False) -> Source:
    """50,000 training and 10,000 test pictures of 32×32 in 10 classes.

    Args:
        root: folder that holds, or will hold, `cifar-10-batches-py`.
        download: fetch the files (170 MB) if they are not there.

    Raises:
        DataError: the files are absent or damaged, or cannot be fetched.
    """
    from torchvision.datasets import CIFAR10

    return _read("CIFAR-10", CIFAR10, root, download, *_STATISTICS_10)


def cifar100(*, root: str | Path, download: bool = False) -> Source:
    """50,000 training and 10,000 test pictures of 32×32 in 100 (fine) classes.

    Args:
        root: folder that holds, or will hold, `cifar-100-python`.
        download: fetch the files (170 MB) if they are not there.

    Raises:
        DataError: the files are absent or damaged, or cannot be fetched.
    """
    from torchvision.datasets import CIFAR100

    return _read("CIFAR-100", CIFAR100, root, download, *_STATISTICS_100)


def _read(
    name: str,
    files: type[Any],
    root: str | Path,
    download: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Source:
    folder = Path(root).expanduser()
    try:
        train = files(folder, train=True, download=download)
        test = files(folder, train=False)
    except RuntimeError as error:  # torchvision's own: a file is absent, or its MD5 differs
        inside = folder / files.base_folder
        state = "incomplete or damaged there" if inside.is_dir() else "not there"
        raise DataError(
            f"{name} is read from the official files in {inside}, but they are {state}; set "
            f"download: true, or unpack {files.filename} of the official page into {folder}."
        ) from error
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{name} could not be {'fetched into' if download else 'read from'} {folder} "
            f"({error}); where there is no network, bring {files.filename} of the official page "
            "by other means and unpack it there."
        ) from error
    return Source(
        Pictures.with_labels(torch.from_numpy(train.data), torch.tensor(train.targets)),
        Pictures.with_labels(
            torch.from_numpy(test.data), torch.tensor(test.targets), first=len(train.data)
        ),
        tuple(train.classes),
        mean,
        std,
    )
