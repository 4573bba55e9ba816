"""Real pictures for tests, from the packs in the folder that the fixture `shared_data` gives.

A pack holds sheets of 1,000 pictures: lossless WebP, 25 rows of 40 tiles of 32×32.
"""

import tarfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

SHEET = 1000


def cifar10_test(shared: Path) -> tuple[UInt8[Tensor, "n 32 32 3"], Int64[Tensor, " n"]]:
    """All 10,000 test pictures and their labels, in official order."""
    return _read(shared / "cifar10", "test", 10_000)


def cifar10_train(
    shared: Path, num_images: int
) -> tuple[UInt8[Tensor, "n 32 32 3"], Int64[Tensor, " n"]]:
    """The first training pictures and their labels, in official order."""
    return _read(shared / "cifar10", "train", num_images)


def scene15(shared: Path, folder: Path) -> Path:
    """Gray photographs of 15 kinds of places: scene15/train and scene15/test, a folder per kind."""
    (packed,) = (shared / "scene15_subset").glob("*.tar")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / "scene15"


def bccd(shared: Path, folder: Path) -> Path:
    """Blood cells under a microscope: 364 photographs with boxes of three kinds, in VOC layout."""
    with tarfile.open(shared / "bccd" / "bccd_voc.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "BCCD"


def _read(folder: Path, split: str, num_images: int) -> tuple[Tensor, Tensor]:
    num_sheets = -(-num_images // SHEET)
    sheets = [_tiles(folder / f"{split}_{number:02d}.webp") for number in range(num_sheets)]
    with np.load(folder / f"{split}_labels.npz") as arrays:
        labels = arrays["label"][:num_images].astype(np.int64)
    return torch.from_numpy(np.concatenate(sheets)[:num_images]), torch.from_numpy(labels)


def _tiles(path: Path) -> np.ndarray:
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    return pixels.reshape(25, 32, 40, 32, 3).swapaxes(1, 2).reshape(SHEET, 32, 32, 3)
