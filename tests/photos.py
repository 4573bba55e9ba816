"""Small photographs in folders, made on the spot."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["album", "picture"]


def picture(seed: int, width: int = 40, height: int = 30, tint: int = 0) -> Image.Image:
    """Smooth random colors, so that JPEG keeps them; the tint tells classes apart."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 120, (4, 5, 3), dtype=np.uint8)
    coarse[..., tint % 3] += 120
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def album(root: Path, counts: Mapping[str, int], *, first: int = 0) -> Path:
    """Pictures in sub-folders: `train/cat` → how many."""
    classes = sorted({place.rpartition("/")[2] for place in counts})
    for number, (place, count) in enumerate(sorted(counts.items())):
        folder = root / place
        folder.mkdir(parents=True, exist_ok=True)
        for one in range(count):
            seed = first + 1000 * number + one
            tint = classes.index(place.rpartition("/")[2])
            picture(seed, tint=tint).save(folder / f"{one:03}.png")
    return root
