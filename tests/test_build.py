"""From a recipe to objects: what pairs runs, what a trial's identity is, what is refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import distilled, recipe, train_teacher
from torch import nn

from tutelage import provenance
from tutelage.build import (
    Built,
    build,
    code_of,
    content_of,
    identity_of,
    identity_parts,
    weights_of,
)
from tutelage.data.digits import digits
from tutelage.errors import NetworkError, RecipeError, RunError, TeacherError
from tutelage.models.network import Network
from tutelage.provenance import versions
from tutelage.recipes import validate
from tutelage.types import InputSpec

HINTS = {"fitnet_hints": {"weight": 10.0}}
THREE = {"source": {"name": "arrays", "path": "three.npz"}, "validation": 20}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_teacher(tmp_path_factory.mktemp("runs"))


def made(value: dict[str, Any], **objects: Any) -> Built:
    return build(validate(value, "x"), **objects)


def identity(value: dict[str, Any], threads: int = 1, device: str = "cpu") -> str:
    return identity_of(made(value), threads, device, versions())


def write_arrays(path: Path, change: int = 0) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(60) % 3
    images[7, 0, 0, 0] ^= change
    path.parent.mkdir(exist_ok=True)
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
    assert built.teacher is not None
    assert torch.allclose(built.teacher.prepare(torch.ones(1, 1, 8, 8)), torch.tensor(1.5))
    plain = {key: entry[key] for key in ("name", "width", "checkpoint")}
    usual = made(distilled(teacher, teacher=plain))
    assert usual.teacher is not None
    assert usual.teacher.spec == InputSpec(8, 8, 1, usual.source.mean, usual.source.std)


def test_a_run_is_a_network_with_its_weights_settings_and_normalization(teacher: Path):
    built = made(distilled(teacher, student={"run": str(teacher)}))
    assert built.teacher is not None
    assert weights_of(built.student) == weights_of(built.teacher)
    assert built.description.settings["width"] == 8
    state = load_file(teacher / "student.safetensors")
    assert torch.equal(built.student.module.state_dict()["linear.bias"], state["linear.bias"])


def test_a_student_may_begin_from_a_checkpoint(teacher: Path):
    file = str(teacher / "student.safetensors")
    built = made(recipe(student={"name": "resnet8", "width": 8, "checkpoint": file}))
    assert weights_of(built.student) == weights_of(made(recipe(student={"run": file})).student)


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
    with pytest.raises(error, match=rf"The {who} puts out \(10,\) numbers.* has 3 classes"):
        made(recipe(data=THREE) | {who: {"run": str(teacher)}})


# Objects given in Python


class Pool(nn.Module):
    """A student of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))


def test_objects_take_the_place_of_entries(teacher: Path):
    source = digits(test=300)
    guide = made(recipe(student={"run": str(teacher)})).student
    value = recipe(student=None, methods={"kd": {"weight": 1.0}})
    value["data"] = {**value["data"], "source": None}
    built = made(value, student=Pool(), teacher=guide, data=source)
    assert built.student.spec == InputSpec(8, 8, 1, source.mean, source.std)
    assert built.teacher is guide
    assert len(built.split.test) == 300


def test_objects_are_told_by_class_source_and_weights():
    torch.manual_seed(0)
    one = made(recipe(student=None), student=Pool())
    assert one.content["student"]["class"].endswith("Pool")
    torch.manual_seed(0)
    same = made(recipe(student=None), student=Pool())
    assert same.content == one.content
    other = made(recipe(student=None), student=Pool())
    assert other.content["student"]["weights"] != one.content["student"]["weights"]
    assert other.content["student"]["source"] == one.content["student"]["source"]
    assert identity_of(other, 1, "cpu", versions()) != identity_of(one, 1, "cpu", versions())


def test_the_source_of_a_given_network_counts():
    def sources() -> set[str]:
        plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        wrapped = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
        contents = [made(recipe(student=None), student=s).content for s in (plain, wrapped, Pool())]
        return {content["student"]["source"] for content in contents}

    assert len(sources()) == 3
    assert sources() == sources()


def test_a_class_without_source_is_taken_all_the_same():
    space: dict[str, Any] = {}
    exec("from torch import nn\nclass Typed(nn.Flatten): pass\n", space)
    student = nn.Sequential(space["Typed"](), nn.Linear(64, 10))
    assert made(recipe(student=None), student=student).content["student"]["source"]


# Weights, pictures


def test_weights_are_told_to_the_last_bit_and_however_they_lie():
    layer = nn.Conv2d(3, 4, 3)
    digest = weights_of(Network(layer))
    weight = layer.weight.detach().clone()
    layer.weight.data = weight.contiguous(memory_format=torch.channels_last)
    assert weights_of(Network(layer)) == digest
    weight[3, 2, 1, 0] = torch.nextafter(weight[3, 2, 1, 0], torch.tensor(9.0))
    layer.weight.data = weight
    assert weights_of(Network(layer)) != digest


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_type_are_other_weights(dtype: torch.dtype):
    layer = nn.Linear(2, 2)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    digest = weights_of(Network(layer))
    assert weights_of(Network(layer.to(dtype))) != digest


def test_buffers_are_weights_too():
    norm = nn.BatchNorm2d(2)
    digest = weights_of(Network(norm))
    assert norm.running_mean is not None
    norm.running_mean[1] = 0.5
    assert weights_of(Network(norm)) != digest


def test_pictures_are_told_by_pixels_and_labels():
    pictures = digits().train
    digest = content_of(pictures)
    assert content_of(digits().train) == digest
    pictures.labels[5] += 1
    assert content_of(pictures) != digest
    pictures.labels[5] -= 1
    pictures.images[3, 2, 1, 0] ^= 1
    assert content_of(pictures) != digest


# Identity


def test_settings_and_seed_change_the_identity(teacher: Path):
    values = [
        distilled(teacher),
        distilled(teacher, seed=1),
        distilled(teacher, steps=4),
        distilled(teacher, precision="bf16"),
        distilled(teacher, optimizer={"name": "sgd", "lr": 0.05}),
        distilled(teacher, methods={"kd": {"weight": 0.8}}),
        distilled(teacher, methods={"kd": {"weight": 0.9, "temperature": 5}}),
        distilled(teacher, methods=HINTS),
        distilled(teacher, task_weight=0.2),
        distilled(teacher, student={"name": "resnet8", "width": 3}),
        distilled(teacher, data={"source": "digits", "validation": 100, "labelled": 201}),
        recipe(),
    ]
    assert len({identity(value) for value in values}) == len(values)


def test_what_only_watches_does_not_change_the_identity(teacher: Path):
    watched = {"checkpoint_every": 1, "log_every": 2, "trackers": ["tensorboard"]}
    assert identity(distilled(teacher, **watched)) == identity(distilled(teacher))


def test_defaults_written_out_do_not_change_the_identity(teacher: Path):
    short = distilled(teacher)
    long = distilled(teacher, methods={"kd": {"weight": 0.9, "temperature": 4.0}}, taps="auto")
    assert identity(short) == identity(long)


def test_where_files_lie_is_no_part_of_it_but_what_is_in_them_is(teacher: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(teacher, moved)
    assert identity(distilled(moved)) == identity(distilled(teacher))
    weights = load_file(moved / "student.safetensors")
    nudge(moved / "student.safetensors")
    assert identity(distilled(moved)) != identity(distilled(teacher))

    def checkpoint(file: str) -> dict[str, Any]:
        entry = {"name": "resnet8", "width": 8, "checkpoint": file}
        return distilled(teacher, teacher=entry)

    torch.save(weights, tmp_path / "a.th")
    save_file(weights, tmp_path / "b.safetensors")
    first = identity(checkpoint(str(tmp_path / "a.th")))
    assert first == identity(checkpoint(str(tmp_path / "b.safetensors")))
    nudge(tmp_path / "b.safetensors")
    assert first != identity(checkpoint(str(tmp_path / "b.safetensors")))


def nudge(file: Path) -> None:
    """Another last weight, in place."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_pictures_are_part_of_it_but_not_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def of(path: Path) -> str:
        source = {"name": "arrays", "path": str(path)}
        return identity(recipe(data={"source": source, "validation": 20}))

    first = of(write_arrays(tmp_path / "three.npz"))
    assert of(write_arrays(tmp_path / "other" / "copy.npz")) == first
    assert of(write_arrays(tmp_path / "changed.npz", change=1)) != first


def test_threads_device_and_versions_are_part_of_it():
    unsaid = recipe(threads=None)
    assert identity(unsaid, threads=1) != identity(unsaid, threads=2)
    assert identity(recipe(threads=2), threads=1) == identity(unsaid, threads=2)
    assert identity(unsaid, device="cuda") != identity(unsaid)
    built = made(unsaid)
    other = versions() | {"torch": "1.0"}
    assert identity_of(built, 1, "cpu", other) != identity(unsaid)
    assert identity_of(built, 1, "cpu", versions() | {"numpy": "1.0"}) == identity(unsaid)


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("engine/loop.py", True),
        ("data/subsets.py", True),
        ("data/digits.py", True),
        ("models/cifar_resnet.py", True),
        ("methods/kd.py", True),
        ("methods/fitnet_hints.py", False),
        ("data/arrays.py", False),
        ("cli/main.py", False),
    ],
)
def test_the_code_of_what_is_used_is_part_of_it(
    module: str, counts: bool, teacher: Path, monkeypatch: pytest.MonkeyPatch
):
    built = made(distilled(teacher, student={"run": str(teacher)}))  # no entry names a network
    before = code_of(built)
    file = provenance._file

    def changed(name: str) -> Any:
        path = file(name)
        return Edited(path) if path.as_posix().endswith(module) else path

    monkeypatch.setattr(provenance, "_file", changed)
    provenance._read.cache_clear()
    assert (code_of(built) != before) == counts
    provenance._read.cache_clear()


class Edited:
    """A file as it would be after an edit."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_text(self) -> str:
        return self._path.read_text() + "\nEDITED = True\n"

    def is_file(self) -> bool:
        return self._path.is_file()


def test_parts_name_what_differs(teacher: Path):
    def parts(value: dict[str, Any]) -> dict[str, Any]:
        return identity_parts(made(value), 1, "cpu", versions())

    one, other = parts(distilled(teacher)), parts(distilled(teacher, seed=1))
    assert {key for key in one if one[key] != other[key]} == {"recipe"}
    assert {"recipe", "content", "versions", "device", "threads", "code"} == one.keys()


# Test stays out of reach where a choice is made


def test_a_choice_gets_no_test_pictures():
    built = made(recipe(), with_test=False)
    assert built.test is None
    assert len(built.split.test) == 0
    assert built.content == made(recipe()).content
