import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tutelage.data import TrainLoader
from tutelage.records import RunFolder

RECIPE = """
schema: 1
data: {source: digits, validation: 100, labelled: 200}
student: {name: resnet8, width: 4}
train: {steps: 4, batch_size: 50, precision: fp32, threads: 1, keep_memory: false, log_every: 2}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(RECIPE)
    return tmp_path


def test_a_run_leaves_its_folder_and_a_summary(folder: Path, call: Any):
    code, out, err = call("train", "small.yaml", "train.steps=5", "--name", "first")
    assert code == 0
    run = RunFolder(Path("runs/first"))
    assert run.finished
    assert yaml.safe_load(run.recipe.read_text())["train"]["steps"] == 5
    record = run.read_record()
    assert record["command"] == "tutelage train small.yaml train.steps=5 --name first"
    assert record["steps"] == 5
    student = record["students"]["student"]
    for words in (
        "first: 5 steps in",
        f"{100 * student['validation_accuracy']:.1f} %",
        f"{100 * student['test_accuracy']:.1f} %",
        "runs/first",
        "tutelage report",
    ):
        assert words in out
    assert "5/5" in err  # progress, apart from the result


def test_the_summary_holds_the_student_against_its_teacher(inside: Path, call: Any, tmp_path: Path):
    Path(tmp_path / "small.yaml").write_text(RECIPE)
    more = ["teacher={run: runs/teacher}", "methods={kd: {weight: 1}}"]
    said = call("train", tmp_path / "small.yaml", *more, "--runs", tmp_path, "--name", "pupil")
    assert said.code == 0
    assert "its teacher" in said.out
    record = RunFolder(tmp_path / "pupil").read_record()
    costs = record["teacher"]["macs"] / record["students"]["student"]["macs"]
    assert f"{costs:.1f}× the MACs" in said.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_with_the_command_that_it_names(
    number: signal.Signals, folder: Path, call: Any, monkeypatch: pytest.MonkeyPatch
):
    batch = TrainLoader.batch

    def stop_at_two(loader: TrainLoader, step: int) -> Any:
        if step == 2:
            os.kill(os.getpid(), number)
        return batch(loader, step)

    with monkeypatch.context() as patch:
        patch.setattr(TrainLoader, "batch", stop_at_two)
        code, out, err = call("train", "small.yaml", "seed=3", "--name", "long")
    assert (code, out) == (128 + number, "")
    assert "Traceback" not in err
    named = err.strip().splitlines()[-1].partition("Go on with: tutelage ")[2]
    assert named == "train small.yaml seed=3 --name long --resume"
    assert not RunFolder(Path("runs/long")).finished
    assert call(*named.split()).code == 0
    assert RunFolder(Path("runs/long")).read_record()["steps"] == 4


def test_a_profile_is_printed_and_left_in_the_folder(folder: Path, call: Any):
    plain = call("train", "small.yaml", "--name", "plain")
    code, out, _ = call("train", "small.yaml", "--name", "seen", "--profile")
    assert code == 0
    assert "convolution_backward" in out
    assert "ms a step" in out
    assert "runs/seen/profile.json" in out
    assert "traceEvents" in RunFolder(Path("runs/seen")).profile.read_text()
    assert "profile" not in plain.out
    records = [RunFolder(Path("runs") / name).read_record() for name in ("plain", "seen")]
    assert records[0]["identity"] == records[1]["identity"]
    assert records[0].keys() == records[1].keys()
    short = call("train", "small.yaml", "train.steps=1", "train.schedule=constant", "--name", "one",
                 "--profile")  # fmt: skip
    assert "too few steps" in short.out
