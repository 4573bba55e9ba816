"""What lies in a checkpoint, and what happens to one that is damaged or does not fit.

That training goes on in the same bits is tested in test_loop.py, after a kill in test_resume.py.
"""

import errno
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_run import Tiny, metrics, tiny, train_tiny

from tutelage.distiller import Distiller
from tutelage.errors import CheckpointError, RunError
from tutelage.methods import KD
from tutelage.records import RunFolder

TENSORS, VALUES = "tensors.safetensors", "state.json"


def names(run: RunFolder) -> list[str]:
    return [path.name for path in run.checkpoints]


def test_the_last_two_are_kept(tmp_path: Path):
    train_tiny(tmp_path, checkpoint_every=3)
    assert names(RunFolder(tmp_path)) == ["step-000000006", "step-000000008"]


def test_one_is_there_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*unused: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tutelage.engine.session.Session.train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path)
    assert names(RunFolder(tmp_path)) == ["step-000000000"]


def test_nothing_in_it_is_a_pickle_and_no_teacher_is(tmp_path: Path):
    methods = {"kd": (KD(), 1.0)}
    train_tiny(tmp_path, Distiller(tiny(), tiny(3, width=8), methods=methods))
    newest = RunFolder(tmp_path).checkpoints[-1]
    assert {path.name for path in newest.iterdir()} == {TENSORS, VALUES}
    tensors, values = load_file(newest / TENSORS), json.loads((newest / VALUES).read_text())
    assert {name.partition(".")[0] for name in tensors} == {"model", "optimizer", "log", "rng"}
    student = {name for name in tensors if name.startswith("model.")}
    assert student == {f"model.student.module.{name}" for name in Tiny().state_dict()}
    assert values["progress"]["step"] == 8
    setting = values["progress"]["setting"]
    assert setting["threads"] == 1
    assert setting["device"].startswith("cpu (")
    assert setting["torch"] == version("torch")


def test_what_a_crash_left_half_written_is_swept(tmp_path: Path):
    train_tiny(tmp_path, checkpoint_every=4)
    half = tmp_path / "checkpoints" / ".step-000000009.partial-1"
    half.mkdir()
    (half / TENSORS).write_bytes(b"half")
    (tmp_path / "checkpoints" / ".step-000000003.removed-1").mkdir()
    (tmp_path / ".record.json.partial-1").write_text("half")
    train_tiny(tmp_path)  # has nothing left to do
    assert not list(tmp_path.glob("**/.*"))
    assert names(RunFolder(tmp_path)) == ["step-000000004", "step-000000008"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (TENSORS, b""),
        (TENSORS, None),
        (VALUES, b"{"),
        (VALUES, b"\xff\xfe\x00"),
        (VALUES, None),
        (TENSORS, ...),
    ],
    ids=["empty", "absent", "cut off", "binary", "no values", "half of the tensors"],
)
def test_a_damaged_one_is_refused_in_words(file: str, content: Any, tmp_path: Path):
    train_tiny(tmp_path, checkpoint_every=5)
    newest = RunFolder(tmp_path).checkpoints[-1]
    if content is None:
        (newest / file).unlink()
    elif content is ...:
        whole = (newest / file).read_bytes()
        (newest / file).write_bytes(whole[: len(whole) // 2])
    else:
        (newest / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-000000008 is damaged .*\. Remove that folder"):
        train_tiny(tmp_path)


def test_the_remedy_for_a_damaged_one_works(tmp_path: Path):
    whole, resumed = Distiller(tiny()), Distiller(tiny(9))
    train_tiny(tmp_path / "run", whole, checkpoint_every=5)
    lines = metrics(tmp_path / "run")
    newest = RunFolder(tmp_path / "run").checkpoints[-1]
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    train_tiny(tmp_path / "run", resumed)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
    assert metrics(tmp_path / "run") == lines


def test_one_of_another_network_is_refused(tmp_path: Path):
    train_tiny(tmp_path)
    with pytest.raises(CheckpointError, match="does not fit its recipe"):
        train_tiny(tmp_path, Distiller(tiny(width=6)))


def test_a_full_disk_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    sync, written = os.fsync, []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"No space is left .* --resume"):
            train_tiny(tmp_path, checkpoint_every=2)
    left = names(RunFolder(tmp_path))
    assert left
    assert left[-1] < "step-000000008"
    assert not list(tmp_path.glob("**/.*"))
    assert train_tiny(tmp_path, Distiller(tiny(9)), checkpoint_every=2).steps == 8


def test_momenta_keep_their_memory_format(tmp_path: Path):
    """Channels-last momenta stay so: another order of memory may round differently."""
    train_tiny(tmp_path)
    seen: list[torch.Tensor] = []
    step = torch.optim.SGD.step

    def watched(optimizer: torch.optim.SGD, closure: Any = None) -> Any:
        for parameter, state in optimizer.state.items():
            if state:
                assert state["momentum_buffer"].stride() == parameter.stride()
                seen.append(parameter)
        return step(optimizer, closure)

    newest = RunFolder(tmp_path).checkpoints[-1]
    values = json.loads((newest / VALUES).read_text())
    values["progress"]["step"] = 6
    (newest / VALUES).write_text(json.dumps(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", watched)
        train_tiny(tmp_path, schedule={"name": "constant"})
    assert any(one.ndim == 4 and not one.is_contiguous() for one in seen)
