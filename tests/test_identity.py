"""What makes two runs the same, to the last bit, and what makes them two."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import Pool, distilled, recipe, train_teacher
from torch import nn

from tutelage import provenance
from tutelage.build import Built, build
from tutelage.data.digits import digits
from tutelage.identity import identity_parts, pictures_of, weights_of
from tutelage.models.network import Network
from tutelage.provenance import digest, versions
from tutelage.recipes import validate

HINTS = {"fitnet_hints": {"weight": 10.0}}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_teacher(tmp_path_factory.mktemp("runs"))


def made(value: dict[str, Any], **objects: Any) -> Built:
    return build(validate(value, "x"), **objects)


def parts_of(built: Built, **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"threads": 1, "device": "cpu", "versions": versions()}
    return identity_parts(built.recipe, built.content, built.code, **usual | changes)


def identity(value: dict[str, Any], **changes: Any) -> str:
    return digest(parts_of(made(value), **changes))


def write_arrays(path: Path, change: int = 0) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(60) % 3
    images[7, 0, 0, 0] ^= change
    path.parent.mkdir(exist_ok=True)
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    return path


# Objects given in Python


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
    assert parts_of(other) != parts_of(one)


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
    digest = pictures_of(pictures)
    assert pictures_of(digits().train) == digest
    pictures.labels[5] += 1
    assert pictures_of(pictures) != digest
    pictures.labels[5] -= 1
    pictures.images[3, 2, 1, 0] ^= 1
    assert pictures_of(pictures) != digest


def test_pictures_are_told_by_shape_number_and_hidden_labels():
    pictures = digits(test=500).train
    lying = replace(pictures, pixels=pictures.images.reshape(-1, 4, 16, 1))
    hidden = replace(pictures, has_label=pictures.has_label.clone())
    hidden.has_label[9] = False
    renumbered = replace(pictures, index=pictures.index.flip(0))
    assert len({pictures_of(one) for one in (pictures, lying, hidden, renumbered)}) == 4


def test_classes_and_pixel_statistics_are_content():
    source = digits()
    value = recipe(data={"source": None, "validation": 100})
    contents = [
        made(value, data=changed).content["source"]
        for changed in (
            source,
            replace(source, classes=("nought", *source.classes[1:])),
            replace(source, classes=(*source.classes, "ten")),
            replace(source, mean=(0.25,)),
            replace(source, std=(0.25,)),
        )
    ]
    assert len(set(contents)) == 5


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


def test_the_order_of_methods_does_not_change_the_identity(teacher: Path):
    kd = {"kd": {"weight": 0.9}}
    one, other = (made(distilled(teacher, methods=m)) for m in (kd | HINTS, HINTS | kd))
    assert parts_of(one) == parts_of(other)
    assert one.distiller.term_names == other.distiller.term_names


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
    now = versions()
    assert identity(unsaid, versions=now | {"torch": "1.0"}) != identity(unsaid)
    assert identity(unsaid, versions=now | {"numpy": "1.0"}) == identity(unsaid)
    older, patched = (identity(unsaid, versions=now | {"python": v}) for v in ("3.8.1", "3.8.2"))
    assert older == patched != identity(unsaid)


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("build.py", True),
        ("engine/loop.py", True),
        ("data/subsets.py", True),
        ("data/digits.py", True),
        ("models/cifar_resnet.py", True),
        ("methods/kd.py", True),
        ("methods/fitnet_hints.py", False),
        ("data/arrays.py", False),
        ("cli/main.py", False),
        ("identity.py", False),
        ("recipes/recipe.py", False),
    ],
)
def test_the_code_of_what_is_used_is_part_of_it(
    module: str, counts: bool, teacher: Path, monkeypatch: pytest.MonkeyPatch
):
    value = distilled(teacher, student={"run": str(teacher)})  # no entry names a network
    before = made(value).code
    file = provenance._file

    def changed(name: str) -> Any:
        path = file(name)
        return Edited(path) if path.as_posix().endswith(module) else path

    monkeypatch.setattr(provenance, "_file", changed)
    provenance._read.cache_clear()
    assert (made(value).code != before) == counts
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
    one, other = (parts_of(made(distilled(teacher, seed=seed))) for seed in (0, 1))
    assert {key for key in one if one[key] != other[key]} == {"recipe"}
    assert {"recipe", "content", "versions", "device", "threads", "code"} == one.keys()
