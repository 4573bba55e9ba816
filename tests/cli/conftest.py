"""A small world for the command line: two finished runs, and a way to call it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tutelage.cli.main import main
from tutelage.runs import train

DATA = {"source": {"name": "digits"}, "validation": 100, "labelled": 200}
RECIPE = {
    "schema": 1,
    "data": DATA,
    "student": {"name": "resnet8", "width": 4},
    "train": {
        "steps": 3,
        "batch_size": 50,
        "precision": "fp32",
        "threads": 1,
        "keep_memory": False,
    },
}


class Said(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def call(*argv: str | Path) -> Said:
        capsys.readouterr()
        code = main([str(each) for each in argv])
        said = capsys.readouterr()
        return Said(code, str(said.out), str(said.err))

    return call


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/teacher, which has learned something, and runs/student, its pupil."""
    folder = tmp_path_factory.mktemp("world")
    teacher = RECIPE | {
        "student": {"name": "resnet8", "width": 8},
        "train": {**RECIPE["train"], "steps": 40, "batch_size": 100},
    }
    student = RECIPE | {
        "teacher": {"run": "runs/teacher"},
        "methods": {"kd": {"weight": 0.9}},
        "task_weight": 0.1,
    }
    before = Path.cwd()
    os.chdir(folder)
    try:
        train(teacher, name="teacher", shown=False)
        train(student, name="student", shown=False, command="tutelage train student.yaml")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def inside(world: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The world as current folder; its runs must be left as they are."""
    monkeypatch.chdir(world)
    before = _contents(world)
    yield world
    assert _contents(world) == before


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
