"""The plain loop trains what our engine trains; rows from stores have one for each seed."""

from pathlib import Path

import pytest
import torch
from tiny import distilled, train_teacher

import stored
from tutelage.build import build
from tutelage.comparison.spec import read_spec
from tutelage.engine.host import undisturbed
from tutelage.recipes import validate
from tutelage.records import RunFolder, read_lines
from tutelage.runs import train

PLAIN = {"precision": "fp32", "channels_last": False, "fuse_teacher": False}


def test_the_plain_loop_takes_the_steps_of_our_engine_without_what_makes_them_fast(
    tmp_path: Path,
):
    value = distilled(train_teacher(tmp_path), steps=20, log_every=1, **PLAIN)
    folder = train(value, name="ours", runs=tmp_path, with_test=False, shown=False).folder
    ours = [line["loss"] for line in read_lines(RunFolder(folder).metrics) if "loss" in line]
    with undisturbed(torch.device("cpu")):
        torch.set_num_threads(1)
        found = list(stored.losses(build(validate(value, "x"))))
        result = stored.train_plainly(validate(value, "x"))
    assert len(found) == len(ours) == 20
    assert found == pytest.approx(ours, rel=1e-4)
    record = RunFolder(folder).read_record()["students"]["student"]
    assert result["validation_accuracy"] == pytest.approx(record["validation_accuracy"], abs=0.02)
    assert 0 < result["test_accuracy"] < 1


def test_each_row_has_a_store_of_its_own_for_each_seed_with_as_many_views_as_it_says():
    specs = [read_spec(stored.SPEC), read_spec(stored.SPEC.with_name("stored-fp32.yaml"))]
    rows = [pair for spec in specs for pair in stored.stored_rows(spec)]
    assert len({recipe.store for _, recipe in rows}) == len(rows) == (5 + 2) * 3
    live = specs[0].recipe(specs[0].settings("live", {}), 0)
    for row, recipe in rows:
        assert row.startswith(f"views-{recipe.data.num_views}")
        assert recipe.methods == live.methods
        assert recipe.train.optimizer == live.train.optimizer
    visits = 2400 * 128 / 2500
    assert max(recipe.data.num_views or 0 for _, recipe in rows) == -(-visits // 1)
    assert stored.CHOICES.keys() <= {row for row, _ in rows}
