"""export, predict and bench as somebody calls them."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tutelage.data.digits import digits
from tutelage.records import RunFolder
from tutelage.runs import export


@pytest.fixture(scope="module")
def exported(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's run with an export; what tests do to it others may see."""
    folder = tmp_path_factory.mktemp("exported")
    for name in ("teacher", "student"):
        shutil.copytree(world / "runs" / name, folder / "runs" / name)
    export(folder / "runs" / "student", teacher=False)
    return folder


@pytest.fixture
def there(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(exported)
    return exported


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of three scans as files, each named after its digit."""
    source = digits()
    folder = tmp_path / "scans"
    folder.mkdir()
    for place in range(3):
        pixels = source.test.shown(source.test.index[:0].new_tensor([place]))[0, :, :, 0]
        digit = int(source.test.labels[place])
        Image.fromarray(pixels.numpy()).save(folder / f"{place}-{digit}.png")
    return folder


def test_an_export_says_what_was_compared(there: Path, call: Any, tmp_path: Path):
    said = call("export", "runs/student", "--out", tmp_path / "out", "--batch", "4")
    assert said.code == 0, said.err
    assert "PyTorch, fp32" in said.out
    assert "onnx-fp32-batch4" in said.out
    assert "100.0 %" in said.out
    assert f"written: {tmp_path / 'out' / 'model.onnx'}" in said.out
    entry = RunFolder(there / "runs" / "student").read_record()["exports"][-1]
    assert entry["command"].startswith("tutelage export runs/student")
    assert entry["parity"]["teacher_agreement"] is not None
    assert "as its teacher" in said.out


def test_as_json_it_is_one_object(there: Path, call: Any, tmp_path: Path):
    said = call(
        "export", "runs/student", "--out", tmp_path / "o", "--no-teacher", "--normalized", "--json"
    )
    found = json.loads(said.out)
    assert found["name"] == "onnx-fp32-normalized"
    assert Path(found["file"]) == tmp_path / "o" / "model.onnx"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("runs/none",), "is no run folder"),
        (("runs/student",), "an export is never overwritten"),
        (("runs/student", "--to", "torch", "--precision", "int8"), "int8 is for onnx"),
        (("runs/student", "--batch", "0"), "A batch is of 1 to 4,096"),
        (("runs/student", "--to", "tflite"), "tflite"),
        (("runs/student", "--subnet", "8"), "has no sub-nets"),
        (
            ("runs/student", "--precision", "int8", "--calibrate-on", "digitz"),
            "digitz",
        ),
        (("runs/student", "--precision", "int8", "--calibrate", "3"), "at least 32"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_sentence(
    arguments: tuple[str, ...], said: str, there: Path, call: Any
):
    found = call("export", *arguments)
    assert found.code == 2
    assert said in found.err
    assert found.err.count("\n") == 1
    assert found.out == ""


def test_a_run_and_its_file_give_one_answer(there: Path, call: Any, scans: Path):
    by_run = call("predict", "runs/student", scans, "--top", "2")
    by_file = call("predict", "runs/student/exports/onnx-fp32/model.onnx", scans, "--top", "2")
    assert by_run.code == by_file.code == 0, by_run.err + by_file.err
    assert by_run.out == by_file.out
    assert len(by_run.out.splitlines()) == 3


def test_files_are_seen_as_the_test_pictures_were(there: Path, call: Any, scans: Path):
    # The teacher knows digits; the same pixels through a file must be told as from the source.
    said = call("predict", "runs/teacher", scans, "--json")
    record = RunFolder(there / "runs" / "teacher").read_record()
    assert record["students"]["student"]["test_accuracy"] > 0.5
    lines = [json.loads(line) for line in said.out.splitlines()]
    first = digits().test
    network = __import__("tutelage").load(there / "runs" / "teacher")
    images = first.images[:3].permute(0, 3, 1, 2).float() / 255
    wanted = network(images).softmax(dim=1).amax(dim=1).tolist()
    found = [line["classes"][0]["probability"] for line in lines]
    assert found == pytest.approx(wanted, rel=1e-5)
    for line in lines:
        shares = [one["probability"] for one in line["classes"]]
        assert shares == sorted(shares, reverse=True)
        assert all(one["name"] == str(one["number"]) for one in line["classes"])


def test_what_cannot_be_read_is_said_and_the_rest_answered(
    there: Path, call: Any, scans: Path, tmp_path: Path
):
    (tmp_path / "text.png").write_text("no picture")
    files = [*sorted(scans.iterdir())[:1], tmp_path / "text.png", *sorted(scans.iterdir())[1:]]
    said = call("predict", "runs/student", *files, "--json")
    assert said.code == 2
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert ["error" in line for line in lines] == [False, True, False, False]
    assert "cannot be read as a picture" in lines[1]["error"]
    assert "1 of the pictures could not be read" in said.err
    (scans / "notes.txt").write_text("no picture")
    within = call("predict", "runs/student", scans)
    assert within.code == 2
    assert len(within.out.splitlines()) == 4
    assert "notes.txt cannot be read as a picture" in within.out


def test_names_cannot_talk_to_the_terminal(there: Path, call: Any, scans: Path):
    (first, *_) = sorted(scans.iterdir())
    shutil.copy(first, scans / "a\nb\x1b[31m.png")
    said = call("predict", "runs/student", scans)
    assert said.code == 0
    assert len(said.out.splitlines()) == 4
    assert "\x1b" not in said.out


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("none", "There is no none. Name a run's folder"),
        ("none.onnx", "There is no file none.onnx"),
        ("none.pt2", "is for torch.export.load in code of your own"),
        ("runs", "is no run folder"),
    ],
)
def test_a_model_that_cannot_be_asked(model: str, said: str, there: Path, call: Any, scans: Path):
    found = call("predict", model, scans)
    assert found.code == 2
    assert said in found.err


def test_pictures_that_are_not_there(there: Path, call: Any, tmp_path: Path):
    assert "The picture nope.png is not there" in call("predict", "runs/student", "nope.png").err
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    assert "pipe.png is no file" in call("predict", "runs/student", tmp_path / "pipe.png").err
    said = call("predict", "runs/student", tmp_path / "empty")
    assert "There is no picture in" in said.err


def test_a_photograph_of_any_kind_is_shown_in_the_right_size(
    there: Path, call: Any, tmp_path: Path
):
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "color.jpg")
    Image.fromarray(noise).convert("P").save(tmp_path / "palette.png")
    said = call("predict", "runs/student", tmp_path / "color.jpg", tmp_path / "palette.png")
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) == 2


def test_a_bench_prints_a_table_and_the_report_has_it(there: Path, call: Any):
    said = call(
        "bench", "runs/student", "--no-memory", "--rounds", "3", "--batch", "1,2", "--threads", "1"
    )
    assert said.code == 0, said.err
    assert "onnx-fp32" in said.out
    assert "CPU, 1 thread(s), 3 rounds." in said.out
    page = there / "page.html"
    assert call("report", "runs/student", "--html", page).code == 0
    text = page.read_text()
    assert "Timed side by side" in text
    assert "Exported files, and the network itself" in text


def test_a_bench_as_json(there: Path, call: Any):
    said = call(
        "bench",
        "runs/student/exports/onnx-fp32/model.onnx",
        "--no-memory",
        "--rounds",
        "3",
        "--batch",
        "2",
        "--json",
    )
    (line,) = json.loads(said.out)["lines"]
    assert (line["batch"], line["rounds"], line["name"]) == (2, 3, "model")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("runs/student", "--batch", "1,x"), "numbers of pictures with commas"),
        (("runs/student", "--rounds", "1"), "--rounds"),
        (("nothing",), "There is no nothing"),
    ],
)
def test_a_bench_of_nothing_is_refused(
    arguments: tuple[str, ...], said: str, there: Path, call: Any
):
    found = call("bench", *arguments)
    assert found.code == 2
    assert said in found.err
