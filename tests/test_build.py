"""From a recipe to objects: what pairs runs, what is refused, what a choice cannot see."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import Pool, distilled, recipe, train_teacher
from torch import Tensor

from tutelage.build import Built, build
from tutelage.data import Pictures
from tutelage.data.digits import digits
from tutelage.errors import (
    CheckpointError,
    NetworkError,
    RecipeError,
    RunError,
    TeacherError,
)
from tutelage.identity import weights_of
from tutelage.models.network import Network
from tutelage.recipes import validate
from tutelage.types import InputSpec

HINTS = {"fitnet_hints": {"weight": 10.0}}
THREE = {"source": {"name": "arrays", "path": "three.npz"}, "validation": 20}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_teacher(tmp_path_factory.mktemp("runs"))


def made(value: dict[str, Any], **objects: Any) -> Built:
    return build(validate(value, "x"), **objects)


def write_arrays(path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(60) % 3
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    return path


# Paired runs share everything but the method


@pytest.mark.parametrize("methods", [{"kd": {"weight": 0.9}}, HINTS])
def test_a_method_changes_nothing_but_itself(teacher: Path, methods: Any):
    alone = made(recipe(seed=3))
    torch.manual_seed(12345)  # what the process drew before does not matter
    taught = made(distilled(teacher, seed=3, methods=methods))
    assert weights_of(taught.student) == weights_of(alone.student)
    for step in (0, 1, 7):
        one, other = alone.train.batch(step), taught.train.batch(step)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)


def test_seeds_differ_in_weights_and_order_but_not_in_the_split():
    one, other = made(recipe(seed=0)), made(recipe(seed=1))
    assert weights_of(one.student) != weights_of(other.student)
    assert not torch.equal(one.train.batch(0).images, other.train.batch(0).images)
    for part in ("train", "validation", "test"):
        indices = [getattr(built.split, part).index for built in (one, other)]
        assert torch.equal(*indices)


# Networks


def test_a_teacher_is_shown_pictures_as_its_entry_says(teacher: Path):
    file = str(teacher / "student.safetensors")
    entry = {"name": "resnet8", "width": 8, "checkpoint": file, "mean": [0.25], "std": [0.5]}
    built = made(distilled(teacher, teacher=entry))
    assert isinstance(built.teacher, Network)
    assert torch.allclose(built.teacher.prepare(torch.ones(1, 1, 8, 8)), torch.tensor(1.5))
    plain = {key: entry[key] for key in ("name", "width", "checkpoint")}
    usual = made(distilled(teacher, teacher=plain))
    assert isinstance(usual.teacher, Network)
    assert usual.teacher.spec == InputSpec(8, 8, 1, usual.source.mean, usual.source.std)


def test_a_run_is_a_network_with_its_weights_settings_and_normalization(teacher: Path):
    built = made(distilled(teacher, student={"run": str(teacher)}))
    assert isinstance(built.teacher, Network)
    assert weights_of(built.student) == weights_of(built.teacher)
    assert built.description.settings["width"] == 8
    state = load_file(teacher / "student.safetensors")
    assert torch.equal(built.student.module.state_dict()["linear.bias"], state["linear.bias"])


def test_a_student_may_begin_from_a_checkpoint(teacher: Path):
    file = str(teacher / "student.safetensors")
    built = made(recipe(student={"name": "resnet8", "width": 8, "checkpoint": file}))
    assert weights_of(built.student) == weights_of(made(recipe(student={"run": file})).student)


def test_a_student_of_other_classes_begins_with_a_new_head(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write_arrays(tmp_path / "three.npz")
    file = teacher / "student.safetensors"
    entry = {"name": "resnet8", "width": 8, "checkpoint": str(file)}
    with pytest.raises(CheckpointError, match=r"2 of another shape .* says new_head: true"):
        made(recipe(data=THREE, student=entry))
    entry["new_head"] = True
    one, other = (made(recipe(data=THREE, student=entry, seed=seed)) for seed in (0, 1))
    learned = load_file(file)
    for name, weight in one.student.module.state_dict().items():
        if name.startswith("linear."):
            assert len(weight) == 3
        else:
            assert torch.equal(weight, learned[name])
    assert weights_of(one.student) != weights_of(other.student)  # heads are drawn
    assert one.content["student"] == other.content["student"]
    assert one.content["student"] == weights_of(one.student, but=["linear"])


def test_a_new_head_needs_a_layer_for_it(teacher: Path, tmp_path: Path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\ndef net(num_classes): return nn.Flatten()\n"
    )
    entry = {
        "python": f"{tmp_path / 'own.py'}:net",
        "checkpoint": str(teacher / "student.safetensors"),
        "new_head": True,
    }
    said = pytest.warns(UserWarning, match="this file is code")
    with said, pytest.raises(CheckpointError, match="no layer with 10 outputs"):
        made(recipe(student=entry))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"teacher": {"name": "resnet8"}}, TeacherError, "resnet8 has no weights.*FILE:resnet8"),
        ({"teacher": {"run": "nowhere"}}, RunError, "nowhere is no run folder"),
        ({"student": {"run": "nowhere"}}, RunError, "nowhere is no run folder"),
        ({"student": {"name": "resnet8", "mean": [0, 0, 0]}}, NetworkError, "mean has 3 numbers"),
        ({"student": None}, RecipeError, "leaves student open.*student="),
        (
            {"data": {"source": None, "validation": 100}},
            RecipeError,
            r"leaves data\.source open.*data=",
        ),
        ({"methods": {"kd": {"weight": 1.0}}}, TeacherError, "kd needs 1 teacher"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    change: dict[str, Any], error: type[Exception], words: str
):
    with pytest.raises(error, match=words):
        made(recipe() | change)


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_another_number_of_classes_is_refused(
    who: str, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write_arrays(tmp_path / "three.npz")
    error = TeacherError if who == "teacher" else NetworkError
    said = {
        "teacher": r"teacher's classes are 0, 1, 2, 3, … \(10\), and the data's 0, 1, 2",
        "student": r"student puts out \(10,\) numbers.* has 3 classes",
    }
    with pytest.raises(error, match=said[who]):
        made(recipe(data=THREE) | {who: {"run": str(teacher)}})


# Objects given in Python


def test_objects_take_the_place_of_entries(teacher: Path):
    source = digits(test=300)
    guide = made(recipe(student={"run": str(teacher)})).student
    value = recipe(student=None, methods={"kd": {"weight": 1.0}})
    value["data"] = {**value["data"], "source": None}
    built = made(value, student=Pool(), teacher=guide, data=source)
    assert built.student.spec == InputSpec(8, 8, 1, source.mean, source.std)
    assert built.teacher is guide
    assert len(built.split.test) == 300


# Test stays out of reach where a choice is made


def test_a_choice_gets_no_test_pictures():
    built = made(recipe(), with_test=False)
    assert built.test is None
    assert len(built.split.test) == 0
    assert built.content == made(recipe()).content


def pictures_in(value: Any, seen: dict[int, Any]) -> Iterator[Pictures]:
    """All pictures that can be reached from a value by its fields, items and attributes."""
    if id(value) in seen or isinstance(value, Tensor | type | str):
        return
    seen[id(value)] = value
    if isinstance(value, Pictures):
        yield value
    inside = list(value.values()) if isinstance(value, dict) else []
    inside += value if isinstance(value, list | tuple | set) else []
    for one in [*inside, *getattr(value, "__dict__", {}).values()]:
        yield from pictures_in(one, seen)


def test_no_field_of_what_is_built_for_a_choice_leads_to_test(teacher: Path):
    forbidden = digits().test.index

    def reach(with_test: bool) -> dict[str, bool]:
        built = made(distilled(teacher), with_test=with_test)
        fields = built._asdict().items()
        return {
            name: any(torch.isin(one.index, forbidden).any() for one in pictures_in(value, {}))
            for name, value in fields
        }

    assert not any(reach(with_test=False).values())
    assert {name for name, found in reach(with_test=True).items() if found} == {
        "source",
        "split",
        "test",
    }
    assert sum(len(one) for one in pictures_in(made(recipe()).train, {})) == 200


def test_a_very_deep_student_is_told_what_it_needs():
    deep = {"name": "resnet110", "width": 1}
    with pytest.warns(UserWarning, match=r"more than 100 layers .* zero_init: true"):
        made(recipe(student=deep))
    made(recipe(student=deep | {"zero_init": True}))  # which says nothing
