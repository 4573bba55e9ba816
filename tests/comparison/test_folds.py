"""Cross-validation: seeds that test another part of the pictures each."""

from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
import pytest
import torch
from tiny import distilled, recipe, train_teacher

from tutelage.cli.main import main
from tutelage.comparison import Comparison, compare
from tutelage.data.digits import digits
from tutelage.errors import RecipeError
from tutelage.records import read_lines


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def folds(place: Path, count: int) -> str:
    """Files with all digits, of which each tests another part; their name with `{seed}`."""
    source = digits()
    everything = source.train.join(source.test)
    for number in range(count):
        tested = torch.arange(len(everything)) % count == number
        arrays: dict[str, Any] = {}
        for name, keep in (("train", ~tested), ("test", tested)):
            arrays[f"{name}_images"] = everything.images[keep]
            arrays[f"{name}_labels"] = everything.labels[keep]
        np.savez(place / f"fold-{number}.npz", **arrays)
    return str(place / "fold-{seed}.npz")


def spec(rows: dict[str, Any], source: str | None, **more: Any) -> dict[str, Any]:
    base = recipe(steps=30, batch_size=100)
    if source is not None:
        base["data"] = base["data"] | {"source": {"name": "arrays", "path": source}}
    known = {"schema": 1, "name": "tiny", "base": base, "seeds": [0, 1, 2], "controls": "none"}
    return known | {"rows": rows, "folds": True} | more


def run(value: dict[str, Any], runs: Path) -> Comparison:
    return compare(value, runs=runs, shown=False)


def test_every_picture_is_tested_once_and_intervals_allow_for_shared_training(
    runs: Path, tmp_path: Path
):
    rows = {"short": {}, "wide": {"set": {"student.width": 3}}, "long": LONGER}
    asked = spec(
        rows,
        folds(tmp_path, 3),
        controls={"short": "short", "long": "long"},
        claims=["wide > short on accuracy"],
    )
    done = run(asked, runs)
    lines = [one for one in read_lines(runs / "tiny" / "trials.jsonl") if one["kind"] == "trial"]
    paths = {one["seed"]: one["record"]["recipe"]["data"]["source"]["path"] for one in lines}
    assert paths == {number: str(tmp_path / f"fold-{number}.npz") for number in range(3)}
    students = {
        row: [one["record"]["students"]["student"] for one in lines if one["row"] == row]
        for row in rows
    }
    assert sum(one["test"]["pictures"] for one in students["wide"]) == 1797
    assert "Cross-validation: each of 3 seeds tests a part of the pictures" in done.text()
    (gain,) = [row["over_short"] for row in done.table() if row["row"] == "wide"]
    apart = [
        100 * (one["test_accuracy"] - other["test_accuracy"])
        for one, other in zip(students["wide"], students["short"], strict=True)
    ]
    # Half as many pictures test as train: the variance of the mean is (1/3 + 1/2) of one's.
    half = 4.30265 * stdev(apart) * (1 / 3 + 1 / 2) ** 0.5
    assert gain.high - gain.mean == pytest.approx(half, rel=1e-5)
    (found,) = done.tables[0].findings
    assert found.interval == gain
    assert found.two_level is None
    assert found.needed is None
    page = tmp_path / "page.html"
    assert main(["report", str(runs / "tiny" / "trials.jsonl"), "--html", str(page)]) == 0
    assert "Cross-validation" in page.read_text()


LONGER = {"set": {"train.steps": 60}}


def test_each_fold_has_a_teacher_of_its_own(runs: Path, tmp_path: Path):
    source = folds(tmp_path, 2)
    teacher = train_teacher(tmp_path)
    for number in range(2):
        (tmp_path / f"teacher-{number}").symlink_to(teacher)
    base = distilled(tmp_path / "teacher-{seed}")
    base["data"] = base["data"] | {"source": {"name": "arrays", "path": source}}
    done = run(spec({"kd": {}}, None, base=base, seeds=[0, 1]), runs)
    (row,) = [row for row in done.table() if row["row"] == "teacher"]
    lines = [one for one in read_lines(runs / "tiny" / "trials.jsonl") if one["kind"] == "trial"]
    known = [100 * one["record"]["teacher"]["test_accuracy"] for one in lines]
    assert row["accuracy"] == pytest.approx(sum(known) / 2)
    assert row["spread"] == pytest.approx(stdev(known))
    assert [one["record"]["recipe"]["teacher"]["run"] for one in lines] == [
        str(tmp_path / f"teacher-{number}") for number in range(2)
    ]


def test_folds_that_are_none_are_refused(runs: Path, tmp_path: Path):
    with pytest.raises(RecipeError, match=r"data.source of narrow is the same .* Write {seed}"):
        run(spec({"narrow": {}}, None), runs)
    with pytest.raises(RecipeError, match="folds are of two seeds or more"):
        run(spec({"narrow": {}}, None, seeds=[0]), runs)
    named = folds(tmp_path, 2)
    (tmp_path / "fold-1.npz").write_bytes((tmp_path / "fold-0.npz").read_bytes())
    with pytest.raises(RecipeError, match="seeds 0 and 1 have the same test pictures"):
        run(spec({"narrow": {}}, named, seeds=[0, 1]), runs)
    assert not (runs / "tiny" / "trials.jsonl").exists()
