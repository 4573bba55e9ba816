"""Peak memory: of training alone where the system allows, and said so where it does not."""

import mmap
from pathlib import Path

import pytest
import torch
from small_run import train_tiny

from tutelage.engine import memory
from tutelage.engine.memory import PeakMemory

CPU = torch.device("cpu")
MB = 2**20


def resident(peak: PeakMemory) -> int:
    value = peak.read()["resident_bytes"]
    assert value is not None
    return value


def fill(megabytes: int) -> None:
    """Touches memory and lets go of it, past the allocator, which might keep it."""
    with mmap.mmap(-1, megabytes * MB) as pages:
        for start in range(0, megabytes * MB, mmap.PAGESIZE):
            pages[start] = 1


def test_what_was_needed_is_counted_though_it_is_free_again():
    peak = PeakMemory(CPU)
    before = resident(peak)
    fill(200)
    assert resident(peak) >= before + 150 * MB
    assert peak.read()["device_bytes"] is None


@pytest.mark.skipif(not memory._RESET.exists(), reason="this system does not forget a peak")
def test_what_came_before_is_forgotten():
    fill(300)
    before = PeakMemory(CPU)
    if before.read()["since"] == "start of process":
        pytest.skip("this system does not allow to forget a peak")
    fill(300)
    high = resident(before)
    assert resident(PeakMemory(CPU)) < high - 100 * MB


@pytest.mark.parametrize("status", ["absent", "without"])
def test_where_the_system_does_not_tell_the_whole_process_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
):
    (tmp_path / "without").write_text("Name:\tpython\nVmRSS:\t 12 kB\n")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / status)
    monkeypatch.setattr(memory, "_RESET", tmp_path / "reset")
    found = PeakMemory(CPU).read()
    assert found["since"] == "start of process"
    assert found["resident_bytes"] > 50 * MB  # torch alone


def test_where_a_peak_cannot_be_forgotten_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "_RESET", tmp_path / "no" / "such")
    (tmp_path / "status").write_text("VmPeak:\t 9 kB\nVmHWM:\t    7 kB\n")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert PeakMemory(CPU).read() == {
        "resident_bytes": 7 * 1024,
        "device_bytes": None,
        "since": "start of process",
    }
    monkeypatch.setattr(memory, "_RESET", tmp_path / "reset")
    assert PeakMemory(CPU).read()["since"] == "start of training"
    assert (tmp_path / "reset").read_text() == "5"


def test_a_training_says_what_it_needed(tmp_path: Path):
    found = train_tiny(tmp_path / "run").peak_memory
    assert found["resident_bytes"] > 50 * MB
    assert found["device_bytes"] is None
    assert found["since"] in ("start of training", "start of process")
