"""The embedded digits."""

import pytest
import torch
from sklearn.datasets import load_digits

from tutelage.data.digits import digits
from tutelage.errors import SettingError


def test_they_are_scikit_learns_scans_divided_without_loss() -> None:
    source = digits()
    assert (len(source.train), len(source.test)) == (1_297, 500)
    assert source.train.images.shape[1:] == (8, 8, 1)
    assert source.classes == tuple("0123456789")

    both = source.train.join(source.test)
    order = both.index.argsort()
    assert both.index[order].tolist() == list(range(1_797))
    dots, numbers = load_digits(return_X_y=True)
    assert both.labels[order].tolist() == list(numbers)
    # 16 dots are white; from bytes the number of dots can be told again.
    assert torch.equal(
        (both.images[order].reshape(1_797, 64) / 255 * 16).round(), torch.tensor(dots).float()
    )
    assert both.images.max() == 255


def test_the_test_set_has_every_class_in_its_share() -> None:
    source = digits()
    sizes = torch.bincount(source.train.labels) + torch.bincount(source.test.labels)
    assert (torch.bincount(source.test.labels) - sizes * 500 / 1_797).abs().max() < 1


def test_the_test_set_is_the_seeds_and_nothing_elses() -> None:
    first = digits(test=300, split_seed=1)
    torch.rand(10)
    assert torch.equal(first.test.index, digits(test=300, split_seed=1).test.index)
    assert not torch.equal(first.test.index, digits(test=300, split_seed=2).test.index)


def test_statistics_are_of_the_training_scans() -> None:
    source = digits()
    pixels = source.train.images.double() / 255
    assert source.mean == pytest.approx([float(pixels.mean())])
    assert source.std == pytest.approx([float(pixels.std(correction=0))])


@pytest.mark.parametrize("test", [-1, 0, 1_797])
def test_a_test_set_of_no_or_all_scans_is_refused(test: int) -> None:
    with pytest.raises(SettingError, match=f"1 … 1796 .* but is {test}"):
        digits(test=test)
