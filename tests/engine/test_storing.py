"""A store that is built in pieces, by whom and however often interrupted, is the same store."""

import errno
import multiprocessing
import os
import random
import signal
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import BATCH, COUNTS, MAPS, NUM_VIEWS, contents, make_store, manifest, question
from safetensors.torch import load_file
from small_run import NUM_CLASSES
from torch import nn

from tutelage.engine import storing
from tutelage.engine.storing import begin, fill, verify
from tutelage.errors import Interrupted, RunError, StoreError
from tutelage.teachers.encoding import LogitsCode
from tutelage.teachers.manifest import Manifest
from tutelage.teachers.store import Store, complete, existing, write_shard

LONG = 10
"""Views of a store that takes long enough to be killed while it is built."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose making nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    make_store(folder, views=LONG, maps=MAPS)
    return folder


# What is stored


def test_every_answer_comes_from_a_batch_of_one_size(tmp_path: Path):
    sizes: list[int] = []
    asked = question()
    asked.teacher.network.module.register_forward_hook(lambda *seen: sizes.append(len(seen[2])))
    filled = make_store(tmp_path / "store", asked=asked)
    # three views of 31 pictures in three batches of 12; 25 and 20 pictures in batches of 20
    assert sizes == [BATCH] * 9 + [20, 5, 20]
    assert (filled.shards, filled.images, filled.complete) == (12, 31 * 3 + 25 + 20, True)


def test_bfloat16_answers_are_exact_in_float16(tmp_path: Path):
    code = LogitsCode("fp16", 3)
    what: dict[str, Any] = {"precision": "bf16"}
    for name, one in (("half", code), ("full", LogitsCode("fp32", 3))):
        make_store(tmp_path / name, asked=question(**what), logits=one, **what)
    half, full = (
        load_file(existing(tmp_path / name)["train-0001-00000"])["logits"]
        for name in ("half", "full")
    )
    assert half.dtype == torch.float16
    assert torch.equal(half.float(), full)


def test_a_teacher_whose_answer_is_not_finite_is_refused(tmp_path: Path):
    asked = question()
    head = asked.teacher.network.module.get_submodule("head")
    assert isinstance(head, nn.Linear)
    head.bias.data[1] = torch.inf
    with pytest.raises(StoreError, match="must be finite"):
        make_store(tmp_path / "store", asked=asked)


# Going on


def test_what_is_there_is_not_made_again(tmp_path: Path):
    make_store(tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.safetensors")}
    filled = make_store(tmp_path / "store")
    assert (filled.shards, filled.images, filled.complete) == (0, 0, True)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_what_is_damaged_or_missing_is_made_anew(whole: Path, tmp_path: Path):
    folder = tmp_path / "store"
    folder.mkdir()
    for name, content in contents(whole).items():
        (folder / name).write_bytes(content)
    files = existing(folder)
    files["train-0004-00001"].unlink()
    spoiled = bytearray(files["train-0002-00000"].read_bytes())
    spoiled[-1] ^= 4
    files["train-0002-00000"].write_bytes(spoiled)
    files["index"].write_bytes(b"")
    assert make_store(folder, views=LONG, maps=MAPS).shards == 2
    assert contents(folder) == contents(whole)


def test_stopping_says_how_far_it_came_and_loses_no_file(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, written = tmp_path / "store", []
    write = write_shard

    def write_and_stop(*arguments: Any) -> Path:
        written.append(arguments[1])
        if len(written) == 5:  # the index and four others
            os.kill(os.getpid(), signal.SIGTERM)
        return write(*arguments)

    monkeypatch.setattr(storing, "write_shard", write_and_stop)
    with pytest.raises(Interrupted, match=r"Stopped; 4 of 33 shards are in .*store") as caught:
        make_store(folder, views=LONG, maps=MAPS)
    assert caught.value.signal == signal.SIGTERM
    assert len(existing(folder)) == 5
    with pytest.raises(StoreError, match="4 of 33 files"):
        Store(folder)
    make_store(folder, views=LONG, maps=MAPS)
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_builds_end_in_the_same_bytes(kills: int, whole: Path, tmp_path: Path):
    folder, chance = tmp_path / "store", random.Random(kills)
    for number in range(1, kills + 1):
        kill_after(number * 30 // (kills + 1), folder, chance)
        assert Manifest.read(folder).checksums is None
    make_store(folder, views=LONG, maps=MAPS)
    assert contents(folder) == contents(whole)  # and nothing half-written is left


def kill_after(files: int, folder: Path, chance: random.Random) -> None:
    """Begins or goes on, in a new process, and kills it at a random moment after so many files."""
    process = _process(folder, views=LONG, maps=MAPS, delay=0.01)
    process.start()
    while process.is_alive() and len(existing(folder)) < files:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.02))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _process(folder: Path, **arguments: Any) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tutelage.runs"])
    return context.Process(target=make_store, args=(folder,), kwargs=arguments)


# Several processes


def test_several_processes_make_one_store(whole: Path, tmp_path: Path):
    folder = tmp_path / "store"
    three = [_process(folder, views=LONG, maps=MAPS, rank=rank, world_size=3) for rank in range(3)]
    for process in three:
        process.start()
    for process in three:
        process.join()
    assert [process.exitcode for process in three] == [0, 0, 0]
    assert contents(folder) == contents(whole)


def test_each_process_makes_its_own_files(tmp_path: Path):
    folder = tmp_path / "store"
    filled = [make_store(folder, rank=rank, world_size=4) for rank in range(4)]
    assert [one.shards for one in filled] == [3, 3, 3, 3]
    assert [one.complete for one in filled] == [False, False, False, True]
    assert Store(folder).damaged() == []


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path):
    folder = tmp_path / "store"
    make_store(folder, rank=0, world_size=4)
    theirs = folder / ".train-0000-00001-abc.safetensors.partial-99"
    mine = folder / ".train-0000-00000-abc.safetensors.partial-99"
    for path in (theirs, mine):
        path.write_bytes(b"half")
    make_store(folder, rank=0, world_size=4)
    assert theirs.exists()
    assert not mine.exists()
    make_store(folder)
    assert not theirs.exists()


# What does not fit


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 6}, "its seed is 5, and that of this run is 6"),
        ({"views": 4}, "its parts is"),
        ({"shard_size": 24}, "its parts is"),
        ({"logits": LogitsCode("fp16", 3)}, "its logits is"),
        ({"maps": MAPS}, "its maps is"),
    ],
)
def test_another_store_in_its_place_is_refused(tmp_path: Path, changes: dict[str, Any], words: str):
    make_store(tmp_path / "store")
    before = contents(tmp_path / "store")
    with pytest.raises(StoreError, match=words):
        make_store(tmp_path / "store", **changes)
    assert contents(tmp_path / "store") == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"is no store\. Name another folder"):
        make_store(tmp_path)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("nth", [1, 2, 5])
def test_a_full_disk_is_said_in_words_and_what_was_written_stays(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
):
    folder, sync, done = tmp_path / "store", os.fsync, [0]

    def fsync(handle: int) -> None:
        done[0] += stat.S_ISREG(os.fstat(handle).st_mode)
        if done[0] >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(RunError, match=r"No space is left .* run the same command again"):
            make_store(folder, views=LONG, maps=MAPS)
    assert not list(folder.glob(".*"))
    assert len(existing(folder)) == max(nth - 2, 0)
    make_store(folder, views=LONG, maps=MAPS)
    assert contents(folder) == contents(whole)


# Asking again


def test_asking_again_gives_the_same_bits(tmp_path: Path):
    folder = tmp_path / "store"
    make_store(folder, maps=MAPS)
    again = verify(folder, question(taps=("layer1",)), 50, seed=0)
    assert again.entries == 50
    assert again.difference < 1e-6
    assert 10 < again.training == again.equal < 50


@pytest.mark.parametrize("part", COUNTS)
def test_all_parts_are_asked_again(tmp_path: Path, part: str):
    folder = tmp_path / "store"
    make_store(folder)
    spoil(folder, f"{part}-0000-00000", "logits")
    with pytest.raises(StoreError, match=rf"is wrong: for view 0 of {part} picture \d+ "):
        verify(folder, question(), 2000, seed=0)


def test_false_maps_with_right_logits_are_found(tmp_path: Path):
    folder = tmp_path / "store"
    make_store(folder, maps=MAPS)
    spoil(folder, "train-0001-00000", "maps/layer1")
    with pytest.raises(StoreError, match="gives maps of layer1 that differ by"):
        verify(folder, question(taps=("layer1",)), 2000, seed=0)


def test_a_store_of_the_largest_is_asked_again_too(tmp_path: Path):
    folder = tmp_path / "store"
    make_store(folder, logits=LogitsCode("top", NUM_CLASSES, top=2))
    assert verify(folder, question(), 200, seed=0).difference < 1e-3  # rounded to float16
    spoil(folder, "train-0001-00000", "top/rest")
    with pytest.raises(StoreError, match="is wrong"):
        verify(folder, question(), 2000, seed=0)


def test_answers_of_another_teacher_are_found(tmp_path: Path):
    folder = tmp_path / "store"
    make_store(folder)
    asked = question()
    head = asked.teacher.network.module.get_submodule("head")
    assert isinstance(head, nn.Linear)
    head.weight.data.mul_(1.1)
    with pytest.raises(StoreError, match=r"is wrong: for view \d of \w+ picture \d+ .* differ by"):
        verify(folder, asked, 5, seed=0)


def spoil(folder: Path, name: str, tensor: str) -> None:
    """Makes the fourth entry of a file another one, with a right checksum."""
    path = existing(folder)[name]
    tensors = load_file(path)
    tensors[tensor] = tensors[tensor].clone()
    tensors[tensor][3] += 1
    path.unlink()
    write_shard(folder, name, tensors)
    assert complete(folder, replace(Manifest.read(folder), checksums=None))


def test_one_false_answer_with_a_right_checksum_is_found(tmp_path: Path):
    folder = tmp_path / "store"
    make_store(folder)
    spoil(folder, "train-0001-00000", "logits")
    with pytest.raises(StoreError, match="is wrong: for view 1 of train picture 3 "):
        verify(folder, question(), 2000, seed=0)


def test_a_damaged_file_is_found_before_anybody_is_asked(tmp_path: Path):
    folder = tmp_path / "store"
    make_store(folder)
    existing(folder)["test-0000-00000"].write_bytes(b"")
    with pytest.raises(StoreError, match=r"1 file\(s\) .* test-0000-00000.* first"):
        verify(folder, question(), 1, seed=0)


# Progress


def test_progress_goes_to_stderr_with_speed_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    what, asked = manifest(), question()
    folder = tmp_path / "store"
    fill(folder, begin(folder, what, asked), asked, shown=True)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    total = COUNTS["train"] * NUM_VIEWS + COUNTS["validation"] + COUNTS["test"]
    assert lines[0] == f"teacher's answers  31/{total}  3 images/s  0.7 min left"
