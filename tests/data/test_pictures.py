"""Pictures keep together what belongs together; a source refuses labels that are no class."""

import pytest
import torch

from tutelage.data.pictures import Pictures, Source, pixel_statistics
from tutelage.errors import DataError


def numbered(labels: list[int], first: int = 0) -> Pictures:
    """Picture i is filled with the value first + i."""
    images = torch.arange(first, first + len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1)
    images = images.expand(-1, 2, 2, 1)
    return Pictures.with_labels(images, torch.tensor(labels, dtype=torch.int64), first=first)


def test_take_moves_pixels_label_and_index_together() -> None:
    taken = numbered([5, 6, 7, 8], first=10).take(torch.tensor([2, 0, 2]))
    assert taken.images[:, 0, 0, 0].tolist() == [12, 10, 12]
    assert taken.labels.tolist() == [7, 5, 7]
    assert taken.index.tolist() == [12, 10, 12]
    assert len(taken) == 3


def test_without_labels_nothing_of_them_is_left() -> None:
    hidden = numbered([5, 6, 7]).without_labels()
    assert hidden.labels.tolist() == [-1, -1, -1]
    assert not hidden.has_label.any()
    assert hidden.index.tolist() == [0, 1, 2]


def test_join_is_these_then_the_others() -> None:
    both = numbered([1, 2]).join(numbered([3], first=2).without_labels())
    assert both.labels.tolist() == [1, 2, -1]
    assert both.has_label.tolist() == [True, True, False]
    assert both.index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("part", ["training", "test"])
def test_a_label_that_is_no_class_is_refused(label: int, part: str) -> None:
    good, bad = numbered([0, 1, 2]), numbered([0, label, 2])
    train, test = (bad, good) if part == "training" else (good, bad)
    with pytest.raises(DataError, match=rf"0 … 2 .*{part} picture 1 has label {label}"):
        Source(train, test, ("a", "b", "c"), (0.5,), (0.5,))


def test_a_hidden_label_is_not_judged() -> None:
    Source(numbered([0, 1]).without_labels(), numbered([0, 1]), ("a", "b"), (0.5,), (0.5,))


def test_one_class_is_none() -> None:
    with pytest.raises(DataError, match="at least two classes, but this has 1"):
        Source(numbered([0]), numbered([0]), ("a",), (0.5,), (0.5,))


def test_statistics_are_those_of_the_pixels_channel_by_channel() -> None:
    images = torch.randint(0, 256, (50, 5, 7, 3), dtype=torch.uint8)
    images[..., 1] //= 2
    mean, std = pixel_statistics(images)
    pixels = images.double().reshape(-1, 3) / 255
    assert mean == pytest.approx(pixels.mean(0).tolist(), rel=1e-12)
    assert std == pytest.approx(pixels.std(0, correction=0).tolist(), rel=1e-12)


def test_a_constant_channel_is_refused() -> None:
    images = torch.randint(0, 256, (5, 2, 2, 3), dtype=torch.uint8)
    images[..., 2] = 255
    with pytest.raises(DataError, match="channel 2"):
        pixel_statistics(images)
