"""Files of soft labels: counts become shares, and what is wrong is said."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage.data.soft_labels import read_soft_labels
from tutelage.errors import DataError


@pytest.mark.parametrize("name", ["labels.npy", "labels.npz"])
def test_counts_become_shares(name: str, tmp_path: Path):
    counts = np.array([[3, 1], [0, 5]], dtype=np.uint8)
    path = tmp_path / name
    (np.save if name.endswith("npy") else np.savez)(path, counts)
    expected = torch.tensor([[0.75, 0.25], [0.0, 1.0]], dtype=torch.float64)
    assert torch.equal(read_soft_labels(path, 2, 2), expected)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones((3, 2)), r"shape \(2, 2\)"),
        (np.ones((2, 3)), r"shape \(2, 2\)"),
        (np.array([["a", "b"]] * 2), r"shape \(2, 2\)"),
        (np.array([[1.0, -1.0], [1, 1]]), "negative"),
        (np.array([[1.0, np.inf], [1, 1]]), "infinite"),
        (np.array([[1.0, np.nan], [1, 1]]), "infinite"),
        (np.array([[1, 0], [0, 0]]), "a row of zeros"),
    ],
)
def test_what_is_wrong_is_said(values: np.ndarray, words: str, tmp_path: Path):
    path = tmp_path / "labels.npy"
    np.save(path, values)
    with pytest.raises(DataError, match=words):
        read_soft_labels(path, 2, 2)


def test_a_file_that_is_none_is_refused(tmp_path: Path):
    path = tmp_path / "labels.npy"
    with pytest.raises(DataError, match="no file"):
        read_soft_labels(path, 2, 2)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="damaged"):
        read_soft_labels(path, 2, 2)
    np.save(path, np.array([[object()] * 2] * 2, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="damaged"):
        read_soft_labels(path, 2, 2)
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    with pytest.raises(DataError, match="2 arrays"):
        read_soft_labels(tmp_path / "two.npz", 2, 2)
