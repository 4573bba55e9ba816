"""A run that was killed goes on as if nothing had happened."""

import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_run import digits_run, metrics

from tutelage.records import RunFolder, read_lines

STEPS = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    return digits_run(tmp_path_factory.mktemp("whole"), "run")


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_runs_end_in_the_same_bits(kills: int, whole: Path, tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    chance = random.Random(kills)
    for number in range(1, kills + 1):
        killed_at = kill_after(number * STEPS // (kills + 2), run, chance)
        assert 0 < killed_at < STEPS
    assert not run.finished
    digits_run(tmp_path, "run", resume=True)

    first, second = load_file(whole / "student.safetensors"), load_file(run.student)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.isfinite().all()
        assert torch.equal(value, second[name]), name
    assert metrics(whole) == metrics(run.path)
    assert not list(run.path.glob("**/.*"))  # nothing half-written is left


def test_another_seed_ends_elsewhere(whole: Path, tmp_path: Path):
    other = load_file(digits_run(tmp_path, "run", seed=1) / "student.safetensors")
    same = load_file(whole / "student.safetensors")
    assert not any(torch.equal(other[name], same[name]) for name in same if "weight" in name)


def test_checkpoints_lie_inside_epochs(whole: Path):
    # 997 scans in batches of 50 (of them 300 / 997 × 50 = 15 labelled, which makes 20 batches).
    steps = [int(path.name.removeprefix("step-")) for path in RunFolder(whole).checkpoints]
    assert steps == [STEPS - STEPS % 7, STEPS]
    assert steps[0] % 20


def kill_after(step: int, run: RunFolder, chance: random.Random) -> int:
    """Starts or resumes the run in a new process and kills it at a random moment after `step`.

    Returns:
        The step of the newest checkpoint that is left.
    """
    context = multiprocessing.get_context("forkserver")  # imports PyTorch once, not for each kill
    context.set_forkserver_preload(["tutelage.runs", "sklearn.datasets"])
    process = context.Process(
        target=digits_run,
        args=(run.path.parent, run.path.name),
        kwargs={"resume": run.path.exists()},
    )
    process.start()
    while process.is_alive() and newest(run) < step:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.03))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(read_lines(run.metrics)) >= newest(run) // 9
    return newest(run)


def newest(run: RunFolder) -> int:
    return max((int(path.name.removeprefix("step-")) for path in run.checkpoints), default=-1)
