import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from tutelage.engine import TrainSettings
from tutelage.engine.host import (
    keep_freed_memory,
    memory_in_words,
    num_cores,
    stopping,
    undisturbed,
)
from tutelage.errors import OutOfMemoryError

CPU = torch.device("cpu")


def test_keeping_memory_says_whether_it_did_and_harms_nothing():
    first, second = keep_freed_memory(), keep_freed_memory()
    assert type(first) is bool
    assert first == second
    for _ in range(3):
        assert torch.ones(2_000_000).sum().item() == 2_000_000


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 64), ("800000 100000", 8), ("250000 100000", 3), ("5000 100000", 1), ("?", 64)],
)
def test_a_container_takes_no_more_threads_than_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("tutelage.engine.host._QUOTA", tmp_path / "cpu.max")
    assert num_cores() == 64
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert num_cores() == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert num_cores() == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_obeyed(number: signal.Signals):
    obeyed: list[int] = []
    before = signal.signal(number, lambda *arguments: obeyed.append(arguments[0]))
    try:
        with stopping() as stop:
            assert stop.signal is None
            os.kill(os.getpid(), number)
            assert (stop.signal, obeyed) == (number, [])
            os.kill(os.getpid(), number)
            assert obeyed == [number]
        os.kill(os.getpid(), number)
        assert obeyed == [number, number]
    finally:
        signal.signal(number, before)


def test_one_of_several_processes_obeys_no_second_sigterm(monkeypatch: pytest.MonkeyPatch):
    """The scheduler's, and the launcher's that hands it on."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    obeyed: list[int] = []
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        for one in before:
            signal.signal(one, lambda number, _: obeyed.append(number))
        with stopping() as stop:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.signal, obeyed) == (signal.SIGTERM, [])
            os.kill(os.getpid(), signal.SIGINT)
            assert obeyed == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGTERM)
        assert obeyed == [signal.SIGINT, signal.SIGTERM]
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), stopping():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_have_no_signals_and_need_none():
    seen: list[object] = []

    def run() -> None:
        with stopping() as stop:
            seen.append(stop.signal)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [None]


def test_what_is_disturbed_comes_back():
    kinds = (PartialState, AcceleratorState, GradientState)
    before = [dict(kind._shared_state) for kind in kinds]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)

    def disturb() -> None:
        torch.set_num_threads(1)
        torch.manual_seed(9)
        PartialState(cpu=True)
        assert PartialState._shared_state
        raise KeyError

    with pytest.raises(KeyError), undisturbed(CPU):
        disturb()
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.rand(4), expected)
    assert [dict(kind._shared_state) for kind in kinds] == before


def test_a_lack_of_memory_ends_in_words():
    settings = TrainSettings(steps=1, batch_size=64, accumulate=2)
    with (
        pytest.raises(OutOfMemoryError, match=r"64 samples.*above 2"),
        memory_in_words(torch.device("cpu"), settings),
    ):
        raise torch.OutOfMemoryError
