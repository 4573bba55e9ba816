import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from tutelage.distiller import Output
from tutelage.engine import log as module
from tutelage.engine.log import Display, Log
from tutelage.errors import NonFiniteError
from tutelage.records import RunFolder, read_lines

CPU = torch.device("cpu")


def output(loss: float, count: int = 4, **terms: float) -> Output:
    values = {name.replace("__", "."): torch.tensor(value) for name, value in terms.items()}
    return Output(torch.tensor(loss), values, torch.zeros(count, 2))


def log(folder: Path, *names: str, tracked: list[Any] | None = None) -> Log:
    track = (tracked if tracked is not None else []).append
    return Log(RunFolder(folder), names, CPU, lambda numbers, step: track((step, numbers)))


def right(count: int) -> Tensor:
    return torch.tensor(float(count))


def test_lines_are_means_over_the_interval(tmp_path: Path):
    tracked: list[Any] = []
    gathered = log(tmp_path, "supervised", "kd.kl", tracked=tracked)
    gathered.add(1, output(1.0, supervised=0.5, kd__kl=4.0), right(1), 2)
    gathered.add(2, output(2.0, supervised=1.5, kd__kl=6.0), right(2), 2)
    numbers = gathered.write(2, lr=0.25)
    gathered.add(3, output(7.0, supervised=7.0, kd__kl=0.0), right(0), 2)
    gathered.write(3, lr=0.125)

    first, second = read_lines(RunFolder(tmp_path).metrics)
    assert first.pop("images_per_second") > 0
    assert second.pop("images_per_second") > 0
    assert first == {
        "step": 2,
        "loss": 1.5,
        "supervised": 1.0,
        "kd.kl": 5.0,
        "accuracy": 0.75,  # 3 of 4
        "lr": 0.25,
    }
    # Nothing is left over from the interval before.
    assert second == {
        "step": 3, "loss": 7.0, "supervised": 7.0, "kd.kl": 0.0, "accuracy": 0.0, "lr": 0.125
    }  # fmt: skip
    assert numbers.items() >= {"loss": 1.5, "accuracy": 0.75}.items()
    assert [step for step, _ in tracked] == [2, 3]
    assert tracked[0][1] == numbers


def test_without_labels_there_is_no_accuracy(tmp_path: Path):
    gathered = log(tmp_path, "kd.kl")
    gathered.add(1, output(1.0, kd__kl=1.0), right(0), 0.0)
    assert "accuracy" not in gathered.write(1, lr=0.1)


def test_a_term_counts_in_the_steps_that_had_it(tmp_path: Path):
    gathered = log(tmp_path, "a.left", "a.right")
    gathered.add(1, output(1.0, a__left=3.0, a__right=1.0), right(1), 4)
    gathered.add(2, output(1.0, a__right=2.0), right(1), 4)
    assert gathered.write(2, lr=0.1).items() >= {"a.left": 3.0, "a.right": 1.5}.items()
    gathered.add(3, output(1.0, a__right=2.0), right(1), 4)
    assert "a.left" not in gathered.write(3, lr=0.1)


def test_terms_may_come_in_any_order(tmp_path: Path):
    gathered = log(tmp_path, "one", "two")
    gathered.add(1, output(0.0, two=2.0, one=1.0), right(0), 4)
    assert gathered.write(1, lr=0.1).items() >= {"one": 1.0, "two": 2.0}.items()


def test_what_was_gathered_goes_on(tmp_path: Path):
    """Cut in the middle of an interval, and taken up by another log."""
    steps = [(output(float(n), a=2.0 * n), right(n), 4.0) for n in range(1, 5)]
    whole, before = log(tmp_path / "whole", "a"), log(tmp_path / "cut", "a")
    after = log(tmp_path / "cut", "a")
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    for number, step in enumerate(steps, start=1):
        whole.add(number, *step)
        (before if number <= 2 else after).add(number, *step)
        if number == 2:
            after.restore({name: value.clone() for name, value in before.gathered().items()})
    one, two = whole.write(4, lr=0.1), after.write(4, lr=0.1)
    one.pop("images_per_second")
    # The time before the cut counts as well: 16 pictures in it, 8 after.
    two.pop("images_per_second")
    assert one == two


def test_time_before_a_cut_counts_in_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    before = log(tmp_path, "a")
    before.add(1, output(1.0, count=30, a=1.0), right(0), 4)
    now[0] = 3.0
    gathered = before.gathered()
    now[0] = 100.0
    after = log(tmp_path, "a")
    after.restore(gathered)
    after.add(2, output(1.0, count=30, a=1.0), right(0), 4)
    now[0] = 103.0
    assert after.write(2, lr=0.1)["images_per_second"] == 10.0  # 60 in 3 + 3 seconds


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_step_and_its_terms_are_named(bad: float, tmp_path: Path):
    gathered = log(tmp_path, "supervised", "kd.kl", "hints.mse")
    gathered.add(1, output(1.0, supervised=1.0, kd__kl=1.0, hints__mse=1.0), right(0), 4)
    gathered.check()
    gathered.add(2, output(bad, supervised=1.0, kd__kl=bad, hints__mse=bad), right(0), 4)
    gathered.add(3, output(bad, supervised=bad, kd__kl=1.0, hints__mse=bad), right(0), 4)
    with pytest.raises(NonFiniteError, match=r"^kd\.kl and hints\.mse became .* at step 2;"):
        gathered.write(3, lr=0.1)
    assert read_lines(RunFolder(tmp_path).metrics) == []


def test_a_loss_may_overflow_where_no_term_does(tmp_path: Path):
    gathered = log(tmp_path, "supervised")
    gathered.add(1, output(float("inf"), supervised=1e38), right(0), 4)
    with pytest.raises(NonFiniteError, match=r"^loss became infinite or NaN at step 1;"):
        gathered.check()


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]):
    numbers = {"loss": 1.23456, "accuracy": 0.5, "images_per_second": 1234.5}
    with Display("pupil", 40, shown=True) as display:
        display.advance(10)
        display.numbers(10, numbers, seconds_left=90)
        display.numbers(20, {"loss": 1.0, "images_per_second": 10.0}, seconds_left=3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "pupil  10/40  loss 1.235  accuracy 50.0 %  1234 images/s  1.5 min left",
        "pupil  20/40  loss 1.000  10 images/s  0.1 min left",
    ]


def test_nothing_is_shown_if_not_wanted(capsys: pytest.CaptureFixture[str]):
    with Display("pupil", 40, shown=False) as display:
        display.advance(10)
        display.numbers(10, {"loss": 1.0, "images_per_second": 1.0}, seconds_left=90)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(module, "CONSOLE", Console(stderr=True))  # which has seen the environment
    with Display("pupil", 40, shown=True) as display:
        display.advance(10)
        display.numbers(10, {"loss": 1.5, "accuracy": 0.25, "images_per_second": 7.0}, 60)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "pupil" in shown
    assert "10/40" in shown
    assert "loss 1.500  accuracy 25.0 %  7 images/s" in shown
