"""One recipe, one run folder: what it says, what it may look at, and what it refuses."""

import json
import signal
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import RECIPE, distilled, recipe, train_teacher
from torch import nn

import tutelage
from tutelage import identity
from tutelage.build import Built, build
from tutelage.data.digits import digits
from tutelage.data.loader import TrainLoader
from tutelage.distiller import Distiller
from tutelage.errors import (
    DataError,
    Interrupted,
    NonFiniteError,
    OutOfMemoryError,
    RecipeError,
    RunError,
    SettingError,
    TeacherError,
    TutelageError,
)
from tutelage.evaluation.predictions import Predictions, predict
from tutelage.identity import weights_of
from tutelage.models.network import Network
from tutelage.provenance import git_commit, versions
from tutelage.recipes import Recipe, plain, read_recipe, validate
from tutelage.records import RunFolder
from tutelage.runs import Run, check, evaluate, measuring, measuring_code, read_test, train
from tutelage.runs import run as run_module


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_teacher(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def run(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A distilled student; its folder must be left as it is."""
    folder = tmp_path_factory.mktemp("runs")
    value = distilled(teacher, seed=4)
    return train(value, name="first", runs=folder, shown=False, command="tutelage train r.yaml")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


# The record


def test_a_run_leaves_all_that_it_should(run: Run):
    assert {path.name for path in run.folder.iterdir()} == {
        "recipe.yaml",
        "origin.json",
        "record.json",
        "metrics.jsonl",
        "student.safetensors",
        "pictures.npz",
        "checkpoints",
    }


def test_the_record_says_what_was_run_and_on_what(run: Run, teacher: Path):
    record = json.loads((run.folder / "record.json").read_text())
    assert record == run.record
    resolved = validate(distilled(teacher, seed=4), "x")
    assert record["recipe"] == plain(resolved)
    assert yaml.safe_load((run.folder / "recipe.yaml").read_text()) == record["recipe"]
    assert record["schema"] == 1
    assert (record["name"], record["command"]) == ("first", "tutelage train r.yaml")
    assert record["commit"] == git_commit()
    assert record["versions"] == versions()
    assert record["hardware"]["device"] in ("cpu", "cuda")
    assert record["hardware"]["threads"] == 1
    assert record["hardware"].keys() >= {"processor", "cores", "system", "kept_memory"}
    assert record["data"] == {
        "train": 200,
        "labelled": 200,
        "train_measured": 200,
        "validation": 100,
        "test": 500,
        "classes": 10,
        "duplicates": {},
    }
    assert record["content"].keys() == {"train", "test", "source", "teacher"}
    for key in ("identity", "code"):
        assert len(record[key]) == 16


def test_the_record_says_what_came_out(run: Run):
    record = run.record
    assert (record["steps"], record["ended"]) == (3, "steps")
    assert record["seconds"] > 0
    assert record["began"][:2] == "20"
    student, teacher = record["students"]["student"], record["teacher"]
    for entry in (student, teacher):
        assert 0 <= entry["validation_accuracy"] <= 1
        assert 0 <= entry["test_accuracy"] <= 1
        assert entry["latency_ms"] > 0
    assert teacher["parameters"] > 8 * student["parameters"]
    assert teacher["macs"] > 8 * student["macs"]
    assert teacher["validation_pictures"] == 100
    assert 0 <= student["agreement"] <= 1
    assert student["weights"] == weights_of(run.student())


def test_numbers_in_the_record_are_those_of_the_saved_student(run: Run):
    source = digits()
    with torch.no_grad():
        pixels = source.test.images.permute(0, 3, 1, 2).float() / 255
        right = run.student()(pixels).argmax(dim=1) == source.test.labels
    entry = run.record["students"]["student"]
    assert entry["test_accuracy"] == pytest.approx(right.float().mean().item(), abs=1e-6)


def test_how_well_it_fits_is_measured_on_the_labelled_training_pictures_as_they_are(
    teacher: Path, runs: Path
):
    recipe = distilled(teacher, data=RECIPE["data"] | {"labelled": 50})
    run = train(recipe, name="x", runs=runs, shown=False)
    split = build(validate(recipe, "x"), with_test=False).split.train
    own = split.take(split.has_label.nonzero().flatten())
    assert len(own) == run.record["data"]["train_measured"] == 50
    with torch.no_grad():
        pixels = own.images.permute(0, 3, 1, 2).float() / 255
        right = run.student()(pixels).argmax(dim=1) == own.labels
    entry = run.record["students"]["student"]
    assert entry["train_accuracy"] == pytest.approx(right.float().mean().item(), abs=1e-6)


def test_reading_test_is_entered_with_time_command_and_purpose(run: Run):
    (reading,) = run.record["readings"]
    assert reading["split"] == "test"
    assert reading["command"] == "tutelage train r.yaml"
    assert reading["time"] >= run.record["began"]
    assert "after all choices" in reading["purpose"]


def test_the_student_is_an_ordinary_network_again(run: Run):
    student = tutelage.load(run.folder)
    assert not student.training
    assert student(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert weights_of(student) == run.record["students"]["student"]["weights"]


def test_a_collapsed_run_says_so(runs: Path):
    assert train(recipe(steps=2), name="two", runs=runs, shown=False).record["collapsed"]


# The same again


def test_the_same_recipe_gives_the_same_bits_and_another_seed_others(run: Run, teacher: Path):
    again = train(distilled(teacher, seed=4), name="again", runs=run.folder.parent, shown=False)
    assert same_weights(run.folder, again.folder)
    key = "weights"
    entries = [one.record["students"]["student"] for one in (run, again)]
    assert entries[0][key] == entries[1][key]
    assert run.record["identity"] == again.record["identity"]
    other = train(distilled(teacher, seed=5), name="other", runs=run.folder.parent, shown=False)
    assert not same_weights(run.folder, other.folder)
    assert run.record["identity"] != other.record["identity"]


def test_a_run_leaves_the_number_of_threads_as_it_was(runs: Path):
    torch.set_num_threads(2)
    record = train(recipe(threads=1), name="one", runs=runs, shown=False).record
    assert record["hardware"]["threads"] == 1
    assert torch.get_num_threads() == 2


def test_a_resumed_run_ends_in_the_same_bits(runs: Path, monkeypatch: pytest.MonkeyPatch):
    value = recipe(steps=6, checkpoint_every=2)
    whole = train(value, name="whole", runs=runs, shown=False)
    stop_at(3, monkeypatch)
    with pytest.raises(RuntimeError, match="pulled"):
        train(value, name="cut", runs=runs, shown=False)
    monkeypatch.undo()
    assert not RunFolder(runs / "cut").finished
    train(value, name="cut", runs=runs, resume=True, shown=False)
    assert same_weights(whole.folder, runs / "cut")


def cut(runs: Path, patch: pytest.MonkeyPatch, **more: Any) -> None:
    """A run named "cut" of which the plug is pulled after its first checkpoint."""
    with patch.context() as inside:
        stop_at(2, inside)
        with pytest.raises(RuntimeError, match="pulled"):
            train(recipe(threads=None, checkpoint_every=1), name="cut", runs=runs, **more)


def resume(runs: Path, **more: Any) -> dict[str, Any]:
    value = recipe(threads=None, checkpoint_every=1)
    return train(value, name="cut", runs=runs, resume=True, shown=False, **more).record


@pytest.mark.filterwarnings("ignore:.*goes on under other conditions")
def test_a_resumed_run_records_its_first_beginning_and_the_threads_it_was_trained_with(
    runs: Path, monkeypatch: pytest.MonkeyPatch
):
    torch.set_num_threads(1)
    cut(runs, monkeypatch, shown=False)
    folder = RunFolder(runs / "cut")
    origin = folder.read_origin()
    folder.origin.write_text(json.dumps(origin | {"began": "2020-02-02T02:02:02+00:00"}))
    torch.set_num_threads(2)
    record = resume(runs)
    assert record["began"] == "2020-02-02T02:02:02+00:00"
    assert record["hardware"]["threads"] == 1
    torch.set_num_threads(1)
    whole = train(recipe(threads=None, checkpoint_every=1), name="whole", runs=runs, shown=False)
    assert record["identity"] == whole.record["identity"]
    assert same_weights(whole.folder, runs / "cut")


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("train", "training pictures"),
        ("test", "test pictures"),
        ("source", "classes, or mean and standard deviation"),
    ],
)
def test_a_run_is_not_resumed_on_other_content(
    part: str, words: str, runs: Path, monkeypatch: pytest.MonkeyPatch
):
    source = digits()
    cut(runs, monkeypatch, shown=False, data=source)
    before = files(runs)
    changed: Any = tuple(f"class {name}" for name in source.classes)
    if part != "source":
        pictures = getattr(source, part)
        changed = replace(pictures, pixels=pictures.images.flip(0))
    name = "classes" if part == "source" else part
    with pytest.raises(DataError, match=f"this has changed: {words}.*--name"):
        resume(runs, data=replace(source, **{name: changed}))
    assert files(runs) == before
    resume(runs, data=source)


def test_a_run_that_goes_on_with_other_code_says_so(runs: Path, monkeypatch: pytest.MonkeyPatch):
    cut(runs, monkeypatch, shown=False)
    first = RunFolder(runs / "cut").read_origin()["codes"]
    monkeypatch.setattr(identity, "code_digest", lambda _: "other")
    with pytest.warns(UserWarning, match="The code has changed since the run in .*cut was begun"):
        record = resume(runs)
    assert record["code"] == f"{first[0]}+other"
    assert RunFolder(runs / "cut").read_origin()["codes"] == [*first, "other"]


def stop_at(step: int, patch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    """The plug is pulled before a step, or something else goes wrong."""
    batch = TrainLoader.batch

    def until(loader: TrainLoader, at: int) -> Any:
        if at == step:
            raise error or RuntimeError("plug pulled")
        return batch(loader, at)

    patch.setattr(TrainLoader, "batch", until)


# Folders


def test_a_run_folder_is_never_overwritten(run: Run, teacher: Path):
    before = files(run.folder)
    with pytest.raises(RunError, match=r"never overwritten.*--resume.*--name"):
        train(distilled(teacher), name="first", runs=run.folder.parent, shown=False)
    with pytest.raises(RunError, match="has finished"):
        train(
            distilled(teacher, seed=4),
            name="first",
            runs=run.folder.parent,
            resume=True,
            shown=False,
        )
    assert files(run.folder) == before


def test_a_folder_that_somebody_else_has_begun_meanwhile_is_left_alone(
    runs: Path, monkeypatch: pytest.MonkeyPatch
):
    def meanwhile(recipe: Recipe, **more: Any) -> Built:
        monkeypatch.undo()
        train(plain(recipe) | {"seed": 1}, name="x", runs=runs, shown=False)
        return build(recipe, **more)

    monkeypatch.setattr(run_module, "build", meanwhile)
    with pytest.raises(RunError, match="never overwritten"):
        train(recipe(), name="x", runs=runs, shown=False)
    assert RunFolder(runs / "x").read_record()["recipe"]["seed"] == 1


def test_a_signal_during_the_last_step_ends_the_finished_run_as_interrupted(
    runs: Path, monkeypatch: pytest.MonkeyPatch
):
    take = TrainLoader.batch

    def stopped(loader: TrainLoader, step: int) -> Any:
        if step == 2:
            signal.raise_signal(signal.SIGTERM)
        return take(loader, step)

    monkeypatch.setattr(TrainLoader, "batch", stopped)
    with pytest.raises(Interrupted, match="is finished") as stop:
        train(recipe(), name="x", runs=runs, shown=False)
    assert (stop.value.signal, stop.value.finished) == (signal.SIGTERM, True)
    record = RunFolder(runs / "x").read_record()
    assert record["steps"] == 3
    assert record["readings"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 9}, "seed"),
        ({"train": {**RECIPE["train"], "steps": 4}}, "train.steps"),
        ({"methods": {}, "task_weight": 0.1}, "methods.kd"),
        ({"methods": {"kd": {"weight": 0.5}}}, r"methods\.kd\.weight"),
    ],
)
def test_resuming_with_another_recipe_names_the_key(
    change: dict[str, Any], key: str, run: Run, teacher: Path
):
    value = distilled(teacher, seed=4) | change
    with pytest.raises(RunError, match=f"another recipe: {key} differs.*recipe.yaml"):
        train(value, name="first", runs=run.folder.parent, resume=True, shown=False)


def test_resuming_begins_what_is_not_there(runs: Path):
    done = train(recipe(), name="new", runs=runs, resume=True, shown=False)
    assert RunFolder(done.folder).finished


def test_names_come_from_recipe_seed_and_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(recipe()))
    plain_one = train("small.yaml", shown=False)
    assert plain_one.folder == Path("runs/small-seed0")
    seeded = train("small.yaml", overrides=["seed=2"], shown=False)
    assert seeded.folder == Path("runs/small-seed2")
    longer = train("small.yaml", overrides=["train.steps=2"], shown=False)
    assert longer.folder.name.startswith("small-seed0-")
    mapped = train(recipe(), shown=False)
    assert mapped.folder.name.startswith("run-")
    again = train(plain_one.folder / "recipe.yaml", runs="again", shown=False)
    assert again.record["identity"] == plain_one.record["identity"]
    with pytest.raises(RecipeError, match="Overrides go with a recipe file"):
        train(recipe(), overrides=["seed=1"])


# Bad input leaves nothing behind


def damaged_weights(folder: Path, teacher: Path) -> dict[str, Any]:
    file = folder / "untrained.safetensors"
    damaged = {name: torch.randn_like(value.float()) for name, value in weights(teacher).items()}
    # A variance that is negative would be another fault than knowing nothing.
    save_file({n: v.abs() if n.endswith("var") else v for n, v in damaged.items()}, file)
    return {"name": "resnet8", "width": 8, "checkpoint": str(file)}


def test_a_teacher_at_chance_is_refused_before_anything_is_written(
    teacher: Path, tmp_path: Path, runs: Path
):
    torch.manual_seed(1)
    value = distilled(teacher, teacher=damaged_weights(tmp_path, teacher))
    with pytest.raises(TeacherError, match=r"which is chance\. Likely causes: another normaliz"):
        train(value, name="x", runs=runs, shown=False)
    assert not runs.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"student": {"run": "nowhere"}},
        {"data": {"source": "digits", "validation": 100, "labelled": 5000}},
        {"methods": {"kd": {"weight": {"kk": 1.0}}}},
        {"taps": [["layer1", "layer9"]], "methods": {"fitnet_hints": {"weight": 1.0}}},
        {"train": {**RECIPE["train"], "steps": 1, "batch_size": 30000}},
        {"train": {**RECIPE["train"], "steps": 1}},  # too short for its schedule
        {"seed": "one"},
    ],
)
def test_bad_input_leaves_nothing(change: dict[str, Any], teacher: Path, runs: Path):
    with pytest.raises(TutelageError) as error:
        train(distilled(teacher) | change, name="x", runs=runs, shown=False)
    assert str(error.value).endswith(".")
    assert not (runs / "x").exists()


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (OutOfMemoryError("none left."), False),
        (RuntimeError("a mistake of ours"), False),
        (Interrupted("stopped.", 2), True),
    ],
)
def test_a_run_that_could_not_begin_leaves_nothing_but_an_interrupted_one_stays(
    error: Exception, stays: bool, runs: Path, monkeypatch: pytest.MonkeyPatch
):
    stop_at(1, monkeypatch, error)
    with pytest.raises(type(error)):
        train(recipe(), name="x", runs=runs, shown=False)
    assert (runs / "x").exists() == stays


def test_a_run_that_had_a_checkpoint_stays(runs: Path, monkeypatch: pytest.MonkeyPatch):
    stop_at(2, monkeypatch, OutOfMemoryError("none left."))
    with pytest.raises(OutOfMemoryError):
        train(recipe(checkpoint_every=1), name="x", runs=runs, shown=False)
    assert RunFolder(runs / "x").checkpoints


def test_what_is_no_number_stops_and_keeps_the_last_checkpoint(runs: Path):
    value = recipe(optimizer={"name": "sgd", "lr": 1e30})
    with pytest.raises(NonFiniteError, match="supervised became infinite or NaN at step"):
        train(value, name="x", runs=runs, shown=False)
    folder = RunFolder(runs / "x")
    assert not folder.finished
    assert folder.checkpoints


# Test is out of reach of choices


def test_a_choice_leaves_no_trace_of_test(teacher: Path, runs: Path):
    record = train(distilled(teacher), name="x", runs=runs, with_test=False, shown=False).record
    assert record["readings"] == []
    assert "test" not in json.dumps(record["students"])
    assert "test" not in json.dumps(record["teacher"])
    assert "agreement" not in json.dumps(record)
    assert record["data"]["test"] == 0


def test_a_choice_looks_at_no_test_picture(
    teacher: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[torch.Tensor] = []

    def watched(*args: Any, **more: Any) -> Predictions:
        result = predict(*args, **more)
        seen.append(result.index)
        return result

    monkeypatch.setattr(measuring, "predict", watched)
    forbidden = digits().test.index
    train(distilled(teacher), name="x", runs=runs, with_test=False, shown=False)
    assert len(seen) >= 2
    assert not torch.isin(torch.cat(seen), forbidden).any()
    read_test(runs / "x", purpose="p", command="c")
    assert torch.isin(forbidden, torch.cat(seen)).all()


def test_other_test_pictures_change_nothing_in_a_choice(teacher: Path, runs: Path):
    """Whatever test holds, a choice comes out the same to the last bit."""
    source = digits()
    noise = replace(
        source.test,
        pixels=torch.randint_like(source.test.images, 256),
        labels=source.test.labels.flip(0),
    )
    value = distilled(teacher, steps=4, evaluate_every=2)
    records = []
    for name, data in (("one", source), ("other", replace(source, test=noise))):
        train(value, name=name, runs=runs, data=data, with_test=False, shown=False)
        records.append(RunFolder(runs / name).read_record())
    assert same_weights(runs / "one", runs / "other")
    own = {"name", "began", "seconds", "peak_memory"}  # of a clock and of the machine
    own |= {"identity", "students", "teacher", "content"}
    first, second = ({key: one[key] for key in one.keys() - own} for one in records)
    assert first == second
    for who in ("one", "other"):
        lines = [json.loads(s) for s in (runs / who / "metrics.jsonl").read_text().splitlines()]
        assert {"step": 4, "validation_accuracy": accuracy_of(records[0])} in lines
    assert accuracy_of(records[0]) == accuracy_of(records[1])
    assert records[0]["content"]["test"] != records[1]["content"]["test"]


def accuracy_of(record: dict[str, Any]) -> float:
    return record["students"]["student"]["validation_accuracy"]


def test_test_is_read_once(teacher: Path, runs: Path):
    value = distilled(teacher, seed=4)
    before = deepcopy(train(value, name="x", runs=runs, with_test=False, shown=False).record)
    after = read_test(runs / "x", purpose="to end the matter", command="by hand").record
    assert after == RunFolder(runs / "x").read_record()
    (reading,) = after["readings"]
    assert (reading["purpose"], reading["command"]) == ("to end the matter", "by hand")
    assert after["students"]["student"].keys() - before["students"]["student"].keys() == {
        "test_accuracy",
        "test",
        "agreement",
        "fidelity",
    }
    assert after["data"] == before["data"] | {"test": len(digits().test)}
    assert "measured" not in before
    by = after["measured"]["test"]
    assert (by["code"], by["commit"]) == (measuring_code("test"), git_commit())
    assert by["versions"].keys() >= versions().keys() | {"torchmetrics", "scipy", "pillow"}
    assert by["threads"] == 1
    changed = {"readings", "students", "teacher", "data"}
    assert all(after[key] == before[key] for key in before.keys() - changed)
    content = files(runs / "x")
    with pytest.raises(RunError, match="read already"):
        read_test(runs / "x", purpose="again", command="by hand")
    assert files(runs / "x") == content


def test_reading_test_later_gives_the_same_number(run: Run, teacher: Path, runs: Path):
    train(distilled(teacher, seed=4), name="x", runs=runs, with_test=False, shown=False)
    later = read_test(runs / "x", purpose="p", command="c").record
    for key in ("test_accuracy", "agreement"):
        assert later["students"]["student"][key] == run.record["students"]["student"][key]
    assert later["teacher"]["test_accuracy"] == run.record["teacher"]["test_accuracy"]


@pytest.mark.parametrize(
    ("part", "word"), [("test", "test pictures"), ("source", "classes"), ("teacher", "teacher")]
)
def test_test_is_not_read_on_other_data_or_with_another_teacher(
    part: str, word: str, teacher: Path, runs: Path
):
    train(distilled(teacher), name="x", runs=runs, with_test=False, shown=False)
    folder = RunFolder(runs / "x")
    record = folder.read_record()
    record["content"][part] = "0" * 16
    folder.record.write_text(json.dumps(record))
    with pytest.raises(DataError, match=f"this has changed: {word}"):
        read_test(runs / "x", purpose="p", command="c")


def test_evaluating_again_finds_the_same_and_the_first_reading_stands(teacher: Path, runs: Path):
    first = train(distilled(teacher), name="x", runs=runs, shown=False).record
    found = evaluate(runs / "x", with_test=True, command="later")
    student = first["students"]["student"]
    for key in ("validation_accuracy", "test_accuracy", "agreement"):
        assert found["again"][key] == student[key]
    record = RunFolder(runs / "x").read_record()
    assert [reading["command"] for reading in record["readings"]] == ["tutelage.train", "later"]
    assert record["students"] == first["students"]


# Chains, and objects given in Python


def test_a_run_is_a_teacher_or_a_beginning_for_the_next(run: Run, teacher: Path, runs: Path):
    tuned = train(
        recipe(student={"run": str(run.folder)}, optimizer={"name": "sgd", "lr": 1e-12}),
        name="tuned",
        runs=runs,
        shown=False,
    )
    before, after = weights(run.folder), weights(tuned.folder)
    assert torch.allclose(before["linear.weight"], after["linear.weight"], atol=1e-6)
    assert tuned.student().spec == run.student().spec


class Small(nn.Module):
    """Somebody's own network."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.stem(images)).relu().mean(dim=(2, 3)))


def test_objects_are_recorded_by_class_source_and_weights(teacher: Path, runs: Path):
    value = distilled(teacher)
    student = Small()
    begun = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    guide = tutelage.load(teacher)
    record = train(
        value, name="x", runs=runs, student=student, teacher=guide, data=digits(), shown=False
    ).record
    assert record["recipe"]["student"] is None
    assert record["recipe"]["teacher"] is None
    assert record["recipe"]["data"]["source"] is None
    entry = record["content"]["student"]
    assert entry["class"].endswith("Small")
    fresh = Small()
    fresh.load_state_dict(begun)
    assert entry["weights"] == weights_of(Network(fresh))
    assert record["students"]["student"]["weights"] != entry["weights"]
    assert record["content"]["teacher"]["weights"] == weights_of(guide)
    assert 0 <= record["students"]["student"]["agreement"] <= 1
    again = Small()
    again.load_state_dict(weights(runs / "x"))


def test_objects_do_not_need_an_entry_to_replace(runs: Path):
    value = {key: entry for key, entry in recipe().items() if key != "student"}
    value["data"] = {"validation": 100}
    record = train(value, name="x", runs=runs, student=Small(), data=digits(), shown=False).record
    assert record["data"]["train"] == 1197
    assert read_recipe(runs / "x" / "recipe.yaml").student is None


def test_a_run_of_objects_says_that_they_are_needed_again(runs: Path):
    train(recipe(), name="x", runs=runs, student=Small(), with_test=False, shown=False)
    with pytest.raises(RecipeError, match="leaves student open"):
        train(runs / "x" / "recipe.yaml", name="y", runs=runs, shown=False)
    with pytest.raises(RecipeError, match="leaves student open"):
        read_test(runs / "x", purpose="p", command="c")
    with pytest.raises(RunError, match="somebody's own code"):
        evaluate(runs / "x")
    assert not (runs / "y").exists()


# Looking before a run


def test_check_takes_one_step_and_writes_nothing(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    resolved = validate(distilled(teacher), "x")
    found = check(resolved)
    assert list(tmp_path.iterdir()) == []
    assert found["terms"].keys() == {"supervised", "kd.kl"}
    expected = 0.1 * found["terms"]["supervised"] + 0.9 * found["terms"]["kd.kl"]
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["data"]["labelled_per_batch"] == 50
    built = build(resolved)
    assert found["student"]["parameters"] == sum(p.numel() for p in built.student.parameters())


def test_check_refuses_a_teacher_at_chance(teacher: Path, tmp_path: Path):
    torch.manual_seed(1)
    value = distilled(teacher, teacher=damaged_weights(tmp_path, teacher))
    with pytest.raises(TeacherError, match="chance"):
        check(validate(value, "x"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": {"name": "sgd", "lr": -1.0}}, "optimizer sgd cannot be made.*lr -1"),
        ({"steps": 1}, "one_cycle needs at least 2 steps"),
    ],
)
def test_check_refuses_an_optimizer_or_schedule_that_cannot_be_made(
    change: dict[str, Any], words: str
):
    with pytest.raises(SettingError, match=words):
        check(validate(recipe(**change), "x"))


@pytest.mark.parametrize("channels_last", [True, False])
def test_check_takes_its_step_as_the_run_would(
    channels_last: bool, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[int, bool]] = []
    forward = Distiller.forward

    def watched(distiller: Distiller, images: torch.Tensor, *args: Any, **more: Any) -> Any:
        kernel = next(p for p in distiller.parameters() if p.ndim == 4 and min(p.shape) > 1)
        seen.append((torch.get_num_threads(), kernel.stride(1) == 1))
        return forward(distiller, images, *args, **more)

    monkeypatch.setattr(Distiller, "forward", watched)
    torch.set_num_threads(2)
    check(validate(recipe(channels_last=channels_last), "x"))
    assert [threads for threads, _ in seen] == [1]
    assert [last for _, last in seen] == [channels_last]
    assert torch.get_num_threads() == 2


def test_a_device_without_memory_is_said_in_words_wherever_it_happens(
    run: Run, monkeypatch: pytest.MonkeyPatch, runs: Path
):
    def full(*args: Any, **more: Any) -> Predictions:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(measuring, "predict", full)
    resolved = validate(run.record["recipe"], "x")
    for action in (
        lambda: train(resolved, name="x", runs=runs, shown=False),
        lambda: check(resolved),
        lambda: evaluate(run.folder),
    ):
        with pytest.raises(OutOfMemoryError, match=r"Lower train\.batch_size"):
            action()
    assert not runs.exists()


def test_the_teacher_is_judged_on_pictures_of_all_classes(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also if the source is sorted by class, and validation larger than what is looked at."""
    source = digits()
    order = source.train.labels.argsort(stable=True)
    monkeypatch.setattr(measuring, "SANITY_PICTURES", 50)
    value = distilled(teacher, data={"source": None, "validation": 300, "labelled": 200})
    built = build(validate(value, "x"), data=replace(source, train=source.train.take(order)))
    checked = measuring.check_teacher(built, torch.device("cpu"))
    assert checked is not None
    seen = checked.seen
    assert seen is not None
    assert len(seen.targets) == 50
    assert seen.targets.bincount(minlength=10).min() >= 4
