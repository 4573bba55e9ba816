"""Small arrays beside the record: the same pictures in every run, and those that set apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import distilled, recipe, train_teacher

from tutelage.data.digits import digits
from tutelage.records import RunFolder
from tutelage.runs import Run, evaluate, train
from tutelage.runs.pictures import NUM_PICTURES


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_teacher(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def run(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(distilled(teacher), name="x", runs=tmp_path_factory.mktemp("runs"), shown=False)


def arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(RunFolder(folder).pictures, allow_pickle=False) as archive:
        return dict(archive)


def test_every_run_shows_the_same_pictures(run: Run, tmp_path: Path):
    other = train(recipe(seed=3), name="other", runs=tmp_path, shown=False)
    ours, theirs = arrays(run.folder), arrays(other.folder)
    assert len(ours["same/images"]) == NUM_PICTURES
    for key in ("images", "index", "targets"):
        assert np.array_equal(ours[f"same/{key}"], theirs[f"same/{key}"])
    assert set(ours["same/targets"]) == set(range(10))
    test = digits().test
    where = {int(index): place for place, index in enumerate(test.index)}
    places = [where[int(index)] for index in ours["same/index"]]
    assert np.array_equal(ours["same/images"], test.images[places].numpy())
    assert not any(key.startswith(("apart", "same/teacher")) for key in theirs)


def test_where_both_networks_look_is_there_stage_by_stage(run: Run):
    found = arrays(run.folder)
    for what in ("student", "teacher"):
        assert found[f"same/{what}_stages"].tolist() == ["layer1", "layer2", "layer3"]
        for number in range(3):
            maps = found[f"same/{what}/{number}"]
            assert maps.shape[0] == NUM_PICTURES
            assert maps.max() == 1.0
            assert maps.min() >= 0


def test_the_farthest_apart_come_first(run: Run):
    found = arrays(run.folder)
    ours, theirs = (
        torch.from_numpy(found[f"apart/{what}"]).double() for what in ("student", "teacher")
    )
    divergence = (theirs * (theirs.clamp(min=1e-8).log() - ours.clamp(min=1e-8).log())).sum(1)
    assert divergence.tolist() == sorted(divergence.tolist(), reverse=True) or torch.allclose(
        divergence, divergence.sort(descending=True).values, atol=0.02
    )
    assert ours.sum(dim=1).tolist() == pytest.approx([1] * NUM_PICTURES, abs=0.01)


def test_a_run_without_test_has_no_pictures(teacher: Path, tmp_path: Path):
    blind = train(distilled(teacher), name="x", runs=tmp_path, with_test=False, shown=False)
    assert not RunFolder(blind.folder).pictures.exists()
    evaluate(blind.folder, with_test=True)
    assert RunFolder(blind.folder).pictures.exists()


def test_they_take_little_room(run: Run):
    assert RunFolder(run.folder).pictures.stat().st_size < 50_000
