"""Teachers whose classes have nothing to do with the data's: only their maps teach."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import recipe, train_teacher

from tutelage.build import build
from tutelage.cli.main import main
from tutelage.errors import TeacherError
from tutelage.recipes import validate
from tutelage.runs import check, train
from tutelage.runs.caching import cache

MAPS = {"attention_transfer": {"weight": 10.0}}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of ten digits."""
    return train_teacher(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def strange(teacher: Path, tmp_path: Path) -> dict[str, Any]:
    """Pictures of three classes, and that teacher."""
    draw = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = draw.integers(0, 90, (90, 8, 8, 1), dtype=np.uint8)
    images[np.arange(90), 2 * labels, 2 * labels] = 255
    path = tmp_path / "three.npz"
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    data = {"source": {"name": "arrays", "path": str(path)}, "validation": 30}
    named = {"run": str(teacher), "class_map": "none"}
    return recipe(data=data, teacher=named, methods=MAPS, batch_size=20, steps=60)


def trained(value: dict[str, Any], runs: Path) -> dict[str, Any]:
    folder = train(value, name="strange", runs=runs, shown=False).folder
    return json.loads((folder / "record.json").read_text())


def test_its_maps_teach_and_nothing_is_said_of_its_answers(strange: dict[str, Any], tmp_path: Path):
    record = trained(strange, tmp_path)
    student, teacher = record["students"]["student"], record["teacher"]
    assert student["test_accuracy"] > 0.5
    assert not {"agreement", "fidelity"} & student.keys()
    assert not {"validation_accuracy", "test_accuracy", "test"} & teacher.keys()
    assert teacher["parameters"] > student["parameters"]
    alone = trained(strange | {"teacher": None, "methods": {}}, tmp_path / "alone")
    assert alone["students"]["student"]["weights"] != student["weights"]


def test_what_is_told_of_such_a_run(
    strange: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    trained(strange, tmp_path)
    run = str(tmp_path / "strange")
    assert main(["evaluate", run, "--test", "--similarity", "--corruptions", "30"]) == 0
    entries = json.loads((tmp_path / "strange" / "record.json").read_text())
    assert "similarity" in entries["students"]["student"]
    assert "robustness" in entries["students"]["student"]
    assert "robustness" not in entries["teacher"]
    assert "its teacher" in capsys.readouterr().out
    assert main(["report", run, "--html", str(tmp_path / "page.html")]) == 0
    assert main(["evaluate", run, "--accept", "max_drop=1"]) == 2
    assert "has no such reading" in capsys.readouterr().err


def test_a_store_knows_it_too(strange: dict[str, Any], tmp_path: Path):
    asked = strange | {"data": strange["data"] | {"num_views": 100}}
    cache(validate(asked, "x"), tmp_path / "store", shown=False)
    stored = trained(asked | {"teacher": {"cache": str(tmp_path / "store")}}, tmp_path)
    assert "validation_accuracy" not in stored["teacher"]
    assert stored["students"]["student"]["test_accuracy"] > 0.5
    listening = asked | {"teacher": {"cache": str(tmp_path / "store")}, "methods": KD}
    with pytest.raises(TeacherError, match="kd listens to what the teacher answers"):
        build(validate(listening, "x"))


KD: dict[str, Any] = {"kd": {"weight": 0.9}}


def test_who_listens_is_refused(strange: dict[str, Any], teacher: Path):
    with pytest.raises(TeacherError, match="kd listens to what the teacher answers, and with"):
        build(validate(strange | {"methods": KD}, "x"))
    guided = {"dct_attention": {"weight": 1.0, "guide": True}}
    with pytest.raises(TeacherError, match="dct_attention listens"):
        build(validate(strange | {"methods": guided}, "x"))
    two = [{"run": str(teacher), "class_map": "none"}] * 2
    with pytest.raises(TeacherError, match=r"class_map: none means .* Name it alone"):
        build(validate(strange | {"teacher": None, "teachers": two}, "x"))
    unsaid = strange | {"teacher": {"run": str(teacher)}}
    with pytest.raises(TeacherError, match="or `none` if only its maps are to teach"):
        build(validate(unsaid, "x"))


def test_check_shows_no_accuracy_of_it(strange: dict[str, Any]):
    assert check(validate(strange, "x"))["teacher"]["validation_accuracy"] is None
