"""A folder of photographs, from the recipe to a student: training, resuming, stores, evaluation."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from photos import album
from safetensors.torch import load_file
from tiny import TRAIN

from tutelage.build import build
from tutelage.data.loader import TrainLoader
from tutelage.errors import DataError, Interrupted, TutelageError
from tutelage.recipes import validate
from tutelage.records import RunFolder
from tutelage.runs import evaluate, train
from tutelage.runs.caching import cache
from tutelage.runs.keeping import Choices

COUNTS = {"train/a": 20, "train/b": 20, "val/a": 10, "val/b": 10, "test/a": 8, "test/b": 8}
VIEWS = {"crop_area": [0.3, 1], "flip": True, "color_jitter": [0.2, 0.2, 0.2, 0.05]}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return album(tmp_path / "photos", COUNTS)


def recipe(root: Path, **changes: Any) -> dict[str, Any]:
    data = {"source": {"name": "folder", "root": str(root), "size": 16}, "views": VIEWS}
    data |= changes.pop("data", {})
    settings = TRAIN | {"steps": 12, "batch_size": 8} | changes.pop("train", {})
    student = {"name": "resnet8", "width": 4}
    return {"schema": 1, "data": data, "student": student, "train": settings} | changes


def taught(root: Path, teacher: Path, **changes: Any) -> dict[str, Any]:
    kd = {"teacher": {"run": str(teacher)}, "methods": {"kd": {"weight": 1.0}}, "task_weight": 0.1}
    return recipe(root, **kd | changes)


def weights(run: Any) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(run.folder).student)


def equal(one: Any, other: Any) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_student_is_trained_measured_and_measured_again(photos: Path, tmp_path: Path):
    run = train(recipe(photos, train={"steps": 60}), name="x", runs=tmp_path, shown=False)
    data = run.record["data"]
    assert (data["train"], data["validation"], data["test"], data["classes"]) == (40, 20, 16, 2)
    assert run.record["students"]["student"]["test_accuracy"] > 0.8
    assert run.record["students"]["student"]["test"]["classes"] == ["a", "b"]
    found = evaluate(run.folder, with_test=True)["again"]
    assert found["test_accuracy"] == run.record["students"]["student"]["test_accuracy"]
    assert run.student().spec is not None


def test_a_run_that_was_stopped_ends_in_the_same_bits(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    value = recipe(photos, train={"checkpoint_every": 3})
    whole = train(value, name="whole", runs=tmp_path, shown=False)
    batch = TrainLoader.batch

    def stopping(loader: TrainLoader, step: int) -> Any:
        if step == 7:
            signal.raise_signal(signal.SIGTERM)
        return batch(loader, step)

    with monkeypatch.context() as patched:
        patched.setattr(TrainLoader, "batch", stopping)
        with pytest.raises(Interrupted):
            train(value, name="parts", runs=tmp_path, shown=False)
    parts = train(value, name="parts", runs=tmp_path, resume=True, shown=False)
    assert equal(whole, parts)


def test_what_is_kept_in_memory_changes_no_weight_and_no_identity(photos: Path, tmp_path: Path):
    runs = []
    for keep in (True, False):
        value = recipe(photos)
        value["data"]["source"] |= {"keep": keep}
        runs.append(train(value, name=f"keep-{keep}", runs=tmp_path, shown=False))
    assert equal(*runs)
    assert runs[0].record["identity"] == runs[1].record["identity"]


def test_another_picture_is_another_run(photos: Path):
    def content() -> dict[str, Any]:
        return build(validate(recipe(photos), "x"), with_test=False).content

    first = content()
    assert content() == first
    path = photos / "train" / "a" / "000.png"
    (photos / "train" / "b" / "000.png").replace(path)
    assert content()["train"] != first["train"]
    assert content()["test"] == first["test"]
    assert content()["validation"] == first["validation"]


def test_a_store_answers_as_its_teacher_does(photos: Path, tmp_path: Path):
    teacher = train(
        recipe(photos, train={"steps": 40}),
        name="teacher",
        runs=tmp_path,
        with_test=False,
        shown=False,
    ).folder
    value = taught(photos, teacher, data={"num_views": 2})
    store = tmp_path / "store"
    cache(validate(value, "x"), store, Choices(logits="fp32"))
    live = train(value, name="live", runs=tmp_path, shown=False)
    value["teacher"] |= {"cache": str(store)}
    stored = train(value, name="stored", runs=tmp_path, shown=False)
    assert equal(live, stored)


def test_unlabelled_photographs_are_trained_on_as_well(photos: Path, tmp_path: Path):
    more = album(tmp_path / "more", {"c": 10, "d": 10}, first=500)
    teacher = train(
        recipe(photos, train={"steps": 40}),
        name="teacher",
        runs=tmp_path,
        with_test=False,
        shown=False,
    ).folder
    value = taught(photos, teacher, data={"unlabelled": str(more)}, train={"labelled_per_batch": 4})
    made = build(validate(value, "x"))
    batch: Any = made.train.batch(0)
    assert batch.has_label.tolist() == [True] * 4 + [False] * 4
    assert (batch.index[4:] >= 1 << 40).all()
    run = train(value, name="x", runs=tmp_path, shown=False)
    assert (run.record["data"]["train"], run.record["data"]["labelled"]) == (60, 40)
    assert "unlabelled" in run.record["content"]
    moved = more.rename(tmp_path / "elsewhere")
    value["data"]["unlabelled"] = str(moved)
    again = train(value, name="y", runs=tmp_path, shown=False)
    assert again.record["identity"] == run.record["identity"]


def test_rare_classes_are_weighed_or_visited_more(tmp_path: Path):
    root = album(tmp_path / "photos", {"a": 40, "b": 8})
    data = {"source": {"name": "folder", "root": str(root), "size": 16}, "validation": 10}
    value = recipe(root, data=data | {"balanced": True}, task={"class_weights": "balanced"})
    made = build(validate(value, "x"), with_test=False)
    labels = made.split.train.labels.tolist()
    task: Any = made.distiller.task
    assert task.class_weights == [
        pytest.approx(len(labels) / (2 * labels.count(one))) for one in (0, 1)
    ]
    assert made.train.batch(5).targets.sum() == 4
    run = train(value, name="x", runs=tmp_path, shown=False)
    assert run.record["recipe"]["task"]["class_weights"] == "balanced"


def test_digits_take_unlabelled_pictures_from_a_folder(tmp_path: Path):
    more = album(tmp_path / "more", {"c": 6}, first=500)
    value = {
        "schema": 1,
        "data": {
            "source": {"name": "digits"},
            "validation": 100,
            "labelled": 50,
            "unlabelled": str(more),
        },
        "student": {"name": "resnet8", "width": 2},
        "train": TRAIN,
    }
    made = build(validate(value, "x"), with_test=False)
    assert len(made.split.train) == 56
    assert made.split.train.images.shape[1:] == (8, 8, 1)


def test_wrong_places_are_one_sentence(photos: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"There is no folder .*nowhere of unlabelled"):
        build(validate(recipe(photos, data={"unlabelled": str(tmp_path / "nowhere")}), "x"))
    for source in ({"name": "folder", "root": str(photos / "train"), "size": 16}, "digits"):
        with pytest.raises(TutelageError, match="validation is missing: this source sets no"):
            build(validate(recipe(photos, data={"source": source, "views": {}}), "x"))
    value = recipe(photos)
    value["data"]["source"]["sizze"] = 3
    with pytest.raises(TutelageError, match="'sizze' is no key of folder; did you mean size"):
        validate(value, "x")


def test_the_recipe_says_all_settings(photos: Path):
    said = json.loads(validate(recipe(photos), "x").model_dump_json())
    assert said["data"]["source"] == {
        "name": "folder",
        "root": str(photos),
        "size": 16,
        "channels": 3,
        "test": 0.2,
        "split_seed": 0,
        "skip": 0.01,
        "keep": None,
    }
    assert said["data"]["views"]["crop_area"] == [0.3, 1.0]
