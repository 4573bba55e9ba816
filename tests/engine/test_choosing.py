"""What is left to measuring: the fastest is taken, and nothing else has changed."""

import copy
import time
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from accelerate.state import AcceleratorState
from answers import NUM_VIEWS, make_store, part_of
from answers import VIEWS as STORED_VIEWS
from small_run import loader, pictures, settings, tiny, train_tiny
from torch import nn

from tutelage.data import TrainLoader
from tutelage.distiller import Distiller
from tutelage.engine import choosing
from tutelage.engine.choosing import Chosen, choose, fastest, settled
from tutelage.engine.settings import OPEN, TrainSettings
from tutelage.methods import KD, AttentionTransfer, FitNetHints
from tutelage.teachers import LiveTeacher, StoredTeacher

CPU = torch.device("cpu")
AUTO: dict[str, Any] = {"precision": "auto", "channels_last": "auto"}
FOUR = ["bf16 channels_last", "bf16", "fp32 channels_last", "fp32"]


def pupil() -> Distiller:
    guide = LiveTeacher(tiny(3, width=8), fuse=True)
    methods = {"kd": (KD(), 1.0), "hints": (FitNetHints(), 1.0), "at": (AttentionTransfer(), 1.0)}
    return Distiller(tiny(), guide, methods=methods)


def shown() -> tuple[torch.Tensor, torch.Tensor]:
    batch = loader().batch(0)
    return batch.images, batch.targets


def timed(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> list[tuple[str, int]]:
    """Steps last as said, without being taken; what was asked for."""
    asked: list[tuple[str, int]] = []

    def step(one: Any, session: Any, batch: Any) -> float:
        asked.append((one.name, len(batch.images)))
        return seconds[one.name.replace(" ", "_")]

    monkeypatch.setattr(choosing._Timed, "_step", step)
    return asked


def test_all_combinations_are_timed_and_one_is_taken():
    chosen = choose(pupil(), loader(), settings(**AUTO), CPU)
    assert list(chosen.milliseconds) == FOUR
    assert all(value > 0 for value in chosen.milliseconds.values())
    assert chosen.images == 12
    assert chosen.values.keys() == OPEN.keys()
    for key, value in chosen.values.items():
        assert value in OPEN[key]
    taken = chosen.values["precision"] + " channels_last" * chosen.values["channels_last"]
    assert chosen.milliseconds[taken] <= 1.03 * min(chosen.milliseconds.values())


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"precision": "auto"}, ["bf16 channels_last", "fp32 channels_last"]),
        ({"precision": "auto", "channels_last": False}, ["bf16", "fp32"]),
        ({"channels_last": "auto"}, ["fp32 channels_last", "fp32"]),
        ({"channels_last": "auto", "accumulate": 3}, ["fp32 channels_last", "fp32"]),
    ],
)
def test_what_is_said_is_not_varied(changes: dict[str, Any], names: list[str]):
    chosen = choose(pupil(), loader(), settings(**changes), CPU)
    assert list(chosen.milliseconds) == names
    assert chosen.values.keys() == {key for key, value in changes.items() if value == "auto"}


def test_nothing_else_has_changed():
    one = pupil()
    (guide,) = one.teachers
    assert isinstance(guide, LiveTeacher)
    state = copy.deepcopy(one.state_dict())
    teacher = copy.deepcopy(guide.network.state_dict())
    modes = [part.training for part in one.modules()]
    layouts = [value.stride() for value in one.parameters()]
    torch.manual_seed(7)
    torch.set_num_threads(2)
    mine = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    before = torch.get_rng_state()
    choose(one, loader(), settings(**AUTO), CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 2
    assert mine.mixed_precision == "bf16"
    AcceleratorState._reset_state(reset_partial_state=True)
    assert [part.training for part in one.modules()] == modes
    assert [value.stride() for value in one.parameters()] == layouts
    assert all(value.grad is None for value in one.parameters())
    assert one.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())
    now = guide.network.state_dict()
    assert all(torch.equal(value, teacher[name]) for name, value in now.items())


def test_a_run_after_it_is_the_run_without_it(tmp_path: Path):
    runs = []
    for name in ("before", "after"):
        one = pupil()
        if name == "after":
            choose(one, loader(), settings(**AUTO), CPU)
        train_tiny(tmp_path / name, one)
        runs.append(one.state_dict())
    assert all(value.isfinite().all() for value in runs[0].values())
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_the_fastest_is_taken(monkeypatch: pytest.MonkeyPatch):
    asked = timed(
        monkeypatch, bf16_channels_last=0.02, bf16=0.01, fp32_channels_last=0.03, fp32=0.04
    )
    chosen = choose(pupil(), loader(), settings(**AUTO), CPU)
    assert chosen.values == {"precision": "bf16", "channels_last": False}
    assert chosen.milliseconds == dict(zip(FOUR, [20.0, 10.0, 30.0, 40.0], strict=True))
    names = [name for name, images in asked if images == 12]
    # there and back: four steps of each, four of the last twice in a row
    order = [name for number, name in enumerate(names) if not number or names[number - 1] != name]
    assert order[-7:] == [*FOUR, *FOUR[2::-1]]


@pytest.mark.parametrize(
    ("milliseconds", "taken"),
    [
        ([10.0, 10.0, 10.0, 10.0], 2),
        ([10.0, 10.2, 10.3, 10.25], 3),
        ([10.0, 10.2, 10.4, 10.4], 0),
        ([10.4, 10.0, 11.0, 11.0], 1),
    ],
)
def test_of_what_is_about_as_fast_the_more_precise_is_taken(milliseconds: list[float], taken: int):
    assert fastest(["bf16", "bf16", "fp32", "fp32"], milliseconds) == taken


def test_slow_steps_are_shown_fewer_images(monkeypatch: pytest.MonkeyPatch):
    data = loader(pictures(300), batch_size=100)
    timed(monkeypatch, bf16_channels_last=0.02, fp32_channels_last=0.02)
    open_ = settings(precision="auto", batch_size=100)
    # 3.5 s for 2 · 4 · 2 steps are 0.22 s each: 11 times as many as 8, so 32 are tried, then all
    assert choose(pupil(), data, open_, CPU).images == 100
    timed(monkeypatch, bf16_channels_last=0.1, fp32_channels_last=0.1)
    # 2.2 times as many as 8
    assert choose(pupil(), data, open_, CPU).images == 17
    timed(monkeypatch, bf16_channels_last=9.0, fp32_channels_last=9.0)
    assert choose(pupil(), data, open_, CPU).images == 8


def test_without_time_left_nothing_is_timed_twice(monkeypatch: pytest.MonkeyPatch):
    asked = timed(monkeypatch, bf16_channels_last=0.02, fp32_channels_last=0.02)
    monkeypatch.setattr(choosing, "_SECONDS", 0.0)
    choose(pupil(), loader(), settings(precision="auto"), CPU)
    assert len([name for name, _ in asked]) == 2 * 2 + 2 * 2


def test_it_takes_less_than_said():
    """Not how fast it is, but that its own clock ends it: whole batches take a quarter second."""

    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = tiny().module

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            slept.append(0.02 * len(images) / 8)
            time.sleep(slept[-1])
            return self.body(images)

    slept: list[float] = []
    data = loader(pictures(300), batch_size=100)
    one = Distiller(Slow(), image_size=(1, 8, 8))
    chosen = choose(one, data, settings(**AUTO, batch_size=100), CPU)
    assert chosen.images < 100
    assert sum(slept) < 5


def test_nothing_is_compiled_for_it(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **more: Any) -> Any:
        raise AssertionError("compiled")

    monkeypatch.setattr(Distiller, "compile", refuse)
    monkeypatch.setattr("tutelage.teachers.live._frozen", lambda _: refuse)
    guide = LiveTeacher(tiny(3), compile=True)
    one = Distiller(tiny(), guide, methods={"kd": (KD(), 1.0)})
    with pytest.raises(AssertionError, match="compiled"):
        one(*shown())
    choose(one, loader(), settings(precision="auto", compile=True, compile_teacher=True), CPU)


def test_a_stored_teacher_answers_while_it_is_timed(tmp_path: Path):
    make_store(tmp_path / "store")
    data = TrainLoader(part_of("train"), STORED_VIEWS, batch_size=12, seed=5, num_views=NUM_VIEWS)
    teacher = StoredTeacher(tmp_path / "store")
    one = Distiller(tiny(), teacher, methods={"kd": (KD(), 1.0)})
    assert len(choose(one, data, settings(channels_last="auto"), CPU).milliseconds) == 2


# What becomes of it


def test_only_what_is_open_is_settled():
    plain, open_ = TrainSettings(1, precision="fp32"), TrainSettings(1, **AUTO)
    values = {"precision": "bf16", "channels_last": False}
    assert settled(plain, values) == plain
    taken = settled(open_, values)
    assert (taken.precision, taken.channels_last, taken.open) == ("bf16", False, ())
    assert settled(open_, {"precision": "bf16"}).open == ("channels_last",)


def test_it_is_said_in_one_line():
    chosen = Chosen({"precision": "bf16", "channels_last": True}, {"bf16": 61.24, "fp32": 142.0}, 9)
    line = "precision bf16, channels_last true (ms for 9 images: bf16 61.2, fp32 142)"
    assert str(chosen) == line
    assert str(Chosen({"precision": "fp32"})) == "precision fp32 (as the teacher's store)"


def test_a_session_refuses_what_is_open(tmp_path: Path):
    with pytest.raises(AssertionError, match="choosing"):
        train_tiny(tmp_path / "run", precision="auto")
