"""The loops of the examples take the steps that the engine takes, on the same batches."""

import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import unchecked
from accelerate import Accelerator
from small_run import loader, metrics, settings, tiny, train_tiny
from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]
from timm.utils.model import unwrap_model
from torch import Tensor
from torch.utils.data import DataLoader

from tutelage.distiller import Distiller, Schedule
from tutelage.engine.optim import sgd
from tutelage.methods import KD, FitNetHints

STEPS = settings().steps
Batch = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """As the engine here."""
    torch.set_num_threads(1)


def example(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of others' packages, while they are loaded
        return import_module(name)


def new_pupil(*, scheduled: bool = True) -> Distiller:
    """With a learned part, and a weight that falls."""
    weight = Schedule("linear", from_=1.0, to=0.0) if scheduled else 1.0
    methods = {"kd": (KD(temperature=2), 0.5), "hints": (FitNetHints(), weight)}
    teacher = tiny(5, width=6)
    return Distiller(tiny(dropout=0.0), teacher, methods=methods)


def new_optimizer(pupil: Distiller) -> torch.optim.Optimizer:
    return sgd(pupil.trainable_parameters(), lr=0.05)


@pytest.fixture
def batches() -> list[Batch]:
    data = [loader().batch(step) for step in range(STEPS)]
    return [(one.images, one.targets, one.has_label) for one in data]


class Listed(torch.utils.data.Dataset):
    """Whole batches: images, and labels that are all known."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        images, labels, known = self.batches[place]
        assert known.all()
        return images, labels


@pytest.fixture
def engine(tmp_path: Path) -> tuple[list[float], Distiller]:
    """Losses of the engine's steps, and what they end in."""
    pupil = new_pupil()
    constant = {"schedule": {"name": "constant"}, "log_every": 1}
    train_tiny(tmp_path / "engine", pupil, **constant)
    return [line["loss"] for line in metrics(tmp_path / "engine") if "loss" in line], pupil


def same(losses: list[float], pupil: Distiller, engine: tuple[list[float], Distiller]) -> None:
    expected, by_engine = engine
    assert len(losses) == len(expected) == STEPS
    assert losses == pytest.approx(expected, rel=1e-6)
    assert losses[0] != pytest.approx(losses[-1], rel=1e-3)  # it moves
    for name, value in by_engine.state_dict().items():
        torch.testing.assert_close(pupil.state_dict()[name], value, msg=name)


def test_plain_pytorch(batches: list[Batch], engine: tuple[list[float], Distiller]):
    pupil = new_pupil()
    found = example("own_loop").train(pupil, new_optimizer(pupil), batches)
    same([out.loss.item() for out in found], pupil, engine)


def test_accelerate(batches: list[Batch], engine: tuple[list[float], Distiller]):
    pupil = new_pupil()
    data = DataLoader(Listed(batches), batch_size=None)  # all are labelled
    train = example("accelerate_loop").train
    found = train(pupil, new_optimizer(pupil), data, Accelerator(cpu=True))
    same([out.loss.item() for out in found], pupil, engine)


def test_lightning(batches: list[Batch], engine: tuple[list[float], Distiller], tmp_path: Path):
    module = example("lightning_module")
    losses: list[float] = []

    class Watched(module.Distilled):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            assert isinstance(super().configure_optimizers(), torch.optim.SGD)
            return new_optimizer(self.pupil)

    pupil = new_pupil()
    trainer = module.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=tmp_path,
    )
    lightning = Watched(pupil, 0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are few workers, and few steps to log
        trainer.fit(lightning, DataLoader(Listed(batches), batch_size=None))
    same(losses, pupil, engine)
    assert set(trainer.logged_metrics) == {f"train/{name}" for name in pupil.term_names}
    assert not any("teacher" in name for name in lightning.state_dict())


# timm's script: what it does with a task, from train.py of 1.0.31


def by_script(task: Any, optimizer: torch.optim.Optimizer, batches: Sequence[Batch]) -> list[float]:
    losses = []
    task.get_trainable_module().train()
    optimizer.zero_grad()
    for number, (images, labels, _) in enumerate(batches, start=1):
        result = task(images, labels)
        losses.append(result["loss"].item())
        assert result["output"].shape == (len(labels), 3)
        result["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        task.update_ema(step=number)
    return losses


def test_timm(batches: list[Batch], engine: tuple[list[float], Distiller]):
    pupil = new_pupil()
    task = example("timm_task").DistillationTask(pupil, steps=STEPS)
    task.setup_ema(decay=0.5)
    optimizer = new_optimizer(task.get_trainable_module())
    same(by_script(task, optimizer, batches), pupil, engine)
    plain, averaged = task.get_eval_model(), task.get_eval_model(ema=True)
    assert plain is pupil.student
    assert averaged is not plain
    assert averaged(batches[0][0]).shape == plain(batches[0][0]).shape


def test_timm_saves_a_student_as_it_saves_any_and_goes_on(batches: list[Batch]):
    make = example("timm_task").DistillationTask
    whole, first, second = (make(new_pupil(), steps=STEPS) for _ in range(3))
    losses = by_script(whole, new_optimizer(whole.trainable_module), batches)
    optimizer = new_optimizer(first.trainable_module)
    by_script(first, optimizer, batches[:3])
    state = first.get_checkpoint_state()
    student = first.trainable_module.student.module
    assert state["state_dict"].keys() == student.state_dict().keys()
    second.load_checkpoint_state(state["state_dict"], state["task_state"])
    going_on = new_optimizer(second.trainable_module)
    going_on.load_state_dict(optimizer.state_dict())
    assert by_script(second, going_on, batches[3:]) == pytest.approx(losses[3:], rel=1e-6)


def test_timm_knows_networks_that_say_nothing_of_their_size(batches: list[Batch]):
    """As `model` in the script is."""
    student, teacher = tiny(dropout=0.0).module, tiny(5, width=6).module
    pupil = Distiller(
        student,
        teacher,
        methods={"kd": (KD(), 1.0)},
        input_normalized=([0.5], [0.5]),
        image_size=(1, 8, 8),
    )
    task = example("timm_task").DistillationTask(pupil)
    losses = by_script(task, new_optimizer(pupil), batches)
    assert losses[-1] < losses[0]
    assert unwrap_model(task.get_eval_model()) is student


def test_timm_optimizes_what_is_trained():
    task = example("timm_task").DistillationTask(new_pupil(scheduled=False))
    optimizer = create_optimizer_v2(task.get_trainable_module(), opt="sgd", lr=0.1)
    trained = {id(one) for group in optimizer.param_groups for one in group["params"]}
    clipped = [id(one) for one in task.get_clip_parameters(exclude_head=True)]
    head = {id(one) for one in task.trainable_module.student.module.head.parameters()}
    assert trained - set(clipped) == head
    assert set(map(id, task.get_clip_parameters())) == trained
    assert trained == {id(one) for one in task.trainable_module.trainable_parameters()}


COMPILED = """
import sys
sys.path.insert(0, "../examples")
import torch
from small_run import tiny
from timm.utils.model import unwrap_model
from timm_task import DistillationTask
from tutelage.distiller import Distiller
from tutelage.methods import FitNetHints

pupil = Distiller(tiny(), tiny(5, width=6), methods={"hints": (FitNetHints(), 1.0)})
images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
plain = pupil.eval()(images, labels).loss.item()
task = DistillationTask(pupil)
assert unwrap_model(task.compile(backend="aot_eager")) is pupil.student.module
found = task(images, labels)["loss"]
found.backward()
assert abs(found.item() - plain) < 1e-5, (found.item(), plain)
"""


@pytest.mark.slow
def test_timm_compiles_it():
    unchecked.run(COMPILED)
