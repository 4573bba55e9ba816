"""Trials as tasks of a Ray on this machine."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from tiny import recipe

from tutelage.cli.main import main
from tutelage.comparison import Share, cluster, compare
from tutelage.errors import Interrupted, RunError, SettingError
from tutelage.exporting.extras import needed
from tutelage.provenance import versions
from tutelage.records import RunFolder, read_lines

SPEC: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "base": recipe(steps=150, checkpoint_every=10, log_every=10),
    "seeds": [0, 1],
    "controls": "none",
    "rows": {"narrow": {}, "wide": {"set": {"student.width": 3}}},
}


def test_a_share_is_a_part_of_a_machine():
    with pytest.raises(SettingError, match="1 CPU or more, not 0"):
        Share(cpus=0)
    for gpus in (-1, 1.5):
        with pytest.raises(SettingError, match=f"such as 0.5, or whole ones, not {gpus}"):
            Share(gpus=gpus)


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingError, match=r"pip install 'tutelage\[ray\]'"):
        cluster.Cluster(Share())


def test_a_share_without_a_cluster_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["compare", "digits-demo", "--cpus", "2"]) == 2
    assert "are for --executor ray" in capsys.readouterr().err
    with pytest.raises(SettingError, match="leave jobs out"):
        compare(SPEC, jobs=2, cluster=Share())


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """With room for two trials."""
    ray = needed("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def workers() -> list[psutil.Process]:
    """That work on a trial now."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if words[0].startswith("ray::_work"):
            found.append(process)
    return found


def lines(runs: Path) -> list[dict[str, Any]]:
    return [one for one in read_lines(runs / "tiny" / "trials.jsonl") if one["kind"] == "trial"]


def weights(runs: Path) -> dict[str, str]:
    return {
        line["record"]["name"]: line["record"]["students"]["student"]["weights"]
        for line in lines(runs)
    }


def checkpoints(place: Path) -> list[Path]:
    """Finished ones: what is being written comes and goes beside them."""
    return list(place.glob("runs/tiny/*/checkpoints/step-*"))


def started(spec: dict[str, Any], place: Path) -> "subprocess.Popen[str]":
    """A comparison on the Ray that is there, in a process of its own."""
    path = place / "spec.json"
    path.write_text(json.dumps(spec))
    address = needed("ray").get_runtime_context().gcs_address
    words = ["compare", str(path), "--executor", "ray", "--address", address]
    return subprocess.Popen(
        [sys.executable, "-m", "tutelage", *words],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_killed_trial_is_finished_elsewhere_and_counted_once(tmp_path: Path):
    process = started(SPEC, tmp_path)
    killed, at = None, 0.0
    with process:
        end = time.monotonic() + 200
        while killed is None and time.monotonic() < end and process.poll() is None:
            begun = [one for one in checkpoints(tmp_path) if int(one.name[5:]) >= 20]
            if begun and workers():
                killed, at = workers()[0], time.time()
                killed.send_signal(signal.SIGKILL)
            time.sleep(0.02)
        said, wrong = process.communicate(timeout=300)
    assert killed is not None
    began = [one.stat().st_mtime for one in tmp_path.rglob("origin.json")]
    assert sum(one < at for one in began) >= 1
    assert process.returncode == 0, wrong[-3000:]
    assert "narrow" in said
    assert len(lines(tmp_path / "runs")) == 4
    for line in lines(tmp_path / "runs"):
        folder = RunFolder(tmp_path / "runs" / "tiny" / line["record"]["name"])
        steps = [one["step"] for one in read_lines(folder.metrics) if "lr" in one]
        assert steps == list(range(10, 151, 10))
        assert len(line["record"]["readings"]) == 1
    compare(SPEC, runs=tmp_path / "alone", shown=False)
    assert weights(tmp_path / "runs") == weights(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_what_is_told_to_stop_saves_and_goes_on(tmp_path: Path):
    long = SPEC | {"base": recipe(steps=100_000, checkpoint_every=100_000)}
    process = started(long, tmp_path)
    with process:
        end = time.monotonic() + 200
        while len(checkpoints(tmp_path)) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        _, wrong = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM, wrong[-3000:]
    assert "Go on with: tutelage compare" in wrong
    saved = [one for one in checkpoints(tmp_path) if int(one.name[5:]) > 0]
    assert len(saved) == 2


def test_a_cluster_that_is_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(needed("ray"), "is_initialized", lambda: False)  # the fixture's may be
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(SPEC))
    words = [str(path), "--runs", str(tmp_path / "runs"), "--executor", "ray"]
    assert main(["compare", *words, "--address", "127.0.0.1:1"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("error: There is no Ray cluster at 127.0.0.1:1: ")
    assert "ray start --head" in sentence
    assert not (tmp_path / "runs").exists()


def test_another_cluster_than_that_of_this_process_is_refused(monkeypatch: pytest.MonkeyPatch):
    ray = needed("ray")
    context = SimpleNamespace(gcs_address="10.0.0.1:6379")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    for address in (None, "auto", "10.0.0.1:6379"):
        cluster._same(ray, address)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(SettingError, match=r"at 10.0.0.1:6379 already, so ray://b:1 cannot"):
        cluster.Cluster(Share(address="ray://b:1"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_what_does_not_fit_is_refused(tmp_path: Path):
    with pytest.raises(SettingError, match=r"takes 3 CPUs and 0 GPUs of one .* have 2 and 0"):
        compare(SPEC, runs=tmp_path, cluster=Share(cpus=3), shown=False)
    with pytest.raises(SettingError, match=r"1 CPUs and 1 GPUs"):
        compare(SPEC, runs=tmp_path, cluster=Share(gpus=1), shown=False)


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_what_would_be_measured_here_is_refused(tmp_path: Path):
    """A trial runs elsewhere."""
    open_one = SPEC | {"base": recipe(precision="auto")}
    with pytest.raises(SettingError, match=r"train.precision is auto, which is measured on this"):
        compare(open_one, runs=tmp_path, cluster=Share(), shown=False)


@pytest.mark.parametrize(
    ("there", "share", "count"),
    [
        ({"CPU": 4.0}, Share(cpus=2), 2),
        ({"CPU": 4.0}, Share(cpus=8), 0),
        ({"CPU": 4.0}, Share(gpus=1), 0),
        ({"CPU": 8.0, "GPU": 2.0}, Share(cpus=2, gpus=0.5), 4),
        ({"CPU": 8.0, "GPU": 2.0}, Share(cpus=1, gpus=2), 1),
    ],
)
def test_a_share_fits_into_one_machine(there: dict[str, float], share: Share, count: int):
    assert cluster._holds(there, share) == count


def test_a_machine_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch):
    home = cluster._Home(str(Path.cwd()), 1, "cuda", versions(), "code")
    monkeypatch.setattr(cluster, "code_digest", lambda _: "code")
    with pytest.raises(RunError, match="runs on cuda, and a machine of the cluster"):
        cluster._settle(home)
    with pytest.raises(RunError, match="another tutelage, or other versions"):
        cluster._settle(home._replace(code="older"))
    with pytest.raises(RunError, match="does not see /nowhere"):
        cluster._settle(home._replace(folder="/nowhere"))


def test_what_is_told_to_stop_by_its_machine_is_lost(monkeypatch: pytest.MonkeyPatch):
    """And so goes on elsewhere; what Ray interrupts is an answer."""
    monkeypatch.setattr(cluster, "_settle", lambda _: None)
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)

    def told(number: Any) -> None:
        raise Interrupted("Stopped", number)

    home = cluster._Home("", 1, "cpu", {}, "")
    assert cluster._work(told, signal.SIGINT, home)[0] is False
    assert left == []
    cluster._work(told, signal.SIGTERM, home)
    assert left == [1]
