"""The examples run as they stand, and do what they say."""

import re
import runpy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


FILES = [
    *("accelerate_loop.py", "boxes.py", "lightning_module.py", "own_loop.py"),
    "timm_task.py",  # in test_loops.py
]


def test_there_is_a_test_of_every_example():
    assert sorted(file.name for file in EXAMPLES.glob("*.py")) == FILES


def test_a_loop_of_ones_own_makes_a_student_about_as_good_as_its_teacher(
    capsys: pytest.CaptureFixture[str],
):
    torch.set_num_threads(1)
    runpy.run_path(str(EXAMPLES / "own_loop.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert "'hints.hint/layer1': " in lines[0]
    accuracies = dict(re.findall(r"(teacher|student) ([\d.]+)%", "\n".join(lines[-2:])))
    assert float(accuracies["teacher"]) > 80
    assert float(accuracies["student"]) > float(accuracies["teacher"]) - 5


@pytest.mark.parametrize("name", ["accelerate_loop", "lightning_module"])
def test_other_loops_teach_too(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
):
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)  # Lightning leaves folders where it is called
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on workers, and what their packages warn of
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    accuracies = dict(re.findall(r"(teacher|student) ([\d.]+)%", capfd.readouterr().out))
    assert float(accuracies["teacher"]) > 80
    assert float(accuracies["student"]) > float(accuracies["teacher"]) - 5


BOX = """<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>
<ymax>{}</ymax></bndbox></object>"""


def voc(folder: Path) -> Path:
    """Two pictures whose red is the column and whose green is the row."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    column, row = torch.meshgrid(torch.arange(40), torch.arange(30), indexing="xy")
    pixels = torch.stack([column * 6, row * 8, torch.zeros_like(row)], dim=2).byte().numpy()
    boxes = {
        "a": [("cat", 1, 1, 8, 16), ("dog", 11, 21, 30, 30), ("dog", 5, 5, 5, 9)],
        "b": [("cat", 9, 9, 16, 16), ("cat", 17, 9, 24, 16)],
    }
    for name, found in boxes.items():
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg", quality=100)
        text = "".join(BOX.format(*box) for box in found)
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")
    for part, names in {"train": "a\nb\n", "val": "", "test": "b\n"}.items():
        (folder / "ImageSets" / "Main" / f"{part}.txt").write_text(names)
    return folder


def run_boxes(monkeypatch: pytest.MonkeyPatch, *options: Any) -> None:
    monkeypatch.setattr("sys.argv", ["boxes.py", *map(str, options)])
    runpy.run_path(str(EXAMPLES / "boxes.py"), run_name="__main__")


def test_every_box_becomes_a_picture_of_its_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "crops"
    run_boxes(monkeypatch, voc(tmp_path / "voc"), out, "--labelled", 2)
    said = capsys.readouterr().out
    assert "1  too thin" in said
    with Image.open(out / "train" / "dog" / "a-01.png") as crop:
        assert crop.size == (20, 10)
        red, green, _ = np.asarray(crop).mean(axis=(0, 1)).tolist()
        # columns 10 to 29 and rows 20 to 29, from 0
        assert red == pytest.approx(6 * 19.5, abs=3)
        assert green == pytest.approx(8 * 24.5, abs=3)
    assert len(list((out / "train" / "cat").iterdir())) == 2
    assert len(list((tmp_path / "crops-more").iterdir())) == 1
    assert len(list((out / "test" / "cat").iterdir())) == 2  # all of them
    with pytest.raises(SystemExit, match="exists"):
        run_boxes(monkeypatch, tmp_path / "voc", out)
    with pytest.raises(SystemExit, match="no folder Annotations"):
        run_boxes(monkeypatch, tmp_path, tmp_path / "other")
