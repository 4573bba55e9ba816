"""The examples run as they stand, and do what they say."""

import re
import runpy
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_there_is_a_test_of_every_example():
    assert [file.name for file in EXAMPLES.glob("*.py")] == ["own_loop.py"]


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
