"""The moving average of the weights: worked out by hand, and what looks at it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import loader, metrics, tiny, train_tiny
from torch import Tensor, nn

from tutelage.data import TrainLoader
from tutelage.distiller import Distiller
from tutelage.engine.averaging import Average
from tutelage.methods import FitNetHints


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=name)


def trajectory(folder: Path, patch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Weights after each of eight steps, without any average."""
    distiller, seen = Distiller(tiny()), []
    batch = TrainLoader.batch

    def watched(data: TrainLoader, step: int) -> Any:
        seen.append(bits(distiller.student))
        return batch(data, step)

    with patch.context() as inner:
        inner.setattr(TrainLoader, "batch", watched)
        train_tiny(folder, distiller)
    return [*seen[1:], bits(distiller.student)]


def average(weights: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    """By the formula: d = min(decay, 1 - s^(-2/3)) after step s, 0 after the first."""
    found = weights[0]
    for step, now in enumerate(weights[1:], start=2):
        d = min(decay, 1 - step ** (-2 / 3))
        found = {
            name: d * old + (1 - d) * now[name] if old.is_floating_point() else now[name]
            for name, old in found.items()
        }
    return found


def test_a_run_ends_in_the_average_of_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = trajectory(tmp_path / "plain", monkeypatch)
    assert 1 - 8 ** (-2 / 3) > 0.7 > 1 - 5 ** (-2 / 3)  # the decay both rises and stops rising
    averaged = Distiller(tiny())
    train_tiny(tmp_path / "run", averaged, average=0.7)
    close(bits(averaged.student), average(weights, 0.7))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "plain")  # training is as it was


def test_what_is_validated_is_the_average_and_training_goes_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weights = trajectory(tmp_path / "plain", monkeypatch)
    distiller, seen = Distiller(tiny()), []

    def validate() -> float:
        seen.append(bits(distiller.student))
        return 0.5

    train_tiny(tmp_path / "run", distiller, validate=validate, evaluate_every=3, average=0.7)
    close(seen[0], average(weights[:3], 0.7))
    close(seen[1], average(weights[:6], 0.7))
    close(bits(distiller.student), average(weights, 0.7))


def test_what_is_in_place_for_a_while_is_taken_back_whatever_happens():
    module = nn.BatchNorm1d(3)
    average = Average(module, 0.5)
    with torch.no_grad():
        module.weight.fill_(2.0)
        module.num_batches_tracked.fill_(7)  # pyright: ignore[reportOptionalMemberAccess]
    before = bits(module)

    def fail() -> None:
        with average.in_place():
            assert module.weight.tolist() == [1, 1, 1]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(torch.equal(value, before[name]) for name, value in bits(module).items())


def test_a_run_whose_validation_failed_goes_on(tmp_path: Path):
    distiller = Distiller(tiny())

    def fail() -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_tiny(tmp_path / "run", distiller, validate=fail, evaluate_every=3, average=0.7)
    again = Distiller(tiny())
    train_tiny(tmp_path / "run", again, data=loader(), average=0.7)
    whole = Distiller(tiny())
    train_tiny(tmp_path / "whole", whole, average=0.7)
    close(bits(again), bits(whole))


def test_a_student_with_taps_is_averaged_too(tmp_path: Path):
    def pupil() -> Distiller:
        return Distiller(tiny(), tiny(5, width=6), methods={"hints": (FitNetHints(), 1.0)})

    averaged, plain = pupil(), pupil()
    train_tiny(tmp_path / "averaged", averaged, average=0.9)
    train_tiny(tmp_path / "plain", plain)
    ours, theirs = bits(averaged), bits(plain)
    assert not torch.equal(ours["student.module.head.weight"], theirs["student.module.head.weight"])
    hints = [name for name in theirs if "hints" in name]
    assert hints
    assert all(torch.equal(ours[name], theirs[name]) for name in hints)
