"""What a recipe says of a network becomes that network, shown what it wants."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import distilled, recipe, train_teacher
from torch import nn

import tutelage
from tutelage.build import build
from tutelage.data.arrays import arrays
from tutelage.distiller import Distiller
from tutelage.errors import NetworkError, RunError, TeacherError, TutelageError
from tutelage.identity import identity_parts, weights_of
from tutelage.methods import METHODS
from tutelage.models.network import Network
from tutelage.networks import spec_of
from tutelage.provenance import versions
from tutelage.recipes import validate
from tutelage.records import RunFolder
from tutelage.runs import evaluate, train
from tutelage.types import InputSpec

NET = """
from torch import nn

def make(num_classes, in_channels, width=3):
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(width, num_classes),
    )
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path}/net.py:make"


def built(value: dict[str, Any], **given: Any) -> Any:
    return build(validate(value, "r.yaml"), with_test=False, **given)


def parts(value: dict[str, Any]) -> dict[str, Any]:
    made = built(value)
    return identity_parts(
        made.recipe, made.content, made.code, threads=1, device="cpu", versions=versions()
    )


# What a network is shown


def source(channels: int, tmp_path: Path) -> Any:
    generator = np.random.default_rng(0)
    values: dict[str, Any] = {
        name: generator.integers(0, 256, (20, 12, 10, channels), dtype=np.uint8)
        for name in ("train_images", "test_images")
    }
    labels = np.arange(20) % 2
    path = tmp_path / "p.npz"
    np.savez(path, **values, train_labels=labels, test_labels=labels)
    return arrays(path=str(path))


def test_ours_is_shown_pictures_as_they_are(tmp_path: Path):
    data = source(3, tmp_path)
    assert spec_of(data, {"name": "resnet8"}) == InputSpec(12, 10, 3, data.mean, data.std)


def test_a_network_of_the_zoo_is_shown_what_it_was_made_for(tmp_path: Path):
    data = source(3, tmp_path)
    assert spec_of(data, {"name": "resnet18"}) == InputSpec(
        12, 10, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    half = (0.5, 0.5, 0.5)
    assert spec_of(data, {"name": "vit_tiny_patch16_224"}) == InputSpec(224, 224, 3, half, half)


def test_an_entry_has_the_last_word(tmp_path: Path):
    data = source(3, tmp_path)
    entry = {"name": "vit_tiny_patch16_224", "size": [32, 48], "mean": [0, 0, 0], "std": [1, 1, 1]}
    assert spec_of(data, entry) == InputSpec(32, 48, 3, (0, 0, 0), (1, 1, 1))


def test_gray_pictures_go_to_an_rgb_network_and_the_other_way_round(tmp_path: Path):
    gray = source(1, tmp_path)
    assert spec_of(gray, {"name": "resnet8", "channels": 3}).mean == gray.mean * 3
    assert spec_of(gray, {"name": "resnet18", "channels": 3}).mean == (0.485, 0.456, 0.406)
    assert spec_of(gray, {"name": "resnet18"}).mean == gray.mean
    color = source(3, tmp_path)
    red, green, blue = color.mean
    expected = 0.299 * red + 0.587 * green + 0.114 * blue
    assert spec_of(color, {"name": "resnet8", "channels": 1}).mean == pytest.approx((expected,))
    with pytest.raises(NetworkError, match="mean has 1 numbers, but the network is shown 3"):
        spec_of(gray, {"name": "resnet8", "channels": 3, "mean": [0.5]})


def test_student_and_teacher_see_one_picture_in_their_own_sizes(teacher: Path, runs: Path):
    value = distilled(
        teacher,
        student={
            "name": "mobilenetv3_small_050",
            "channels": 3,
            "size": 32,
        },
    )
    run = train(value, name="x", runs=runs, shown=False)
    student = run.student()
    assert student.spec == InputSpec(32, 32, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert run.record["recipe"]["student"]["size"] == [32, 32]
    assert student(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert evaluate(run.folder)["again"]["validation_accuracy"] is not None


def test_a_network_that_fails_on_such_pictures_is_refused_with_a_way_out():
    with pytest.raises(NetworkError, match=r"student fails on pictures of 8×8 .*Give size:"):
        built(recipe(student={"name": "torchvision/alexnet", "channels": 3}))


def test_a_pretrained_student_is_fetched_once_and_lies_with_the_run(
    runs: Path, monkeypatch: pytest.MonkeyPatch
):
    fetched: list[str] = []

    def fill(model: nn.Module, **_: Any) -> None:
        fetched.append(type(model).__name__)
        nn.init.constant_(model.get_parameter("bn1.bias"), 0.125)

    monkeypatch.setattr("timm.models._builder.load_pretrained", fill)
    entry = {"name": "resnet10t", "pretrained": True, "channels": 3, "size": 32}
    value = recipe(student=entry, optimizer={"name": "sgd", "lr": 1e-9})
    before = parts(value)
    assert before["content"]["student"]  # its weights are part of what it is
    run = train(value, name="x", runs=runs, with_test=False, shown=False)
    count = len(fetched)
    assert (run.student().module.get_parameter("bn1.bias") - 0.125).abs().max() < 1e-3
    assert len(fetched) == count


@pytest.fixture
def fetched_but_for_its_head(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The entry of a network of timm's whose weights are fetched, but for the head's."""

    def fill(model: nn.Module, **_: Any) -> None:
        for name, weight in model.named_parameters():
            if not name.startswith("fc."):
                nn.init.constant_(weight, 0.125)

    monkeypatch.setattr("timm.models._builder.load_pretrained", fill)
    return {"name": "resnet10t", "pretrained": True, "channels": 3, "size": 32}


def test_of_a_pretrained_student_the_drawn_head_is_no_part_of_what_it_is(
    fetched_but_for_its_head: dict[str, Any],
):
    entry = fetched_but_for_its_head
    one, other = (built(recipe(student=entry, seed=seed)) for seed in (0, 1))
    assert weights_of(one.student) != weights_of(other.student)
    assert one.content["student"] == other.content["student"]


def test_a_pretrained_teacher_of_other_classes_is_the_same_each_time(
    fetched_but_for_its_head: dict[str, Any],
):
    entry = fetched_but_for_its_head
    asked = recipe(
        teacher=entry | {"class_map": "none"}, methods={"attention_transfer": {"weight": 1}}
    )
    one, other = (built(asked | {"seed": seed}) for seed in (0, 1))
    assert one.content["teacher"] == other.content["teacher"]


def test_timms_version_is_part_of_a_run_that_has_a_network_from_there():
    ours, theirs = recipe(), recipe(student={"name": "resnet10t", "channels": 3, "size": 32})
    assert "timm" not in parts(ours)["versions"]
    assert parts(theirs)["versions"]["timm"] == versions()["timm"]
    assert parts(theirs)["code"] != parts(ours)["code"]


# Made by a function


def test_a_function_makes_a_student_that_resumes_is_measured_and_teaches(
    net: str, runs: Path, teacher: Path
):
    value = recipe(student={"python": net, "arguments": {"width": 5}}, steps=60, batch_size=100)
    with pytest.warns(UserWarning, match="is code, and runs now"):
        run = train(value, name="x", runs=runs, shown=False)
    state = load_file(run.folder / "student.safetensors")
    assert state["0.weight"].shape == (5, 1, 3, 3)
    with pytest.warns(UserWarning, match="student is made by"):
        again = evaluate(run.folder, with_test=True)["again"]
    assert again["test_accuracy"] == run.record["students"]["student"]["test_accuracy"]
    with pytest.raises(RunError, match="somebody's own code"):
        tutelage.load(run.folder)  # a file that somebody sends runs nothing
    with pytest.warns(UserWarning, match="teacher is made by"):
        taught = built(distilled(run.folder))
    assert torch.equal(taught.teacher.module[0].weight, state["0.weight"])


def test_what_is_in_the_file_is_part_of_the_run(net: str):
    value = recipe(student={"python": net})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = parts(value)
        path = Path(net.removesuffix(":make"))
        path.write_text(NET.replace("nn.ReLU()", "nn.GELU()"))
        assert parts(value) != first
        path.write_text(NET)
        assert parts(value) == first


# Other classes


def test_a_teacher_of_other_classes_is_refused_and_mapped_by_name(
    teacher: Path, runs: Path, tmp_path: Path
):
    digits = build(validate(recipe(), "x"), with_test=True).source
    order = [7, 3, 5]
    values = {}
    for part in ("train", "test"):
        pictures = getattr(digits, part)
        keep = [n for n, label in enumerate(pictures.labels.tolist()) if label in order]
        values[f"{part}_images"] = pictures.images[keep].numpy()
        labels = pictures.labels[keep].tolist()
        values[f"{part}_labels"] = np.array([order.index(label) for label in labels])
    path = tmp_path / "three.npz"
    np.savez(path, **values, classes=np.array([digits.classes[label] for label in order]))
    data = {"source": {"name": "arrays", "path": str(path)}, "validation": 50, "labelled": 100}
    with pytest.raises(TeacherError, match=r"teacher's classes are 0, 1, 2, 3, … \(10\), and the "):
        built(distilled(teacher, data=data))
    plain = tutelage.load(teacher)
    images = torch.rand(4, 1, 8, 8)
    for said in ("names", order, {digits.classes[n]: n for n in order}):
        value = distilled(teacher, data=data)
        value["teacher"] |= {"class_map": said}
        made = built(value)
        torch.testing.assert_close(made.teacher(images), plain(images)[:, order])
        assert made.content["class_map"] == [[7], [3], [5]]
    run = train(value, name="x", runs=runs, shown=False)
    assert run.record["teacher"]["test_accuracy"] > 0.5


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([0, 1], "has 2 entries, but the data has 10 classes"),
        ({"0": 0}, "says nothing of the data's class '1'"),
        ({"zero": 0}, "names 'zero', which is no class of the data"),
        ([*range(9), 10], "names class 10, but the network has the classes 0 … 9"),
        ([*range(9), 8], "names class 8 of the network twice"),
        ([*range(9), "ten"], "knows no class 'ten', for the data's '9'"),
    ],
)
def test_a_map_that_does_not_fit_is_refused_in_one_sentence(said: Any, words: str, teacher: Path):
    value = distilled(teacher)
    value["teacher"] |= {"class_map": said}
    with pytest.raises(TutelageError, match=words):
        built(value)


def test_names_of_a_teachers_classes_are_given_in_a_file(teacher: Path, tmp_path: Path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"digit {n}" for n in range(10)) + "\n")
    file = teacher / "student.safetensors"
    entry = {
        "name": "resnet8",
        "width": 8,
        "checkpoint": str(file),
        "classes": str(names),
        "class_map": [f"digit {n}" for n in reversed(range(10))],
    }
    made = built(distilled(teacher, teacher=entry))
    images = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(made.teacher(images), tutelage.load(teacher)(images).flip(1))
    with pytest.raises(TeacherError, match="cannot be read"):
        built(distilled(teacher, teacher=entry | {"classes": str(tmp_path / "no.txt")}))


def test_the_map_is_part_of_what_a_run_is(teacher: Path):
    value = distilled(teacher)
    mapped = distilled(teacher)
    mapped["teacher"] |= {"class_map": [*range(8), 9, 8]}
    assert parts(value)["content"] != parts(mapped)["content"]


# Any callable


def test_any_callable_teaches():
    student = Network(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), InputSpec(8, 8, 1, (0.5,), (1,))
    )
    pupil = Distiller(
        student,
        lambda images: images.mean(dim=(1, 2))[:, :3] * 4,
        methods={"kd": (METHODS["kd"](), 1.0)},
        task_weight=0.0,
    )
    images = torch.rand(5, 1, 8, 8)
    out = pupil(images, torch.zeros(5, dtype=torch.int64))
    soft = [
        (logits / 4).softmax(dim=1) for logits in (images.mean(dim=(1, 2))[:, :3] * 4, out.output)
    ]
    expected = 16 * (soft[0] * (soft[0] / soft[1]).log()).sum(dim=1).mean()
    torch.testing.assert_close(out.loss, expected)


def twice(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)[:, :10] * 2


def test_a_callable_is_recorded_by_its_source():
    made = built(recipe(methods={"kd": {"weight": 1.0}}), teacher=twice)
    assert made.content["teacher"]["class"].endswith("Called")
    other = built(recipe(methods={"kd": {"weight": 1.0}}), teacher=lambda x: twice(x) + 1)
    assert made.content["teacher"]["source"] != other.content["teacher"]["source"]


def test_a_run_says_how_its_student_was_made(runs: Path):
    run = train(recipe(), name="x", runs=runs, with_test=False, shown=False)
    with safe_open(RunFolder(run.folder).student, framework="pt") as file:
        said = json.loads(file.metadata()["tutelage"])
    assert said["classes"] == [str(n) for n in range(10)]
