import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage import records
from tutelage.errors import RunError
from tutelage.records import (
    RECORD_SCHEMA,
    RunFolder,
    append_line,
    read_lines,
    remove,
    write_atomic,
    write_folder,
    write_json,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
LINES = st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5)
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def hidden(folder: Path) -> list[Path]:
    return list(folder.glob("**/.*"))


def failing_sync(after: int, error: Callable[[], BaseException]) -> Callable[[int], None]:
    """An `os.fsync` that fails from one file on."""
    sync, done = os.fsync, []

    def fsync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            done.append(handle)
            if len(done) > after:
                raise error()
        sync(handle)

    return fsync


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Lines


@same_folder
@given(values=LINES)
def test_lines_come_back_as_they_were(values: list[Any], tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    path.unlink(missing_ok=True)
    for value in values:
        append_line(path, value)
    assert read_lines(path) == values
    assert path.exists() == bool(values)


@same_folder
@given(values=LINES.filter(bool), data=st.data())
def test_a_line_cut_off_costs_that_line_alone(values: list[Any], data: Any, tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    path.unlink(missing_ok=True)
    for value in values:
        append_line(path, value)
    whole = path.read_bytes()
    last = len(whole) - len((json.dumps(values[-1]) + "\n").encode())
    cut = data.draw(st.integers(last, len(whole) - 2))
    path.write_bytes(whole[:cut])
    assert read_lines(path) == values[:-1]
    # And the next line does not stick to the rest of it.
    append_line(path, {"next": 1})
    assert read_lines(path) == [*values[:-1], {"next": 1}]


def test_a_line_that_lacks_only_its_end_is_whole(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}')
    assert read_lines(path) == [{"a": 1}, {"b": 2}]
    append_line(path, {"c": 3})
    assert read_lines(path) == [{"a": 1}, {"b": 2}, {"c": 3}]


@pytest.mark.parametrize("damage", [b'{"b": ', b"\xff\xfe", b""])
def test_a_damaged_line_in_the_middle_is_said(damage: bytes, tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n' + damage + b'\n{"c": 3}\n')
    with pytest.raises(RunError, match=r"lines\.jsonl is damaged in line 2\. Remove that line\."):
        read_lines(path)


def test_numbers_that_are_no_json_are_refused(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    append_line(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        append_line(path, {"a": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "record.json", float("inf"))
    assert read_lines(path) == [{"a": 1}]
    assert not (tmp_path / "record.json").exists()


# Whole or not at all


@same_folder
@given(value=JSON)
def test_json_comes_back_as_it_was(value: Any, tmp_path: Path):
    write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text()) == value
    assert not hidden(tmp_path)


@pytest.mark.parametrize("error", [full, KeyboardInterrupt, lambda: OSError(errno.EIO, "broken")])
def test_a_file_is_replaced_or_untouched(
    error: Callable[[], BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "record.json"
    write_atomic(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_sync(0, error))
        with pytest.raises((RunError, KeyboardInterrupt, OSError)) as caught:
            write_atomic(path, "new")
    assert (caught.type is RunError) == (error is full)
    assert path.read_text() == "old"
    assert not hidden(tmp_path)
    write_atomic(path, b"new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("after", [0, 1])
def test_a_folder_appears_as_a_whole_or_not_at_all(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "checkpoints" / "step-1"
    files = {"a": b"1", "b": b"2"}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_sync(after, full))
        with pytest.raises(RunError, match="No space is left on the device that holds"):
            write_folder(path, files)
    assert not path.exists()
    assert not hidden(tmp_path)
    write_folder(path, files)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == files


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path):
    write_folder(tmp_path / "one", {"a": b"1", "b": b"2"})
    write_folder(tmp_path / "one", {"c": b"3"})
    assert [file.name for file in (tmp_path / "one").iterdir()] == ["c"]
    assert not hidden(tmp_path)


def test_what_is_removed_goes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A crash in the middle leaves nothing under the name."""
    run = RunFolder(tmp_path)
    write_folder(run.checkpoint(1), {"a": b"1"})

    def crash(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", crash)
        with pytest.raises(KeyboardInterrupt):
            remove(run.checkpoint(1))
    assert run.checkpoints == []
    run.sweep()
    assert not hidden(tmp_path)
    remove(run.checkpoint(1))  # is gone already


# Machines that write the same file


def test_processes_with_one_number_on_several_machines_do_not_share_a_half_written_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """While one writes, another with the same process number writes all of it, and is done."""
    path, write, others = tmp_path / "manifest.json", records._write_synced, [b"theirs"]

    def write_between(partial: Path, content: bytes) -> None:
        write(partial, content)
        if others:
            write_atomic(path, others.pop())
            assert path.read_bytes() == b"theirs"

    monkeypatch.setattr(records, "_write_synced", write_between)
    write_atomic(path, b"mine")
    assert path.read_bytes() == b"mine"
    assert not hidden(tmp_path)


def test_a_folder_that_is_cleared_meanwhile_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = records._write_synced

    def write_and_lose(partial: Path, content: bytes) -> None:
        write(partial, content)
        partial.unlink()

    monkeypatch.setattr(records, "_write_synced", write_and_lose)
    with pytest.raises(RunError, match="was removed while it was written; another process clears"):
        write_atomic(tmp_path / "a", b"")


# A run's folder


def test_checkpoints_are_in_order_and_whole(tmp_path: Path):
    run = RunFolder(tmp_path)
    for step in (10, 2, 1_000_000):
        write_folder(run.checkpoint(step), {"a": b""})
    (tmp_path / "checkpoints" / ".step-000000011.partial-1").mkdir()
    assert run.checkpoints == [run.checkpoint(step) for step in (2, 10, 1_000_000)]
    run.sweep(keep=run.checkpoints[-2:])
    assert run.checkpoints == [run.checkpoint(step) for step in (10, 1_000_000)]
    assert not hidden(tmp_path)


def test_a_folder_in_use_is_not_taken(tmp_path: Path):
    empty, taken, file = tmp_path / "empty", tmp_path / "taken", tmp_path / "file"
    empty.mkdir()
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    file.write_text("mine")
    for path in (empty, tmp_path / "a" / "new"):
        run = RunFolder(path)
        run.require_free()
        run.create("schema: 1\n", ORIGIN)
        assert {file.name for file in path.iterdir()} == {"recipe.yaml", "origin.json"}
        assert run.recipe.read_text() == "schema: 1\n"
        assert run.read_origin() == ORIGIN
    for path in (taken, file, empty):
        run = RunFolder(path)
        with pytest.raises(RunError, match="exists already, and a run is never overwritten"):
            run.require_free()
        with pytest.raises(RunError, match="exists already, and a run is never overwritten"):
            run.create("schema: 1\n", ORIGIN)
    assert (taken / "notes.txt").read_text() == file.read_text() == "mine"
    assert not hidden(tmp_path)


ORIGIN = {"began": "2026-01-01", "content": {"train": "00"}, "codes": ["11"]}


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", "3", '{"began": 1}'])
def test_a_run_that_cannot_say_what_it_was_begun_with_is_refused(
    content: str | None, tmp_path: Path
):
    run = RunFolder(tmp_path)
    if content is not None:
        run.origin.write_text(content)
    with pytest.raises(RunError, match=r"origin\.json is absent or damaged.*--name"):
        run.read_origin()


def test_lines_after_a_step_are_cut(tmp_path: Path):
    run = RunFolder(tmp_path)
    lines = [{"step": step, "loss": 1.5 / step} for step in (1, 2, 3)]
    for line in lines:
        append_line(run.metrics, line)
    run.cut_metrics(2)
    assert read_lines(run.metrics) == lines[:2]
    RunFolder(tmp_path / "other").path.mkdir()
    RunFolder(tmp_path / "other").cut_metrics(0)
    assert read_lines(tmp_path / "other" / "metrics.jsonl") == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", "\x00"])
def test_a_damaged_record_is_said(content: str, tmp_path: Path):
    run = RunFolder(tmp_path)
    run.recipe.write_text("schema: 1")
    with pytest.raises(RunError, match="has not finished"):
        run.read_record()
    run.record.write_text(content)
    with pytest.raises(RunError, match=r"record\.json is damaged"):
        run.read_record()
    run.record.write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match=r"record\.json is damaged"):
        run.read_record()


def test_a_record_of_another_schema_is_said(tmp_path: Path):
    run = RunFolder(tmp_path)
    with pytest.raises(RunError, match="is no run folder"):
        run.read_record()
    run.recipe.write_text("schema: 1")
    write_json(run.record, {"schema": RECORD_SCHEMA, "name": "x"})
    assert run.read_record() == {"schema": RECORD_SCHEMA, "name": "x"}
    write_json(run.record, {"schema": RECORD_SCHEMA + 1})
    with pytest.raises(RunError, match=f"reads {RECORD_SCHEMA}"):
        run.read_record()


# Several at one record


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.recipe.touch()
    write_json(folder.record, {"schema": RECORD_SCHEMA, "readings": ["a"], "students": {}})
    return folder


def test_who_changes_a_record_makes_others_wait(run: RunFolder):
    def add() -> None:
        with run.changing() as record:
            record["readings"].append("theirs")

    other = Thread(target=add)
    with run.changing() as record:
        other.start()
        other.join(0.2)  # without waiting, it would be done by now, and be overwritten
        record["readings"].append("ours")
    other.join()
    assert run.read_record()["readings"] == ["a", "ours", "theirs"]


def test_a_change_that_fails_is_not_written(run: RunFolder):
    before = run.record.read_bytes()
    with pytest.raises(KeyError), run.changing() as record:
        record.pop("readings").append(record["no such key"])
    assert run.record.read_bytes() == before
    with run.changing():
        pass


def test_what_others_entered_meanwhile_stays(run: RunFolder):
    since, record = run.read_record(), run.read_record()
    record["readings"].append("ours")
    record["students"]["student"] = 1
    record["accepted"] = ["yes"]
    with run.changing() as theirs:
        theirs["readings"].append("theirs")
        theirs["exports"] = ["onnx"]
    now = run.enter(record, since)
    assert now == run.read_record()
    assert now == {
        "schema": RECORD_SCHEMA,
        "readings": ["a", "theirs", "ours"],
        "students": {"student": 1},
        "exports": ["onnx"],
        "accepted": ["yes"],
    }
    assert run.enter(now, now) == now
