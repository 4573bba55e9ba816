"""Data sets in the form of Hugging Face's: read from local files, as a folder would be."""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import datasets.config
import pytest
import torch
from PIL import Image
from tiny import recipe

from tutelage.data.folder import folder
from tutelage.data.hub import hub
from tutelage.data.photographs import in_threads
from tutelage.errors import DataError, NoEffectWarning
from tutelage.runs import train

NAMES = ["cat", "dog"]


def picture(number: int) -> Image.Image:
    """Another color for each; large enough to be shrunk."""
    color = (number * 13 % 256, number * 57 % 256, 200 - number)
    return Image.new("RGB", (40, 30), color)


def png(number: int) -> bytes:
    held = BytesIO()
    picture(number).save(held, "png")
    return held.getvalue()


def rows(first: int, count: int) -> datasets.Dataset:
    numbers = range(first, first + count)
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "kind": datasets.ClassLabel(names=NAMES),
            "id": datasets.Value("int32"),
        }
    )
    values = {
        "img": [{"bytes": png(n), "path": None} for n in numbers],
        "kind": [n % 2 for n in numbers],
        "id": list(numbers),
    }
    return datasets.Dataset.from_dict(values, features=features)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("parquet")
    rows(0, 6).to_parquet(place / "train-00000-of-00002.parquet")
    rows(6, 4).to_parquet(place / "train-00001-of-00002.parquet")
    rows(20, 4).to_parquet(place / "test-00000-of-00001.parquet")
    return place


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def test_parquet_files_are_read_as_a_folder_of_the_same_pictures(parquet: Path, tmp_path: Path):
    source = hub(dataset=str(parquet), size=16)
    assert source.classes == ("cat", "dog")
    assert len(source.train) == 10
    assert source.train.labels.tolist() == [n % 2 for n in range(10)]
    assert source.test.index.min() >= 1 << 39
    for number in range(10):
        place = tmp_path / "album" / "train" / NAMES[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(png(number))
    of_files = folder(root=str(tmp_path / "album"), size=16, test=0.2)
    every = torch.cat([of_files.train.images, of_files.test.images])
    colors = {tuple(image[0, 0].tolist()) for image in every}
    assert {tuple(image[0, 0].tolist()) for image in source.train.images} == colors
    assert of_files.train.images.shape[1:] == source.train.images.shape[1:]


@pytest.mark.parametrize("whole", [True, False])
def test_what_save_to_disk_wrote_is_read(whole: bool, tmp_path: Path):
    made: Any = datasets.DatasetDict({"train": rows(0, 10), "valid": rows(30, 4)})
    (made if whole else made["train"]).save_to_disk(tmp_path / "saved")
    source = hub(dataset=str(tmp_path / "saved"), size=16, channels=1, keep=False)
    assert len(source.train) == 8  # a fifth is drawn for test
    assert len(source.test) == 2
    assert (source.validation is not None) == whole
    assert source.train.images.shape == (8, 16, 16, 1)


def test_parts_and_columns_can_be_said(parquet: Path):
    swapped = hub(dataset=str(parquet), parts={"train": "test", "test": "train"}, size=16)
    assert (len(swapped.train), len(swapped.test)) == (4, 10)
    alone: Any = {"dataset": str(parquet), "image": "img", "label": "id", "size": 16}
    with pytest.raises(DataError, match="label '20' in test, which train has not"):
        hub(**alone)


def saved(folder: Path, **splits: datasets.Dataset) -> str:
    whole: Any = splits
    datasets.DatasetDict(whole).save_to_disk(folder)
    return str(folder)


def test_numbers_are_classes_in_their_order(tmp_path: Path):
    place = saved(tmp_path / "saved", train=rows(0, 12))
    source = hub(dataset=place, image="img", label="id", size=16, test=0.1)
    assert source.classes == tuple(str(n) for n in range(12))


def test_each_split_names_its_own_classes(tmp_path: Path):
    other = rows(20, 4).cast_column("kind", datasets.ClassLabel(names=NAMES[::-1]))
    place = saved(tmp_path / "saved", train=rows(0, 10), test=other)
    source = hub(dataset=place, size=16)
    assert [source.classes[n] for n in source.test.labels.tolist()] == ["dog", "cat"] * 2


def test_a_split_without_labels_is_refused_before_anything_runs(tmp_path: Path):
    hidden = rows(20, 4).map(lambda _: {"kind": -1})
    with pytest.raises(DataError, match="test has a picture without label"):
        hub(dataset=saved(tmp_path / "a", train=rows(0, 10), test=hidden), size=16)
    source = hub(dataset=saved(tmp_path / "b", train=hidden, test=rows(0, 10)), size=16)
    assert not source.train.has_label.any()
    lacking = rows(20, 4).remove_columns("kind")
    with pytest.raises(DataError, match="test has no column 'kind', which train has"):
        hub(dataset=saved(tmp_path / "c", train=rows(0, 10), test=lacking), size=16)


def test_a_setting_without_effect_warns(parquet: Path):
    with pytest.warns(NoEffectWarning, match="config and revision change nothing"):
        hub(dataset=str(parquet), revision="main", size=16)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label": "age"}, "has no column 'age'"),
        ({"parts": {"train": "dev"}}, "has no split 'dev'"),
        ({"parts": {"training": "train"}}, "not 'training'"),
        ({"parts": {"test": "train"}}, "and none to train on"),
        ({"parts": {"train": "test", "test": "test"}}, "is named for two parts"),
        ({"label": "img"}, "holds no classes"),
        ({"image": "kind"}, "holds no pictures"),
        ({"dataset": "nobody/nothing"}, "cannot be read"),
        ({"dataset": "."}, "cannot be read"),
    ],
)
def test_what_is_not_there_is_said(
    settings: dict[str, Any],
    words: str,
    parquet: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=words):
        hub(**{"dataset": str(parquet), "size": 16} | settings)


def test_a_damaged_picture_is_counted(tmp_path: Path):
    values = {"image": [png(n) for n in range(9)] + [b"no picture"], "label": [0, 1] * 5}
    features = datasets.Features(
        {"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=NAMES)}
    )
    made = datasets.Dataset.from_dict(values, features=features)
    made.cast_column("image", datasets.Image(decode=False)).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match=r"1 of 10 pictures .*d/train/9 cannot be read"):
        hub(dataset=str(tmp_path / "d"), size=16)
    with pytest.warns(UserWarning, match="1 of 10 pictures"):
        assert len(hub(dataset=str(tmp_path / "d"), size=16, skip=0.2, test=0.3).train) == 6


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"Install tutelage\[hub\]"):
        hub(dataset="x")


def test_threads_read_the_same_rows(parquet: Path):
    files = hub(dataset=str(parquet), size=16, keep=False).train.pixels.files  # pyright: ignore[reportAttributeAccessIssue]
    once = [file.decoded() for file in files]
    for again in in_threads(lambda file: file.decoded(), [*files] * 8)[-10:]:
        assert any(torch.equal(again, one) for one in once)
    assert len({file.digest for file in files}) == 10


def test_a_run_trains_on_it_and_where_it_lies_does_not_count(parquet: Path, tmp_path: Path):
    data = {"source": {"name": "hub", "dataset": str(parquet), "size": 16}, "validation": 4}
    value = recipe(data=data, batch_size=4)
    record = train(value, name="x", runs=tmp_path / "runs", shown=False).record
    assert record["data"] | {"train": 6, "test": 4} == record["data"]
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in parquet.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    data["source"] = {"name": "hub", "dataset": str(moved), "size": 16}
    again = train(recipe(data=data, batch_size=4), name="y", runs=tmp_path / "runs", shown=False)
    assert again.record["identity"] == record["identity"]
