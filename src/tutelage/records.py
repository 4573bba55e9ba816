"""How a run lies on disk, and how anything is written: whole or not at all.

runs/NAME/
    recipe.yaml            resolved: every default filled in
    origin.json            when it was begun, with what content and code, and what was chosen
    record.json            what was run, on what, with what result; written last
    metrics.jsonl          one line per log interval
    student.safetensors    the trained student, with its own description in the header
    pictures.npz           a few test pictures, where networks look, where they differ
    profile.json           Chrome trace of a few steps, if it was asked for
    checkpoints/step-…/    the last two
"""

import base64
import errno
import json
import os
import secrets
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, final

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import RunError

__all__ = [
    "RECORD_SCHEMA",
    "RunFolder",
    "alone_in",
    "append_line",
    "is_free",
    "read_lines",
    "remove",
    "unpack_bits",
    "write_atomic",
    "write_folder",
    "write_json",
    "write_new_folder",
]

RECORD_SCHEMA = 1


_GO_ON = "run again with --resume"


@contextmanager
def _space(path: Path, go_on: str = _GO_ON) -> Iterator[None]:
    """Says in words that a disk is full, and how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"No space is left on the device that holds {path.parent}. Free some and {go_on}, "
                "or choose another folder."
            ) from None
        raise


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _partial(path: Path) -> Path:
    """A name that no other process chooses, on no machine that sees the folder."""
    return path.with_name(f".{path.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")


def _sync_folder(path: Path) -> None:
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomic(path: Path, content: str | bytes, *, go_on: str = _GO_ON) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new.

    Args:
        go_on: what to do once there is space again, for the error.

    Raises:
        RunError: no space is left, or somebody cleared the folder meanwhile; the old file is
            untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = _partial(path)
    try:
        with _space(path, go_on):
            _write_synced(partial, data)
            _replace(partial, path, go_on)
            _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _replace(partial: Path, path: Path, go_on: str) -> None:
    try:
        partial.replace(path)
    except FileNotFoundError:
        raise RunError(
            f"{path} was removed while it was written; another process clears {path.parent}. Stop "
            f"it, and {go_on}."
        ) from None


def write_folder(
    path: Path, files: Mapping[str, bytes], *, replace: bool = True, go_on: str = _GO_ON
) -> None:
    """Writes a folder of files that appears as a whole or not at all.

    Args:
        replace: whether it may take the place of a folder that is not empty.
        go_on: what to do once there is space again, for the error.

    Raises:
        RunError: no space is left; nothing remains of the attempt.
        OSError: something is there and may not be replaced.
    """
    partial = _partial(path)
    try:
        with _space(path, go_on):
            partial.mkdir(parents=True)
            for name, content in files.items():
                _write_synced(partial / name, content)
            _sync_folder(partial)
            if replace:
                remove(path)
            partial.replace(path)  # refused by the system unless there is nothing to lose
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_free(path: Path) -> bool:
    """Whether nothing would be lost if a folder were made here."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def write_new_folder(
    path: Path, files: Mapping[str, bytes], taken: RunError, *, go_on: str = _GO_ON
) -> None:
    """As `write_folder`, where nothing may be there.

    Args:
        taken: is raised if something is, if only since a moment ago.

    Raises:
        RunError: `taken`, or no space is left; nothing remains of the attempt.
    """
    try:
        write_folder(path, files, replace=False, go_on=go_on)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise taken from None
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON value, atomically, readable and with stable order of keys as given."""
    write_atomic(path, _as_json(value))


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def append_line(path: Path, value: Any) -> None:
    """Appends one JSON value as one line, in place of one that a crash has cut off."""
    line = json.dumps(value, allow_nan=False) + "\n"
    with _space(path), path.open("ab+") as file:
        _drop_torn_line(file)
        file.write(line.encode())


def _drop_torn_line(file: BinaryIO) -> None:
    """Leaves a file that ends with a whole line, or with nothing."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - 1, 0))
    if file.read(1) in (b"", b"\n"):
        return
    file.seek(0)
    start = file.read().rfind(b"\n") + 1
    file.seek(start)
    try:
        json.loads(file.read())
        file.write(b"\n")
    except ValueError:
        file.truncate(start)


def read_lines(path: Path) -> list[Any]:
    """The JSON values of a file of lines; a last line cut off by a crash is left out.

    Raises:
        RunError: another line is damaged.
    """
    if not path.exists():
        return []
    values = []
    content = path.read_bytes()
    lines = content.splitlines()
    torn = not content.endswith(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            values.append(json.loads(line))
        except ValueError:
            if torn and number == len(lines):
                break
            raise RunError(f"{path} is damaged in line {number}. Remove that line.") from None
    return values


@contextmanager
def alone_in(folder: Path, what: str) -> Iterator[None]:
    """Holds a folder, which is made if need be, against other processes that ask for it this way.

    Args:
        what: is done there, for the sentence that others get.

    Raises:
        RunError: another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise RunError(f"{folder} cannot be a folder: a file is in its way.") from None
    with (folder / ".lock").open("a") as held:
        if not _hold(held, wait=False):
            raise RunError(f"Another `{what}` works in {folder}. Wait for it, or stop it first.")
        yield


def _hold(file: IO[Any], *, wait: bool) -> bool:
    """Holds an open file against other processes until it is closed; whether that succeeded."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def remove(path: Path) -> None:
    """Removes a folder so that a crash in between leaves nothing that looks whole."""
    if path.exists():
        condemned = path.with_name(f".{path.name}.removed-{os.getpid()}")
        path.replace(condemned)
        shutil.rmtree(condemned)


@final
class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def origin(self) -> Path:
        """When the run was begun, with what content and code."""
        return self.path / "origin.json"

    @property
    def record(self) -> Path:
        """What was run and with what result; present once the run has finished."""
        return self.path / "record.json"

    @property
    def metrics(self) -> Path:
        """One line per log interval."""
        return self.path / "metrics.jsonl"

    @property
    def student(self) -> Path:
        """The trained student."""
        return self.path / "student.safetensors"

    @property
    def pictures(self) -> Path:
        """Test pictures and maps, for reports that show them."""
        return self.path / "pictures.npz"

    @property
    def profile(self) -> Path:
        """A Chrome trace of a few steps."""
        return self.path / "profile.json"

    @property
    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*"))

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step belongs."""
        return self.path / "checkpoints" / f"step-{step:09d}"

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self.record.exists()

    def require_free(self) -> None:
        """Checks that a run may begin here.

        Raises:
            RunError: something of that name is there already.
        """
        if not is_free(self.path):
            raise self._taken()

    def create(self, recipe: str, origin: Mapping[str, Any]) -> None:
        """Begins the run: the folder is there with both files, or not at all.

        Raises:
            RunError: something of that name is there already, if only since a moment ago.
        """
        files = {
            self.recipe.name: recipe.encode(),
            self.origin.name: _as_json(origin).encode(),
        }
        write_new_folder(self.path, files, self._taken())

    def _taken(self) -> RunError:
        return RunError(
            f"{self.path} exists already, and a run is never overwritten. Continue it with "
            "--resume, or choose another --name."
        )

    def read_origin(self) -> dict[str, Any]:
        """When the run was begun, with what content and code.

        Raises:
            RunError: the file is absent or damaged.
        """
        try:
            origin = json.loads(self.origin.read_text())
            needed = {key: origin[key] for key in ("began", "content", "codes")}
            return needed | {key: origin[key] for key in ("chosen",) if key in origin}
        except (OSError, ValueError, KeyError, TypeError):
            raise RunError(
                f"{self.origin} is absent or damaged, so that nobody can say what the run was "
                "begun with. Begin a new one with another --name."
            ) from None

    @property
    def how_to_resume(self) -> str:
        """The command that goes on with it."""
        words = ["tutelage", "train", str(self.recipe), "--resume", "--name", self.path.name]
        elsewhere = self.path.parent != Path("runs")
        return shlex.join([*words, *(["--runs", str(self.path.parent)] * elsewhere)])

    def read_record(self) -> dict[str, Any]:
        """The record of a finished run.

        Raises:
            RunError: the folder is no run, the run did not finish, or the record is of another
                schema.
        """
        self.require()
        if not self.finished:
            raise RunError(
                f"The run in {self.path} has not finished. Continue it: {self.how_to_resume}"
            )
        try:
            record = json.loads(self.record.read_text())
            schema = record["schema"]
        except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
            raise RunError(f"{self.record} is damaged. Run the recipe beside it anew.") from None
        if schema != RECORD_SCHEMA:
            raise RunError(
                f"{self.record} has schema {schema}, and this version reads {RECORD_SCHEMA}. "
                "Read it with the version that wrote it, or run its recipe anew."
            )
        return record

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """The record as it stands, to be changed; other processes that ask for it wait meanwhile.

        It is written at the end, unless something is raised.

        Raises:
            RunError: as `read_record`.
        """
        self.require()
        mode = "r+b" if os.access(self.recipe, os.W_OK) else "rb"
        with self.recipe.open(mode) as held:  # the one file that is never replaced
            _hold(held, wait=True)
            record = self.read_record()
            yield record
            write_json(self.record, record)

    def enter(self, record: Mapping[str, Any], since: Mapping[str, Any]) -> dict[str, Any]:
        """Writes what was changed in a record, and keeps what others have entered meanwhile.

        Args:
            record: with the changes; a list that has grown is one whose end is new.
            since: as it was before them.

        Returns:
            The record as it now stands.
        """
        with self.changing() as now:
            for key, value in record.items():
                was = since.get(key, [] if isinstance(value, list) else None)
                if value == was:
                    continue
                if isinstance(value, list) and value[: len(was)] == was:
                    now[key] = now.get(key, []) + value[len(was) :]
                else:
                    now[key] = value
        return now

    def require(self) -> None:
        """Checks that this is a run folder.

        Raises:
            RunError: it is not.
        """
        if not self.recipe.is_file():
            raise RunError(
                f"{self.path} is no run folder: it holds no recipe.yaml. Name a folder that "
                "`tutelage train` has made, such as runs/NAME."
            )

    def cut_metrics(self, step: int) -> None:
        """Drops the lines after `step`, which a resumed run will write again."""
        lines = [line for line in read_lines(self.metrics) if line["step"] <= step]
        write_atomic(self.metrics, "".join(json.dumps(line) + "\n" for line in lines))

    def sweep(self, keep: Iterable[Path] = ()) -> None:
        """Removes checkpoints other than `keep`, and what crashes have left behind."""
        kept = set(keep)
        for path in self.checkpoints:
            if path not in kept:
                remove(path)
        for pattern in ("checkpoints/.*", ".*.partial-*"):
            for left in self.path.glob(pattern):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()


def unpack_bits(text: str, count: int) -> NDArray[np.bool_]:
    """The bits that a record holds as text, one per picture.

    Args:
        text: base64 of bits packed as by `numpy.packbits`.
        count: how many there are.
    """
    packed = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.unpackbits(packed, count=count).astype(bool)
