"""Runs that round as int8 will: what they end in, and that they resume to the same bits."""

from pathlib import Path

import pytest
import torch
from small_run import NUM_CLASSES, SPEC, loader, metrics, tiny, train_tiny
from torch import nn
from torch.nn.functional import cross_entropy

from tutelage import rng
from tutelage.data import EvalLoader, Pictures
from tutelage.distiller import Distiller
from tutelage.errors import NetworkError
from tutelage.methods import FitNetHints
from tutelage.models import fake_quantization
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.depth_dynamic import DepthDynamic
from tutelage.models.fake_quantization import _Range, _rounded_weight
from tutelage.models.network import Network


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(map(torch.equal, mine.values(), theirs.values()))


def test_a_run_ends_in_a_plain_network_that_was_trained_otherwise(tmp_path: Path):
    rounded, plain = Distiller(tiny()), Distiller(tiny())
    train_tiny(tmp_path / "rounded", rounded, quantization="onnx")
    train_tiny(tmp_path / "plain", plain)
    assert rounded.state_dict().keys() == plain.state_dict().keys()
    assert [type(one) for one in rounded.modules()] == [type(one) for one in plain.modules()]
    assert not same(rounded, plain)
    assert metrics(tmp_path / "rounded") != metrics(tmp_path / "plain")


@pytest.mark.parametrize("stop", [3, 6])  # ranges move; ranges stay
def test_a_run_that_was_stopped_ends_in_the_same_bits(
    tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
):
    def hinted() -> Distiller:
        return Distiller(tiny(), tiny(5, width=6), methods={"hints": (FitNetHints(), 1.0)})

    changes = {"quantization": "onnx", "average": 0.7, "checkpoint_every": 1}
    whole, again = hinted(), hinted()
    train_tiny(tmp_path / "whole", whole, **changes)

    class Stopped(Exception):
        pass

    batches = loader()
    plain = batches.batch

    def failing(step: int):
        if step == stop:
            raise Stopped
        return plain(step)

    monkeypatch.setattr(batches, "batch", failing)
    with pytest.raises(Stopped):
        train_tiny(tmp_path / "run", hinted(), data=batches, **changes)
    train_tiny(tmp_path / "run", again, **changes)
    assert same(whole, again)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "run")


def test_what_is_validated_is_rounded_and_moves_no_range(tmp_path: Path):
    distiller, found = Distiller(tiny(dropout=0.0)), []
    images = torch.rand(9, 1, 8, 8)

    def validate() -> float:
        distiller.eval()
        buffers = {name: value.clone() for name, value in distiller.named_buffers()}
        answer = distiller.student(images).detach()
        assert all(torch.equal(value, buffers[name]) for name, value in distiller.named_buffers())
        plain = tiny(dropout=0.0).eval()
        state = distiller.student.state_dict()
        plain.load_state_dict({name: state[name] for name in plain.state_dict()})
        found.append(float((answer - plain(images).detach()).abs().max()))
        return 0.5

    train_tiny(
        tmp_path / "run", distiller, validate=validate, evaluate_every=4, quantization="onnx"
    )
    assert len(found) == 2
    assert all(1e-4 < difference < 1 for difference in found)


def test_a_run_that_was_refused_leaves_the_student_as_it_was(tmp_path: Path):
    with rng.part(0, "depths"):
        made = DepthDynamic(cifar_resnet(14, num_classes=NUM_CLASSES, in_channels=1), {"8": 1})
    pupil = Distiller(Network(made, SPEC))
    before = pupil.state_dict().keys()
    with pytest.raises(NetworkError, match="is for one network"):
        train_tiny(tmp_path / "run", pupil, quantization="onnx")
    assert pupil.state_dict().keys() == before


def test_every_micro_batch_moves_the_ranges(tmp_path: Path):
    distiller, calls = Distiller(tiny()), []

    def validate() -> float:
        ranges = [one for one in distiller.student.modules() if isinstance(one, _Range)]
        calls.append({int(one.calls) for one in ranges})
        return 0.5

    changes = {"quantization": "onnx", "evaluate_every": 2, "accumulate": 2}
    train_tiny(tmp_path / "run", distiller, validate=validate, **changes)
    # Of eight steps the first four, whose progress is below a half.
    assert calls == [{4}, {8}, {8}, {8}]


def loss(network: Network, data: EvalLoader) -> float:
    """Cross-entropy, in nats."""
    with torch.no_grad():
        found = [cross_entropy(network(one.images), one.targets) for one in data]
    return torch.stack(found).mean().item()


def hard(count: int, seed: int) -> Pictures:
    """Three classes whose mean brightness overlaps."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 120, (count, 8, 8, 1), generator=generator)
    return Pictures.with_labels((noise + 8 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


def ternary(network: Network) -> Network:
    """With its weights as -1, 0 or 1 times a scale, as it would be handed out."""
    for one in network.modules():
        if isinstance(one, nn.Conv2d | nn.Linear):
            one.weight.data = _rounded_weight(one.weight.data, 1)
    return network.eval()


@pytest.mark.parametrize("seed", range(3))
def test_weights_learn_to_be_rounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int):
    """With weights of three values, which hurts enough to be seen in a second."""
    monkeypatch.setitem(fake_quantization._STEPS, "onnx", 1)
    changes = {"steps": 150, "log_every": 50, "optimizer": {"name": "adamw", "lr": 0.02}}
    held = EvalLoader(hard(300, 1), batch_size=300)
    first = Distiller(tiny(seed, dropout=0.0))
    train_tiny(tmp_path / "first", first, data=loader(hard(300, 0)), **changes)
    found = {}
    for name, how in (("plain", None), ("rounded", "onnx")):
        student = tiny(dropout=0.0)
        student.load_state_dict(first.student.state_dict())
        train_tiny(
            tmp_path / name,
            Distiller(student),
            data=loader(hard(300, 0)),
            quantization=how,
            **changes,
        )
        before = loss(student.eval(), held)
        found[name] = (before, loss(ternary(student), held))
    assert found["plain"][1] > 2 * found["plain"][0]  # rounding hurts
    assert found["rounded"][1] < 0.7 * found["plain"][1]
