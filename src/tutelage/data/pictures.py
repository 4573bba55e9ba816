"""Pictures: small ones live decoded, as one array of bytes; photographs in their files."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from tutelage.data.photographs import Photographs, Rule, in_threads, middle
from tutelage.errors import DataError

__all__ = ["Pictures", "Source", "pixel_statistics"]

NO_LABEL = -1
"""The placeholder of a hidden label; as a class it would be refused aloud, not learned quietly."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures that are shown in one size.

    Attributes:
        pixels: channels last, 1 (gray) or 3 (RGB) channels; or files, decoded when looked at.
        labels: class numbers; −1 where there is no label.
        has_label: whether the label may be used.
        index: source number × 2^40 + position in the undivided source; whatever is cut out of a
            source keeps it, so it names the picture in every split.
        weight: what the supervised loss of each is multiplied by; None: 1.
    """

    pixels: UInt8[Tensor, "n h w c"] | Photographs
    labels: Int64[Tensor, " n"]
    has_label: Bool[Tensor, " n"]
    index: Int64[Tensor, " n"]
    weight: Float32[Tensor, " n"] | None = None

    @classmethod
    def with_labels(
        cls,
        images: UInt8[Tensor, "n h w c"] | Photographs,
        labels: Int64[Tensor, " n"],
        *,
        first: int = 0,
    ) -> "Pictures":
        """Pictures that all have their label, numbered from `first`."""
        index = torch.arange(first, first + len(images))
        known = torch.ones(len(images), dtype=torch.bool)
        if isinstance(images, Tensor):
            images = images.contiguous()  # fast only if pixels are in a row
        return cls(images, labels, known, index)

    @property
    def images(self) -> UInt8[Tensor, "n h w c"]:
        """All of them, as they are shown where nothing is drawn at random."""
        if isinstance(self.pixels, Photographs):
            return self.pixels.middle(torch.arange(len(self)))
        return self.pixels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what is shown where nothing is drawn at random."""
        if isinstance(self.pixels, Photographs):
            rule = self.pixels.rule
            return rule.size, rule.size, rule.channels
        height, width, channels = self.pixels.shape[1:]
        return height, width, channels

    @property
    def rule(self) -> Rule:
        """How a file becomes such a picture: as these were read, or whole, in this size."""
        if isinstance(self.pixels, Photographs):
            return self.pixels.rule
        height, width, channels = self.shape
        side = max(height, width)
        return Rule(side, side, 1 if channels == 1 else 3)

    def shown(self, rows: Int64[Tensor, " m"]) -> UInt8[Tensor, "m h w c"]:
        """The pictures at these positions, as they are shown where nothing is drawn at random."""
        if isinstance(self.pixels, Photographs):
            return self.pixels.middle(rows)
        return self.pixels[rows]

    def decoded(self) -> "Pictures":
        """The same pictures in memory, as they are shown where nothing is drawn at random."""
        return replace(self, pixels=self.images)

    def looks(
        self,
        rows: Int64[Tensor, " m"],
        look: Callable[[UInt8[Tensor, "h w c"], int], UInt8[Tensor, "h2 w2 c"]],
        *,
        whole: bool,
    ) -> UInt8[Tensor, "m h2 w2 c"]:
        """What `look` makes of each of these pictures, given its pixels and its place among them.

        Args:
            whole: of photographs it gets all that there is; else what is usually shown of them.
        """
        pixels = self.pixels
        if isinstance(pixels, Photographs):
            rule = pixels.rule
            if whole:
                return pixels.looks(rows, look)
            return pixels.looks(rows, lambda one, place: look(middle(one, rule), place))
        numbers = rows.tolist()

        def one(place: int) -> Tensor:
            return look(pixels[numbers[place]], place)

        return torch.stack(in_threads(one, range(len(numbers)))) if numbers else pixels[rows]

    def digests(self) -> list[bytes]:
        """Of each picture's pixels, or of its file."""
        if isinstance(self.pixels, Photographs):
            return in_threads(attrgetter("digest"), self.pixels.files)
        return [
            hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            for image in self.pixels.numpy()
        ]

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, positions: Int64[Tensor, " m"]) -> "Pictures":
        """A copy of the pictures at these positions, in this order."""
        pixels = self.pixels
        return Pictures(
            pixels.take(positions) if isinstance(pixels, Photographs) else pixels[positions],
            self.labels[positions],
            self.has_label[positions],
            self.index[positions],
            None if self.weight is None else self.weight[positions],
        )

    def without_labels(self) -> "Pictures":
        """The same pictures; their labels are gone, not only hidden."""
        return Pictures(
            self.pixels,
            torch.full_like(self.labels, NO_LABEL),
            torch.zeros_like(self.has_label),
            self.index,
        )

    def join(self, others: "Pictures") -> "Pictures":
        """These pictures, then the others, which are of the same kind."""
        weights = (self.weight, others.weight)
        return Pictures(
            _joined(self.pixels, others.pixels),
            torch.cat([self.labels, others.labels]),
            torch.cat([self.has_label, others.has_label]),
            torch.cat([self.index, others.index]),
            None if weights == (None, None) else torch.cat([_ones(self), _ones(others)]),
        )


def _ones(pictures: Pictures) -> Tensor:
    return torch.ones(len(pictures)) if pictures.weight is None else pictures.weight


def _joined(
    first: UInt8[Tensor, "n h w c"] | Photographs, second: UInt8[Tensor, "m h w c"] | Photographs
) -> Tensor | Photographs:
    if isinstance(first, Photographs):
        assert isinstance(second, Photographs)
        return first.join(second)
    assert isinstance(second, Tensor)
    return torch.cat([first, second])


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as its publisher divided it.

    Attributes:
        train, test: pictures of one size; no picture is in both.
        classes: their names, in the order of the class numbers.
        mean, std: of the pixels in [0, 1], one number per channel, for normalization.
        validation: pictures that are set apart for choices; None if they are to be drawn.

    Raises:
        DataError: fewer than two classes, or a label that is none of them.
    """

    train: Pictures
    test: Pictures
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    validation: Pictures | None = None

    def __post_init__(self) -> None:
        assert self.train.shape == self.test.shape
        assert len(self.mean) == len(self.std) == self.train.shape[2]
        if len(self.classes) < 2:
            raise DataError(
                f"A data set needs at least two classes, but this has {len(self.classes)}; "
                "give it pictures of another class."
            )
        _check_labels("training", self.train, len(self.classes))
        _check_labels("test", self.test, len(self.classes))
        if self.validation is not None:
            assert self.validation.shape == self.train.shape
            _check_labels("validation", self.validation, len(self.classes))


def _check_labels(name: str, pictures: Pictures, num_classes: int) -> None:
    wrong = pictures.has_label & ((pictures.labels < 0) | (pictures.labels >= num_classes))
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise DataError(
            f"Labels must lie in 0 … {num_classes - 1} for {num_classes} classes, but {name} "
            f"picture {first} has label {int(pictures.labels[first])} ({int(wrong.sum())} of "
            f"{len(pictures)} are outside); number the classes from 0."
        )


def pixel_statistics(
    images: UInt8[Tensor, "n h w c"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, for pixels in [0, 1].

    Counted per byte value, so the result does not depend on the order of summation.

    Raises:
        DataError: a channel has the same value everywhere.

    >>> pixel_statistics(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1))
    ((0.5,), (0.5,))
    """
    value = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[3]):
        share = torch.bincount(images[..., channel].flatten(), minlength=256).double()
        share /= share.sum()
        mean = (share * value).sum()
        means.append(float(mean))
        stds.append(float((share * (value - mean) ** 2).sum().sqrt()))
        if int((share > 0).sum()) < 2:
            raise DataError(
                f"Pictures must differ, but channel {channel} of all training pictures has one "
                "value everywhere; store gray pictures with a single channel, and check that the "
                "images were written."
            )
    return tuple(means), tuple(stds)
