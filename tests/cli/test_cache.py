"""`tutelage cache`: what it says, and that what it makes can be trained from."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tutelage.cli.cache import plan_text
from tutelage.teachers.manifest import Manifest
from tutelage.teachers.store import existing

RECIPE = """
schema: 1
data: {source: digits, validation: 100, labelled: 200, num_views: 2, views: {crop_padding: 1}}
student: {name: resnet8, width: 4}
teacher: {run: runs/teacher}
methods: {kd: {weight: 0.9}}
train: {steps: 10, batch_size: 50, precision: fp32, threads: 1, keep_memory: false}
"""


@pytest.fixture
def recipe(inside: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def test_a_teacher_is_asked_once_and_a_run_needs_it_no_more(
    recipe: Path, tmp_path: Path, call: Any, world: Path
):
    store = tmp_path / "store"
    code, out, err = call("cache", recipe, "--out", store, "--logits", "fp32", "--verify", 20)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{store}: 1,000 answers in 4 files in ")
    assert lines[1].startswith("Every file is whole. Asked again for 20 answers, the teacher gives")
    found = re.search(r"again: (\d+) of the (\d+) to training pictures to the last", lines[1])
    assert found is not None
    assert 0 < int(found[1]) == int(found[2]) < 20
    assert lines[2] == f"It is complete. Next: tutelage train RECIPE teacher.cache={store}"

    runs = tmp_path / "runs"
    code, out, _ = call("train", recipe, f"teacher={{cache: {store}}}", "--runs", runs)
    assert code == 0
    assert "The teacher has" in out  # its cost stands in the store
    (folder,) = runs.iterdir()
    record = json.loads((folder / "record.json").read_text())
    assert record["content"]["teacher"]["fingerprint"] == Manifest.read(store).fingerprint
    live = json.loads((world / "runs" / "student" / "record.json").read_text())
    assert record["teacher"]["test_accuracy"] == live["teacher"]["test_accuracy"]
    assert 0 <= record["students"]["student"]["agreement"] <= 1
    code, out, _ = call("report", folder)
    assert code == 0
    assert f"stored answers in {store}" in out


def test_each_seed_has_a_store_of_its_own(recipe: Path, tmp_path: Path, call: Any):
    where = f"teacher.cache={tmp_path}/store-{{seed}}"
    for seed in (3, 4):
        assert call("cache", recipe, where, f"seed={seed}")[0] == 0
        assert Manifest.read(tmp_path / f"store-{seed}").fingerprint["seed"] == seed
    code, _, _ = call("train", recipe, where, "seed=4", "--runs", tmp_path / "runs")
    assert code == 0
    code, _, err = call("train", recipe, where, "seed=5", "--runs", tmp_path / "runs")
    assert code == 2
    assert "store-5" in err


def test_a_plan_writes_nothing(recipe: Path, tmp_path: Path, call: Any):
    store = tmp_path / "store"
    code, out, _ = call("cache", recipe, "--out", store, "--plan")
    assert code == 0
    assert not store.exists()
    said = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert said["pictures"] == "200 to train on × 2 views, 100 for validation, 500 for test"
    assert said["kept"] == "logits (fp16)"
    # 200 · 2 · 10 · 2 bytes, 600 · 10 · 4, 100 · 10 · 4 again as measured, an index of 800 · 8
    assert said["bytes"] == "42,400 (20 per view of a training picture)"
    assert said["files"] == "4, of which 0 are there"
    assert said["teacher"] == "1,100 passes; without a store 200 an epoch"
    # a run without a store asks about validation and test as well
    assert said["pays"] == "after epoch 2 of a run"


def test_a_plan_is_json_on_request(recipe: Path, tmp_path: Path, call: Any):
    code, out, _ = call("cache", recipe, "--out", tmp_path / "store", "--plan", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["bytes"], found["teacher_passes"], found["break_even_epoch"]) == (42_400, 1100, 2)
    shorter = plan_text(found | {"epochs": 0.8})
    assert "pays      with run number 3 by this recipe, of 0.8 epochs" in shorter


def test_parts_are_made_apart(recipe: Path, tmp_path: Path, call: Any):
    store = tmp_path / "store"
    arguments = ("cache", recipe, "--out", store, "--shard", 50)
    code, out, _ = call(*arguments, "--part", "1/2")
    assert code == 0
    assert "Other parts are still missing" in out
    code, _, err = call("train", recipe, f"teacher.cache={store}", "--runs", tmp_path / "runs")
    assert code == 2
    assert "is unfinished: 5 of 10 files are there" in err
    code, out, _ = call(*arguments, "--part", "2/2", "--json")
    assert code == 0
    assert json.loads(out)["complete"]
    assert len(existing(store)) == 11


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "s", "--part", "3/2"), "--part is K/N with K in 1 … N"),
        (("--out", "s", "--part", "0/2"), "--part is K/N with K in 1 … N"),
        ((), "Where the store is to lie is not said. Give --out FOLDER."),
        (("--out", "s", "data.num_views=null"), "visits each picture about 3 times"),
        (("--out", "s", "teacher=null"), "names no teacher network that could be asked"),
        (("--out", "s", "teacher={cache: s}"), "names no teacher network that could be asked"),
        (("--out", "s", "--shard", "0"), "holds at least 1 entry, not 0"),
        (("--out", "s", "--logits", "top", "--share", "1"), "share must lie in (0, 1)"),
        (("--out", "."), "is no store. Name another folder"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(
    recipe: Path, call: Any, arguments: tuple[str, ...], words: str
):
    code, _, err = call("cache", recipe, *arguments)
    assert code == 2
    assert words in err
    assert not Path("s").exists()


def test_the_recipe_may_say_where_it_lies(recipe: Path, tmp_path: Path, call: Any):
    store = tmp_path / "store"
    code, _, _ = call("cache", recipe, f"teacher.cache={store}")
    assert code == 0
    assert Manifest.read(store).checksums
