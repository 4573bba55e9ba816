"""Runs of a network with sub-nets: what their records say, and what can be taken out."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from tiny import distilled, recipe

import tutelage
from tutelage.build import build
from tutelage.cli.evaluate import text
from tutelage.distiller import Distiller
from tutelage.engine.session import Session
from tutelage.errors import (
    CheckpointError,
    NetworkError,
    NoEffectWarning,
    SettingError,
    TeacherError,
)
from tutelage.evaluation.cost import num_parameters
from tutelage.methods import KD
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.depth_dynamic import DepthDynamic
from tutelage.recipes import validate
from tutelage.records import RunFolder
from tutelage.report.acceptance import Limits
from tutelage.runs import Extras, bench, evaluate, export, open_model, train
from tutelage.teachers import LiveTeacher

DEEP = {"name": "resnet20", "width": 2, "subnets": {"14": 2, "8": [1, 1, 1]}}
METHOD = {"embedded_distillation": {"weight": {"kl": 1.5, "attention": 1}}}


def run(runs: Path, name: str = "deep", **changes: Any) -> Path:
    asked = recipe(**{"student": DEEP, "methods": METHOD, "steps": 40, "batch_size": 100} | changes)
    return train(asked, name=name, runs=runs, shown=False).folder


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("runs"))


def test_the_record_knows_each_of_them(deep: Path) -> None:
    record = RunFolder(deep).read_record()
    students = record["students"]
    assert list(students) == ["student", "14", "8"]
    for name, depth in (("student", 20), ("14", 14), ("8", 8)):
        alone = cifar_resnet(depth, 2, in_channels=1)
        assert students[name]["parameters"] == num_parameters(alone)
        assert 0 <= students[name]["test_accuracy"] <= 1
        assert students[name]["test"]["correct"]
    assert students["8"]["macs"] < students["14"]["macs"] < students["student"]["macs"]
    assert len({entry["weights"] for entry in students.values()}) == 3
    # Norms of their own: of blocks of width 2, 4 and 8, two norms each.
    own = 2 * (2 * 2 + 2 * 4 + 2 * 8)
    assert record["depths"] == {
        "blocks": {"full": [3, 3, 3], "14": [2, 2, 2], "8": [1, 1, 1]},
        "parameters": students["student"]["parameters"] + 2 * own + own,
        "own_parameters": 3 * own,
    }
    logged = [json.loads(line) for line in RunFolder(deep).metrics.read_text().splitlines()]
    terms = {"supervised/14", "supervised/8", "embedded_distillation.kl/14"}
    assert terms <= logged[-1].keys() | logged[-1].get("terms", {}).keys()


def test_one_is_taken_out_as_an_ordinary_network(deep: Path) -> None:
    whole = tutelage.load(deep)
    assert isinstance(whole.module, DepthDynamic)
    images = torch.rand(3, 1, 8, 8)
    for name in ("full", "14", "8"):
        alone = tutelage.load(deep, subnet=name)
        assert type(alone.module).__name__ == "CifarResNet"
        assert not alone.training
        whole.module.use(name)
        assert torch.equal(alone(images), whole(images))
    with pytest.raises(NetworkError, match="'9'"):
        tutelage.load(deep, subnet="9")


def test_evaluate_measures_the_one_that_is_named(deep: Path) -> None:
    record = RunFolder(deep).read_record()
    for name in ("student", "14"):
        found = evaluate(deep, subnet=None if name == "student" else name)
        wanted = record["students"][name]["validation_accuracy"]
        assert found["again"] == {"validation_accuracy": wanted}
        assert f"({wanted:.4f}), as recorded" in text(found, name)
    assert "sub-net  " in text(evaluate(deep, subnet="14"), "14")
    with pytest.raises(NetworkError, match="no sub-net '9'"):
        evaluate(deep, subnet="9")
    assert evaluate(deep, subnet="full")["again"] == evaluate(deep)["again"]


@pytest.mark.slow
def test_all_are_read_on_test_and_shown_corruptions(tmp_path: Path) -> None:
    folder = run(tmp_path)
    before = RunFolder(folder).read_record()["students"]
    limits = Limits(latency_ms=1e6)
    found = evaluate(
        folder, with_test=True, extras=Extras(corruptions=20), subnet="8", limits=limits
    )
    students = found["record"]["students"]
    for name, entry in students.items():
        assert entry["test_accuracy"] == before[name]["test_accuracy"]
        assert entry["robustness"]["pictures"] == 20
    assert found["accepted"]["answer"] == "yes"
    assert found["accepted"]["subnet"] == "8"
    assert len(found["record"]["readings"]) == 2


def test_a_sub_net_teaches_and_is_trained_on(deep: Path, tmp_path: Path) -> None:
    asked = distilled(deep, teacher={"run": str(deep), "subnet": "14"})
    taught = train(asked, name="taught", runs=tmp_path, shown=False)
    known = RunFolder(deep).read_record()["students"]
    assert taught.record["teacher"]["test_accuracy"] == known["14"]["test_accuracy"]
    assert taught.record["teacher"]["macs"] == known["14"]["macs"]
    whole = train(distilled(deep), name="whole", runs=tmp_path, shown=False)
    assert whole.record["teacher"]["test_accuracy"] == known["student"]["test_accuracy"]
    on = recipe(student={"run": str(deep), "subnet": "8"}, steps=2)
    further = train(on, name="further", runs=tmp_path, shown=False)
    assert further.record["students"]["student"]["parameters"] == known["8"]["parameters"]
    assert tutelage.load(further.folder)(torch.rand(1, 1, 8, 8)).shape == (1, 10)


def test_the_teacher_is_asked_for_no_map_that_nobody_looks_at(deep: Path, tmp_path: Path) -> None:
    both = METHOD | {"kd": {"weight": 0.9}}
    taught = recipe(student=DEEP, methods=both, teacher={"run": str(deep)}, steps=2)
    built = build(validate(taught, "test"))
    assert built.distiller.teacher_taps == ()
    (teacher,) = built.distiller.teachers
    assert isinstance(teacher, LiveTeacher)
    assert teacher.network.subnets == ()
    given = Distiller(tutelage.load(deep), tutelage.load(deep), methods={"kd": (KD(), 1.0)})
    assert isinstance(given.teachers[0], LiveTeacher)
    assert given.teachers[0].network.subnets == ()


def test_settings_without_effect_warn() -> None:
    plain = {"name": "resnet8", "width": 2}
    for change in ({"subnet_weight": 0.5}, {"student": plain | {"subnet_norms": "shared"}}):
        with pytest.warns(NoEffectWarning, match="the student has no sub-nets"):
            build(validate(recipe(**change), "test"))


def test_it_begins_from_weights_of_the_plain_network(tmp_path: Path) -> None:
    plain = cifar_resnet(20, 2, in_channels=1)
    file = tmp_path / "plain.pt"
    torch.save(plain.state_dict(), file)
    folder = run(tmp_path, student=DEEP | {"checkpoint": str(file)}, steps=2)
    stays = tutelage.load(folder, subnet="8").module
    before, after = (one.get_parameter("layer1.0.conv1.weight") for one in (plain, stays))
    assert torch.allclose(before, after, atol=0.05)
    assert not torch.equal(before, after)


@pytest.mark.parametrize("norms", ["separate", "shared"])
def test_a_stopped_run_goes_on_to_the_same_weights(
    norms: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"student": DEEP | {"subnet_norms": norms}, "steps": 6, "checkpoint_every": 3}
    whole = run(tmp_path, "whole", **asked)
    step = Session.train_step

    def dies(self: Any, batch: Any) -> None:
        if self.step == 4:
            raise KeyboardInterrupt
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "train_step", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "stopped", **asked)
    again = recipe(methods=METHOD, batch_size=100, **asked)
    ended = train(again, name="stopped", runs=tmp_path, resume=True, shown=False)
    known = RunFolder(whole).read_record()["students"]
    for name, entry in ended.record["students"].items():
        assert entry["weights"] == known[name]["weights"], name


def test_refuses_what_makes_no_sense(deep: Path, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="teaches the sub-nets of a student"):
        run(tmp_path, student={"name": "resnet8", "width": 2})
    file = tmp_path / "plain.pt"
    torch.save(cifar_resnet(20, 2, in_channels=1).state_dict(), file)
    manifold = distilled(deep, teacher=DEEP | {"checkpoint": str(file)})
    with pytest.raises(TeacherError, match="no use for sub-nets"):
        train(manifold, runs=tmp_path, shown=False)
    with pytest.raises(NetworkError, match="no sub-net '9'"):
        train(distilled(deep, teacher={"run": str(deep), "subnet": "9"}), runs=tmp_path)
    with pytest.raises(SettingError, match="no terms 'hint' to weigh"):
        run(tmp_path, methods={"embedded_distillation": {"weight": {"kl": 1, "hint": 1}}})
    assert not (tmp_path / "deep").exists()


def test_a_sub_net_leaves_alone(deep: Path, tmp_path: Path) -> None:
    shutil.copytree(deep, tmp_path / "deep")
    made = export(tmp_path / "deep", subnet="8")
    assert made.folder == tmp_path / "deep" / "exports" / "onnx-fp32-8"
    record = RunFolder(tmp_path / "deep").read_record()
    (entry,) = record["exports"]
    assert entry["subnet"] == "8"
    assert entry["weights"] == record["students"]["8"]["weights"]
    assert entry["macs"] == record["students"]["8"]["macs"]
    accuracy = record["students"]["8"]["test_accuracy"]
    assert entry["parity"]["accuracy"] == {"network": accuracy, "exported": accuracy}
    file = onnx.load(made.file)
    numbers = sum(math.prod(one.dims) for one in file.graph.initializer)
    whole, alone = (
        sum(value.numel() for value in tutelage.load(deep, subnet=name).state_dict().values())
        for name in ("full", "8")
    )
    assert numbers <= alone + 100 < whole / 2  # with a few constants; nothing of the rest
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        theirs = open_model(made.file).network(images)
        assert torch.allclose(theirs, tutelage.load(deep, subnet="8")(images), atol=1e-4)
        assert torch.equal(
            open_model(deep, subnet="8").network(images), tutelage.load(deep, subnet="8")(images)
        )
    lines = bench([tmp_path / "deep"], batches=[1], rounds=3, memory=False)
    names = ["full, PyTorch", "14, PyTorch", "8, PyTorch", "onnx-fp32-8"]
    assert [line["name"] for line in lines] == names
    with pytest.raises(CheckpointError, match="holds one network, so there is no '8' in it"):
        open_model(made.file, subnet="8")
