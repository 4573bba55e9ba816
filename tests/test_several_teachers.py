"""Several teachers in one recipe: specialists, of which none knows all digits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import recipe
from tiny import train_teacher as train_generalist

import tutelage
from tutelage.build import build
from tutelage.data.digits import digits
from tutelage.distiller import Ensemble
from tutelage.distiller.aggregation import AccuracyWeighted, ConfidenceWeighted
from tutelage.errors import RecipeError, SettingError, StoreError, TeacherError
from tutelage.identity import identity_parts, weights_of
from tutelage.provenance import versions
from tutelage.recipes import apply_overrides, validate
from tutelage.records import RunFolder, read_lines
from tutelage.report.tables import facts
from tutelage.runs import evaluate, train
from tutelage.runs.caching import cache
from tutelage.runs.keeping import Choices

LOW, HIGH = [0, 1, 2, 3, 4], [9, 8, 7, 6, 5]
EXACT = Choices(logits="fp32", shard_size=100)


def some(which: list[int], file: Path) -> dict[str, Any]:
    """A source of some digits alone, in this order."""
    source, values = digits(), {}
    for part in ("train", "test"):
        pictures = getattr(source, part)
        labels = pictures.labels.tolist()
        keep = [place for place, label in enumerate(labels) if label in which]
        values[f"{part}_images"] = pictures.images[keep].numpy()
        values[f"{part}_labels"] = np.array([which.index(labels[place]) for place in keep])
    np.savez(file, **values, classes=np.array([source.classes[label] for label in which]))
    return {"name": "arrays", "path": str(file)}


@pytest.fixture(scope="module")
def specialists(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("specialists")
    found = []
    for name, which in (("low", LOW), ("high", HIGH)):
        data = {"source": some(which, folder / f"{name}.npz"), "validation": 50, "labelled": 500}
        value = recipe(data=data, student={"name": "resnet8", "width": 8}, steps=60, batch_size=100)
        run = train(value, name=name, runs=folder, with_test=False, shown=False)
        found.append({"run": str(run.folder), "class_map": "names"})
    return found


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def taught(specialists: list[dict[str, Any]], /, **changes: Any) -> dict[str, Any]:
    kd = {"methods": {"kd": {"weight": 0.9}}, "task_weight": 0.1, "aggregation": "confidence"}
    return recipe(**kd | {"teachers": specialists} | changes)


def made(value: dict[str, Any]) -> Any:
    return build(validate(value, "r.yaml"), with_test=False)


def test_two_specialists_are_together_what_neither_is_alone(
    specialists: list[dict[str, Any]], runs: Path
):
    record = train(taught(specialists), name="x", runs=runs, shown=False).record
    teacher = record["teacher"]
    names = [one["name"] for one in teacher["members"]]
    assert names == [one["run"] for one in specialists]
    assert [one["classes"] for one in teacher["members"]] == [5, 5]
    assert all(one["validation_accuracy"] > 0.7 for one in teacher["members"])
    assert teacher["test_accuracy"] > 0.55  # one alone can know half of the pictures at most
    said = dict(facts(record))["teacher"]
    assert said.startswith("2, mixed by confidence: ")
    assert "on 5 classes), " in said
    assert record["content"]["teacher"]["members"][0]["class_map"] == [
        *([n] for n in LOW),
        *([] for _ in HIGH),
    ]


def test_the_right_specialist_is_the_surer_one(specialists: list[dict[str, Any]]):
    built = made(taught(specialists))
    assert isinstance(built.teacher, Ensemble)
    pictures = next(iter(built.validation))
    outputs = torch.stack([one.eval()(pictures.images) for one in built.teacher.members])
    weights = ConfidenceWeighted().weights(outputs.detach())
    share = weights / weights.sum(dim=0)
    right = torch.where(pictures.targets < 5, share[0], share[1])
    assert right.mean() > 0.6


def test_measuring_again_finds_what_the_run_found(
    specialists: list[dict[str, Any]], runs: Path, tmp_path: Path
):
    teachers = [*specialists, {"run": str(train_generalist(tmp_path))}]
    value = taught(teachers, aggregation="accuracy")
    first = train(value, name="x", runs=runs, shown=False).record["teacher"]
    assert len({one["validation_accuracy"] for one in first["members"]}) > 1
    again = evaluate(runs / "x", with_test=True)["record"]["teacher"]
    assert again["test_accuracy"] == first["test_accuracy"]
    assert again["test"]["calibration"] == first["test"]["calibration"]
    uniform = taught(teachers, aggregation="uniform")
    other = train(uniform, name="y", runs=runs, shown=False).record["teacher"]
    assert other["test"]["calibration"] != first["test"]["calibration"]
    evaluate(runs / "x")  # on validation, of which no teacher is asked


def losses(value: dict[str, Any], runs: Path, name: str) -> tuple[str, list[dict[str, float]]]:
    run = train(value, name=name, runs=runs, shown=False)
    lines = read_lines(RunFolder(run.folder).metrics)
    kept = [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]
    return run.record["students"]["student"]["weights"], kept


@pytest.mark.slow
@pytest.mark.parametrize("how", ["confidence", "accuracy"])
def test_from_a_store_of_what_they_say_together_training_is_the_same_to_the_last_bit(
    how: str, specialists: list[dict[str, Any]], runs: Path, tmp_path: Path
):
    data = {
        "source": {"name": "digits"},
        "validation": 100,
        "labelled": 200,
        "num_views": 2,
        "views": {"crop_padding": 1},
    }
    methods = {"kd": {"weight": 0.9}, "fitnet_hints": {"weight": 0.1}}
    value = taught(specialists, aggregation=how, data=data, methods=methods, steps=12, log_every=1)
    value["train"]["precision"] = "bf16"  # in which maps are stored
    if how == "accuracy":  # other weights than powers of two, which bf16 would round
        value["aggregation"] = {"name": how, "accuracies": [0.58, 0.52]}
    cache(validate(value, "r.yaml"), tmp_path / "store", EXACT, shown=False)
    live = losses(value, runs, "live")
    beside = value | {"teacher": {"cache": str(tmp_path / "store")}}
    assert losses(beside, runs, "stored") == live
    alone = {k: v for k, v in beside.items() if k not in ("teachers", "aggregation")}
    assert losses(alone, runs, "alone") == live
    members = [
        RunFolder(runs / name).read_record()["teacher"]["members"] for name in ("live", "stored")
    ]
    assert members[0] == members[1]
    assert "stored answers in" in dict(facts(RunFolder(runs / "stored").read_record()))["teacher"]
    with pytest.raises(StoreError, match="the teacher that the recipe names"):
        made(beside | {"aggregation": "uniform"})
    compiled = validate(value | {"train": value["train"] | {"compile_teacher": True}}, "r.yaml")
    with pytest.raises(SettingError, match="not compiled"):
        cache(compiled, tmp_path / "other", EXACT, shown=False)


def test_what_they_are_and_how_they_are_mixed_is_part_of_the_run(
    specialists: list[dict[str, Any]],
):
    def parts(value: dict[str, Any]) -> dict[str, Any]:
        built = made(value)
        return identity_parts(
            built.recipe, built.content, built.code, threads=1, device="cpu", versions=versions()
        )

    first = parts(taught(specialists))
    turned = parts(taught(specialists[::-1]))
    uniform = parts(taught(specialists, aggregation="uniform"))
    assert first == parts(taught(specialists))
    assert len({first["recipe"], uniform["recipe"]}) == 2
    assert first["content"]["teacher"] != turned["content"]["teacher"]
    assert first["content"] == uniform["content"]


def test_where_they_lie_is_no_part_of_the_run(specialists: list[dict[str, Any]], tmp_path: Path):
    moved = tmp_path / "moved"
    Path(specialists[0]["run"]).rename(moved)
    try:
        elsewhere = made(taught([{**specialists[0], "run": str(moved)}, specialists[1]]))
    finally:
        moved.rename(specialists[0]["run"])
    here = made(taught(specialists))
    assert elsewhere.content == here.content
    one, other = (
        identity_parts(b.recipe, b.content, b.code, threads=1, device="cpu", versions=versions())
        for b in (elsewhere, here)
    )
    assert one["recipe"] == other["recipe"]


def test_given_as_an_object_they_take_the_entries_place(
    specialists: list[dict[str, Any]], runs: Path
):
    members = made(taught(specialists)).teacher.members
    ensemble = Ensemble(members, ConfidenceWeighted())
    value = taught(specialists, aggregation="uniform")
    run = train(value, name="x", runs=runs, teacher=ensemble, shown=False)
    assert run.record["recipe"]["teachers"] == []
    assert len(run.record["content"]["teacher"]["members"]) == 2
    entry = run.record["teacher"]["members"][0]
    assert entry["name"] == "network (1)"
    named = train(taught(specialists), name="y", runs=runs, shown=False)
    assert weights_of(tutelage.load(run.folder)) == weights_of(tutelage.load(named.folder))


# What is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teachers": [{"run": "a"}]}, "a list of two or more"),
        ({"teachers": {"run": "a"}}, "a list of two or more"),
        ({"teachers": [{"run": "a"}, {"cache": "b"}]}, "place 1: name a network"),
        ({"teachers": [{"run": "a"}, None]}, "place 1: name a network"),
        ({"teacher": {"run": "c"}}, "names a teacher and teachers"),
        ({"teachers": []}, "names no teachers"),
        ({"aggregation": "median"}, "there is no aggregation 'median'"),
        ({"aggregation": {"name": "uniform", "power": 2}}, "power"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(changes: dict[str, Any], words: str):
    value = taught([{"run": "a"}, {"run": "b"}], **changes)
    with pytest.raises(RecipeError, match=words):
        validate(value, "r.yaml")


def test_a_class_that_nobody_knows_is_named(specialists: list[dict[str, Any]]):
    known = {str(n): n for n in LOW if n != 3}
    poorer = {**specialists[0], "class_map": known}
    with pytest.raises(TeacherError, match="No teacher knows the class '3'"):
        made(taught([poorer, specialists[1]]))
    with pytest.raises(TeacherError, match="A single teacher must know every class"):
        made(taught([], teacher=poorer, aggregation=None))
    listed = {**specialists[0], "class_map": [*LOW, *[None] * 5]}
    assert made(taught([listed, specialists[1]])).teacher.members[0].class_map.parts[7] == ()
    with pytest.raises(TeacherError, match="A single teacher must know every class"):
        made(taught([], teacher=listed, aggregation=None))


def test_a_teacher_at_chance_is_named(
    specialists: list[dict[str, Any]], runs: Path, tmp_path: Path
):
    mixed_up = {**specialists[0], "class_map": {str(n): (n + 1) % 5 for n in LOW}}
    with pytest.raises(TeacherError, match=r"The teacher .*low is right on .* which is chance"):
        train(taught([mixed_up, specialists[1]]), name="x", runs=runs, shown=False)
    assert not (runs / "x").exists()
    same = train_generalist(tmp_path)
    run = train(taught([{"run": str(same)}] * 2), name="y", runs=runs, shown=False)
    names = [one["name"] for one in run.record["teacher"]["members"]]
    assert names == [f"{same} (1)", f"{same} (2)"]


def test_how_they_are_mixed_can_be_overridden(specialists: list[dict[str, Any]]):
    value = apply_overrides(taught(specialists), {"aggregation": "accuracy"})
    assert validate(value, "r.yaml").aggregation == {
        "name": "accuracy",
        "accuracies": [],
        "temperature": 1.0,
    }


def test_a_store_of_other_teachers_is_refused(
    specialists: list[dict[str, Any]], runs: Path, tmp_path: Path
):
    data = recipe()["data"] | {"num_views": 1}
    value = taught(specialists, data=data)
    cache(validate(value, "r.yaml"), tmp_path / "store", EXACT, shown=False)
    beside = value | {"teacher": {"cache": str(tmp_path / "store")}}
    made(beside)
    other = train_generalist(tmp_path)
    changed = beside | {"teachers": [specialists[0], {"run": str(other), "class_map": "names"}]}
    with pytest.raises(StoreError, match="its teacher file 2 is"):
        made(changed)


def test_accuracies_that_are_given_are_those_of_the_run(
    specialists: list[dict[str, Any]], runs: Path
):
    def said(name: str, aggregation: Any) -> Any:
        value = taught(specialists, aggregation=aggregation)
        record = train(value, name=name, runs=runs, shown=False).record
        return record["teacher"]["test"]["calibration"]["nll"]

    one = said("one", {"name": "accuracy", "accuracies": [0.9, 0.1]})
    other = said("other", {"name": "accuracy", "accuracies": [0.1, 0.9]})
    assert one != other


def test_a_list_of_teachers_is_mixed_uniformly(specialists: list[dict[str, Any]], runs: Path):
    members = made(taught(specialists)).teacher.members
    uniform = train(taught(specialists, aggregation="uniform"), name="x", runs=runs, shown=False)
    value = taught(specialists)
    run = train(value, name="y", runs=runs, teacher=list(members), shown=False)
    assert weights_of(run.student()) == weights_of(uniform.student())
    with pytest.raises(TeacherError, match="two or more, but 1"):
        train(value, name="z", runs=runs, teacher=[members[0]], shown=False)


def test_settings_of_a_given_aggregator_count(specialists: list[dict[str, Any]]):
    members = made(taught(specialists)).teacher.members
    contents = [
        build(
            validate(taught([], aggregation=None, teacher=None), "r.yaml"),
            teacher=Ensemble(members, AccuracyWeighted(accuracies=accuracies)),
        ).content["teacher"]
        for accuracies in ([0.5, 0.4], [0.5, 0.4], [0.5, 0.3])
    ]
    assert contents[0] == contents[1] != contents[2]


def test_a_teacher_may_know_a_single_class(specialists: list[dict[str, Any]], runs: Path):
    single = {**specialists[0], "class_map": {"3": 3}}
    value = taught([*specialists, single])
    record = train(value, name="x", runs=runs, shown=False).record
    assert record["teacher"]["members"][2]["classes"] == 1
    data = recipe()["data"] | {"validation": 5}
    seen = made(taught(specialists, data=data)).split.validation.labels.tolist()
    unseen = next(number for number in LOW if number not in seen)
    single = {**specialists[0], "class_map": {str(unseen): unseen}}
    few = taught([*specialists, single], data=data)
    with pytest.raises(TeacherError, match="None of 5 validation pictures is of a class that"):
        train(few, name="y", runs=runs, shown=False)
