"""`tutelage train` and `tutelage cache` in two processes, as torchrun starts them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from launching import ENVIRONMENT, TORCHRUN, launch

from tutelage.records import RunFolder, read_lines

pytestmark = pytest.mark.slow

RECIPE = ["digits-teacher", "train.evaluate_every=100", "train.log_every=20", "--name", "run"]


def tutelage(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return launch("-m", "tutelage", *arguments, place=place)


def sentences(text: str) -> list[str]:
    """What our processes said; torchrun says much more."""
    return [line for line in text.splitlines() if line.startswith(("error: ", "[1] error: "))]


def test_two_processes_leave_one_run(tmp_path: Path):
    done = tutelage(tmp_path, "train", *RECIPE, "train.steps=200", "train.precision=auto")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("200 steps in") == 1
    folder = RunFolder(tmp_path / "runs" / "run")
    record = folder.read_record()
    assert record["hardware"]["processes"] == 2
    assert len(record["readings"]) == 1
    assert record["chosen"]["milliseconds"]
    assert record["students"]["student"]["test_accuracy"] > 0.8
    lines = read_lines(folder.metrics)
    assert [line["step"] for line in lines if "lr" in line] == list(range(20, 201, 20))
    judged = [line["validation_accuracy"] for line in lines if "lr" not in line]
    assert judged[-1] == pytest.approx(record["students"]["student"]["validation_accuracy"])
    again = tutelage(tmp_path, "train", *RECIPE, "train.steps=200")
    assert [one.split(" exists")[0] for one in sorted(sentences(again.stderr))] == [
        "[1] error: runs/run",
        "error: runs/run",
    ]


def test_a_killed_process_ends_the_other_with_one_sentence_and_the_run_goes_on(tmp_path: Path):
    """Without a launcher that ends it: each is started here."""
    steps = ["train.steps=1000", "train.checkpoint_every=20"]
    given = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29631"}
    command = [sys.executable, "-m", "tutelage", "train", *RECIPE, *steps]
    processes = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=ENVIRONMENT | given | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    folder = RunFolder(tmp_path / "runs" / "run")
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and (not folder.path.exists() or len(folder.checkpoints) < 2):
            time.sleep(0.1)
        assert folder.checkpoints
        processes[1].send_signal(signal.SIGKILL)
        said = processes[0].communicate(timeout=60)[1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode == 2
    (sentence,) = sentences(said)
    assert sentence.startswith("error: Process 0 of 2 has lost another one")
    assert "Traceback" not in said
    assert not folder.record.exists()
    reached = int(folder.checkpoints[-1].name.rpartition("-")[2])
    done = tutelage(tmp_path, "train", *RECIPE, *steps, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert 0 < reached < 1000
    assert folder.read_record()["steps"] == 1000


def test_a_launcher_that_starts_anew_what_was_killed_ends_with_the_run(tmp_path: Path):
    command = ["train", *RECIPE, "train.steps=1000", "train.checkpoint_every=20", "--resume"]
    launcher = subprocess.Popen(
        [*TORCHRUN, "--max-restarts", "2", "-m", "tutelage", *command],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    folder = RunFolder(tmp_path / "runs" / "run")
    with launcher:
        try:
            end = time.monotonic() + 120
            while time.monotonic() < end and len(folder.checkpoints) < 2:
                time.sleep(0.1)
            child = psutil.Process(launcher.pid).children()[0]
            child.kill()
            said, _ = launcher.communicate(timeout=200)
        finally:
            launcher.kill()
    assert launcher.returncode == 0, said[-3000:]
    assert "has lost another one" in said
    assert folder.read_record()["steps"] == 1000
    steps = [line["step"] for line in read_lines(folder.metrics) if "lr" in line]
    assert steps == list(range(20, 1001, 20))


def test_a_store_of_two_processes_is_that_of_one(tmp_path: Path):
    assert tutelage(tmp_path, "train", *RECIPE, "train.steps=100").returncode == 0
    recipe = ["digits", "teacher={run: runs/run}", "data.num_views=2", "train.threads=1"]
    done = tutelage(tmp_path, "cache", *recipe, "--out", "two", "--shard", "500")
    assert done.returncode == 0, done.stderr[-3000:]
    alone = subprocess.run(
        [sys.executable, "-m", "tutelage", "cache", *recipe, "--out", "one", "--shard", "500"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        check=False,
        capture_output=True,
    )
    assert alone.returncode == 0
    made, single = (
        {file.name: file.read_bytes() for file in (tmp_path / place).glob("*.safetensors")}
        for place in ("two", "one")
    )
    assert len(made) > 3
    assert made == single
    manifests = [json.loads((tmp_path / d / "manifest.json").read_text()) for d in ("one", "two")]
    assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"]
