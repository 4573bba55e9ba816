"""Folders of photographs and CSV files that list them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from photos import album, picture

from tutelage.data.folder import folder, manifest, unlabelled_folder
from tutelage.data.gathering import ELSEWHERE
from tutelage.data.photographs import Photographs, Rule
from tutelage.data.subsets import divide
from tutelage.errors import DataError, SettingError, TutelageError
from tutelage.identity import pictures_of

PARTS = {"train/cat": 6, "train/dog": 4, "val/cat": 2, "val/dog": 3, "test/cat": 1, "test/dog": 1}


def read(root: Path, **more: Any) -> Any:
    settings: dict[str, Any] = {"size": 16} | more
    return folder(root=str(root), **settings)


def files(pictures: Any) -> list[str]:
    return [f"{file.path.parent.name}/{file.path.name}" for file in pictures.pixels.files]


def test_parts_and_classes_are_folders(tmp_path: Path):
    source = read(album(tmp_path, PARTS))
    assert source.classes == ("cat", "dog")
    assert source.train.shape == (16, 16, 3)
    for pictures, number in ((source.train, 10), (source.validation, 5), (source.test, 2)):
        assert len(pictures) == number
        assert [name.partition("/")[0] for name in files(pictures)] == [
            source.classes[label] for label in pictures.labels.tolist()
        ]
    every = torch.cat([source.train.index, source.validation.index, source.test.index])
    assert len(every.unique()) == 17
    assert every.max() < ELSEWHERE
    split = divide(source)
    assert (len(split.train), len(split.validation)) == (10, 5)
    assert len(divide(source, validation=2).validation) == 2
    assert len(divide(source, validation=2).train) == 10


def test_of_one_folder_a_part_is_drawn_for_test(tmp_path: Path):
    source = read(album(tmp_path, {"cat": 20, "dog": 10}), test=0.2)
    assert (len(source.train), len(source.test)) == (24, 6)
    assert source.test.labels.tolist().count(0) == 4
    assert not set(files(source.train)) & set(files(source.test))
    assert files(read(tmp_path, test=0.2).test) == files(source.test)
    assert files(read(tmp_path, test=0.2, split_seed=1).test) != files(source.test)
    with pytest.raises(SettingError, match="validation is missing"):
        divide(source)


def test_the_first_pictures_are_of_all_classes(tmp_path: Path):
    source = read(album(tmp_path, {"cat": 30, "dog": 30}), test=0.1)
    assert 3 <= source.train.labels[:12].sum() <= 9


def test_mean_and_spread_are_those_of_what_is_shown(tmp_path: Path):
    source = read(album(tmp_path, {"cat": 5, "dog": 5}), test=0.2)
    shown = source.train.shown(torch.arange(8)).double() / 255
    assert source.mean == pytest.approx(shown.mean(dim=(0, 1, 2)).tolist())
    assert source.std == pytest.approx(shown.flatten(0, 2).std(dim=0, correction=0).tolist())


def test_what_is_kept_in_memory_is_what_is_in_the_files(tmp_path: Path):
    album(tmp_path, {"cat": 3, "dog": 3})
    kept, fresh = read(tmp_path, test=0.4, keep=True), read(tmp_path, test=0.4, keep=False)
    rows = torch.arange(4)
    assert torch.equal(kept.train.shown(rows), fresh.train.shown(rows))
    assert all(file._kept is not None for file in kept.train.pixels.files)
    assert all(file._kept is None for file in fresh.train.pixels.files)


def test_a_folder_is_read_once_until_it_changes(tmp_path: Path):
    album(tmp_path, {"cat": 3, "dog": 3})
    first = read(tmp_path, test=0.4)
    assert read(tmp_path, test=0.4) is first
    picture(99).save(tmp_path / "cat" / "new.png")
    assert len(read(tmp_path, test=0.4).train) + len(read(tmp_path, test=0.4).test) == 7


def test_damaged_pictures_are_listed_and_left_out_up_to_a_limit(tmp_path: Path):
    album(tmp_path, {"cat": 30, "dog": 30})
    (tmp_path / "cat" / "000.png").write_bytes(b"\x89PNG and no more")
    with pytest.warns(UserWarning, match=r"1 of 60 pictures .* left out: .*cat/000.png cannot"):
        source = read(tmp_path, test=0.2, skip=0.02)
    assert len(source.train) + len(source.test) == 59
    (tmp_path / "dog" / "001.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 60 pictures .* cannot be read: .*raise skip"):
        read(tmp_path, test=0.2, skip=0.02)


def test_hidden_files_are_passed_over(tmp_path: Path):
    album(tmp_path, {"cat": 3, "dog": 3})
    for place in (".DS_Store", "cat/.DS_Store", "cat/Thumbs.db"):
        (tmp_path / place).write_text("x")
    assert len(read(tmp_path, test=0.4).train) == 4


def broken(root: Path, kind: str) -> Path:
    """A folder with one thing wrong."""
    if kind == "absent":
        return root / "nowhere"
    album(root, PARTS)
    if kind == "text":
        (root / "train" / "cat" / "notes.txt").write_text("a cat")
    elif kind == "stray":
        (root / "train" / "list.csv").write_text("a")
    elif kind == "empty class":
        (root / "train" / "mouse").mkdir()
    elif kind == "new class":
        album(root, {"val/mouse": 1})
    elif kind == "other part":
        album(root, {"other/cat": 1})
    elif kind == "two":
        album(root, {"valid/cat": 1})
    elif kind == "no train":
        (root / "train").rename(root / "test" / "cat" / "deep")
    elif kind == "one class":
        for part in ("train", "val", "test"):
            (root / part / "dog").rename(root / part / "cat" / "dog")
    return root


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("absent", "There is no folder"),
        ("text", r"1 file\(s\) of another kind \(first: notes.txt\)"),
        ("stray", r"1 file\(s\) of no class \(first: list.csv\)"),
        ("empty class", "mouse is a class without a picture"),
        ("new class", "mouse is a class that train has not"),
        ("other part", "has train and also other, which is no part"),
        ("two", "are both validation"),
        ("no train", "but none named train"),
        ("one class", "at least two classes, but this has 1"),
    ],
)
def test_what_does_not_fit_is_one_sentence(kind: str, words: str, tmp_path: Path):
    with pytest.raises(DataError, match=words):
        read(broken(tmp_path / "data", kind))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"size": 4}, "size must be at least 8"),
        ({"test": 1.0}, "test is a share"),
        ({"skip": -0.1}, "skip is a share"),
        ({"test": 0.01}, "draws none"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], words: str, tmp_path: Path):
    album(tmp_path, {"cat": 3, "dog": 3})
    with pytest.raises(TutelageError, match=words):
        read(tmp_path, **wrong)


# CSV


def listed(folder: Path, *lines: str) -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_csv_file_says_paths_labels_and_parts(tmp_path: Path):
    album(tmp_path, {"x": 6})
    path = listed(
        tmp_path,
        "path,label,split",
        "x/000.png,cat,train",
        "x/001.png,dog,train",
        "x/002.png,,train",
        "x/003.png,dog,val",
        "x/004.png,cat,test",
        "x/005.png,cat,",
    )
    source: Any = manifest(path=str(path), size=16)
    assert source.classes == ("cat", "dog")
    assert [file.path.name for file in source.train.pixels.files] == [
        f"{n:03}.png" for n in (0, 1, 2, 5)
    ]
    assert source.train.labels.tolist() == [0, 1, -1, 0]
    assert source.train.has_label.tolist() == [True, True, False, True]
    assert source.validation.labels.tolist() == [1]
    assert source.test.labels.tolist() == [0]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["file,label", "a,b"], "names the columns file, label; it needs path and label"),
        (["path,label,age", "x/000.png,b,3"], "a column 'age', which is not known"),
        (
            ["path,label,split", "x/000.png,cat,dev"],
            r"The split of line 2 .* is 'dev'. Known: train, val",
        ),
        (["path,label", "../x/000.png,cat"], r"'../x/000.png' in line 2 .* leaves the folder"),
        (["path,label", "/etc/passwd,cat"], "leaves the folder"),
        (["path,label", ",cat"], "leaves the folder"),
        (
            ["path,label,split", "x/000.png,cat,", "x/001.png,,test"],
            r"no label in line 3 .*, which test",
        ),
        (["path,label,weight", "x/000.png,cat,-1"], r"weight in line 2 .* is '-1'. It is a number"),
        (["path,label,weight", "x/000.png,cat,inf"], "is 'inf'. It is a number, 0 or more"),
        (["path,label,weight", "x/000.png,cat,much"], "is 'much'. It is a number"),
        (["path,label,weight", "x/000.png,cat,", "x/001.png,,2"], "line 3 .* without a label"),
        (
            ["path,label,split,weight", "x/000.png,cat,,", "x/001.png,cat,test,2"],
            r"line 3 .* it is of test\. Leave it empty",
        ),
        (["path,label,split", "x/000.png,cat,", "x/001.png,dog,val"], "'dog' in validation"),
        (["path,label", "x/009.png,cat"], "009.png cannot be read"),
    ],
)
def test_a_csv_file_that_says_something_else_is_refused(
    lines: list[str], words: str, tmp_path: Path
):
    album(tmp_path / "data", {"x": 2})
    with pytest.raises(DataError, match=words):
        manifest(path=str(listed(tmp_path / "data", *lines)), size=16)


def test_weights_of_pictures_come_from_a_column(tmp_path: Path):
    album(tmp_path, {"x": 6})
    lines = ["x/000.png,cat,,2", "x/001.png,dog,,", "x/002.png,,,", "x/003.png,dog,,0.5"]
    lines += ["x/004.png,cat,test,", "x/005.png,dog,val,"]
    path = listed(tmp_path, "path,label,split,weight", *lines)
    source: Any = manifest(path=str(path), size=16)
    assert source.train.weight.tolist() == [2, 1, 1, 0.5]
    assert source.test.weight is None
    assert source.train.take(torch.tensor([3, 0])).weight.tolist() == [0.5, 2]
    joined = source.train.join(source.test)
    assert joined.weight.tolist() == [2, 1, 1, 0.5, 1]
    assert source.train.decoded().weight.tolist() == [2, 1, 1, 0.5]
    before = pictures_of(source.train)
    path.write_text(path.read_text().replace("0.5", "0.7"))
    again: Any = manifest(path=str(path), size=16)
    assert again.train.weight[3] == pytest.approx(0.7)
    assert pictures_of(again.train) == before  # a store does not depend on weights
    path.write_text(path.read_text().replace(",2\n", ",1\n").replace("0.7", ""))
    plain: Any = manifest(path=str(path), size=16)
    assert plain.train.weight is None


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path):
    album(tmp_path / "data", {"x": 2})
    picture(0).save(tmp_path / "secret.png")
    (tmp_path / "data" / "x" / "link.png").symlink_to(tmp_path / "secret.png")
    path = listed(tmp_path / "data", "path,label", "x/000.png,cat", "x/link.png,dog")
    with pytest.raises(DataError, match="leaves the folder"):
        manifest(path=str(path), size=16)


# Without labels


def test_pictures_without_labels_join_and_share_no_number(tmp_path: Path):
    source = read(album(tmp_path / "data", PARTS))
    album(tmp_path / "more", {"a/b": 3, "c": 2}, first=50)
    assert isinstance(source.train.pixels, Photographs)
    more = unlabelled_folder(str(tmp_path / "more"), source.train.pixels.rule, first=ELSEWHERE)
    split = divide(source, more=more)
    assert len(split.train) == 15
    assert split.train.has_label.tolist() == [True] * 10 + [False] * 5
    assert split.train.index[10:].tolist() == [ELSEWHERE + n for n in range(5)]
    with pytest.raises(DataError, match="There is no folder"):
        unlabelled_folder(str(tmp_path / "no"), Rule(16, 18, 3), first=0)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="is empty"):
        unlabelled_folder(str(tmp_path / "none"), Rule(16, 18, 3), first=0)
