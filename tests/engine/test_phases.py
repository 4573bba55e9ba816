from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import pytest
import torch
from small_run import SPEC, Tiny, metrics, pictures, tiny, train_tiny
from torch import Tensor, nn

from tutelage.data import EvalLoader, Pictures
from tutelage.distiller import Distiller
from tutelage.engine.phases import end_phase, move, phase_ends
from tutelage.engine.session import Session
from tutelage.methods import Method, Needs
from tutelage.models.network import Network
from tutelage.records import RunFolder
from tutelage.types import Batch, Findings, InputSpec, Phase, Shapes, Terms, TransferBatch


@final
class Doubter(Method):
    """Two learned scales of the student's answer; of which it drops those that it doubts.

    Args:
        decide: what it does between phases.
    """

    needs = Needs(teachers=0)

    def __init__(self, decide: Callable[["Doubter", Phase], Findings | None]) -> None:
        super().__init__()
        self.decide = decide
        self.scales = nn.ParameterDict()

    def build(self, shapes: Shapes) -> None:
        for name in ("left", "right"):
            self.scales[name] = nn.Parameter(torch.rand(3))

    def forward(self, batch: TransferBatch) -> Terms:
        answer = batch.student.output
        return {
            f"pull/{name}": ((answer * scale - 1) ** 2).sum(1).mean()
            for name, scale in self.scales.items()
        }

    def end_phase(self, phase: Phase) -> Findings | None:
        return self.decide(self, phase)

    def structure(self) -> Any:
        return sorted(self.scales)

    def restore_structure(self, structure: Any) -> None:
        for name in sorted(set(self.scales) - set(structure)):
            del self.scales[name]


def pupil(decide: Callable[[Doubter, Phase], Findings | None], seed: int = 0) -> Distiller:
    return Distiller(tiny(seed), methods={"doubter": (Doubter(decide), 0.1)}, seed=seed)


def nothing(method: Doubter, phase: Phase) -> None:
    """Decides nothing."""


# Where phases end


def test_phases_are_equal_parts():
    assert phase_ends(9, 3) == [3, 6, 9]
    assert phase_ends(8, 8) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_methods_are_asked_after_each_phase(tmp_path: Path):
    asked: list[int] = []

    def decide(method: Doubter, phase: Phase) -> Findings:
        asked.append(phase.number)
        return Findings({"seen": phase.number})

    trained = train_tiny(tmp_path / "run", pupil(decide), phases=4)
    assert asked == [0, 1, 2, 3]
    assert trained.phases == tuple({"doubter": {"seen": number}} for number in range(4))


def test_a_method_that_decides_nothing_is_left_out(tmp_path: Path):
    trained = train_tiny(tmp_path / "run", pupil(nothing), phases=2)
    assert trained.phases == ({}, {})


# What a method may look at


def state(distiller: Distiller) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in distiller.state_dict().items()}


def modes(distiller: nn.Module) -> list[bool]:
    return [part.training for part in distiller.modules()]


def test_looking_leaves_nothing_changed(tmp_path: Path):
    """Weights, buffers, random state and modes, also in the middle of a look that is broken off."""

    def decide(method: Doubter, phase: Phase) -> None:
        # Batch norm frozen by its owner, in a student that trains otherwise
        distiller.student.module.get_submodule("layer1.1").eval()
        before = state(distiller), torch.get_rng_state(), modes(distiller)
        for seen in phase.held_out():
            assert not seen.student.output.requires_grad
            assert modes(distiller) == before[2]
            break
        assert len([seen.index for seen in phase.held_out()]) == 2
        phase.lookahead(["pull/left", "pull/right"])
        after = state(distiller), torch.get_rng_state(), modes(distiller)
        assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
        assert torch.equal(before[1], after[1])
        assert before[2] == after[2]
        assert all(parameter.grad is None for parameter in distiller.parameters())
        done.append(phase.number)

    done: list[int] = []
    distiller = pupil(decide)
    train_tiny(tmp_path / "run", distiller, phases=2)
    assert done == [0, 1]


def test_looking_changes_no_later_step(tmp_path: Path):
    def look(method: Doubter, phase: Phase) -> None:
        list(phase.held_out())
        phase.lookahead(["pull/left"])

    looking, blind = pupil(look), pupil(nothing)
    train_tiny(tmp_path / "looking", looking, phases=4)
    train_tiny(tmp_path / "blind", blind, phases=4)
    first, second = state(looking), state(blind)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_held_out_pictures_are_seen_as_they_are(tmp_path: Path):
    def decide(method: Doubter, phase: Phase) -> None:
        seen = list(phase.held_out())
        assert torch.cat([each.index for each in seen if each.index is not None]).tolist() == list(
            range(30)
        )
        assert all(not each.view.any() for each in seen if each.view is not None)
        # In eval mode: dropout would give another answer each time.
        again = list(phase.held_out())
        for one, two in zip(seen, again, strict=True):
            assert torch.equal(one.student.output, two.student.output)
        done.append(len(seen))

    done: list[int] = []
    train_tiny(tmp_path / "run", pupil(decide), phases=1)
    assert done == [2]


# The virtual step, by hand


@final
class Sum(Method):
    """Two terms whose gradients are known: the mean answer of class 0, and of class 1."""

    needs = Needs(teachers=0)
    asked: tuple[tuple[str, ...], ...] = ((), ("zero",), ("one",), ("zero", "one"))

    def forward(self, batch: TransferBatch) -> Terms:
        answer = batch.student.output
        return {"zero": answer[:, 0].mean(), "one": answer[:, 1].mean()}

    def end_phase(self, phase: Phase) -> Findings:
        return Findings({"+".join(terms): phase.lookahead(terms) for terms in self.asked})


def one_pixel(values: list[int], labels: list[int], *, labelled: int | None = None) -> Pictures:
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1)
    found = Pictures.with_labels(images, torch.tensor(labels))
    number = torch.arange(len(values))
    if labelled is None:
        return found
    return found.take(number[:labelled]).join(found.take(number[labelled:]).without_labels())


def test_a_virtual_step_on_a_linear_network_by_hand():
    """Two classes, pictures of one pixel x: answer = x·w + b, with w = b = 0 at the start.

    The term "zero" is the mean answer of class 0, so its gradient is (mean x, 1) for (w_0, b_0).
    With weight 2 and lr 0.5 a step makes w_0 = −mean x and b_0 = −1; training pixels 0 and 1 (255)
    have the mean 1/2. Held out: x = 1 of class 0, x = 0 of class 1, and one without a label.
    """
    linear = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.zero_()
    network = Network(linear, InputSpec(1, 1, 1, (0.0,), (1.0,)))
    distiller = Distiller(network, methods={"sum": (Sum(), 2.0)})
    training = next(iter(EvalLoader(one_pixel([0, 255], [0, 1]), batch_size=2)))
    held_out = EvalLoader(one_pixel([255, 0, 255], [0, 1, 0], labelled=2), batch_size=2)
    found = end_phase(distiller, 0, held_out, training, lr=0.5, progress=0.0)["sum"].values

    def loss(w: list[float], b: list[float]) -> float:
        answers = torch.tensor([[w[0] + b[0], w[1] + b[1]], b], dtype=torch.float64)
        return -(answers.softmax(1)[0, 0].log() + answers.softmax(1)[1, 1].log()).item() / 2

    assert found[""] == pytest.approx(loss([0, 0], [0, 0]))
    assert found[""] == pytest.approx(torch.tensor(2.0).log().item())
    assert found["zero"] == pytest.approx(loss([-0.5, 0], [-1, 0]))
    assert found["one"] == pytest.approx(loss([0, -0.5], [0, -1]))
    assert found["zero+one"] == pytest.approx(loss([-0.5, -0.5], [-1, -1]))
    assert not any(parameter.any() for parameter in linear.parameters())


def test_a_virtual_step_trains_as_a_step_does(tmp_path: Path):
    """With batch statistics, which is what a step on a term would use."""
    seen: list[bool] = []

    class Watched(Tiny):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(self.training)
            return super().forward(images)

    distiller = Distiller(Network(Watched(), SPEC), methods={"sum": (Sum(), 1.0)})
    batch = next(iter(EvalLoader(pictures(8), batch_size=8)))
    seen.clear()
    distiller.eval()
    Sum.asked = (("zero",),)
    try:
        held_out = EvalLoader(pictures(4), batch_size=4)
        end_phase(distiller, 0, held_out, batch, lr=0.1, progress=0.5)
    finally:
        Sum.asked = ((), ("zero",), ("one",), ("zero", "one"))
    assert seen == [True, False]


# Dropping parts


def drop_left(method: Doubter, phase: Phase) -> Findings | None:
    if phase.number != 0:
        return None
    method.restore_structure(["right"])
    return Findings({"dropped": ["left"]}, changed=True)


@pytest.mark.parametrize("optimizer", [{"name": "sgd"}, {"name": "adamw"}])
def test_the_optimizer_keeps_the_state_of_what_stays(
    optimizer: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    states: dict[str, dict[str, Tensor]] = {}
    ending = Session.end_phase

    def watched(session: Any, held_out: EvalLoader, batch: Batch) -> None:
        if not session._at.phases:
            names = {id(one): name for name, one in session._distiller.named_parameters()}
            before = {
                names[id(parameter)]: {key: value.clone() for key, value in state.items()}
                for parameter, state in session._raw.state.items()
            }
            ending(session, held_out, batch)
            after = {names[id(one)]: state for one, state in session._raw.state.items()}
            groups = [
                names[id(one)] for group in session._raw.param_groups for one in group["params"]
            ]
            assert "methods.doubter.scales.left" in before
            assert set(groups) == set(after) == set(before) - {"methods.doubter.scales.left"}
            for name, state in after.items():
                for key, value in state.items():
                    assert torch.equal(value, before[name][key])
            states.update(after)
        else:
            ending(session, held_out, batch)

    monkeypatch.setattr(Session, "end_phase", watched)
    distiller = pupil(drop_left)
    train_tiny(tmp_path / "run", distiller, phases=2, log_every=2, optimizer=optimizer)
    assert states
    assert [name for name, _ in distiller.named_parameters() if "scales" in name] == [
        "methods.doubter.scales.right"
    ]
    # A term that is gone is not in the lines that follow.
    lines = {line["step"]: "doubter.pull/left" in line for line in metrics(tmp_path / "run")}
    assert lines == {2: True, 4: True, 6: False, 8: False}


@pytest.mark.parametrize("optimizer", [{"name": "sgd"}, {"name": "adamw"}])
@pytest.mark.parametrize("step", [3, 5])
def test_what_was_dropped_stays_dropped_after_resuming(
    step: int, optimizer: dict[str, Any], tmp_path: Path
):
    whole, cut, resumed = pupil(drop_left), pupil(drop_left), pupil(drop_left, seed=9)
    changes: dict[str, Any] = {"phases": 2, "optimizer": optimizer, "checkpoint_every": 1}
    trained = train_tiny(tmp_path / "whole", whole, **changes)

    def die() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path / "cut", cut, evaluate_every=step + 1, validate=die, **changes)
    assert RunFolder(tmp_path / "cut").checkpoints[-1].name == f"step-{step:09d}"
    again = train_tiny(tmp_path / "cut", resumed, **changes)
    assert again.phases == trained.phases == ({"doubter": {"dropped": ["left"]}}, {})
    first, second = state(whole), state(resumed)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")


def test_batches_are_moved_whole():
    batch = next(iter(EvalLoader(pictures(4), batch_size=4)))
    cpu = torch.device("cpu")
    moved = move(batch, cpu, channels_last=True)
    assert moved.images.is_contiguous(memory_format=torch.channels_last)
    assert move(batch, cpu, channels_last=False).images.is_contiguous()
    assert torch.equal(moved.images, batch.images)
    assert torch.equal(moved.targets, batch.targets)
