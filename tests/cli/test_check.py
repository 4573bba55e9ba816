import json
from pathlib import Path
from typing import Any

import pytest

RECIPE = """
schema: 1
data: {source: digits, validation: 100, labelled: 200}
student: {name: resnet8, width: 4}
teacher: {run: runs/teacher}
methods:
  kd: {weight: 0.9}
  attention_transfer: {weight: 10}
train: {steps: 4, batch_size: 50, precision: fp32, threads: 1, keep_memory: false}
"""


@pytest.fixture
def recipe(inside: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def test_a_check_says_what_one_wants_to_know_and_writes_nothing(recipe: Path, call: Any):
    code, out, _ = call("check", recipe)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    # 8 channels on 8×8, 16 on 4×4, 32 on 2×2; the student has half of each.
    assert ["layer1", "8", "8×8", "1"] in lines
    assert ["layer3", "16", "2×2", "4"] in lines
    assert "layer1 → layer1, layer2 → layer2, layer3 → layer3" in out
    for term in ("supervised", "kd.kl", "attention_transfer.at/layer1"):
        assert term in out
    ratio = next(line for line in lines if line[:1] == ["ratio"])
    assert all(3 < float(each.rstrip("×")) < 4.1 for each in ratio[1:])  # twice the width


def test_json_is_one_object_and_nothing_else(recipe: Path, call: Any):
    found = json.loads(call("check", recipe, "train.batch_size=20", "--json").out)
    assert found["student"]["macs"] < found["teacher"]["macs"]
    assert found["data"]["labelled_per_batch"] == 20
    assert found["loss"] == pytest.approx(
        found["terms"]["supervised"]
        + 0.9 * found["terms"]["kd.kl"]
        + 10 * sum(v for k, v in found["terms"].items() if k.startswith("attention")),
        rel=1e-4,
    )


def test_without_a_teacher_there_is_nothing_to_compare(recipe: Path, call: Any):
    code, out, _ = call("check", recipe, "teacher=null", "methods=[]")
    assert code == 0
    assert "ratio" not in out
    assert "no method asks for them" in out
