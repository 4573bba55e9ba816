"""A profile on request: which steps are watched, what is left behind, what is not changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import held_out, loader, settings, tiny, train_tiny

from tutelage.distiller import Distiller
from tutelage.engine import Trained, fit
from tutelage.engine.profiling import Profile
from tutelage.errors import Interrupted
from tutelage.records import RunFolder


def watched(folder: Path, steps: int) -> tuple[Trained, Distiller]:
    folder.mkdir(exist_ok=True)
    one = Distiller(tiny())
    trained = fit(
        one,
        loader(),
        settings(steps=steps),
        RunFolder(folder),
        held_out=held_out(),
        validate=lambda: 0.5,
        seed=0,
        shown=False,
        profile=True,
    )
    return trained, one


def steps_in(folder: Path) -> list[int]:
    """Numbers of the steps that a trace shows."""
    trace = json.loads(RunFolder(folder).profile.read_text())
    names = {event.get("name", "") for event in trace["traceEvents"]}
    return sorted(int(name.partition("#")[2]) for name in names if name.startswith("ProfilerStep#"))


@pytest.mark.parametrize(
    ("steps", "shown"),
    [(24, range(10, 20)), (15, range(5, 15)), (6, range(1, 6)), (2, range(1, 2))],
)
def test_ten_steps_are_watched_after_ten_or_as_many_as_there_are(
    tmp_path: Path, steps: int, shown: range
):
    trained, _ = watched(tmp_path, steps)
    assert steps_in(tmp_path) == list(shown)
    assert 0 < len(trained.profile) <= 10
    times = [one.milliseconds for one in trained.profile]
    assert times == sorted(times, reverse=True)
    assert all(0 < one.share <= 1 for one in trained.profile)
    assert sum(one.share for one in trained.profile) <= 1.0001
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_the_dearest_operations_are_named_with_their_calls(tmp_path: Path):
    trained, _ = watched(tmp_path, 24)
    calls = {one.name: one.calls for one in trained.profile}
    # two convolutions forward, and both backward
    assert calls["aten::convolution_backward"] == 2.0
    assert "aten::mkldnn_convolution" in calls or "aten::_slow_conv2d_forward" in calls


def test_a_run_too_short_for_it_leaves_nothing(tmp_path: Path):
    profile = Profile(tmp_path / "profile.json", torch.device("cpu"))
    profile.begin(1)
    profile.step()
    profile.end()
    assert profile.dearest == ()
    assert list(tmp_path.iterdir()) == []


def test_what_is_watched_is_trained_as_ever(tmp_path: Path):
    plain = Distiller(tiny())
    train_tiny(tmp_path / "plain", plain, steps=24)
    _, seen = watched(tmp_path / "seen", 24)
    after = seen.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in plain.state_dict().items())


def test_a_run_that_is_stopped_leaves_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    take, number = Profile.step, 0

    def step(profile: Profile) -> None:
        nonlocal number
        number += 1
        take(profile)
        if number == 14:
            raise Interrupted("stopped", 2)

    monkeypatch.setattr(Profile, "step", step)
    with pytest.raises(Interrupted):
        watched(tmp_path, 24)
    assert set(steps_in(tmp_path)) >= {10, 11, 12, 13}


def test_nothing_is_watched_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **more: Any) -> Any:
        raise AssertionError("watched")

    monkeypatch.setattr("tutelage.engine.profiling.profile", refuse)
    assert train_tiny(tmp_path / "run").profile == ()
    assert not RunFolder(tmp_path / "run").profile.exists()
