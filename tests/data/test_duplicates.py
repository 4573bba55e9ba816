"""Pictures that are there twice are counted, wherever they are."""

import torch

from tutelage.data.duplicates import duplicates
from tutelage.data.pictures import Pictures
from tutelage.data.subsets import Split


def pictures(*values: int) -> Pictures:
    """One gray picture of 2 × 2 per value."""
    images = torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 2, 2, 1)
    return Pictures.with_labels(images, torch.zeros(len(values), dtype=torch.int64))


def test_each_kind_is_counted():
    split = Split(pictures(1, 2, 2, 3, 3, 3), pictures(4, 2, 2), pictures(5, 3, 4, 6))
    assert duplicates(split) == {
        "train": 3,
        "validation": 1,
        "train/validation": 2,
        "train/test": 1,
        "validation/test": 1,
    }


def test_where_there_are_none_nothing_is_said():
    assert duplicates(Split(pictures(1, 2), pictures(3), pictures())) == {}


def test_a_picture_that_differs_in_one_pixel_is_another():
    one, other = pictures(1), pictures(1)
    other.images[0, 1, 1, 0] = 2
    assert duplicates(Split(one, pictures(), other)) == {}
