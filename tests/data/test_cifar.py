"""CIFAR in its official files: a miniature of the layout, and the real thing if it is here."""

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets.cifar as official

from tutelage.data.arrays import arrays
from tutelage.data.cifar import cifar10, cifar100
from tutelage.data.pictures import pixel_statistics
from tutelage.errors import DataError


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-100's official layout with 6 + 3 pictures, known to torchvision by its own MD5s."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    generator = np.random.default_rng(0)

    def write(name: str, content: dict[str, Any]) -> str:
        packed = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(packed)
        return hashlib.md5(packed).hexdigest()

    def part(name: str, labels: list[int]) -> list[list[str]]:
        content = {
            "filenames": [f"{name}_{i}.png" for i in range(len(labels))],
            "batch_label": f"{name} batch 1 of 1",
            "fine_labels": labels,
            "coarse_labels": [label // 5 for label in labels],
            "data": generator.integers(0, 256, (len(labels), 3072), dtype=np.uint8),
        }
        return [[name, write(name, content)]]

    names = {
        "fine_label_names": [f"fine {i}" for i in range(100)],
        "coarse_label_names": [f"coarse {i}" for i in range(20)],
    }
    monkeypatch.setattr(official.CIFAR100, "train_list", part("train", [99, 0, 50, 50, 7, 1]))
    monkeypatch.setattr(official.CIFAR100, "test_list", part("test", [3, 99, 0]))
    meta = {"filename": "meta", "key": "fine_label_names", "md5": write("meta", names)}
    monkeypatch.setattr(official.CIFAR100, "meta", meta)
    return tmp_path


def test_the_official_layout_of_cifar_100(miniature: Path) -> None:
    source = cifar100(root=miniature)
    assert source.train.labels.tolist() == [99, 0, 50, 50, 7, 1]
    assert source.test.labels.tolist() == [3, 99, 0]
    assert source.train.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert source.test.index.tolist() == [6, 7, 8]
    assert source.classes == tuple(f"fine {i}" for i in range(100))
    assert source.mean == (0.5071, 0.4865, 0.4409)

    # A row of the file is the red plane, then green, then blue, each line by line.
    with (miniature / "cifar-100-python" / "train").open("rb") as file:
        row = pickle.load(file)["data"][4]
    image = source.train.images[4]
    assert image.shape == (32, 32, 3)
    for y, x, channel in [(0, 0, 0), (0, 31, 1), (5, 2, 2), (31, 31, 2)]:
        assert int(image[y, x, channel]) == row[channel * 1024 + y * 32 + x]


def test_pixels_stand_in_a_row(miniature: Path) -> None:
    assert cifar100(root=miniature).train.images.is_contiguous()


def test_a_folder_may_be_a_string_of_the_home(
    miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(miniature))
    assert len(cifar100(root="~").train) == 6


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_changed_file_is_refused_before_it_is_unpickled(miniature: Path, name: str) -> None:
    file = miniature / "cifar-100-python" / name
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"CIFAR-100 .*damaged there; set download: true"):
        cifar100(root=miniature)


@pytest.mark.parametrize(("load", "inside"), [(cifar10, "batches-py"), (cifar100, "100-python")])
def test_absent_files_are_named_with_the_remedies(load: Any, inside: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{inside}, but they are not there; set download: true"):
        load(root=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("failure", [URLError("no such host"), TimeoutError("timed out")])
def test_without_network_a_download_ends_in_a_sentence(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(official, "download_and_extract_archive", fail)
    with pytest.raises(DataError, match=r"CIFAR-10 could not be fetched .* by other means") as info:
        cifar10(root=tmp_path, download=True)
    assert str(failure) in str(info.value)


@pytest.mark.slow
def test_the_real_cifar_10(shared_data: Path, tmp_path: Path) -> None:
    tool = shared_data.parent / "tools" / "unpack_data.py"
    subprocess.run([sys.executable, tool, tmp_path, "cifar10"], check=True)
    source = cifar10(root=tmp_path)
    assert torch.bincount(source.train.labels).tolist() == [5_000] * 10
    assert torch.bincount(source.test.labels).tolist() == [1_000] * 10
    assert source.classes[0] == "airplane"
    assert source.test.index[-1] == 59_999

    mean, std = pixel_statistics(source.train.images)
    assert source.mean == tuple(round(value, 4) for value in mean)
    assert source.std == pytest.approx(std, abs=1e-4)  # 0.24703, 0.24349, 0.26159

    same = arrays(path=tmp_path / "cifar10.npz")
    assert torch.equal(same.train.images, source.train.images)
    assert torch.equal(same.test.labels, source.test.labels)
    assert same.classes == source.classes
