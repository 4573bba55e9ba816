"""Arrays in a file, good and bad."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.data.arrays import arrays
from tutelage.errors import DataError

Arrays = dict[str, Any]


def good() -> Arrays:
    generator = np.random.default_rng(0)
    return {
        "train_images": generator.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        "train_labels": np.array([0, 1, 2, 0, 1, 2]),
        "test_images": generator.integers(0, 256, (3, 5, 4, 3), dtype=np.uint8),
        "test_labels": np.array([2, 1, 0]),
        "classes": np.array(["ant", "bee", "cat"]),
    }


def write(path: Path, content: Arrays, save: Callable[..., None] = np.savez) -> None:
    save(path, **content)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_was_saved_is_what_is_read(save: Callable[..., None], tmp_path: Path) -> None:
    content = good()
    write(tmp_path / "own.npz", content | {"train_coarse": np.zeros(6)}, save)
    source = arrays(path=tmp_path / "own.npz")
    assert np.array_equal(source.train.images.numpy(), content["train_images"])
    assert np.array_equal(source.test.images.numpy(), content["test_images"])
    assert source.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.test.index.tolist() == [6, 7, 8]
    assert source.classes == ("ant", "bee", "cat")
    pixels = content["train_images"].reshape(-1, 3) / 255
    assert source.mean == pytest.approx(pixels.mean(0))
    assert source.std == pytest.approx(pixels.std(0))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_labels_are_integers_of_any_width(dtype: type, tmp_path: Path) -> None:
    content = good()
    content["train_labels"] = content["train_labels"].astype(dtype)
    write(tmp_path / "own.npz", content)
    assert arrays(path=tmp_path / "own.npz").train.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_without_names_classes_are_numbers(tmp_path: Path) -> None:
    content = good()
    del content["classes"]
    write(tmp_path / "own.npz", content)
    assert arrays(path=str(tmp_path / "own.npz")).classes == ("0", "1", "2")


def test_images_in_column_order_are_the_same_images(tmp_path: Path) -> None:
    content = good()
    turned = content | {"train_images": np.asfortranarray(content["train_images"])}
    write(tmp_path / "own.npz", turned)
    images = arrays(path=tmp_path / "own.npz").train.images
    assert images.is_contiguous()
    assert np.array_equal(images.numpy(), content["train_images"])


BAD_ARRAYS: dict[str, tuple[Arrays, str]] = {
    "float images": (
        {"train_images": np.zeros((6, 5, 4, 3))},
        "must be uint8, 0 to 255, but train_images in .* is float64",
    ),
    "no channel axis": (
        {"test_images": np.zeros((3, 5, 4), np.uint8)},
        r"1 or 3 channels, but test_images in .* has \(3, 5, 4\)",
    ),
    "channels first": (
        {"train_images": np.zeros((6, 3, 5, 4), np.uint8)},
        r"has \(6, 3, 5, 4\); move the channels last",
    ),
    "no pictures": (
        {"test_images": np.zeros((0, 5, 4, 3), np.uint8), "test_labels": np.zeros(0, int)},
        r"has \(0, 5, 4, 3\)",
    ),
    "two sizes": (
        {"test_images": np.zeros((3, 8, 8, 3), np.uint8)},
        "one size, but in .* 5×4×3 and 8×8×3",
    ),
    "float labels": ({"train_labels": np.zeros(6)}, "integers .*train_labels in .* is float64"),
    "truth values": ({"train_labels": np.zeros(6, bool)}, "train_labels in .* is bool"),
    "one-hot labels": ({"test_labels": np.eye(3, dtype=int)}, r"int64 of shape \(3, 3\)"),
    "labels missing": ({"test_labels": np.array([0, 1])}, r"\(3,\), one per picture, .* \(2,\)"),
    "label too large": ({"train_labels": np.full(6, 3)}, "0 … 2 .* picture 0 has label 3"),
    "negative label": (
        {"test_labels": np.array([0, 1, -1])},
        r"test picture 2 has label -1 \(1 of 3 are outside\); number the classes from 0",
    ),
    "class named twice": (
        {"classes": np.array(["a", "b", "a"])},
        "different strings .* with 2 different values",
    ),
    "classes are numbers": ({"classes": np.arange(3)}, "strings .* is int64"),
    "classes in a table": ({"classes": np.array([["a", "b", "c"]])}, r"shape \(1, 3\)"),
    "an object": (
        {"train_labels": np.array([{}, 1, 2, 3, 4, 5], dtype=object)},
        "cannot be read as arrays without objects",
    ),
    "all black": ({"train_images": np.zeros((6, 5, 4, 3), np.uint8)}, "channel 0"),
}


@pytest.mark.parametrize(("change", "sentence"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_a_wrong_array_is_refused_by_name(change: Arrays, sentence: str, tmp_path: Path) -> None:
    write(tmp_path / "own.npz", good() | change)
    with pytest.raises(DataError, match=sentence):
        arrays(path=tmp_path / "own.npz")


@pytest.mark.parametrize("missing", ["train_images", "train_labels", "test_images", "test_labels"])
def test_a_missing_array_is_named(missing: str, tmp_path: Path) -> None:
    content = good()
    del content[missing]
    write(tmp_path / "own.npz", content)
    with pytest.raises(DataError, match=rf"lacks {missing} \(it holds .*classes\)"):
        arrays(path=tmp_path / "own.npz")


def cut_off(path: Path) -> None:
    write(path, good())
    path.write_bytes(path.read_bytes()[:-100])


def garble(path: Path) -> None:
    write(path, good(), np.savez_compressed)
    content = bytearray(path.read_bytes())
    content[60:200] = bytes(140)
    path.write_bytes(content)


def write_one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda _: None, "There is no file .*own.npz"),
    "a folder": (lambda path: path.mkdir(), "There is no file"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "text": (lambda path: path.write_text("pictures: many\n"), "cannot be read"),
    "cut off": (cut_off, "cannot be read"),
    "garbled": (garble, "cannot be read"),
    "one array": (write_one_array, "holds a single array"),
}


@pytest.mark.parametrize(("make", "sentence"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_refused(
    make: Callable[[Path], object], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.npz"
    make(path)
    with pytest.raises(DataError, match=sentence) as info:
        arrays(path=path)
    assert str(path) in str(info.value)
