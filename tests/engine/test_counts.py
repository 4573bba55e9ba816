"""A step does no more than it did: its calls are counted, not timed, so any machine can tell.

The exact numbers stand in counts.json, by version of torch (another one may split an operation
otherwise), teacher, phase of the step, and operation. Where a change is meant, run this file with
TUTELAGE_WRITE_GOLDEN=1 and commit what it writes: the difference shows what the change costs. The
zeros (no question to a tensor, no teacher with a store, no norm in a folded teacher) hold always.
"""

import json
import os
import platform
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from answers import BATCH, EXACT, MAPS, NUM_VIEWS, make_store, part_of
from answers import VIEWS as STORED_VIEWS
from small_run import NUM_CLASSES, settings, tiny
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.data import TrainLoader
from tutelage.distiller import Distiller
from tutelage.engine.host import undisturbed
from tutelage.engine.session import Session
from tutelage.methods import KD
from tutelage.records import RunFolder
from tutelage.teachers import LiveTeacher, StoredTeacher
from tutelage.teachers.encoding import LogitsCode, LogitsKind
from tutelage.teachers.store import Store
from tutelage.types import Batch

FILE = Path(__file__).with_name("counts.json")
WAYS = ("alone", "live", "stored")
PHASES = ("teacher", "student", "loss", "backward", "optimizer")
QUESTIONS = {"item", "_local_scalar_dense", "is_nonzero", "equal"}
CPU = torch.device("cpu")

Calls = dict[str, dict[str, int]]
"""Phase → operation → number."""


class Counting(TorchDispatchMode):
    """Counts operations by the phase that they are called in."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = "loss"
        self._calls: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._calls[self.phase][func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def calls(self) -> Calls:
        return {phase: dict(sorted(self._calls[phase].items())) for phase in PHASES}

    @contextmanager
    def within(self, phase: str) -> Iterator[None]:
        before, self.phase = self.phase, phase
        yield
        self.phase = before


def phased(
    patch: pytest.MonkeyPatch, counting: Counting, owner: Any, name: str, phase: str
) -> None:
    """What a function calls counts as this phase."""
    function: Callable[..., Any] = getattr(owner, name)

    def called(*args: Any, **more: Any) -> Any:
        with counting.within(phase):
            return function(*args, **more)

    patch.setattr(owner, name, called)


def pupil(teacher: LiveTeacher | StoredTeacher | None) -> Distiller:
    return Distiller(tiny(), teacher, methods={} if teacher is None else {"kd": (KD(), 1.0)})


def data() -> TrainLoader:
    return TrainLoader(part_of("train"), STORED_VIEWS, batch_size=BATCH, seed=5,
                       num_views=NUM_VIEWS)  # fmt: skip


@contextmanager
def third_step(distiller: Distiller, folder: Path) -> Iterator[Callable[[], None]]:
    """A step like all that follow.

    The first looks at the images, and makes the momentum; each file of a store is opened once.
    """
    folder.mkdir()
    loader = data()
    with undisturbed(CPU):
        session = Session(distiller, loader, settings(), RunFolder(folder), CPU)
        session.begin(0)
        for step in (0, 1):
            session.train_step(loader.batch(step))
        batch = loader.batch(2)
        for teacher in distiller.teachers:
            if isinstance(teacher, StoredTeacher):
                teacher.observe(batch)
        yield lambda: session.train_step(batch)
        session.write_log()
        session.close()


def counted(distiller: Distiller, folder: Path, patch: pytest.MonkeyPatch) -> Calls:
    """The calls of one step."""
    counting = Counting()
    with third_step(distiller, folder) as step, patch.context() as inside:
        for teacher in (LiveTeacher, StoredTeacher):
            phased(inside, counting, teacher, "observe", "teacher")
        phased(inside, counting, distiller.student, "observe", "student")
        phased(inside, counting, Accelerator, "backward", "backward")
        for name in ("step", "zero_grad"):
            phased(inside, counting, AcceleratedOptimizer, name, "optimizer")
        with counting:
            step()
    return counting.calls


def teacher_of(way: str, folder: Path) -> LiveTeacher | StoredTeacher | None:
    if way == "alone":
        return None
    if way == "live":
        return LiveTeacher(tiny(7), fuse=True)
    make_store(folder / "store", logits=EXACT)
    return StoredTeacher(folder / "store")


@pytest.fixture
def calls(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return counted(pupil(teacher_of(request.param, tmp_path)), tmp_path / "run", monkeypatch)


def known(version: str) -> dict[str, Calls]:
    return json.loads(FILE.read_text()).get(version, {}) if FILE.exists() else {}


def changes(was: Calls, now: Calls) -> list[str]:
    """What is called more or less often, phase by phase."""
    found = []
    for phase in PHASES:
        before, after = was.get(phase, {}), now[phase]
        if before == after:
            continue
        found.append(f"{phase}: {sum(before.values())} calls → {sum(after.values())}")
        found += [
            f"    {name} {before.get(name, 0)} → {after.get(name, 0)}"
            for name in sorted(before.keys() | after.keys())
            if before.get(name, 0) != after.get(name, 0)
        ]
    return found


@pytest.mark.parametrize(("way", "calls"), [(way, way) for way in WAYS], indirect=["calls"])
def test_a_step_makes_the_calls_that_it_made(way: str, calls: Calls):
    version = ".".join(torch.__version__.split(".")[:2])
    if os.environ.get("TUTELAGE_WRITE_GOLDEN") == "1":
        whole = json.loads(FILE.read_text()) if FILE.exists() else {}
        whole.setdefault(version, {})[way] = calls
        FILE.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
        pytest.skip(f"wrote {FILE.name}")
    expected = known(version)
    if not expected:
        pytest.skip(f"nobody has counted with torch {version}; see the top of this file")
    found = changes(expected[way], calls)
    assert not found, "\n".join(
        [
            f"A step ({way}) makes other calls than it did:",
            *found,
            f"If that is meant: TUTELAGE_WRITE_GOLDEN=1 pytest {Path(__file__).name}",
        ]
    )


@pytest.mark.parametrize("calls", WAYS, indirect=True)
def test_no_tensor_is_asked_for_its_value(calls: Calls):
    """On a GPU each would wait for it. (A store waits once for the batch's index.)"""
    assert set(calls) == set(PHASES)
    assert sum(calls["backward"].values()) > 10
    asked = {phase: sorted(QUESTIONS & found.keys()) for phase, found in calls.items()}
    assert asked == {phase: [] for phase in PHASES}


@pytest.mark.parametrize("calls", ["live"], indirect=True)
def test_a_folded_teacher_executes_no_norm(calls: Calls):
    norms = {
        phase: [name for name in found if "batch_norm" in name] for phase, found in calls.items()
    }
    assert norms["teacher"] == []
    assert norms["student"] != []
    assert calls["teacher"]["convolution"] == 2


def test_the_count_finds_an_unfolded_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = counted(pupil(LiveTeacher(tiny(7))), tmp_path / "run", monkeypatch)
    assert sum(number for name, number in calls["teacher"].items() if "batch_norm" in name) == 2


@pytest.mark.parametrize("way", WAYS)
def test_networks_are_asked_once_and_with_a_store_the_student_alone(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    distiller, asked = pupil(teacher_of(way, tmp_path)), []
    forward = torch.nn.Module.__call__

    def noted(network: Any, *args: Any, **more: Any) -> Any:
        asked.append(network)
        return forward(network, *args, **more)

    with third_step(distiller, tmp_path / "run") as step, monkeypatch.context() as inside:
        inside.setattr(torch.nn.Module, "__call__", noted)
        step()
    heads = [network for network in asked if isinstance(network, torch.nn.Linear)]
    assert len(heads) == (2 if way == "live" else 1)
    assert distiller.student.module.get_submodule("head") in heads


def test_the_student_does_the_same_whoever_teaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = []
    for way in WAYS:
        folder = tmp_path / way
        folder.mkdir()
        found.append(counted(pupil(teacher_of(way, folder)), folder / "run", monkeypatch))
    for calls in found[1:]:
        assert calls["student"] == found[0]["student"]
        assert calls["optimizer"] == found[0]["optimizer"]
    assert sum(found[0]["teacher"].values()) == 0
    live, stored = found[1:]
    assert live["loss"] == stored["loss"]
    assert live["backward"] == stored["backward"]
    assert "convolution" not in stored["teacher"]


@pytest.mark.parametrize(
    ("kind", "maps", "wanted"),
    [
        ("fp32", False, 4 * NUM_CLASSES),
        ("fp16", False, 2 * NUM_CLASSES),
        ("top", False, 4 * 1 + 4),
        ("fp16", True, 2 * NUM_CLASSES + 2 * 4 * 4 * 4),
    ],
)
def test_as_many_bytes_are_read_as_the_page_on_stores_says(
    kind: LogitsKind, maps: bool, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    code = LogitsCode(kind, NUM_CLASSES, top=1 if kind == "top" else 0)
    make_store(tmp_path / "store", logits=code, maps=MAPS if maps else {})
    teacher, read, found = StoredTeacher(tmp_path / "store"), Store.read, []

    def noted(*args: Any) -> dict[str, torch.Tensor]:
        tensors = read(*args)
        found.append(sum(tensor.nbytes for tensor in tensors.values()))
        return tensors

    monkeypatch.setattr(Store, "read", noted)
    batch: Batch = data().batch(2)
    teacher.observe(batch, tuple(MAPS) if maps else ())
    assert sum(found) == wanted * BATCH
    assert teacher.store.manifest.entry_bytes("train") == wanted


STEPS = """
import resource, sys, torch
from tutelage.engine.host import keep_freed_memory
from tutelage.models import create

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()
network, images = create("resnet8", num_classes=10, in_channels=3), torch.rand(64, 3, 32, 32)
faults = []
for step in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    network(images).sum().backward()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults)[6])  # the heap may still grow in some steps, but not in most
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc to be told")
def test_freed_memory_is_not_faulted_in_anew_at_each_step():
    faults = {}
    for way in ("keep", "leave"):
        command = [sys.executable, "-c", STEPS, way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        faults[way] = int(done.stdout)
    assert faults["keep"] < 300
    assert faults["leave"] > 1000  # or this would not be worth a test
