"""Pictures in memory: small ones live decoded, as one array of bytes."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from tutelage.errors import DataError

__all__ = ["Pictures", "Source", "pixel_statistics"]

NO_LABEL = -1
"""The placeholder of a hidden label; as a class it would be refused aloud, not learned quietly."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Decoded pictures of one size.

    Attributes:
        images: channels last; 1 (gray) or 3 (RGB) channels.
        labels: class numbers; −1 where there is no label.
        has_label: whether the label may be used.
        index: source number × 2^40 + position in the undivided source; whatever is cut out of a
            source keeps it, so it names the picture in every split.
    """

    images: UInt8[Tensor, "n h w c"]
    labels: Int64[Tensor, " n"]
    has_label: Bool[Tensor, " n"]
    index: Int64[Tensor, " n"]

    @classmethod
    def with_labels(
        cls, images: UInt8[Tensor, "n h w c"], labels: Int64[Tensor, " n"], *, first: int = 0
    ) -> "Pictures":
        """Pictures that all have their label, numbered from `first`."""
        index = torch.arange(first, first + len(images))
        known = torch.ones(len(images), dtype=torch.bool)
        return cls(images.contiguous(), labels, known, index)  # fast only if pixels are in a row

    def __len__(self) -> int:
        return len(self.images)

    def take(self, positions: Int64[Tensor, " m"]) -> "Pictures":
        """A copy of the pictures at these positions, in this order."""
        return Pictures(
            self.images[positions],
            self.labels[positions],
            self.has_label[positions],
            self.index[positions],
        )

    def without_labels(self) -> "Pictures":
        """The same pictures; their labels are gone, not only hidden."""
        return Pictures(
            self.images,
            torch.full_like(self.labels, NO_LABEL),
            torch.zeros_like(self.has_label),
            self.index,
        )

    def join(self, others: "Pictures") -> "Pictures":
        """These pictures, then the others."""
        return Pictures(
            torch.cat([self.images, others.images]),
            torch.cat([self.labels, others.labels]),
            torch.cat([self.has_label, others.has_label]),
            torch.cat([self.index, others.index]),
        )


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as its publisher divided it.

    Attributes:
        train, test: pictures of one size; no picture is in both.
        classes: their names, in the order of the class numbers.
        mean, std: of the pixels in [0, 1], one number per channel, for normalization.

    Raises:
        DataError: fewer than two classes, or a label that is none of them.
    """

    train: Pictures
    test: Pictures
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        assert self.train.images.shape[1:] == self.test.images.shape[1:]
        assert len(self.mean) == len(self.std) == self.train.images.shape[3]
        if len(self.classes) < 2:
            raise DataError(
                f"A data set needs at least two classes, but this has {len(self.classes)}; "
                "give it pictures of another class."
            )
        _check_labels("training", self.train, len(self.classes))
        _check_labels("test", self.test, len(self.classes))


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
