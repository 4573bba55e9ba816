"""Runs whose recipe leaves something to measuring: what was taken stays."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import distilled, recipe, taking, train_teacher

from tutelage.build import build
from tutelage.errors import Interrupted, RunError, SettingError
from tutelage.recipes import validate
from tutelage.records import RunFolder, write_json
from tutelage.runs import check, train
from tutelage.runs.caching import cache, plan
from tutelage.teachers.manifest import Manifest

AUTO: dict[str, Any] = {"precision": "auto", "channels_last": "auto"}
DATA = {"source": {"name": "digits"}, "validation": 100, "labelled": 200, "num_views": 2}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_teacher(tmp_path_factory.mktemp("runs"))


def test_what_was_taken_is_in_the_recipe_and_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    taking(monkeypatch, precision="bf16", channels_last=False)
    done = train(recipe(**AUTO), name="auto", runs=tmp_path, with_test=False)
    assert "auto: precision bf16, channels_last false (ms for 7 images: x 1.5)" in (
        capsys.readouterr().err
    )
    written = yaml.safe_load((done.folder / "recipe.yaml").read_text())
    for said in (written["train"], done.record["recipe"]["train"]):
        assert (said["precision"], said["channels_last"]) == ("bf16", False)
    values = {"precision": "bf16", "channels_last": False}
    assert done.record["chosen"] == {"values": values, "milliseconds": {"x": 1.5}, "images": 7}
    plain = train(recipe(**values), name="plain", runs=tmp_path, with_test=False, shown=False)
    assert "chosen" not in plain.record
    assert plain.record["identity"] == done.record["identity"]
    students = [one.record["students"]["student"]["weights"] for one in (plain, done)]
    assert students[0] == students[1]


@pytest.mark.parametrize("imitates", [False, True])
def test_a_processor_without_bf16_is_said(
    imitates: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("tutelage.runs.settling.imitates_bf16", lambda _: imitates)
    options: dict[str, Any] = {"runs": tmp_path, "with_test": False}
    train(recipe(precision="bf16"), name="bf16", **options)
    assert ("fp32 may be several times faster" in capsys.readouterr().err) == imitates
    train(recipe(precision="fp32"), name="fp32", **options)
    taking(monkeypatch, precision="bf16", channels_last=False)
    train(recipe(**AUTO), name="auto", **options)
    assert "several times" not in capsys.readouterr().err


def test_it_is_really_measured(tmp_path: Path):
    done = train(recipe(**AUTO), name="auto", runs=tmp_path, with_test=False, shown=False)
    assert len(done.record["chosen"]["milliseconds"]) == 4
    assert done.record["chosen"]["images"] == 50


def test_a_resumed_run_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*args: Any, **more: Any) -> Any:
        raise Interrupted("stopped", 2)

    asked = taking(monkeypatch, precision="fp32", channels_last=False)
    value = recipe(**AUTO)
    with monkeypatch.context() as patch:
        patch.setattr("tutelage.engine.loop.Session.train_step", stop)
        with pytest.raises(Interrupted):
            train(value, name="run", runs=tmp_path, shown=False)
    taking(monkeypatch, precision="bf16", channels_last=True)
    other = recipe(precision="bf16", channels_last="auto")
    with pytest.raises(RunError, match=r"train\.precision differs"):
        train(other, name="run", runs=tmp_path, resume=True, shown=False)
    done = train(value, name="run", runs=tmp_path, resume=True, with_test=False, shown=False)
    assert asked == [("precision", "channels_last")]
    said = done.record["recipe"]["train"]
    assert (said["precision"], said["channels_last"]) == ("fp32", False)
    assert done.record["chosen"]["values"] == {"precision": "fp32", "channels_last": False}


def test_a_run_begun_without_a_choice_goes_on_without_one(tmp_path: Path):
    folder = RunFolder(tmp_path)
    origin = {"began": "now", "content": {}, "codes": ["x"]}
    write_json(folder.origin, origin)
    assert folder.read_origin() == origin
    write_json(folder.origin, origin | {"chosen": {"values": {}}, "more": 1})
    assert folder.read_origin() == origin | {"chosen": {"values": {}}}


def test_a_run_from_a_store_has_its_precision(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    value = distilled(teacher, data=DATA)
    cache(validate(value, "x"), tmp_path / "store", shown=False)
    stored = value | {"teacher": {"cache": str(tmp_path / "store")}}
    asked = taking(monkeypatch, precision="bf16", channels_last=False)
    stored["train"] = value["train"] | {"precision": "auto"}
    done = train(stored, name="one", runs=tmp_path, with_test=False, shown=False)
    assert asked == []
    assert done.record["recipe"]["train"]["precision"] == "fp32"
    assert done.record["chosen"]["values"] == {"precision": "fp32"}
    stored["train"] = value["train"] | AUTO
    done = train(stored, name="two", runs=tmp_path, with_test=False, shown=False)
    assert asked == [("channels_last",)]
    assert done.record["chosen"]["values"] == {"precision": "fp32", "channels_last": False}


@pytest.mark.parametrize("key", AUTO)
def test_a_store_is_made_in_a_way_that_is_said(teacher: Path, tmp_path: Path, key: str):
    value = validate(distilled(teacher, data=DATA, **{key: "auto"}), "x")
    words = {"precision": '"bf16" or "fp32"', "channels_last": "true or false"}[key]
    for act in (plan, cache):
        with pytest.raises(SettingError, match=f"{key} is auto. Say which: {words}"):
            act(value, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_store_names_its_precision_whoever_reads_it(teacher: Path, tmp_path: Path):
    value = distilled(teacher, data=DATA, precision="bf16")
    cache(validate(value, "x"), tmp_path / "store", shown=False)
    assert Manifest.read(tmp_path / "store").fingerprint["precision"] == "bf16"
    stored = distilled(
        teacher, data=DATA, precision="auto", teacher={"cache": str(tmp_path / "store")}
    )
    assert build(validate(stored, "x")).recipe.train.precision == "auto"


def test_a_check_says_what_would_be_taken(monkeypatch: pytest.MonkeyPatch):
    taking(monkeypatch, precision="fp32", channels_last=True)
    found = check(validate(recipe(**AUTO), "x"))
    assert found["chosen"]["values"] == {"precision": "fp32", "channels_last": True}
    assert check(validate(recipe(), "x"))["chosen"] is None
