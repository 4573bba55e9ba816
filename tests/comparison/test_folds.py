"""Cross-validation: seeds that test another part of the pictures each."""

import csv
import runpy
import sys
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
import pytest
import torch
from tiny import distilled, recipe, train_teacher

from tutelage.cli.main import main
from tutelage.comparison import Comparison, compare
from tutelage.comparison.folds import require_folds
from tutelage.data.digits import digits
from tutelage.errors import RecipeError, RunError
from tutelage.recipes import validate
from tutelage.records import read_lines
from tutelage.report.networks import networks_of
from tutelage.report.sources import read_source
from tutelage.runs.caching import cache


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


@pytest.mark.slow
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
    assert "one teacher for all folds" not in done.text()
    (gain,) = [row["over_short"] for row in done.table() if row["row"] == "wide"]
    apart = [
        100 * (one["test_accuracy"] - other["test_accuracy"])
        for one, other in zip(students["wide"], students["short"], strict=True)
    ]
    # 599 test for each 200 that train: the variance of the mean is 1/3 + 599/200 of one's.
    half = 4.30265 * stdev(apart) * (1 / 3 + 599 / 200) ** 0.5
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
    base = distilled(tmp_path / "teacher-{seed}", steps=60, batch_size=100)
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
    page = read_source([runs / "tiny" / "trials.jsonl"])
    (guide,) = [one for one in networks_of(page) if one.role == "teacher"]
    assert guide.name == "teacher"
    assert [100 * one["test_accuracy"] for one in guide.measured] == known
    assert guide.overlap == pytest.approx(899 / 200)
    # Two names, but the same weights, which have seen both folds.
    assert "kd: one teacher for all folds" in done.text()


def test_folds_that_are_none_are_refused(runs: Path, tmp_path: Path):
    with pytest.raises(RecipeError, match=r"of narrow is .*digits.* at every seed. Write {seed}"):
        run(spec({"narrow": {}}, None), runs)
    with pytest.raises(RecipeError, match="folds are two seeds or more"):
        run(spec({"narrow": {}}, None, seeds=[0]), runs)
    named = folds(tmp_path, 3)
    search = {"tries": 2, "space": {"student.width": [2, 3]}}
    with pytest.raises(RecipeError, match="a search has a seed that no trial has"):
        run(spec({"narrow": {"tune": search}}, named), runs)
    with pytest.raises(RecipeError, match="soft labels is of one set of test pictures"):
        run(spec({"narrow": {}}, named, evaluate={"soft_labels": "people.npz"}), runs)
    with pytest.raises(RecipeError, match=r"says '.*fold-{seed}.npz', and .* Say `folds: true`"):
        run(spec({"narrow": {}}, named) | {"folds": False}, runs)
    other = {"data.source": {"name": "arrays", "path": str(tmp_path / "fold-0.npz")}}
    chosen = {"choose": {"data.source.path": [named, str(tmp_path / "fold-1.npz")]}}
    with pytest.raises(RecipeError, match=r"of narrow is .* at every seed"):
        run(spec({"narrow": chosen}, named), runs)
    mixed = spec({"narrow": {}, "other": {"set": other}}, named)
    with pytest.raises(RecipeError, match=r"of other is .* at every seed"):
        run(mixed, runs)
    (tmp_path / "fold-2.npz").write_bytes((tmp_path / "fold-0.npz").read_bytes())
    with pytest.raises(RecipeError, match="599 of 599 test pictures of seed 2 are"):
        run(spec({"narrow": {}}, named), runs)
    assert not (runs / "tiny" / "trials.jsonl").exists()


def test_a_few_copies_in_other_folds_are_no_other_folds(tmp_path: Path):
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 255, (60, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(60) % 10
    recipes: dict[int, Any] = {}

    def write(number: int, tested: list[int]) -> None:
        rest = [one for one in range(60) if one not in tested]
        parts = {"train": rest, "test": tested}
        arrays: dict[str, Any] = {f"{name}_images": pictures[own] for name, own in parts.items()}
        arrays |= {f"{name}_labels": labels[own] for name, own in parts.items()}
        np.savez(tmp_path / f"{number}.npz", **arrays)
        value = recipe()
        path = str(tmp_path / f"{number}.npz")
        value["data"] = value["data"] | {"source": {"name": "arrays", "path": path}}
        recipes[number] = validate(value, "recipe")

    for number in range(3):  # each has three pictures of the one before it
        write(number, [*range(20 * number, 20 * number + 20), *range(20 * number - 3, 20 * number)])
    require_folds(recipes)
    write(3, [0, 1, 2, 20, 21, 22, 40, 41, 42])  # three of each of them
    require_folds(recipes)
    write(4, [0, 1, 2, 3])
    del recipes[3]
    with pytest.raises(RecipeError, match=r"4 of 4 test pictures of seed 4 .* by seed 0, too"):
        require_folds(recipes)


def test_folds_at_each_value_of_an_axis(runs: Path, tmp_path: Path):
    """Choices are made on the first fold."""
    (tmp_path / "more").mkdir()
    sources = [
        {"name": "arrays", "path": folds(place, 2)} for place in (tmp_path, tmp_path / "more")
    ]
    rows = {"narrow": {"choose": {"train.optimizer.lr": [0.05, 0.1]}}}
    asked = spec(rows, None, seeds=[0, 1], axes={"data.source": sources})
    done = run(asked, runs)
    assert len(done.tables) == 2
    assert all(len(table.rows) == 1 for table in done.tables)
    assert "chosen on the first fold's validation pictures" in done.text()


def test_a_store_alone_has_no_maps_to_be_compared(runs: Path, tmp_path: Path):
    base = distilled(tmp_path) | {"teacher": {"cache": "stores/x-{seed}"}}
    asked = {"schema": 1, "name": "x", "base": base, "seeds": [0], "controls": "none"}
    with pytest.raises(RecipeError, match=r"kd names a store alone\. Name the teacher beside"):
        run(asked | {"rows": {"kd": {}}, "evaluate": {"similarity": True}}, runs)


def test_a_teacher_that_is_gone_is_missed_before_anything_runs(runs: Path, tmp_path: Path):
    teacher = train_teacher(tmp_path)
    base = distilled(teacher, steps=60, batch_size=100)
    store = tmp_path / "store"
    base["data"] = base["data"] | {"num_views": 2}
    cache(validate(base, "recipe"), store, shown=False)
    base["teacher"] = base["teacher"] | {"cache": str(store)}
    asked = {"schema": 1, "name": "tiny", "base": base, "seeds": [0], "controls": "none"}
    (teacher / "student.safetensors").rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(RunError, match=r"maps of the teacher of kd, whose weights are not in"):
        run(asked | {"rows": {"kd": {}}, "evaluate": {"similarity": True}}, runs)
    assert not (runs / "tiny" / "trials.jsonl").exists()


def test_lists_of_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main = runpy.run_path(str(FOLDS))["main"]
    for part, number in (("train", 0), ("train", 1), ("train", 2), ("val", 3)):
        for label, ending in (("a", "png"), ("b", "JPG")):
            path = tmp_path / "photos" / part / label / f"{number}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "photos" / "train" / "a" / ".DS_Store").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["folds.py", str(tmp_path / "photos"), "--folds", "2"])
        main()
        lists = [
            list(csv.DictReader(path.read_text().splitlines()))
            for path in sorted(tmp_path.glob("*.csv"))
        ]
        assert [len(rows) for rows in lists] == [8, 8]
        tested = [{row["path"] for row in rows if row["split"] == "test"} for rows in lists]
        assert tested[0].isdisjoint(tested[1])
        assert len(tested[0] | tested[1]) == 8
        for paths in tested:
            assert sorted(Path(path).parent.name for path in paths) == ["a", "a", "b", "b"]
        patch.setattr(sys, "argv", ["folds.py", str(tmp_path / "photos"), "--folds", "5"])
        with pytest.raises(SystemExit) as left:
            main()
    assert left.value.code == 2
    assert "smallest class" in capsys.readouterr().err


FOLDS = Path(__file__).parents[2] / "benchmarks" / "folds.py"
