import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import recipe

from tutelage.data.digits import digits
from tutelage.records import RunFolder
from tutelage.runs import measuring, train


@pytest.fixture
def mine(inside: Path, tmp_path: Path) -> RunFolder:
    """A copy of the student's run, that may be changed."""
    shutil.copytree(inside / "runs" / "student", tmp_path / "student")
    return RunFolder(tmp_path / "student")


def test_the_record_is_shown_and_found_true(inside: Path, call: Any):
    said = call("evaluate", "runs/student")
    record = RunFolder(inside / "runs" / "student").read_record()
    assert said.code == 0
    assert said.out.startswith("student\n")
    student = record["students"]["student"]
    for name in ("validation_accuracy", "test_accuracy", "agreement"):
        assert f"{100 * student[name]:.1f} %" in said.out
    assert "its teacher" in said.out
    assert record["readings"][0]["purpose"] in said.out
    assert said.out.count("test read") == 1
    assert "measured again" in said.out
    assert "as recorded" in said.out


def test_json_is_one_object_and_nothing_else(inside: Path, call: Any):
    said = call("evaluate", "runs/student", "--json")
    found = json.loads(said.out)
    record = RunFolder(inside / "runs" / "student").read_record()
    assert found["record"] == record
    expected = record["students"]["student"]["validation_accuracy"]
    assert found["again"] == {"validation_accuracy": expected}


def test_a_record_that_is_no_longer_true_is_found_out(mine: RunFolder, call: Any):
    record = mine.read_record()
    record["students"]["student"]["validation_accuracy"] = 0.987
    mine.record.write_text(json.dumps(record))
    said = call("evaluate", mine.path)
    assert "but the record says 0.9870" in said.out


def test_test_is_read_again_only_when_asked_and_then_entered(mine: RunFolder, call: Any):
    before = mine.read_record()
    assert call("evaluate", mine.path).code == 0
    assert mine.read_record() == before
    said = call("evaluate", mine.path, "--test", "--json")
    after = mine.read_record()
    assert json.loads(said.out)["record"] == after
    assert after["readings"][:-1] == before["readings"]
    assert after["readings"][-1]["command"] == f"tutelage evaluate {mine.path} --test --json"
    assert after | {"readings": []} == before | {"readings": []}
    again = json.loads(said.out)["again"]
    assert again.keys() == {"validation_accuracy", "test_accuracy", "agreement"}
    assert again.items() <= before["students"]["student"].items()


def test_what_is_entered_while_test_is_read_stays(
    mine: RunFolder, call: Any, monkeypatch: pytest.MonkeyPatch
):
    def meanwhile(*arguments: Any) -> None:
        measuring.add_test(*arguments)
        with mine.changing() as record:
            record["bench"] = {"lines": []}
            measuring.enter_reading(record, "another command", "of others")

    monkeypatch.setattr("tutelage.runs.readings.add_test", meanwhile)
    before = mine.read_record()
    assert call("evaluate", mine.path, "--test").code == 0
    after = mine.read_record()
    assert after["bench"] == {"lines": []}
    assert len(after["readings"]) == len(before["readings"]) + 2


def test_a_run_that_never_read_test_gets_its_first_reading(inside: Path, call: Any, tmp_path: Path):
    recipe = RunFolder(inside / "runs" / "student").recipe
    train(recipe, name="blind", runs=tmp_path, with_test=False, shown=False)
    blind = RunFolder(tmp_path / "blind")
    assert "test read       never" in call("evaluate", blind.path).out
    assert "test_accuracy" not in blind.read_record()["students"]["student"]
    assert call("evaluate", blind.path, "--test").code == 0
    record = blind.read_record()
    assert len(record["readings"]) == 1
    known = RunFolder(inside / "runs" / "student").read_record()
    assert record["students"]["student"]["test_accuracy"] == pytest.approx(
        known["students"]["student"]["test_accuracy"], abs=0.02
    )
    assert "test_accuracy" in record["teacher"]


def test_without_test_the_teacher_may_be_gone(
    mine: RunFolder, call: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(mine.path)
    assert call("evaluate", ".").code == 0
    code, _, err = call("evaluate", ".", "--test")
    assert code == 2
    assert "runs/teacher" in err


def test_other_pictures_are_refused(mine: RunFolder, call: Any):
    record = mine.read_record()
    record["content"]["train"] = "0" * 16
    mine.record.write_text(json.dumps(record))
    code, out, err = call("evaluate", mine.path)
    assert (code, out) == (2, "")
    assert "this has changed: training pictures" in err


# More than answers


def test_corruptions_and_similarity_are_measured_and_entered(mine: RunFolder, call: Any):
    said = call("evaluate", mine.path, "--test", "--corruptions", "20", "--similarity")
    assert said.code == 0, said.err
    record = mine.read_record()
    student = record["students"]["student"]
    assert student["robustness"]["pictures"] == 20 == record["teacher"]["robustness"]["pictures"]
    assert len(student["robustness"]["corruptions"]) >= 12
    assert [pair["student"] for pair in student["similarity"]] == ["layer1", "layer2", "layer3"]
    assert "corruptions of 20 pictures, similarity of maps" in record["readings"][-1]["purpose"]
    for words in ("corrupted", "over 1", "similarity", "layer1 to layer1", "calibration", "ECE"):
        assert words in said.out, words


@pytest.mark.parametrize(
    "options", [["--corruptions", "20"], ["--similarity"], ["--soft-labels", "x.npy"]]
)
def test_what_reads_test_says_so(mine: RunFolder, call: Any, options: list[str]):
    before = mine.read_record()
    said = call("evaluate", mine.path, *options)
    assert said.code == 2
    assert "Add --test." in said.err
    assert mine.read_record() == before


def test_peoples_labels(mine: RunFolder, call: Any, tmp_path: Path):
    count = mine.read_record()["data"]["test"]
    np.save(tmp_path / "people.npy", np.ones((count, 10)))
    said = call("evaluate", mine.path, "--test", "--soft-labels", tmp_path / "people.npy")
    assert said.code == 0, said.err
    people = mine.read_record()["students"]["student"]["people"]
    assert people.keys() == {"cross_entropy", "kl", "top1"}
    np.save(tmp_path / "people.npy", np.ones((count + 1, 10)))
    before = mine.read_record()
    said = call("evaluate", mine.path, "--test", "--soft-labels", tmp_path / "people.npy")
    assert (said.code, said.out) == (2, "")
    assert "one row per test picture" in said.err
    assert mine.read_record() == before


# A verdict


@pytest.mark.parametrize(
    ("limits", "code", "answer"),
    [
        ("max_drop=100,latency_ms=10000", 0, "yes"),
        ("max_drop=100,latency_ms=0", 1, "no"),
        ("latency_ms=10000", 0, "yes"),
    ],
)
def test_a_verdict_has_an_exit_code_and_is_entered(
    mine: RunFolder, call: Any, limits: str, code: int, answer: str
):
    said = call("evaluate", mine.path, "--accept", limits)
    assert said.code == code
    assert f"accepted: {answer}" in said.out
    found = call("evaluate", mine.path, "--accept", limits, "--json")
    assert found.code == code
    told = json.loads(found.out)["accepted"]
    first, second = mine.read_record()["accepted"]
    assert (told, told["answer"]) == (second, answer)
    assert first["reasons"] == second["reasons"]
    assert f"--accept {limits}" in first["command"]


def test_a_limit_that_is_none_is_refused_before_anything_is_measured(inside: Path, call: Any):
    said = call("evaluate", "runs/nowhere", "--accept", "max_dorp=1")
    assert said.code == 2
    assert "did you mean max_drop?" in said.err


# Any model on any pictures


@pytest.mark.parametrize(
    "data", ["digits", "{name: digits}", "arrays:pictures.npz", "pictures.npz"]
)
def test_any_model_is_measured_on_any_pictures(
    mine: RunFolder, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
):
    source = digits()
    parts = {"train": source.train, "test": source.test}
    arrays: dict[str, Any] = {f"{name}_images": part.images.numpy() for name, part in parts.items()}
    arrays |= {f"{name}_labels": part.labels.numpy() for name, part in parts.items()}
    np.savez(tmp_path / "pictures.npz", **arrays)
    monkeypatch.chdir(tmp_path)
    run = mine.path
    before = mine.read_record()["readings"]
    for model in (run, run / "student.safetensors"):
        said = call("evaluate", model, "--data", data, "--json")
        assert said.code == 0, said.err
        measured = json.loads(said.out)["measured"]
        recorded = RunFolder(run).read_record()["students"]["student"]
        assert measured["test_accuracy"] == recorded["test_accuracy"]
        assert measured["test"]["confusion"] == recorded["test"]["confusion"]
    text = call("evaluate", run, "--data", data).out
    assert "top-1" in text
    assert "worst classes" in text
    own = "digits" in data  # the run's own test pictures: that is entered
    entered = mine.read_record()["readings"][len(before) :]
    assert [one["purpose"] for one in entered] == [
        "asked for after the run was finished, as of any model"
    ] * (3 * own)


@pytest.mark.filterwarnings("ignore:.*this file is code:UserWarning")
def test_a_network_that_a_function_makes_is_measured_on_any_pictures(call: Any, tmp_path: Path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(num_classes, in_channels):\n"
        "    pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten()]\n"
        "    return nn.Sequential(*pool, nn.Linear(4 * in_channels, num_classes))\n"
    )
    said = recipe(student={"python": f"{tmp_path}/net.py:make"})
    folder = train(said, name="own", runs=tmp_path, shown=False).folder
    answer = call("evaluate", folder, "--data", "digits", "--json")
    assert answer.code == 0, answer.err
    recorded = RunFolder(folder).read_record()["students"]["student"]
    measured = json.loads(answer.out)["measured"]
    assert measured["test"]["confusion"] == recorded["test"]["confusion"]
    assert call("taps", folder, "resnet8", "--size", "8", "--channels", 1).code == 0


def test_weights_for_a_network_that_is_known_by_name(inside: Path, call: Any):
    file = inside / "runs" / "student" / "student.safetensors"
    said = call("evaluate", f"{file}:resnet8", "--data", "digits")
    assert said.code == 2  # of another width
    assert "weights" in said.err or "shape" in said.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "digit"], "did you mean digits?"),
        (["--data", "cifar10:nowhere"], "nowhere"),
        (["--data", "nothing.npz"], "There is no file nothing.npz"),
        (["--data", "{name: digits, colour: red}"], "'colour' is no key of digits"),
        (["--data", "{name"], "not YAML"),
        (["--data", "digits", "--test"], "Leave --test, --accept and --subnet out"),
        (
            ["--data", "digits", "--accept", "latency_ms=1"],
            "Leave --test, --accept and --subnet out",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(
    inside: Path, call: Any, words: list[str], expected: str
):
    said = call("evaluate", "runs/student", *words)
    assert (said.code, said.out) == (2, "")
    assert expected in said.err


def test_other_classes_are_refused(inside: Path, call: Any, tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(12) % 3
    arrays = {"train_images": images, "train_labels": labels}
    np.savez(tmp_path / "three.npz", **arrays, test_images=images, test_labels=labels)
    said = call("evaluate", "runs/student", "--data", tmp_path / "three.npz")
    assert said.code == 2
    assert "10 classes, but the data has 3" in said.err


def test_a_sub_net_is_measured_by_name(call: Any, tmp_path: Path):
    deep = recipe(student={"name": "resnet14", "width": 2, "subnets": {"8": 1}}, steps=40)
    folder = train(deep, name="deep", runs=tmp_path, shown=False).folder
    said = call("evaluate", folder, "--subnet", "8")
    known = RunFolder(folder).read_record()["students"]["8"]
    assert said.code == 0
    assert "sub-net" in said.out
    assert f"({known['validation_accuracy']:.4f}), as recorded" in said.out
    said = call("evaluate", folder, "--subnet", "9")
    assert said.code == 2
    assert "no sub-net '9'" in said.err
    said = call("evaluate", folder, "--subnet", "8", "--data", "digits")
    assert said.code == 2
    assert "--subnet" in said.err
