"""int8.py trains, goes on, exports and enters each file once; its table says what decides."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import recipe

import int8
from tutelage.recipes import apply_overrides, parse_overrides, read_mapping, validate
from tutelage.records import RunFolder, read_lines

ROOT = Path(__file__).resolve().parent.parent
TABLES = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int8.Wanted:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe()))
    quick = {name: tuple(form for form in forms if form.target == "onnx")[-1:]
             for name, forms in int8.FORMS.items()}  # fmt: skip
    monkeypatch.setattr(int8, "FORMS", quick)
    monkeypatch.setattr("sys.argv", ["int8.py", "--record", "somewhere"])
    return int8.Wanted(str(file), ("train.optimizer.lr=0.05",), (0,), ("train.steps=2",))


@pytest.mark.slow
def test_what_is_there_is_not_made_again(wanted: int8.Wanted, tmp_path: Path):
    into = tmp_path / "int8.jsonl"
    int8.measure("a net", wanted, 0, tmp_path, into)
    lines = read_lines(into)
    results = [line["result"] for line in lines]
    assert [(one["stage"], one["form"]) for one in results] == [
        (stage, "onnx-int8") for stage in ("first", "goes on", "rounds as onnx")
    ]
    first, goes_on, rounds = (one["run"]["recipe"] for one in results)
    assert first["train"]["steps"] == 3
    for later in (goes_on, rounds):
        assert later["train"]["steps"] == 2
        assert later["student"] == {"run": str(tmp_path / "a-net-seed0")}
    assert (goes_on["train"]["quantization"], rounds["train"]["quantization"]) == (None, "onnx")
    assert RunFolder(tmp_path / "a-net-seed0-rounds-as-executorch").record.exists()
    for one in results:
        purposes = [reading["purpose"] for reading in one["run"]["readings"]]
        assert "comparing the exported onnx-int8 with the network" in purposes
    assert "somewhere" not in lines[0]["command"]
    int8.measure("a net", wanted, 0, tmp_path, into)
    assert len(read_lines(into)) == 3
    into.unlink()  # the runs and their exports are still there
    int8.measure("a net", wanted, 0, tmp_path, into)
    assert [line["result"]["parity"] for line in read_lines(into)] == [
        one["parity"] for one in results
    ]


def line(stage: str, seed: int, accuracy: float) -> dict[str, Any]:
    result = {
        **{"kind": "int8", "network": "net", "seed": seed, "stage": stage, "form": "onnx-int8"},
        "parity": {"accuracy": {"network": 0.8, "exported": accuracy}},
        "bytes": {"network": 4_000_000, "exported": 1_000_000},
        "latency_ms": {"network": 2.0, "exported": 1.0},
    }
    return {"result": result}


@pytest.mark.parametrize(("rounded", "word"), [((0.79, 0.80, 0.79), "shown"),
                                               ((0.70, 0.80, 0.75), "not shown")])  # fmt: skip
def test_a_gain_is_shown_over_both_runs_that_did_not_round(
    rounded: tuple[float, ...], word: str, tmp_path: Path
):
    found = [line("first", seed, value) for seed, value in enumerate((0.72, 0.73, 0.72))]
    found += [line("goes on", seed, value) for seed, value in enumerate((0.74, 0.75, 0.74))]
    found += [line("rounds as onnx", seed, value) for seed, value in enumerate(rounded)]
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in reversed(found)))
    text = TABLES["renewed"](f"<!-- int8 of {file} -->\n<!-- end of table -->")
    assert "| net | goes on | onnx-int8 | 3 | 80.0 ± 0.0 | 74.3 ± 0.6 | 1.00 | 0.50 |" in text
    assert f"; {word}." in text
    if word == "shown":
        assert "+7.00 (" in text
        assert "+5.00 (" in text


@pytest.mark.parametrize("name", int8.NETWORKS)
@pytest.mark.parametrize("stage", int8.STAGES)
def test_every_run_is_one_that_can_be_asked_for(name: str, stage: str):
    wanted = int8.NETWORKS[name]
    overrides = [*wanted.overrides, "seed=0"]
    if stage != "first":
        overrides += [*wanted.going_on, *int8.STAGES[stage], "student={run: runs/first}"]
    value, where = read_mapping(wanted.recipe)
    made = validate(apply_overrides(value, parse_overrides(overrides)), where)
    assert made.train.precision == ("fp32" if stage != "first" or "scenes" in name else "bf16")
    assert len(wanted.seeds) >= (3 if name == "resnet8" else 1)
    assert int8.FORMS[stage]


def test_two_seeds_decide_nothing(tmp_path: Path):
    stages = ("first", "goes on", "rounds as onnx")
    found = [line(stage, seed, 0.7 + seed / 10) for stage in stages for seed in (0, 1)]
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in found))
    text = TABLES["renewed"](f"<!-- int8 of {file} -->\n<!-- end of table -->")
    assert "| net | goes on | onnx-int8 | 2 |" in text
    assert "shown" not in text
