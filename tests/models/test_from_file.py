"""A network that somebody's own file makes."""

from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import NetworkError
from tutelage.models.from_file import make_from_file

TEXT = """
from torch import nn

def small(num_classes, *, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(width, num_classes))

def gray(in_channels):
    return nn.Conv2d(in_channels, 1, 1)

def words():
    return "a network"

def broken():
    raise KeyError("weights")
"""


def make(folder: Path, function: str, **arguments: object) -> Any:
    file = folder / "net.py"
    file.write_text(TEXT)
    with pytest.warns(UserWarning, match=r"student is made by .* of .*net\.py: .*is code, and run"):
        return make_from_file(
            f"{file}:{function}",
            num_classes=7,
            in_channels=3,
            arguments=dict(arguments),
            what="student",
        )


def test_a_function_gets_what_it_takes_of_classes_and_channels_and_its_arguments(tmp_path: Path):
    assert make(tmp_path, "small", width=9)[1].weight.shape == (7, 9)
    assert make(tmp_path, "gray").weight.shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        ("smallest", {}, "has no function 'smallest'; did you mean small?"),
        ("words", {}, "returns str, and not a torch.nn.Module"),
        ("broken", {}, r"broken\(\) of .*net.py fails: KeyError: 'weights'"),
        ("small", {"depth": 3}, r"small\(\) of .*fails: TypeError: .*'depth'"),
    ],
)
def test_what_makes_no_network_is_refused_in_one_sentence(
    function: str, arguments: dict[str, object], said: str, tmp_path: Path
):
    with pytest.raises(NetworkError, match=said):
        make(tmp_path, function, **arguments)


def test_a_file_that_is_absent_or_fails_is_refused(tmp_path: Path):
    usual = {"num_classes": 2, "in_channels": 1, "arguments": {}, "what": "teacher"}
    with pytest.raises(NetworkError, match=r"no file .*which is to make the teacher"):
        make_from_file(f"{tmp_path}/net.py:make", **usual)
    (tmp_path / "net.py").write_text("import no_such_package")
    with (
        pytest.warns(UserWarning, match="runs now"),
        pytest.raises(NetworkError, match="fails when it is run: ModuleNotFoundError"),
    ):
        make_from_file(f"{tmp_path}/net.py:make", **usual)
