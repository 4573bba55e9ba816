"""Photographs in files: decoded when they are looked at, always to the same bytes.

A picture is turned as its EXIF orientation says; what has an alpha channel is laid on white;
palettes, CMYK and other colors become RGB, or luma (ITU-R BT.601) where one channel is asked for;
16-bit gray is divided by 257. Then it is shrunk, never enlarged, until its short side has `side`
pixels. Threads do that: Pillow lets go of Python's lock while it decodes.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, final

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional

from tutelage.errors import DataError, first_line

__all__ = ["MOST_PIXELS", "Photograph", "Photographs", "Rule", "in_threads", "middle"]

MOST_PIXELS = 100_000_000
"""A picture that claims more is refused unread: it is a mistake, or meant to fill the memory."""

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for it."""

_WHITE = (255, 255, 255, 255)
_T = TypeVar("_T")
_S = TypeVar("_S")


class Rule(NamedTuple):
    """How files become pictures.

    Attributes:
        size: side of the square that is shown where nothing is drawn at random: the middle of the
            picture, whose short side has `side` pixels.
        side: of the decoded picture, its short one, at most.
        channels: 1 (luma) or 3 (RGB).
    """

    size: int
    side: int
    channels: Literal[1, 3]


@final
class Photograph:
    """One file, and its pixels once they are kept.

    Args:
        path: of the file.
        rule: how it is decoded.
        read: gives the file's bytes, where they do not lie in a file of their own; the path is then
            what messages call it.
    """

    __slots__ = ("_digest", "_kept", "_read", "path", "rule")

    def __init__(self, path: Path, rule: Rule, read: Callable[[], bytes] | None = None) -> None:
        self.path, self.rule, self._read = path, rule, read
        self._kept: Tensor | None = None
        self._digest: bytes | None = None

    def pixels(self) -> UInt8[Tensor, "h w c"]:
        """The decoded picture.

        Raises:
            DataError: the file is absent, damaged, or no picture.
        """
        return self.decoded() if self._kept is None else self._kept

    def decoded(self) -> UInt8[Tensor, "h w c"]:
        """The picture, decoded anew.

        Raises:
            DataError: as `pixels`.
        """
        held = None if self._read is None else BytesIO(self._bytes())
        return decode(self.path, self.rule, held)

    def _bytes(self) -> bytes:
        assert self._read is not None
        try:
            return self._read()
        except Exception as error:  # of whatever holds them
            raise DataError(f"{self.path} cannot be read ({first_line(error)}).") from error

    def keep(self) -> int:
        """Decodes it for good, and says how many bytes that takes."""
        self._kept = self.pixels()
        return self._kept.numel()

    @property
    def digest(self) -> bytes:
        """Of the file's bytes."""
        if self._digest is None and self._read is not None:
            self._digest = hashlib.sha256(self._bytes()).digest()[:16]
        elif self._digest is None:
            with self.path.open("rb") as opened:
                self._digest = hashlib.file_digest(opened, "sha256").digest()[:16]
        return self._digest


@final
class Photographs:
    """Pictures in files, by position, as a tensor's rows are.

    Args:
        files: all of one rule.
    """

    def __init__(self, files: Sequence[Photograph], rule: Rule) -> None:
        self.files, self.rule = tuple(files), rule

    def __len__(self) -> int:
        return len(self.files)

    def take(self, positions: Int64[Tensor, " m"]) -> "Photographs":
        """Those at these positions, in this order; what is kept stays kept."""
        return Photographs([self.files[place] for place in positions.tolist()], self.rule)

    def join(self, others: "Photographs") -> "Photographs":
        """These, then the others.

        Raises:
            DataError: the others are decoded by another rule.
        """
        if self.rule != others.rule:
            raise DataError(
                "Pictures that are trained on together must be read alike, but these are read as "
                f"{self.rule} and {others.rule}. Give both the same size and channels."
            )
        return Photographs([*self.files, *others.files], self.rule)

    def middle(self, positions: Int64[Tensor, " m"]) -> UInt8[Tensor, "m h w c"]:
        """The pictures as they are shown where nothing is drawn at random."""
        return self.looks(positions, lambda pixels, _: middle(pixels, self.rule))

    def looks(
        self,
        positions: Int64[Tensor, " m"],
        look: Callable[[UInt8[Tensor, "h w c"], int], UInt8[Tensor, "h2 w2 c"]],
    ) -> UInt8[Tensor, "m h2 w2 c"]:
        """What `look` makes of each picture, given its pixels and its place among `positions`."""
        files = [self.files[place] for place in positions.tolist()]
        if not files:
            return torch.empty(0, self.rule.size, self.rule.size, self.rule.channels).byte()

        def one(place: int) -> Tensor:
            return look(files[place].pixels(), place)

        return torch.stack(in_threads(one, range(len(files))))


def in_threads(function: Callable[[_T], _S], values: Sequence[_T]) -> list[_S]:
    """The function's results, in order, worked out by as many threads as there are cores."""
    if len(values) < 2:
        return [function(value) for value in values]
    return list(_threads(os.getpid()).map(function, values))


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """Of this process; a forked one has none of its parent's threads."""
    del process
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="pictures")


def decode(path: Path, rule: Rule, held: BytesIO | None = None) -> UInt8[Tensor, "h w c"]:
    """A file's picture by a rule.

    Args:
        held: its bytes, if they are at hand.

    Raises:
        DataError: it is absent, damaged, too large, or no picture.
    """
    try:
        with Image.open(path if held is None else held) as opened:
            width, height = opened.size
            if width * height > MOST_PIXELS:
                raise DataError(
                    f"{path} has {width}×{height} pixels, more than the {MOST_PIXELS:,} that are "
                    "read. Shrink it, or leave it out."
                )
            if opened.format == "JPEG":  # decoded at half, a quarter, …: still twice the side
                opened.draft(None, (2 * rule.side, 2 * rule.side))
            picture = _colors(ImageOps.exif_transpose(opened), rule.channels, path)
    except Image.DecompressionBombError:
        raise DataError(
            f"{path} has far more than the {MOST_PIXELS:,} pixels that are read. Shrink it, or "
            "leave it out."
        ) from None
    except _DAMAGE as error:
        raise DataError(f"{path} cannot be read as a picture ({first_line(error)}).") from error
    short = min(picture.size)
    if short > rule.side:
        scale = rule.side / short
        width, height = (max(rule.side, round(length * scale)) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(picture))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _colors(picture: Image.Image, channels: int, path: Path) -> Image.Image:
    """In RGB, or luma."""
    mode = picture.mode
    if mode.startswith("I;16") or mode == "I":
        values = np.asarray(picture).astype(np.int64)
        if values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
            raise DataError(f"{path} has whole numbers beyond 16 bits. Save it with 8 or 16 bits.")
        picture = Image.fromarray((values // 257).astype(np.uint8))
    elif mode == "F":
        raise DataError(f"{path} has fractions for pixels. Save it with 8 or 16 bits.")
    elif mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        above = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", above.size, _WHITE), above)
    return picture.convert("RGB" if channels == 3 else "L")


def middle(pixels: UInt8[Tensor, "h w c"], rule: Rule) -> UInt8[Tensor, "s s c"]:
    """The square in the middle; small pictures are enlarged first."""
    height, width = pixels.shape[:2]
    if min(height, width) != rule.side:
        scale = rule.side / min(height, width)
        height, width = (max(rule.side, round(length * scale)) for length in (height, width))
        pixels = _resized(pixels, height, width)
    top, left = (height - rule.size) // 2, (width - rule.size) // 2
    return pixels[top : top + rule.size, left : left + rule.size]


def _resized(pixels: UInt8[Tensor, "h w c"], height: int, width: int) -> UInt8[Tensor, "h2 w2 c"]:
    """Bilinear, with antialiasing."""
    if pixels.shape[:2] == (height, width):
        return pixels
    planes = functional.resize(pixels.permute(2, 0, 1), [height, width], antialias=True)
    return planes.permute(1, 2, 0)
