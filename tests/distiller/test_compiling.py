"""`torch.compile` of a distiller with taps: whole graphs, the same losses, and few of them.

Compiled functions cannot be checked for shapes, so each check runs in a process of its own.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import unchecked
from answers import NUM_VIEWS, VIEWS, make_store, part_of
from small_run import tiny
from timm import create_model
from torch._dynamo.backends.registry import lookup_backend

from tutelage.data import TrainLoader
from tutelage.distiller import Distiller, Schedule
from tutelage.methods import KD, FitNetHints
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.network import Network
from tutelage.teachers import StoredTeacher
from tutelage.types import InputSpec

QUICK = ["resnet8"]
SLOW = ["resnet10t", "mobilenetv3_small_050", "regnetx_002", "efficientnet_lite0", "convnext_atto"]


class Counting:
    """A backend that counts the graphs that it is given."""

    def __init__(self, backend: str) -> None:
        self.graphs = 0
        self._backend = lookup_backend(backend)

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return self._backend(graph, inputs)


def network(name: str, seed: int) -> Network:
    torch.manual_seed(seed)
    small = name == "resnet8"
    made = cifar_resnet(8, 4) if small else create_model(name, num_classes=10, drop_rate=0.0)
    side = 16 if small else 64
    return Network(made, InputSpec(side, side, 3, (0.5,) * 3, (0.25,) * 3))


def new_pupil(name: str) -> Distiller:
    falls = Schedule("linear", 1.0, 0.0)
    methods = {"kd": (KD(), 1.0), "hints": (FitNetHints(), falls)}
    return Distiller(network(name, 0), network(name, 1), methods=methods)


def check_live(name: str, backend: str) -> None:
    """Train mode, eval mode and autocast, each in one graph that no later step compiles again."""
    side = 16 if name == "resnet8" else 64
    images, labels = torch.rand(4, 3, side, side), torch.arange(4)
    eager, compiled = new_pupil(name), new_pupil(name)
    counting = Counting(backend)
    forward = torch.compile(compiled, backend=counting, fullgraph=True)
    for training, halved, bound in ((True, False, 1), (False, False, 2), (True, True, 3)):
        for progress in (0.0, 0.3, 0.6):
            losses = []
            for pupil, call in ((eager, eager), (compiled, forward)):
                pupil.train(training)
                with torch.autocast("cpu", torch.bfloat16, enabled=halved):
                    out = call(images, labels, progress=progress)
                if training:
                    pupil.zero_grad()
                    out.loss.backward()
                losses.append(out.loss.item())
            assert abs(losses[0] - losses[1]) <= (0.05 if halved else 1e-3) * abs(losses[0]), losses
            if training and not halved:
                for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
                    torch.testing.assert_close(other.grad, one.grad, rtol=1e-2, atol=1e-3)
        # A float that changes compiles once more at most, in the first mode.
        assert counting.graphs <= bound + 1, (name, training, halved, counting.graphs)
    print("graphs", counting.graphs)


def check_stored(backend: str) -> None:
    """Reading answers is no part of a graph; what is before and after it is compiled once."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "store"
        make_store(folder)
        data = TrainLoader(part_of("train"), VIEWS, batch_size=12, seed=5, num_views=NUM_VIEWS)
        losses: list[list[float]] = []
        counting = Counting(backend)
        for compiles in (False, True):
            teacher = StoredTeacher(folder)
            pupil = Distiller(tiny(dropout=0.0), teacher, methods={"kd": (KD(), 1.0)})
            forward: Callable[..., Any] = pupil
            if compiles:
                teacher.stay_eager()
                forward = torch.compile(pupil, backend=counting)
            losses.append([])
            for step in range(6):
                shown = data.batch(step)
                out = forward(shown.images, shown.targets, index=shown.index, view=shown.view)
                out.loss.backward()
                losses[-1].append(out.loss.item())
    for one, other in zip(*losses, strict=True):
        assert abs(one - other) < 1e-5
    assert 1 <= counting.graphs <= 4, counting.graphs
    print("graphs", counting.graphs)


def run(call: str) -> None:
    done = unchecked.call(__file__, call)
    assert done.stdout.startswith("graphs ")
    print(call, done.stdout)


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_live_in_one_graph(name: str):
    run(f"check_live({name!r}, 'aot_eager')")


@pytest.mark.slow
def test_stored_around_the_reading():
    run("check_stored('aot_eager')")


@pytest.mark.slow
def test_with_inductor():
    run("check_live('resnet8', 'inductor')")
