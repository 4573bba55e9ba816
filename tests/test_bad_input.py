"""Whatever is wrong with the input ends with code 2 and a sentence, and nothing half-written.

One table, through the command line. A line says what is called, what must be said, and what may be
left under runs/ (nothing unless said).
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tutelage.cli.main import main
from tutelage.engine.session import Session
from tutelage.methods import KD, METHODS, Method, Needs
from tutelage.records import RunFolder
from tutelage.runs import train
from tutelage.types import Terms, TransferBatch

RECIPE: dict[str, Any] = {
    "schema": 1,
    "data": {"source": {"name": "digits"}, "validation": 100, "labelled": 200},
    "student": {"name": "resnet8", "width": 4},
    "teacher": {"run": "runs/teacher"},
    "methods": {"kd": {"weight": 0.9}},
    "train": {
        "steps": 6,
        "batch_size": 50,
        "precision": "fp32",
        "threads": 1,
        "keep_memory": False,
    },
}
ALONE = {key: value for key, value in RECIPE.items() if key not in ("teacher", "methods")}
THREE = "data.source={name: arrays, path: three.npz}"  # three classes, 60 pictures
SMALL = ("data.validation=20", "data.labelled=20")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files, good and bad, and two finished runs, in the current folder."""
    folder = tmp_path_factory.mktemp("world")
    before = Path.cwd()
    os.chdir(folder)
    _write_recipes()
    _write_arrays()
    wide = {"student": {"name": "resnet8", "width": 8}}
    long = {"train": {**RECIPE["train"], "steps": 40, "batch_size": 100}}
    train(ALONE | wide | long, name="teacher", shown=False)
    arrays = {"source": {"name": "arrays", "path": "three.npz"}, "validation": 20}
    train(ALONE | {"data": arrays}, name="three-classes", shown=False)
    _write_weights()
    yield folder
    os.chdir(before)


def _write_recipes() -> None:
    Path("good.yaml").write_text(yaml.safe_dump(RECIPE))
    Path("alone.yaml").write_text(yaml.safe_dump(ALONE))
    Path("empty.yaml").write_text("# nothing yet\n")
    Path("torn.yaml").write_text("schema: 1\ndata: {source: digits\ntrain: 3\n")
    Path("picture.yaml").write_bytes(bytes(range(256)))
    Path("list.yaml").write_text("- schema: 1\n")
    spec = {"schema": 1, "name": "spec", "base": ALONE, "seeds": [0], "controls": "none"}
    Path("spec.yaml").write_text(yaml.safe_dump(spec | {"rows": {"a": {"set": {"seeed": 1}}}}))


def _write_arrays() -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)

    def write(name: str, labels: np.ndarray, **more: Any) -> None:
        arrays: Any = {"train_images": images, "test_images": images}
        np.savez(name, train_labels=labels, test_labels=labels, **arrays, **more)

    write("three.npz", np.arange(60) % 3)
    write("too-high.npz", np.arange(60) % 3, classes=np.array(["cat", "dog"]))
    write("too-low.npz", np.arange(60) % 3 - 1)


def _write_weights() -> None:
    state = load_file("runs/teacher/student.safetensors")
    save_file(state, "wide.safetensors")
    Path("cut.safetensors").write_bytes(Path("wide.safetensors").read_bytes()[:2000])
    Path("noise.th").write_bytes(b"\x80\x04\x95 this is no pickle")
    untrained = {name: torch.randn_like(value.float()) for name, value in state.items()}
    save_file(untrained, "untrained.safetensors")
    Path("runs/not-a-run").mkdir()
    Path("runs/not-a-run/notes.txt").write_text("mine")


# What is put out of order on the way


@final
class Needy(Method):
    """A method that looks at class labels."""

    needs = Needs(labels="class", teachers=0)

    def forward(self, batch: TransferBatch) -> Terms:
        return {"needy": batch.student.output.sum()}


def _needy(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(METHODS, "needy", Needy)


def _no_space_at(nth: int) -> Callable[[pytest.MonkeyPatch], None]:
    """A disk that is full from the nth written file on."""

    def fill(patch: pytest.MonkeyPatch) -> None:
        sync, done = os.fsync, [0]

        def fsync(handle: int) -> None:
            done[0] += stat.S_ISREG(os.fstat(handle).st_mode)
            if done[0] >= nth:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(handle)

        patch.setattr(os, "fsync", fsync)

    return fill


def _no_memory_at(step: int) -> Callable[[pytest.MonkeyPatch], None]:
    def fill(patch: pytest.MonkeyPatch) -> None:
        take = Session.train_step

        def train_step(session: Any, batch: Any) -> None:
            if session.step == step:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            take(session, batch)

        patch.setattr(Session, "train_step", train_step)

    return fill


def _no_cuda(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: False)


class Case(NamedTuple):
    """A line of the table.

    Attributes:
        call: the words after `tutelage`.
        says: what the sentence must contain.
        leaves: run folders that may appear, with a good checkpoint in them.
        sabotage: what is put out of order before.
    """

    call: tuple[str, ...]
    says: tuple[str, ...]
    leaves: tuple[str, ...] = ()
    sabotage: Callable[[pytest.MonkeyPatch], None] | None = None


def good(*changes: str, says: tuple[str, ...], **more: Any) -> Case:
    """The good recipe, with changes that spoil it."""
    return Case(("train", "good.yaml", *changes), says, **more)


LR = "train.optimizer={name: sgd, lr: 1.0e+30}"

CASES = {
    # a recipe that is absent, empty, not YAML, binary
    "recipe absent": Case(("train", "digit"), ("'digit'", "did you mean digits?")),
    "recipe empty": Case(("train", "empty.yaml"), ("empty.yaml", "recipes cat digits")),
    "recipe not YAML": Case(("train", "torn.yaml"), ("torn.yaml is not YAML", "line 3")),
    "recipe binary": Case(("train", "picture.yaml"), ("picture.yaml", "no text file")),
    "recipe a list": Case(("check", "list.yaml"), ("list.yaml", "must be a mapping")),
    "recipe a folder": Case(("train", "runs"), ("runs is a folder",)),
    "recipe a comparison": Case(("train", "spec.yaml"), ("tutelage compare spec.yaml",)),
    "recipe of another schema": good("schema=2", says=("schema: 1", "2")),
    # unknown key or method (nearest named)
    "key unknown": good("studnet=resnet8", says=("'studnet'", "did you mean student?")),
    "key unknown below": good("train.step=5", says=("'train.step'", "did you mean steps?")),
    "key in the wrong place": good("labelled=5", says=("'labelled'", "data.labelled")),
    "key unknown of a data set": good("data.source.tset=5", says=("'tset'", "test")),
    "key unknown of views": good("data.views.flp=1", says=("'flp'", "did you mean flip?")),
    "key unknown of the task": good("task.smooth=1", says=("'smooth'", "label_smoothing")),
    "method unknown": good("methods.kdd.weight=1", says=("'kdd'", "did you mean kd?")),
    "setting of a method unknown": good(
        "methods.kd.temprature=3", says=("'temprature'", "did you mean temperature?")
    ),
    "part of a weight unknown": good("methods.kd.weight={kk: 3}", says=("'kk'", "kl")),
    "settings of a method no mapping": good("methods.kd=3", says=("kd", "mapping", "3")),
    "weight missing": good("methods.fitnet_hints.hidden=1", says=("fitnet_hints", "weight")),
    "value of another kind": good(
        "train.steps=many", says=("train.steps", "whole number", "'many'")
    ),
    "value out of range": good("methods.kd.temperature=-1", says=("temperature", "above 0", "-1")),
    "taps no pairs": good("taps=[layer1]", says=("taps", "pairs")),
    "device absent": good("train.device=cuda", says=("cuda", "auto"), sabotage=_no_cuda),
    "tracker unknown": good("train.trackers=[tensorbord]", says=("'tensorbord'", "train.trackers")),
    "override without value": good("seed", says=("'seed'", "key=value")),
    "recipe of a comparison wrong": Case(("compare", "spec.yaml"), ("'seeed'", "mean seed?")),
    "comparison that is a recipe": Case(("compare", "good.yaml"), ("good.yaml", "tutelage train")),
    # a folder that is no run; an existing run folder without --resume
    "evaluate what is no run": Case(
        ("evaluate", "runs/not-a-run"), ("runs/not-a-run is no run folder", "runs/NAME")
    ),
    "report what is no run": Case(("report", "nowhere"), ("nowhere is no run folder",)),
    "student of what is no run": good("student={run: nowhere}", says=("nowhere is no run",)),
    "teacher of what is no run": good("teacher={run: nowhere}", says=("nowhere is no run",)),
    "run folder taken": good("--name", "teacher", says=("runs/teacher", "--resume", "--name")),
    "folder taken by something": good("--name", "not-a-run", says=("not-a-run", "--name")),
    "resume what is no run": good("--resume", "--name", "not-a-run", says=("is no run folder",)),
    "resume with another recipe": good(
        "--resume", "--name", "teacher", says=("another recipe", "runs/teacher/recipe.yaml")
    ),
    # missing data; labels outside the range
    "data missing": good(
        "data.source={name: cifar10, root: nowhere}", says=("nowhere", "download: true")
    ),
    "array file missing": good(
        "data.source={name: arrays, path: nowhere.npz}", says=("nowhere.npz",)
    ),
    "data set unknown": good("data.source=digit", says=("'digit'", "did you mean digits?")),
    "label too high": good(
        "data.source={name: arrays, path: too-high.npz}", *SMALL, says=("0 … 1", "label 2")
    ),
    "label too low": good(
        "data.source={name: arrays, path: too-low.npz}", *SMALL, says=("label -1", "from 0")
    ),
    "more labels than pictures": good("data.labelled=9999", says=("labelled", "1197", "9999")),
    # unknown network; damaged or misfitting weight file
    "network unknown": good("student=resnet57", says=("'resnet57'", "did you mean resnet56?")),
    "setting of a network unknown": good(
        "student.widht=8", says=("'widht'", "did you mean width?")
    ),
    "weight file absent": good("teacher=absent.th:resnet8", says=("absent.th",)),
    "weight file damaged": good(
        "teacher=noise.th:resnet8", says=("noise.th is damaged", "Fetch it again")
    ),
    "weight file cut off": good(
        "teacher=cut.safetensors:resnet8", says=("cut.safetensors is damaged",)
    ),
    "weight file of another width": good(
        "teacher=wide.safetensors:resnet8",
        says=("0 missing", "0 unexpected", "of another shape (first: conv1.weight"),
    ),
    "weight file of another depth": good(
        "teacher={name: resnet14, width: 8, checkpoint: wide.safetensors}",
        says=("missing (first: layer1.1.conv1.weight)", "0 unexpected"),
    ),
    # teacher with another number of classes, without weights, at chance
    "teacher of other classes": good(
        "teacher={run: runs/three-classes}",
        says=("teacher's classes are 0, 1, 2", "(10)", "class_map"),
    ),
    "teacher file of other classes": good(
        THREE,
        *SMALL,
        "teacher={name: resnet8, width: 8, checkpoint: wide.safetensors}",
        says=("of another shape (first: linear.weight, (10, 32) for (3, 32))",),
    ),
    "teacher without weights": good(
        "teacher={name: resnet8}", says=("resnet8 has no weights", "FILE:resnet8")
    ),
    "teacher at chance": good(
        "teacher={name: resnet8, width: 8, checkpoint: untrained.safetensors}",
        says=("chance", "normalization"),
    ),
    "teacher missing": Case(
        ("train", "alone.yaml", "methods.kd.weight=1"), ("kd needs 1 teacher", "Name a teacher")
    ),
    # tap name that does not exist (nearest named, and how to list them)
    "tap of the student": good(
        "methods.attention_transfer.weight=9",
        "taps=[[layre2, layer2]]",
        says=("student", "'layre2'", "did you mean layer2?", "tutelage check"),
    ),
    "tap of the teacher": good(
        "methods.fitnet_hints.weight=9",
        "taps=[[layer2, layer22]]",
        says=("teacher", "'layer22'", "did you mean layer2?", "tutelage check"),
    ),
    # a method that needs labels without labels
    "labels mixed": good(
        "methods.needy.weight=1",
        "data.views.mixup=0.5",
        says=("needy looks at class labels", "mixup"),
        sabotage=_needy,
    ),
    "labels none": good(
        "methods.needy.weight=1",
        "data.labelled=0",
        "data.unlabelled=true",
        says=("labelled must lie in 1",),
        sabotage=_needy,
    ),
    # no space left on the device
    "no space at all": good(
        "--name", "fullest", says=("No space is left",), sabotage=_no_space_at(1)
    ),
    "no space for the first checkpoint": good(
        "--name", "full", says=("No space is left",), sabotage=_no_space_at(2)
    ),
    "no space later": good(
        "--name",
        "fuller",
        "train.checkpoint_every=2",
        says=("No space is left", "--resume"),
        leaves=("fuller",),
        sabotage=_no_space_at(8),
    ),
    # CUDA out of memory (batch size and accumulation as remedies)
    "no memory": good(
        "--name",
        "large",
        says=("memory of cpu", "50 samples", "train.batch_size", "train.accumulate"),
        sabotage=_no_memory_at(0),
    ),
    "no memory later": good(
        "--name",
        "larger",
        "train.checkpoint_every=2",
        says=("memory of cpu", "train.accumulate"),
        leaves=("larger",),
        sabotage=_no_memory_at(3),
    ),
    # a loss that becomes NaN
    "not a number": good(
        LR, "--name", "nan", says=("step 2", "supervised", "runs/nan/checkpoints"), leaves=("nan",)
    ),
    "settings that no schedule can have": good(
        "train.steps=1", "--name", "short", says=("one_cycle", "2 steps")
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_bad_input_ends_with_a_sentence(
    case: Case, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    before = contents(world)
    with monkeypatch.context() as patch:
        if case.sabotage:
            case.sabotage(patch)
        code = main(case.call)

    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert err.endswith(f"{errors[0]}\n")
    for words in case.says:
        assert words in errors[0]
    assert 1 <= sentences(errors[0]) <= 3  # a list of what is known may be the third
    new = contents(world).keys() - before.keys()
    left = {path.relative_to(world / "runs").parts[0] for path in new}
    assert left == set(case.leaves)
    assert {path: contents(world)[path] for path in before} == before
    for name in case.leaves:
        checkpoints = RunFolder(world / "runs" / name).checkpoints
        assert 1 <= len(checkpoints) <= 2
        assert all(finite(path) for path in checkpoints)
        assert not [path for path in new if "partial" in str(path)]


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file and every empty folder."""
    return {
        path: path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def sentences(text: str) -> int:
    return len(re.findall(r"[.?!](?=\s+[A-Z`]|$)", text))


def finite(checkpoint: Path) -> bool:
    tensors = load_file(checkpoint / "tensors.safetensors")
    return all(bool(value.isfinite().all()) for value in tensors.values())


def test_after_a_full_disk_the_run_goes_on(world: Path, monkeypatch: pytest.MonkeyPatch):
    words = ("train", "good.yaml", "train.checkpoint_every=2", "--name", "refilled")
    with monkeypatch.context() as patch:
        _no_space_at(8)(patch)
        assert main(words) == 2
    assert main((*words, "--resume")) == 0
    assert RunFolder(world / "runs" / "refilled").read_record()["steps"] == 6


def test_the_last_checkpoint_before_a_nan_is_kept(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    forward = KD.forward

    def spoiled(method: KD, batch: TransferBatch) -> Terms:
        terms = forward(method, batch)
        calls.append(1)
        return terms if len(calls) < 6 else {"kl": terms["kl"] * float("nan")}

    calls: list[int] = []
    monkeypatch.setattr(KD, "forward", spoiled)
    name = "late-nan"
    assert main(("train", "good.yaml", "train.checkpoint_every=2", "--name", name)) == 2
    # The first call is the dry run, so the sixth is step 5.
    assert "kd.kl became infinite or NaN at step 5" in capsys.readouterr().err
    run = RunFolder(world / "runs" / name)
    assert run.checkpoints == [run.checkpoint(2), run.checkpoint(4)]
    assert finite(run.checkpoints[-1])
