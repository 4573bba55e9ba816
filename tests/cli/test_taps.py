import json
from pathlib import Path
from typing import Any

import pytest
import torch
from layouts_in_use import Tokens
from torch import Tensor, nn

from tutelage.models import NETWORKS


class Strided(nn.Module):
    """Stages of stride 2 and 16."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 6, 8, stride=8)
        self.linear = nn.Linear(6, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.second(self.first(images)).mean((2, 3)))


def tokens(num_classes: int, in_channels: int) -> nn.Module:
    del num_classes, in_channels
    return Tokens(1, patch=16)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "strided", Strided)
    monkeypatch.setitem(NETWORKS, "tokens", tokens)


def rows_of(out: str) -> list[list[str]]:
    return [line.split(maxsplit=9) for line in out.partition("\n\n")[0].splitlines()]


def test_stages_stand_side_by_side_and_it_says_which_are_paired(call: Any):
    code, out, err = call("taps", "resnet14", "resnet8", "--size", "32", "--classes", 10)
    assert (code, err) == (0, "")
    one = ["layer1", "16", "32×32", "map"]
    assert rows_of(out)[1] == ["1", *one, *one, "yes"]
    assert out.endswith(
        "taps: auto means taps: [[layer1, layer1], [layer2, layer2], [layer3, layer3]]\n"
    )


@pytest.mark.usefixtures("index")
def test_it_says_why_a_stage_has_no_counterpart(call: Any):
    code, out, _ = call("taps", "resnet8", "strided", "--size", "32x64")
    assert code == 0
    assert "no: no stage of stride 1 in the student" in out
    assert "no: no stage of stride 16 in the teacher" in out
    assert [row[0] for row in rows_of(out)[1:]] == ["1", "2", "4", "16"]
    both = ["2", "layer2", "32", "16×32", "map", "first", "4", "16×32", "map", "yes"]
    assert both in rows_of(out)
    assert "taps: auto means taps: [[first, layer2]]" in out


@pytest.mark.usefixtures("index")
def test_tokens_are_named_as_such_and_pair_with_maps(call: Any):
    out = call("taps", "tokens", "strided", "--size", "64").out
    both = ["16", "blocks", "6", "4×4", "tokens", "second", "6", "4×4", "map", "yes"]
    assert both in rows_of(out)
    assert "finds nothing to pair" in call("taps", "tokens", "resnet8", "--size", "64").out


@pytest.mark.usefixtures("index")
def test_json_is_one_object_and_nothing_else(call: Any):
    said = call("taps", "resnet8", "strided", "--size", "32", "--json")
    found = json.loads(said.out)
    assert found["teacher"]["network"] == "resnet8"
    assert found["student"]["stages"][0] == {
        "name": "first",
        "shape": [4, 16, 16],
        "stride": [2, 2],
        "layout": "map",
    }
    assert found["strides"][:2] == [
        {
            "stride": [1, 1],
            "student": None,
            "teacher": "layer1",
            "why_not": "no stage of stride 1 in the student",
        },
        {"stride": [2, 2], "student": "first", "teacher": "layer2", "why_not": None},
    ]


def test_a_run_has_pictures_of_its_own(inside: Path, call: Any):
    out = call("taps", "runs/teacher", "resnet8", "--size", "8", "--channels", 1).out
    assert ["1", "layer1", "8", "8×8", "map", "layer1", "16", "8×8", "map", "yes"] in rows_of(out)


@pytest.mark.usefixtures("index")
def test_what_it_is_not_told_it_says_in_one_sentence(tmp_path: Path, call: Any):
    weights = tmp_path / "weights.pth"
    torch.save({}, weights)
    assert call("taps", f"{weights}:resnet8", "resnet8", "--size", 32).code == 0
    for arguments, says in (
        (["resnte8", "resnet8"], "did you mean resnet8?"),
        (["resnet8", "nowhere/run"], "The student is NAME, FILE:NAME or a run's folder"),
        (["gone.pth:resnet8", "resnet8"], "no file gone.pth"),
        ([tmp_path, "resnet8"], str(tmp_path)),
        (["resnet8", "resnet8", "--size", "big"], "not 'big'"),
        (["resnet8", "resnet8", "--size", "0"], "not '0'"),
        (["resnet8", "strided", "--size", "4"], "The student strided does not take pictures"),
        (["resnet8", "resnet8", "--classes", "0"], "--classes"),
        (["resnet8"], "STUDENT"),
    ):
        code, out, err = call("taps", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), arguments
        assert says in err
