"""A finished run's student in a file: what is written, entered and refused."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import timm
import torch
from small_run import Tiny
from tiny import distilled, recipe

import tutelage.models.with_timm  # noqa: F401 - makes ours known to timm
from tutelage import records, rng
from tutelage.data.digits import digits
from tutelage.data.photographs import Rule
from tutelage.errors import (
    CheckpointError,
    DataError,
    ExportError,
    NoEffectWarning,
    RecipeError,
    RunError,
    SettingError,
)
from tutelage.exporting import About, Form, Tolerance, compare, just_made
from tutelage.models.network import Network
from tutelage.models.saved import load
from tutelage.recipes import read_mapping
from tutelage.records import RunFolder
from tutelage.runs import bench, export, exports, open_model, timing, train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """teacher, and its pupil; neither is changed."""
    folder = tmp_path_factory.mktemp("runs")
    options: dict[str, Any] = {"runs": folder, "shown": False}
    train(recipe(student={"name": "resnet8", "width": 8}, steps=40), name="teacher", **options)
    train(distilled(folder / "teacher", steps=20), name="pupil", **options)
    return folder


@pytest.fixture(scope="module")
def exported(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The pupil with an export, of which nothing is changed."""
    place = tmp_path_factory.mktemp("exported") / "pupil"
    shutil.copytree(runs / "pupil", place)
    export(place, command="tutelage export pupil")
    return RunFolder(place)


@pytest.fixture
def pupil(runs: Path, tmp_path: Path) -> RunFolder:
    """A copy that may be changed."""
    shutil.copytree(runs / "pupil", tmp_path / "pupil")
    return RunFolder(tmp_path / "pupil")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_record_knows_it(exported: RunFolder):
    record = exported.read_record()
    (entry,) = record["exports"]
    file = exported.path / entry["file"]
    assert entry["file"] == "exports/onnx-fp32/model.onnx"
    assert entry["bytes"]["exported"] == file.stat().st_size
    assert entry["parity"]["pictures"] == record["data"]["test"]
    assert entry["parity"]["same_answer"] == 1.0
    assert entry["parity"]["relative"] < 1e-4
    # The run computed in float32, as the export does.
    assert entry["parity"]["accuracy"]["network"] == record["students"]["student"]["test_accuracy"]
    assert entry["parity"]["teacher_agreement"]["network"] == pytest.approx(
        record["students"]["student"]["agreement"]
    )
    assert entry["weights"] == record["students"]["student"]["weights"]
    assert entry["versions"]["onnxruntime"] == onnxruntime.__version__
    assert "executorch" not in entry["versions"]
    reading = record["readings"][-1]
    assert reading["command"] == "tutelage export pupil"
    assert reading["purpose"] == "comparing the exported onnx-fp32 with the network"


def test_a_readme_lies_beside_it(exported: RunFolder):
    folder = exported.path / "exports" / "onnx-fp32"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.onnx"]
    assert "pupil: resnet8, onnx-fp32" in (folder / "README.md").read_text()


def test_file_and_run_are_the_same_to_who_asks(exported: RunFolder):
    run, file = open_model(exported.path), open_model(exported.path / "exports" / "onnx-fp32")
    assert file.classes == run.classes == tuple("0123456789")
    assert file.rule == run.rule
    images = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(file.network(images), run.network(images), atol=1e-4)


def test_an_export_is_never_overwritten(exported: RunFolder):
    before = contents(exported.path)
    with pytest.raises(RunError, match="an export is never overwritten"):
        export(exported.path)
    assert contents(exported.path) == before


def test_a_last_run_may_learn_to_be_rounded(runs: Path, pupil: RunFolder, tmp_path: Path):
    value, _ = read_mapping(pupil.recipe)
    stage: dict[str, Any] = {**value, "student": {"run": str(pupil.path)}}
    stage["train"] = {**stage["train"], "quantization": "onnx", "steps": 6, "threads": 1}
    stage["train"] |= {"optimizer": {"name": "sgd", "lr": 1e-6}}
    made = train(stage, name="rounded", runs=tmp_path, shown=False)
    # It went on from the pupil, and is an ordinary network.
    before, after = load(pupil.path).state_dict(), load(made.folder).state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        if name.endswith("weight"):
            torch.testing.assert_close(value, after[name], atol=1e-4, rtol=0)
    assert not all(torch.equal(value, after[name]) for name, value in before.items())
    shutil.rmtree(pupil.path)  # an export needs the run itself alone
    done = export(made.folder, Form(precision="int8"), tolerance=Tolerance(None, 100.0))
    assert "quantization: onnx" in (done.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("trained_for", "precision", "hinted"),
    [(None, "int8", True), ("executorch", "int8", True), ("onnx", "int8", False),
     (None, "fp32", False)],
)  # fmt: skip
def test_a_drop_by_rounding_is_refused_with_what_may_help(
    pupil: RunFolder,
    trained_for: Any,
    precision: Any,
    hinted: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    record = pupil.read_record()
    record["recipe"]["train"]["quantization"] = trained_for
    records.write_json(pupil.record, record)

    def worse(*answers: Any) -> dict[str, Any]:
        found = compare(*answers)
        found["accuracy"]["exported"] -= 0.5
        return found

    monkeypatch.setattr(exports, "compare", worse)
    with pytest.raises(ExportError, match="was not written: it is right on") as caught:
        export(pupil.path, Form(precision=precision))
    hint = "train.precision=fp32 train.quantization=onnx, or allow more"
    assert (hint in str(caught.value)) == hinted


def test_beyond_the_tolerance_nothing_is_written_but_the_reading(pupil: RunFolder):
    before = pupil.read_record()
    with pytest.raises(ExportError, match=r"onnx-int8 was not written: one of its logits is"):
        export(pupil.path, Form(precision="int8"), tolerance=Tolerance(1e-9, 0.0))
    after = pupil.read_record()
    assert not (pupil.path / "exports").exists()
    assert "exports" not in after
    assert len(after["readings"]) == len(before["readings"]) + 1


def test_interrupted_it_leaves_no_file(pupil: RunFolder, monkeypatch: pytest.MonkeyPatch):
    real = records._write_synced

    def stop(path: Path, content: bytes) -> None:
        if path.name == "README.md":  # the second file
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(records, "_write_synced", stop)
    with pytest.raises(KeyboardInterrupt):
        export(pupil.path, teacher=False)
    assert not list((pupil.path / "exports").iterdir())
    assert "exports" not in pupil.read_record()


def test_what_cannot_be_held_is_said_and_the_reading_entered(
    pupil: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    def overflow(path: Path, about: About) -> Network:
        return Network(lambda images: torch.full((len(images), 10), torch.inf), about.shown)

    monkeypatch.setattr(exports, "just_made", overflow)
    before = pupil.read_record()
    with pytest.raises(ExportError, match="In fp16 some answers are infinite"):
        export(pupil.path, Form(precision="fp16"), teacher=False)
    assert len(pupil.read_record()["readings"]) == len(before["readings"]) + 1


def test_what_others_enter_meanwhile_stays(pupil: RunFolder, monkeypatch: pytest.MonkeyPatch):
    real = just_made

    def meanwhile(path: Path, about: About) -> Network:
        record = pupil.read_record()
        pupil.record.write_text(json.dumps(record | {"bench": "somebody else's"}))
        return real(path, about)

    monkeypatch.setattr(exports, "just_made", meanwhile)
    export(pupil.path, teacher=False)
    record = pupil.read_record()
    assert record["bench"] == "somebody else's"
    assert len(record["exports"]) == 1


@pytest.mark.parametrize("wrong", [Tolerance(float("nan"), 1.0), Tolerance(None, float("inf"))])
def test_a_tolerance_is_a_number(wrong: Tolerance, pupil: RunFolder):
    before = contents(pupil.path)
    with pytest.raises(SettingError, match="is a number from 0"):
        export(pupil.path, tolerance=wrong)
    assert contents(pupil.path) == before


def test_a_file_in_the_way_is_said_before_anything(pupil: RunFolder, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="file is in its way"):
        export(pupil.path, out=tmp_path / "file" / "below" / "it")
    with pytest.raises(RunError, match="never overwritten"):
        export(pupil.path, out=tmp_path / "file")


def test_what_has_no_effect_is_said(pupil: RunFolder):
    with pytest.warns(NoEffectWarning, match="Calibration pictures change nothing in fp32"):
        export(pupil.path, calibration=100, teacher=False)


def test_the_teacher_need_not_be_there(pupil: RunFolder, runs: Path):
    record = pupil.read_record()
    record["recipe"]["teacher"]["run"] = str(runs / "gone")
    pupil.record.write_text(json.dumps(record))
    with pytest.raises(RunError):
        export(pupil.path)
    entry = export(pupil.path, teacher=False).entry
    assert entry["parity"]["teacher_agreement"] is None


def test_where_it_goes_can_be_said(pupil: RunFolder, tmp_path: Path):
    made = export(pupil.path, out=tmp_path / "a" / "b", teacher=False)
    assert made.file == tmp_path / "a" / "b" / "model.onnx"
    assert made.file.is_file()
    assert pupil.read_record()["exports"][0]["file"] == str(made.file)


@pytest.mark.slow
def test_timm_reads_the_weights_beside_a_torch_file(pupil: RunFolder):
    made = export(pupil.path, Form("torch"), teacher=False)
    code = (made.folder / "README.md").read_text().split("```python\n")[2].split("```")[0]
    assert "timm.create_model('resnet8_cifar'" in code
    said = code.replace("'weights.safetensors'", repr(str(made.folder / "weights.safetensors")))
    space: dict[str, Any] = {"timm": timm}
    exec(said, space)
    network = load(pupil.path)
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        theirs = space["network"].eval()(network.prepare(images))
        assert torch.equal(theirs, network(images))


# Calibration


def test_too_few_calibration_pictures_are_said(pupil: RunFolder):
    with pytest.raises(SettingError, match="at least 32 calibration pictures here, but 31 are"):
        export(pupil.path, Form(precision="int8"), calibration=31)
    with pytest.raises(SettingError, match="at least 64 calibration pictures here, but 32 are"):
        export(pupil.path, Form(precision="int8", batch=64), calibration=32)


def test_a_source_of_too_few_is_refused(pupil: RunFolder):
    few = digits()
    few = type(few)(few.train.take(torch.arange(20)), few.test, few.classes, few.mean, few.std)
    with pytest.raises(DataError, match="but there are 20 to train on"):
        export(pupil.path, Form(precision="int8"), calibrate_on=few)


@pytest.mark.slow
def test_other_classes_and_fewer_pictures_are_said(pupil: RunFolder):
    other = digits()
    names = ("zero", *other.classes[1:])
    other = type(other)(
        other.train.take(torch.arange(40)), other.test, names, other.mean, other.std
    )
    with (
        pytest.warns(UserWarning, match="'zero' is not in both"),
        pytest.warns(UserWarning, match="There are 40 pictures to calibrate with, fewer than"),
    ):
        made = export(
            pupil.path,
            Form(precision="int8"),
            calibration=256,
            calibrate_on=other,
            teacher=False,
            tolerance=Tolerance(None, 100.0),
        )
    assert made.entry["calibration"] == 40


# Other students


def test_run_and_file_are_shown_the_same_where_the_network_is_larger(tmp_path: Path):
    larger = recipe(student={"name": "resnet8", "width": 2, "size": [16, 16], "channels": 3})
    done = train(larger, name="larger", runs=tmp_path, shown=False)
    made = export(done.folder)
    run, file = open_model(done.folder), open_model(made.file)
    assert run.rule == file.rule == Rule(8, 8, 1)
    assert run.network.spec is not None
    assert run.network.spec[:3] == (16, 16, 3)
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(run.network(images), file.network(images), atol=1e-4)


def test_a_student_that_a_function_makes_can_be_asked_and_timed(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def make(num_classes, in_channels):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    asked = recipe(student={"python": f"{tmp_path / 'mine.py'}:make"})
    with pytest.warns(UserWarning, match="this file is code, and runs now"):
        done = train(asked, name="made", runs=tmp_path, shown=False)
    with pytest.warns(UserWarning, match="this file is code, and runs now"):
        made = export(done.folder)
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad(), pytest.warns(UserWarning, match="runs now"):
        ours, theirs = (open_model(one).network(images) for one in (done.folder, made.file))
    assert torch.allclose(ours, theirs, atol=1e-4)
    with pytest.warns(UserWarning, match="runs now"):
        lines = bench([done.folder], batches=[1], rounds=3, memory=False)
    assert [line["name"] for line in lines] == ["PyTorch", "onnx-fp32"]


def test_an_export_that_is_damaged_ends_no_bench(exported: RunFolder, tmp_path: Path):
    shutil.copytree(exported.path, tmp_path / "pupil")
    (tmp_path / "pupil" / "exports" / "onnx-fp32" / "model.onnx").write_bytes(b"hello")
    with pytest.warns(UserWarning, match="Not timed: .* damaged"):
        lines = bench([tmp_path / "pupil"], batches=[1], rounds=3, memory=False)
    assert [line["name"] for line in lines] == ["PyTorch"]


# Timing


def test_a_bench_is_entered_and_covers_what_was_exported(exported: RunFolder, tmp_path: Path):
    place = tmp_path / "pupil"
    shutil.copytree(exported.path, place)
    lines = bench([place], batches=[2, 1], rounds=3, threads=1, memory=False, command="bench")
    assert [(line["name"], line["batch"]) for line in lines] == [
        ("PyTorch", 1),
        ("PyTorch", 2),
        ("onnx-fp32", 1),
        ("onnx-fp32", 2),
    ]
    for line in lines:
        assert line["images_per_second"] == pytest.approx(1000 * line["batch"] / line["median_ms"])
        assert 0 < line["median_ms"] <= line["p95_ms"]
        assert (line["threads"], line["rounds"], line["memory_bytes"]) == (1, 3, None)
    found = RunFolder(place).read_record()["bench"]
    assert found["lines"] == [{k: v for k, v in line.items() if k != "model"} for line in lines]
    assert found["command"] == "bench"


def test_a_teacher_and_a_file_alone_can_be_timed(exported: RunFolder, tmp_path: Path):
    place = tmp_path / "pupil"
    shutil.copytree(exported.path, place)
    file = exported.path / "exports" / "onnx-fp32" / "model.onnx"
    lines = bench([place, file], batches=[1], rounds=3, memory=False, teacher=True)
    assert [line["name"] for line in lines] == [
        "teacher, PyTorch",
        "PyTorch",
        "onnx-fp32",
        "model",
    ]
    assert lines[0]["bytes"] > lines[1]["bytes"]


def test_a_run_without_a_teacher_has_none_to_time(runs: Path, tmp_path: Path):
    shutil.copytree(runs / "teacher", tmp_path / "teacher")
    with pytest.warns(NoEffectWarning, match="There is no teacher to time"):
        bench([tmp_path / "teacher"], batches=[1], rounds=3, memory=False, teacher=True)


def test_pictures_need_not_be_there_to_time(runs: Path, tmp_path: Path):
    shutil.copytree(runs / "pupil", tmp_path / "pupil")
    place = RunFolder(tmp_path / "pupil")
    record = place.read_record()
    record["recipe"]["data"]["source"] = {"name": "folder", "root": "gone"}
    place.record.write_text(json.dumps(record))
    assert len(bench([place.path], batches=[1], rounds=3, memory=False)) == 1


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_the_times(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(runs / "pupil", tmp_path / "pupil")
    monkeypatch.setattr(timing, "_memory_here", _killed)
    with pytest.warns(UserWarning, match="was ended from outside"):
        (line,) = bench([tmp_path / "pupil"], batches=[1], rounds=3)
    assert line["memory_bytes"] is None
    assert line["median_ms"] > 0


def _killed(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_compiled_student_takes_its_turn(runs: Path, tmp_path: Path):
    shutil.copytree(runs / "pupil", tmp_path / "pupil")
    lines = bench([tmp_path / "pupil"], batches=[1], rounds=3, memory=False, compiled=True)
    assert [line["name"] for line in lines] == ["PyTorch", "PyTorch compiled"]


@pytest.mark.slow
def test_executorch_all_the_way(pupil: RunFolder):
    made = export(pupil.path, Form("executorch", "int8"), tolerance=Tolerance(None, 100.0))
    assert made.file.name == "model.pte"
    assert made.entry["batch"] == 1
    assert made.entry["parity"]["same_answer"] > 0.9
    opened = open_model(made.folder)
    assert opened.classes == tuple("0123456789")
    lines = bench([pupil.path], batches=[1], rounds=3, threads=1, memory=False)
    assert [line["precision"] for line in lines] == ["fp32", "int8"]


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(exported: RunFolder, tmp_path: Path):
    place = tmp_path / "pupil"
    shutil.copytree(exported.path, place)
    lines = bench([place], batches=[1, 512], rounds=3)
    by_name: dict[str, list[int]] = {}
    for line in lines:
        by_name.setdefault(line["name"], []).append(line["memory_bytes"])
    for one, many in by_name.values():
        assert 0 < one < many < 1e9  # 512 pictures have larger maps


@pytest.mark.parametrize(
    "wrong", [{"rounds": 2}, {"batches": []}, {"batches": [0]}, {"threads": 0}]
)
def test_what_would_time_nothing_is_refused(wrong: dict[str, Any], exported: RunFolder):
    with pytest.raises(SettingError, match="A benchmark needs 3 rounds"):
        bench([exported.path], **wrong)


# Runs that objects were handed over to


def test_a_student_that_was_an_object_is_handed_over_again(tmp_path: Path):
    learned = {"steps": 40, "batch_size": 100}
    with rng.part(3, "student"):
        student, anew = Tiny(num_classes=10), Tiny(num_classes=10)
    given = recipe(student=None, **learned)
    given["data"] = given["data"] | {"source": None}
    run = train(
        given, name="own", runs=tmp_path, student=student, data=digits(), shown=False
    ).folder
    before = {name: value.clone() for name, value in anew.state_dict().items()}
    with pytest.raises(RecipeError, match="data"):
        export(run, student=anew)
    done = export(run, student=anew, data=digits())
    entry = RunFolder(run).read_record()["students"]["student"]
    assert done.entry["weights"] == entry["weights"]
    assert done.entry["parity"]["accuracy"]["exported"] == pytest.approx(
        entry["test_accuracy"], abs=1e-9
    )
    assert all(torch.equal(anew.state_dict()[name], value) for name, value in before.items())
    with pytest.raises(RunError, match=r"tutelage.export\(RUN, student="):
        export(run, Form("torch"), data=digits())
    with pytest.raises(CheckpointError, match="of another shape"):
        export(run, Form("torch"), student=Tiny(num_classes=7), data=digits())


def test_a_student_that_is_known_by_name_is_not_handed_over(pupil: RunFolder):
    with pytest.raises(SettingError, match="makes its student by name"):
        export(pupil.path, student=Tiny())
    assert not (pupil.path / "exports").exists()
