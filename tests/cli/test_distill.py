"""`tutelage distill`: from pictures and a teacher to a student, with nothing else said."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from photos import album
from real_data import bccd, scene15
from tiny import train_teacher

from tutelage.cli.distill import minutes
from tutelage.errors import SettingError
from tutelage.recipes import validate
from tutelage.records import RunFolder
from tutelage.runs.distilling import LEARNING_WEIGHTS, Wish, propose, within_budget

COUNTS = {"a": 40, "b": 40}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_teacher_and_then_its_student_beside_a_control(call: Any, place: Path):
    album(place / "photos", COUNTS)
    common = ("distill", "--data", "photos", "--size", "16")
    said = call(*common, "--student", "resnet14", "--name", "teacher", "--budget", "12s")
    assert said.code == 0
    assert "6 of the training pictures" not in said.out
    assert "20 of the training pictures are set apart for choices." in said.out
    assert "steps of 44 pictures" in said.out
    said = call(
        *common, "--student", "resnet8", "--teacher", "runs/teacher", "--budget", "3s", "--control"
    )
    assert said.code == 0
    assert "Out to the device: tutelage export runs/resnet8 --to onnx\n" in said.out
    first, control = (
        RunFolder(place / "runs" / name).read_record() for name in ("resnet8", "resnet8-control")
    )
    assert first["steps"] == control["steps"] > 0
    assert first["recipe"]["methods"].keys() == {"kd"}
    assert control["recipe"]["methods"] == {}
    assert control["teacher"] is None
    page = (place / "runs" / "resnet8" / "report.html").read_text()
    assert "resnet8-control" in page


def test_the_recipe_can_be_had_without_training(call: Any, place: Path):
    album(place / "photos", COUNTS)
    album(place / "more", {"x": 8}, first=70)
    teacher = train_teacher(place / "runs")
    assert teacher.name == "teacher"
    said = call(
        *("distill", "--data", "digits", "--student", "resnet8", "--teacher", "runs/teacher"),
        *("--method", "kd+fitnet_hints", "--unlabelled", "more", "--budget", "5s", "--dry-run"),
    )
    assert said.code == 0
    value = yaml.safe_load(said.out[said.out.index("data:") :] + "\nschema: 1")
    recipe = validate(value, "printed")
    assert recipe.methods["kd"]["weight"] == 0.9
    assert recipe.methods["fitnet_hints"]["weight"]["from"] == 10.0
    assert recipe.data.unlabelled == "more"
    assert recipe.train.precision in ("fp32", "bf16")
    assert not list((place / "runs").glob("resnet8*"))


def test_more_time_is_more_steps_up_to_a_limit():
    value = propose(Wish(None, "resnet8", "digits"))
    short, _ = within_budget(value, 1 / 60, "r")
    long, said = within_budget(value, 60_000, "r")
    assert short["train"]["steps"] < long["train"]["steps"]
    # 1,297 training pictures, of which 130 validate, in batches of 64, a hundred times
    assert long["data"]["validation"] == 130
    assert long["train"]["steps"] == -(-100 * 1167 // 64)
    assert "100 times are enough for a first try" in said[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING_WEIGHTS)
def test_every_method_that_it_offers_builds(name: str, place: Path):
    teacher = train_teacher(place / "runs")
    value, _ = within_budget(propose(Wish(str(teacher), "resnet8", "digits", (name,))), 0.1, "r")
    assert validate(value, "r").methods.keys() == {name}


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 1.5), ("10min", 10), ("2h", 120), (" 1.5 H ", 90), ("3", 3)]
)
def test_a_budget_is_a_time(text: str, expected: float):
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "10 days", "-3min", "1e3s"])
def test_another_budget_is_refused(text: str):
    with pytest.raises(SettingError, match="is a time such as 90s, 10min or 2h"):
        minutes(text)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--data", "nowhere/photos"), "There are no pictures in nowhere/photos"),
        (("--data", "photoz"), "there is no data set 'photoz'"),
        (("--student", "resnet9"), "There is no network 'resnet9'"),
        (("--method", "kdd", "--teacher", "x.th:resnet8"), "did you mean kd?"),
        (("--method", "embedded_distillation", "--teacher", "x:y"), "learns from a teacher"),
        (("--teacher", "no.th:resnet8"), "no weight file no.th"),
        (("--unlabelled", "more"), "Without a teacher nothing is learned"),
        (("--control",), "its own control"),
        (("--budget", "0s"), "must be a time above 0"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    more: tuple[str, ...], words: str, call: Any, place: Path
):
    usual = {"--data": "digits", "--student": "resnet8", "--budget": "1s"}
    given = dict(zip(more[::2], [*more[1::2], ""], strict=False))
    options = [part for pair in (usual | given).items() for part in pair if part]
    said = call("distill", *options)
    assert said.code == 2
    assert words.lower() in said.err.lower()
    assert not (place / "runs").exists()


def test_a_folder_that_exists_is_not_overwritten(call: Any, place: Path):
    (place / "runs" / "resnet8").mkdir(parents=True)
    (place / "runs" / "resnet8" / "recipe.yaml").write_text("schema: 1")
    said = call("distill", "--data", "digits", "--student", "resnet8", "--budget", "1s")
    assert said.code == 2
    assert "resnet8" in said.err


@pytest.mark.slow
def test_scenes_in_twenty_seconds(call: Any, place: Path, shared_data: Path):
    """The tutorial, on real photographs: a teacher first, then a student of another family."""
    scene15(shared_data, place)
    common = ("distill", "--data", "scene15", "--size", "64")
    teacher = call(*common, "--student", "resnet10t", "--name", "teacher", "--budget", "2min")
    assert teacher.code == 0, (
        teacher.err
    )  # the time that it takes a slow machine to learn something
    said = call(
        *common,
        *("--budget", "20s"),
        *("--student", "mobilenetv3_small_050", "--teacher", "runs/teacher"),
        *("--method", "kd+attention_transfer"),
    )
    assert said.code == 0, said.err
    record = RunFolder(place / "runs" / "mobilenetv3_small_050").read_record()
    assert record["data"]["classes"] == 15
    assert record["students"]["student"]["test"]["pictures"] == 375


@pytest.mark.slow
def test_cells_most_of_which_have_no_label(
    call: Any, place: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
):
    """One crop per box of a detection set, cut by the example; 40 of each class have a label."""
    boxes = Path(__file__).resolve().parents[2] / "examples" / "boxes.py"
    monkeypatch.setattr(
        "sys.argv", ["boxes.py", str(bccd(shared_data, place)), "crops", "--labelled", "40"]
    )
    runpy.run_path(str(boxes), run_name="__main__")
    common = ("distill", "--data", "crops", "--size", "48")
    teacher = call(*common, "--student", "resnet10t", "--name", "teacher", "--budget", "2min")
    assert teacher.code == 0, teacher.err
    said = call(
        *common,
        *("--budget", "20s"),
        *("--student", "mobilenetv3_small_050", "--teacher", "runs/teacher"),
        *("--unlabelled", "crops-more"),
    )
    assert said.code == 0, said.err
    record = RunFolder(place / "runs" / "mobilenetv3_small_050").read_record()
    assert record["data"]["labelled"] == 120
    assert record["data"]["train"] > 2000
    assert 0 <= record["students"]["student"]["test"]["balanced"] <= 1
