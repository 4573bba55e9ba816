import inspect
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from accelerate.state import AcceleratorState
from small_run import loader, metrics, pictures, tiny, train_tiny
from torch import Tensor, nn

from tutelage.data import TrainLoader
from tutelage.distiller import Distiller, Schedule
from tutelage.engine import EarlyStopping, resolve_device, session
from tutelage.errors import Interrupted, NonFiniteError, SettingError
from tutelage.methods import KD, AttentionTransfer, FitNetHints
from tutelage.records import RunFolder, read_lines

HUGE: dict[str, Any] = {"optimizer": {"name": "sgd", "lr": 1e30}}


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


class CutOffError(Exception):
    """What a test ends a training with."""


def at_step(patch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Does something before the batch of a step, counted from 0, is made."""
    batch = TrainLoader.batch

    def acting(loader: TrainLoader, now: int) -> Any:
        if now == step:
            act()
        return batch(loader, now)

    patch.setattr(TrainLoader, "batch", acting)


def cut_off(*unused: Any) -> None:
    raise CutOffError


def train_until(step: int, folder: Path, distiller: Distiller | None = None, **changes: Any):
    """Takes so many steps and dies, with a checkpoint after every one."""
    settings: dict[str, Any] = {"checkpoint_every": 1} | changes
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, step, cut_off)
        with pytest.raises(CutOffError):
            train_tiny(folder, distiller, **settings)


# Going on


OPTIMIZERS = [
    {"name": "sgd", "lr": 0.05},
    {"name": "sgd", "lr": 0.05, "momentum": 0.0},
    {"name": "adamw", "lr": 0.01},
]
SCHEDULES = [
    {"name": "one_cycle"},
    {"name": "cosine"},
    {"name": "multistep", "at": (0.5, 0.8)},
    {"name": "constant"},
]


@pytest.mark.parametrize(
    "changes",
    [
        *({"optimizer": each} for each in OPTIMIZERS),
        *({"schedule": each} for each in SCHEDULES),
        {"precision": "bf16"},
        {"accumulate": 3},
        {"channels_last": False},
        {"clip": 0.1, "average": 0.6},
    ],
    ids=str,
)
def test_a_resumed_run_ends_in_the_same_bits(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = Distiller(tiny())
    train_tiny(tmp_path / "whole", whole, **changes)
    train_until(5, tmp_path / "cut", checkpoint_every=2, **changes)
    resumed = Distiller(tiny(seed=9))  # its weights come from the checkpoint
    trained = train_tiny(tmp_path / "cut", resumed, checkpoint_every=2, **changes)
    assert trained.steps == 8
    assert equal(bits(whole), bits(resumed))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")
    assert all(value.isfinite().all() for value in bits(whole).values())


def test_dropout_comes_from_the_seed(tmp_path: Path):
    ends = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        distiller = Distiller(tiny())
        train_tiny(tmp_path / name, distiller, seed=seed)
        ends.append(bits(distiller))
    assert equal(ends[0], ends[1])
    assert not equal(ends[0], ends[2])


def test_learned_parts_of_methods_are_resumed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def pupil(seed: int) -> Distiller:
        return Distiller(
            tiny(seed), tiny(5, width=6), methods={"hints": (FitNetHints(), 1.0)}, seed=seed
        )

    whole = pupil(0)
    train_tiny(tmp_path / "whole", whole)
    train_until(5, tmp_path / "cut", pupil(0))
    resumed = pupil(9)
    train_tiny(tmp_path / "cut", resumed, checkpoint_every=1)
    assert any("hints" in name for name in bits(whole))
    assert equal(bits(whole), bits(resumed))


# What bits depend on


def test_a_resumed_run_takes_the_recorded_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[int] = []
    torch.set_num_threads(1)
    train_until(3, tmp_path / "run", threads=None)
    torch.set_num_threads(2)
    at_step(monkeypatch, 5, lambda: seen.append(torch.get_num_threads()))
    trained = train_tiny(tmp_path / "run", threads=None, checkpoint_every=1)
    assert seen == [1]
    assert trained.threads == 1
    assert torch.get_num_threads() == 2  # as it was before


@pytest.mark.parametrize(
    ("key", "value"), [("threads", 7), ("torch", "2.0.0"), ("device", "cuda (some card)")]
)
def test_other_conditions_are_said_in_one_sentence(
    key: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = session._setting

    def other(device: torch.device, processes: int) -> dict[str, Any]:
        return now(device, processes) | {key: value}

    with monkeypatch.context() as patch:
        patch.setattr(session, "_setting", other)
        train_until(3, tmp_path / "run")
    with pytest.warns(UserWarning, match="may differ in their last bits") as caught:
        train_tiny(tmp_path / "run", checkpoint_every=1)
    (only,) = caught
    assert f"({key} {value} → " in str(only.message)
    assert str(only.message).count(". ") == 0
    # Said once: the checkpoints that came after are of these conditions.
    train_tiny(tmp_path / "run", checkpoint_every=1)


# Being stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_and_says_by_what(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match="step 4 of 8") as caught:
            train_tiny(tmp_path / "run")
    assert caught.value.signal == number
    assert signal.getsignal(number) is before
    run = RunFolder(tmp_path / "run")
    assert run.checkpoints[-1] == run.checkpoint(4)

    resumed, whole = Distiller(tiny(9)), Distiller(tiny())
    train_tiny(tmp_path / "run", resumed)
    train_tiny(tmp_path / "whole", whole)
    assert equal(bits(whole), bits(resumed))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_a_signal_in_the_last_step_lets_the_run_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    at_step(monkeypatch, 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert train_tiny(tmp_path / "run").ended == "steps"


# Numbers that are not finite


def finite_checkpoint(folder: Path) -> int:
    """The step of the newest checkpoint, which loads and is finite."""
    distiller = Distiller(tiny(9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainLoader, "batch", cut_off)
        with pytest.raises(CutOffError):
            train_tiny(folder, distiller)
    assert all(value.isfinite().all() for value in bits(distiller).values())
    return int(RunFolder(folder).checkpoints[-1].name.removeprefix("step-"))


def test_a_learning_rate_far_too_high_is_said_with_step_and_term(tmp_path: Path):
    with pytest.raises(NonFiniteError, match=r"supervised became infinite or NaN at step \d;"):
        train_tiny(tmp_path / "run", **HUGE)
    assert finite_checkpoint(tmp_path / "run") == 0


def test_weights_that_are_not_finite_reach_no_checkpoint(tmp_path: Path):
    # A checkpoint after each step: the weights may be broken before any loss is.
    with pytest.raises(NonFiniteError, match=r"became infinite or NaN (at|by) step \d;"):
        train_tiny(tmp_path / "run", checkpoint_every=1, **HUGE)
    assert finite_checkpoint(tmp_path / "run") < 8


def test_the_last_step_may_break_the_weights_too(tmp_path: Path):
    pupil = Distiller(tiny())
    step = torch.optim.SGD.step

    def breaking(optimizer: torch.optim.SGD, closure: Any = None) -> Any:
        done.append(step(optimizer, closure))
        if len(done) == 8:
            weight = pupil.student.module.get_parameter("head.weight")
            weight.data[0, 0] = float("nan")

    done: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", breaking)
        with pytest.raises(NonFiniteError, match=r"student\.module\.head\.weight .* by step 8"):
            train_tiny(tmp_path / "run", pupil, checkpoint_every=3, schedule={"name": "constant"})
    assert finite_checkpoint(tmp_path / "run") == 6


def test_a_mask_may_be_infinite(tmp_path: Path):
    pupil = Distiller(tiny())
    pupil.student.module.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    assert train_tiny(tmp_path / "run", pupil).steps == 8


def test_nothing_is_decided_on_numbers_that_are_not_finite(tmp_path: Path):
    asked: list[int] = []
    with pytest.raises(NonFiniteError):
        train_tiny(
            tmp_path / "run",
            validate=lambda: asked.append(1) or 0.1,
            evaluate_every=4,
            log_every=100,
            **HUGE,
        )
    assert asked == []


# Ending


def test_early_stopping_waits_as_long_as_it_is_told(tmp_path: Path):
    answers = iter([0.3, 0.5, 0.505, 0.4, 0.9])
    trained = train_tiny(
        tmp_path / "run",
        validate=lambda: next(answers),
        steps=20,
        evaluate_every=2,
        early_stopping=EarlyStopping(patience=2, min_delta=0.01),
    )
    # Better at 2 and 4; 0.505 is no gain of 0.01, 0.4 is none at all.
    assert (trained.steps, trained.ended) == (8, "early_stopping")
    evaluated = [line for line in metrics(tmp_path / "run") if "validation_accuracy" in line]
    assert [line["step"] for line in evaluated] == [2, 4, 6, 8]
    assert [line["validation_accuracy"] for line in evaluated] == [0.3, 0.5, 0.505, 0.4]
    # Resumed by mistake, it stays at its end.
    again = train_tiny(
        tmp_path / "run", steps=20, evaluate_every=2, early_stopping=EarlyStopping(patience=2)
    )
    assert (again.steps, again.ended) == (8, "early_stopping")


def test_what_early_stopping_knows_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rule: dict[str, Any] = {
        "steps": 20,
        "evaluate_every": 1,
        "early_stopping": EarlyStopping(patience=3),
    }
    train_until(3, tmp_path / "run", validate=lambda: 0.5, **rule)
    # 0.5 at step 1, no better at 2 and 3: one more evaluation ends it.
    assert train_tiny(tmp_path / "run", validate=lambda: 0.5, **rule).steps == 4


def test_a_run_ends_after_so_many_minutes(tmp_path: Path):
    trained = train_tiny(tmp_path / "run", steps=10_000, max_minutes=1e-9)
    assert (trained.steps, trained.ended) == (1, "max_minutes")
    assert RunFolder(tmp_path / "run").checkpoints


def test_minutes_count_over_all_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = itertools.count(step=1.0)  # a second passes at each look
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    train_until(6, tmp_path / "run", steps=1000, max_minutes=1.0)
    trained = train_tiny(tmp_path / "run", steps=1000, checkpoint_every=1, max_minutes=1.0)
    assert trained.ended == "max_minutes"
    assert 6 < trained.steps < 40
    assert trained.seconds >= 60


# What a step computes


def test_accumulation_changes_nothing_but_memory(tmp_path: Path):
    def end(name: str, accumulate: int) -> dict[str, Tensor]:
        student = tiny(norm="group", dropout=0.0)
        guide = tiny(3, norm="group", width=8)
        methods = {"kd": (KD(), 0.9), "at": (AttentionTransfer(), 10.0)}
        distiller = Distiller(student, guide, methods=methods, task_weight=0.5)
        data = loader(pictures(60, labelled=23))  # 5 of 12, no multiple of 4
        train_tiny(tmp_path / name, distiller, data=data, accumulate=accumulate)
        return bits(distiller)

    first, second = end("one", 1), end("four", 4)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-5)
    one, four = metrics(tmp_path / "one"), metrics(tmp_path / "four")
    for before, after in zip(one, four, strict=True):
        assert before == pytest.approx(after, rel=1e-4)


def test_weights_of_pictures_count_in_every_micro_batch(tmp_path: Path):
    """As many steps with twice the learning rate and all weights 1/2 are the same steps."""
    plain = {"optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 0.0}}
    twice = {"optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0}}

    def end(name: str, weight: float | None, **changes: Any) -> dict[str, Tensor]:
        data = pictures()
        if weight is not None:
            data = replace(data, weight=torch.full((len(data),), weight))
        distiller = Distiller(tiny(norm="group", dropout=0.0))
        train_tiny(tmp_path / name, distiller, data=loader(data), **changes)
        return bits(distiller)

    whole = end("whole", None, **plain)
    halves = end("halves", 0.5, **twice)
    pieces = end("pieces", 0.5, accumulate=3, **twice)
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pieces[name], value, rtol=1e-4, atol=1e-5)


def test_a_gradients_norm_is_at_most_what_clip_says(tmp_path: Path):
    plain = {"optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}}
    once: dict[str, Any] = {"steps": 1, "schedule": {"name": "constant"}} | plain

    def moved(name: str, **changes: Any) -> tuple[float, dict[str, Tensor]]:
        distiller = Distiller(tiny())
        before = [one.detach().clone() for one in distiller.parameters()]
        train_tiny(tmp_path / name, distiller, **once, **changes)
        after = list(distiller.parameters())
        change = [(b - a).flatten() for a, b in zip(before, after, strict=True)]
        return torch.cat(change).norm().item(), bits(distiller)

    free, end = moved("free")
    assert moved("clipped", clip=free / 4)[0] == pytest.approx(free / 4, rel=1e-4)
    assert moved("accumulated", clip=free / 4, accumulate=3)[0] == pytest.approx(free / 4, rel=1e-4)
    assert equal(moved("loose", clip=2 * free)[1], end)


def test_schedules_of_weights_follow_the_run(tmp_path: Path):
    """A weight that falls from 1 to 0: the loss is the scheduled share of its only term."""
    methods = {"kd": (KD(), Schedule("linear", from_=1.0, to=0.0))}
    distiller = Distiller(tiny(), tiny(3), methods=methods, task_weight=0.0)
    train_tiny(tmp_path / "run", distiller, log_every=1)
    for line in metrics(tmp_path / "run"):
        done = (line["step"] - 1) / 8  # the first step is taken at 0
        assert line["loss"] == pytest.approx((1 - done) * line["kd.kl"], rel=1e-5)


def test_the_learning_rate_follows_its_schedule(tmp_path: Path):
    schedule = {"name": "multistep", "at": (0.25, 0.5), "factor": 0.1}
    train_tiny(tmp_path / "run", log_every=1, schedule=schedule)
    rates = [line["lr"] for line in metrics(tmp_path / "run")]
    assert rates == pytest.approx([0.05] + 2 * [0.005] + 5 * [0.0005])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_is_that_of_the_forward_pass(precision: str, tmp_path: Path):
    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.append(output.dtype)

    seen: list[torch.dtype] = []
    pupil = Distiller(tiny())
    pupil.student.module.get_submodule("head").register_forward_hook(note)
    train_tiny(tmp_path / "run", pupil, precision=precision)
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert all(p.dtype == torch.float32 for p in pupil.parameters())
    # Autocast went with the engine.
    pupil.observe(torch.zeros(2, 1, 8, 8))
    pupil(torch.zeros(2, 1, 8, 8))
    assert seen[-2:] == [torch.float32, torch.float32]


def test_the_teacher_stays_as_it_was(tmp_path: Path):
    """A teacher with batch norm and dropout, after several epochs."""
    teacher = tiny(3, width=8)
    train_tiny(tmp_path / "teacher", Distiller(teacher), steps=20)
    before = bits(teacher)
    assert any("running_mean" in name for name in before)
    distiller = Distiller(tiny(), teacher, methods={"kd": (KD(), 1.0)})
    teacher.train()  # as a parent's .train() would
    train_tiny(tmp_path / "run", distiller, steps=12)
    assert equal(before, bits(teacher))
    assert not any(part.training for part in teacher.modules())
    assert not any("teacher" in name for name in distiller.state_dict())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_with_tied_weights_is_saved_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def tied(seed: int) -> Distiller:
        network = tiny(seed)
        network.module.add_module("again", network.module.get_submodule("head"))
        return Distiller(network)

    whole, resumed = tied(0), tied(9)
    train_tiny(tmp_path / "whole", whole)
    train_until(5, tmp_path / "cut", tied(0))
    train_tiny(tmp_path / "cut", resumed, checkpoint_every=1)
    assert equal(bits(whole), bits(resumed))


# What it leaves behind


def test_trackers_are_told_the_same_numbers(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_tiny(tmp_path / "run", trackers=("tensorboard",), evaluate_every=8)
    (events,) = (tmp_path / "run").glob("**/events.out.tfevents*")
    written = EventAccumulator(str(events)).Reload()
    losses = [(event.step, event.value) for event in written.Scalars("loss")]
    lines = [line for line in metrics(tmp_path / "run") if "loss" in line]
    assert losses == [(line["step"], pytest.approx(line["loss"])) for line in lines]
    assert written.Scalars("validation_accuracy")[0].value == 0.5


def test_a_tracker_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(SettingError, match=r"'tensorbord' is unknown .* did you mean tensorboard"):
        train_tiny(tmp_path / "run", trackers=("tensorbord",))


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(SettingError, match=r"no CUDA device here\. Set train\.device"):
        resolve_device("cuda")


@pytest.mark.parametrize("ending", ["finished", "refused", "cut off"])
def test_the_process_is_afterwards_as_it_was(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    mine = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)

    if ending == "finished":
        train_tiny(tmp_path / "run", threads=1)
    elif ending == "refused":
        with pytest.raises(SettingError, match="one_cycle"):
            train_tiny(tmp_path / "run", threads=1, steps=1)
    else:
        at_step(monkeypatch, 3, cut_off)
        with pytest.raises(CutOffError):
            train_tiny(tmp_path / "run", threads=1)

    assert torch.equal(torch.rand(3), drawn)
    assert torch.get_num_threads() == 2
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert mine.mixed_precision == "bf16"
    assert mine.device == torch.device("cpu")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_distiller_comes_back_in_eval_mode_and_unwrapped(tmp_path: Path):
    pupil = Distiller(tiny())
    train_tiny(tmp_path / "run", pupil, precision="bf16")
    assert not any(part.training for part in pupil.modules())
    assert inspect.unwrap(pupil.forward.__func__) is inspect.unwrap(Distiller.forward)
    assert all(parameter.grad is None for parameter in pupil.parameters())


def test_runs_of_different_precision_follow_each_other(tmp_path: Path):
    for precision in ("bf16", "fp32", "bf16"):
        train_tiny(tmp_path / precision, precision=precision)


def test_training_lowers_the_loss(tmp_path: Path):
    train_tiny(tmp_path / "run", Distiller(tiny(dropout=0.0)), steps=60, log_every=10)
    lines = metrics(tmp_path / "run")
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[-1]["accuracy"] > 0.9
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60]


def test_lines_say_how_fast_it_went(tmp_path: Path):
    train_tiny(tmp_path / "run")
    lines = read_lines(RunFolder(tmp_path / "run").metrics)
    assert all(line["images_per_second"] > 0 for line in lines)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_step_waits_for_the_device(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From the second step to the one before the next log line."""
    guide = tiny(3, width=8)
    methods = {"kd": (KD(), 1.0), "at": (AttentionTransfer(), 1.0)}
    distiller = Distiller(tiny(), guide, methods=methods)
    at_step(monkeypatch, 1, lambda: torch.cuda.set_sync_debug_mode("error"))
    end = lambda: torch.cuda.set_sync_debug_mode("default")  # noqa: E731
    at_step(monkeypatch, 7, end)
    try:
        trained = train_tiny(
            tmp_path / "run", distiller, device="cuda", precision=precision, log_every=8
        )
    finally:
        end()
    assert trained.steps == 8
