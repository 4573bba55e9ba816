"""A run from a store takes the very steps that it would have taken with the teacher at hand."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import distilled, recipe, train_teacher
from torch import nn

from tutelage import identity, networks
from tutelage.build import Built, build
from tutelage.data.digits import digits
from tutelage.errors import DataError, NetworkError, NoEffectWarning, RecipeError, StoreError
from tutelage.evaluation.accuracy import accuracy
from tutelage.identity import weights_of
from tutelage.models.fusing import executed_batch_norms
from tutelage.models.network import Network
from tutelage.recipes import Recipe, validate
from tutelage.records import RunFolder, read_lines
from tutelage.runs import Extras, check, evaluate, train
from tutelage.runs.caching import cache, plan
from tutelage.runs.keeping import Choices
from tutelage.runs.measuring import check_teacher, look
from tutelage.runs.surroundings import CONTENT, require_same_content
from tutelage.teachers import LiveTeacher, StoredTeacher
from tutelage.teachers.manifest import Manifest
from tutelage.teachers.store import Store, complete, existing, write_shard

VIEWS = {"crop_padding": 1, "cutout": 2}
DATA = {
    "source": {"name": "digits"},
    "validation": 100,
    "labelled": 200,
    "num_views": 3,
    "views": VIEWS,
}
HINTS = {"fitnet_hints": {"weight": 1.0}}
ATTENTION = {"attention_transfer": {"weight": 100.0}}
CPU = torch.device("cpu")
EXACT = Choices(logits="fp32", shard_size=100)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_teacher(tmp_path_factory.mktemp("runs"))


def asked(run: Path, /, **changes: Any) -> dict[str, Any]:
    return distilled(run, **{"data": DATA, "log_every": 1, "seed": 3} | changes)


def stored(value: dict[str, Any], folder: Path) -> dict[str, Any]:
    return value | {"teacher": {"cache": str(folder)}}


def resolved(value: dict[str, Any]) -> Recipe:
    return validate(value, "x")


def made(value: dict[str, Any], **objects: Any) -> Built:
    return build(resolved(value), **objects)


@pytest.fixture(scope="module")
def store(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "exact"
    filled, again = cache(resolved(asked(teacher)), folder, EXACT, verified=64, shown=False)
    assert filled.complete
    assert again is not None
    assert again.entries == 64
    assert 0 < again.equal == again.training
    return folder


def losses(value: dict[str, Any], runs: Path, name: str) -> list[dict[str, float]]:
    folder = train(value, name=name, runs=runs, with_test=False, shown=False).folder
    lines = read_lines(RunFolder(folder).metrics)
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


# The same steps


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fifty_steps_are_the_same_to_the_last_bit(
    teacher: Path, store: Path, tmp_path: Path, precision: str
):
    """12.5 epochs of three views, so that each view is read about four times."""
    value = asked(teacher, steps=50, precision=precision)
    if precision == "bf16":
        store = tmp_path / "bf16"
        cache(resolved(value), store, EXACT, shown=False)
    live = losses(value, tmp_path, "live")
    cached = losses(stored(value, store), tmp_path, "cached")
    assert len(live) == 50
    assert all(math.isfinite(number) for line in live for number in line.values())
    assert cached == live
    weights = [train_weights(tmp_path / name) for name in ("live", "cached")]
    assert weights[0] == weights[1]
    other = losses(value | {"seed": 4}, tmp_path, "other")
    assert other != live


def train_weights(run: Path) -> str:
    return RunFolder(run).read_record()["students"]["student"]["weights"]


def test_maps_that_the_teacher_gave_in_bfloat16_are_the_same_too(teacher: Path, tmp_path: Path):
    value = asked(teacher, steps=8, precision="bf16", methods=HINTS)
    cache(resolved(value), tmp_path / "store", EXACT, shown=False)
    live = losses(value, tmp_path, "live")
    assert losses(stored(value, tmp_path / "store"), tmp_path, "cached") == live


def test_micro_batches_are_what_the_teacher_is_asked(teacher: Path, tmp_path: Path):
    value = asked(teacher, steps=6, accumulate=2)
    cache(resolved(value), tmp_path / "store", EXACT, shown=False)
    assert Manifest.read(tmp_path / "store").fingerprint["batch_size"] == 25
    live = losses(value, tmp_path, "live")
    assert losses(stored(value, tmp_path / "store"), tmp_path, "cached") == live


def test_pictures_that_are_mixed_are_answered_as_they_were(teacher: Path, tmp_path: Path):
    mixed = DATA | {"views": VIEWS | {"mixup": 0.4, "cutmix": 1.0}}
    value = asked(teacher, steps=6, data=mixed)
    cache(resolved(value), tmp_path / "store", EXACT, shown=False)
    live = losses(value, tmp_path, "live")
    assert losses(stored(value, tmp_path / "store"), tmp_path, "cached") == live
    fewer = stored(value, tmp_path / "store") | {"data": mixed | {"labelled": 100}}
    with pytest.raises(StoreError, match="its pool is"):
        made(fewer)


@pytest.mark.parametrize("logits", ["fp16", "top"])
def test_fewer_bytes_change_the_loss_a_little(
    teacher: Path, store: Path, tmp_path: Path, logits: Any
):
    value = asked(teacher, steps=5)
    choices = Choices(logits=logits, share=0.2, shard_size=100)
    cache(resolved(value), tmp_path / "store", choices, shown=False)
    kind = Manifest.read(tmp_path / "store").logits.kind
    assert kind == logits
    live, cached = (
        [line["loss"] for line in losses(stored(value, each), tmp_path, f"run-{each.name}")]
        for each in (store, tmp_path / "store")
    )
    assert cached != live
    assert all(map(math.isfinite, cached))
    assert cached == pytest.approx(live, rel=1e-2 if logits == "fp16" else 0.5)


# No network


def test_no_teacher_network_is_loaded(
    teacher: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(networks, "read_network", refuse)
    built = made(stored(asked(teacher), store))
    assert isinstance(built.teacher, StoredTeacher)
    named = asked(teacher, teacher={"run": str(teacher), "cache": str(store)})
    assert isinstance(made(named).teacher, StoredTeacher)
    done = train(stored(asked(teacher), store), runs=tmp_path, shown=False)
    entry = done.record["teacher"]
    assert entry["parameters"] > done.record["students"]["student"]["parameters"]
    assert entry["latency_ms"] > 0
    assert 0 <= done.record["students"]["student"]["agreement"] <= 1


def test_what_is_measured_is_what_the_live_teacher_would_give(teacher: Path, store: Path):
    live, cached = made(asked(teacher)), made(stored(asked(teacher), store))
    for pictures in (live.validation, live.test):
        assert pictures is not None
        assert live.teacher is not None
        assert cached.teacher is not None
        ours = look(live.teacher, pictures, live, CPU)
        theirs = look(cached.teacher, pictures, cached, CPU)
        assert torch.equal(ours.outputs, theirs.outputs)
        assert accuracy(ours) == accuracy(theirs)
    sane = check_teacher(cached, CPU)
    assert sane is not None
    assert sane.seen is not None
    assert accuracy(sane.seen) > 0.2


def test_training_is_answered_by_the_folded_teacher_and_measures_by_the_teacher_itself(
    teacher: Path, store: Path
):
    live, cached = made(asked(teacher)), made(stored(asked(teacher), store))
    plain = made(asked(teacher, fuse_teacher=False))
    assert isinstance(live.teacher, Network)
    assert isinstance(plain.teacher, Network)
    assert weights_of(live.teacher) == weights_of(plain.teacher)
    (folded,), (recalled,), (unfolded,) = (one.distiller.teachers for one in (live, cached, plain))
    assert isinstance(folded, LiveTeacher)
    assert folded.network is not live.teacher
    assert executed_batch_norms(folded.network, live.train.batch(0).images) == 0
    differ = 0
    for batch in live.validation:
        said = [one.observe(batch, ()).output for one in (folded, recalled, unfolded)]
        assert torch.equal(said[0], said[1])
        torch.testing.assert_close(said[2], said[0], rtol=1e-4, atol=1e-4)
        differ += not torch.equal(said[2], said[0])
        assert isinstance(cached.teacher, StoredTeacher)
        assert torch.equal(cached.teacher.recall(batch), said[2])
    assert differ


def test_an_unfolded_teacher_is_asked_about_each_picture_once(teacher: Path, tmp_path: Path):
    value = asked(teacher, fuse_teacher=False, steps=5)
    found = plan(resolved(value), tmp_path / "store", EXACT)
    assert found["entry_bytes"] == {"train": 40, "validation": 40, "test": 40}
    assert found["teacher_passes"] == 3 * 200 + 100 + 500
    cache(resolved(value), tmp_path / "store", EXACT, shown=False)
    live = losses(value, tmp_path, "live")
    assert losses(stored(value, tmp_path / "store"), tmp_path, "cached") == live
    assert live != losses(asked(teacher, steps=5), tmp_path, "folded")


def test_what_was_folded_is_in_the_record(teacher: Path, store: Path, tmp_path: Path):
    for name, value in (
        ("live", asked(teacher)),
        ("cached", stored(asked(teacher), store)),
        ("plain", asked(teacher, fuse_teacher=False)),
        ("alone", asked(teacher, methods=[])),
    ):
        done = train(value, name=name, runs=tmp_path, with_test=False, shown=False)
        entry = done.record["teacher"]
        wanted = {"norms": 7, "folded": 7, "left": {}} if name in ("live", "cached") else None
        assert entry.get("folded") == wanted


def test_a_choice_gets_no_answers_to_test(teacher: Path, store: Path):
    built = made(stored(asked(teacher), store), with_test=False)
    assert isinstance(built.teacher, StoredTeacher)
    whole = made(stored(asked(teacher), store))
    assert whole.test is not None
    with pytest.raises(StoreError, match="no answer for picture"):
        look(built.teacher, whole.test, built, CPU)


def test_a_check_and_an_evaluation_need_no_network_either(
    teacher: Path, store: Path, tmp_path: Path
):
    found = check(resolved(stored(asked(teacher), store)))
    assert found["teacher"]["macs"] > found["student"]["macs"]
    assert found["teacher"]["stages"]
    run = train(stored(asked(teacher), store), runs=tmp_path, name="run", shown=False).folder
    again = evaluate(run, with_test=True)
    assert again["again"]["agreement"] == again["record"]["students"]["student"]["agreement"]
    readings = len(RunFolder(run).read_record()["readings"])
    with pytest.raises(Exception, match="maps of test pictures, which a store does not hold"):
        evaluate(run, with_test=True, extras=Extras(similarity=True))
    assert len(RunFolder(run).read_record()["readings"]) == readings


def test_the_teacher_that_a_store_has_asked_is_compared_with(
    teacher: Path, store: Path, tmp_path: Path
):
    value = asked(teacher)
    live = train(value, runs=tmp_path, name="live", shown=False).folder
    value = value | {"teacher": value["teacher"] | {"cache": str(store)}}
    run = train(value, runs=tmp_path, name="run", shown=False).folder
    found = []
    for folder in (run, live):
        extras = Extras(similarity=True, corruptions=20)
        record = evaluate(folder, with_test=True, extras=extras)["record"]
        found.append(record["students"]["student"]["similarity"])
        # A store has no answers to other pictures, whoever is there to look at.
        assert ("robustness" in record["teacher"]) == (folder == live)
        assert "robustness" in record["students"]["student"]
    assert [one["teacher"] for one in found[0]] == [one["teacher"] for one in found[1]]
    assert all(0 <= one["cka"] <= 1 for one in found[0])


def test_an_object_takes_the_place_of_an_entry(teacher: Path, store: Path):
    value = asked(teacher) | {"teacher": None}
    built = made(value, teacher=StoredTeacher(store))
    assert isinstance(built.teacher, StoredTeacher)


def test_the_store_is_part_of_what_a_run_is(teacher: Path, store: Path, tmp_path: Path):
    cached = made(stored(asked(teacher), store))
    assert cached.content["teacher"]["fingerprint"] == dict(Store(store).manifest.fingerprint)
    assert cached.content["teacher"]["fingerprint"]["teacher"] == weights_of(teacher_of(teacher))
    assert cached.content != made(asked(teacher)).content
    cache(resolved(asked(teacher)), tmp_path / "half", Choices(shard_size=100), shown=False)
    half = made(stored(asked(teacher), tmp_path / "half"))
    assert half.content["teacher"]["fingerprint"] == cached.content["teacher"]["fingerprint"]
    assert half.content != cached.content  # otherwise coded


def teacher_of(run: Path) -> Network:
    return made(recipe(student={"run": str(run)})).student


# Stale


def changed(**data: Any) -> dict[str, Any]:
    return {"data": DATA | data}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 4}, "seed is 3, and that of this run is 4"),
        (changed(num_views=2), "num views is 3, and that of this run is 2"),
        (changed(num_views=None), "num views is 3, and that of this run is null"),
        (changed(views={"crop_padding": 2}), "views is"),
        ({"precision": "bf16"}, "precision is fp32, and that of this run is bf16"),
        ({"fuse_teacher": False}, "fuse teacher is True, and that of this run is False"),
        ({"compile_teacher": True}, "compile teacher is False, and that of this run is True"),
        ({"batch_size": 40}, "batch size is 50, and that of this run is 40"),
        ({"accumulate": 2}, "batch size is 50, and that of this run is 25"),
        (changed(source={"name": "digits", "test": 400}), "training pictures is"),
        (changed(validation=120), "of another split"),
        (changed(split_seed=1), "of another split"),
        (changed(labelled=250), "of another split: .* train pictures"),
        ({"methods": HINTS}, "no maps of the teacher's tap 'layer1'; it holds no maps at all"),
    ],
)
def test_a_stale_store_is_refused_naming_the_field(
    teacher: Path, store: Path, changes: dict[str, Any], field: str
):
    error = NetworkError if "methods" in changes else StoreError
    with pytest.raises(error, match=field):
        made(stored(asked(teacher, **changes), store))


@pytest.mark.parametrize("package", ["torch", "torchvision", "pillow"])
def test_versions_that_execute_the_views_are_fields(
    teacher: Path, store: Path, monkeypatch: pytest.MonkeyPatch, package: str
):
    known = identity._version
    monkeypatch.setattr(identity, "_version", lambda name: "9" if name == package else known(name))
    with pytest.raises(StoreError, match=f"its {package} version is .*, and .* is 9"):
        made(stored(asked(teacher), store))


def test_the_drawing_of_views_is_a_field(
    teacher: Path, store: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(identity, "DRAWING", 99)
    with pytest.raises(StoreError, match="its drawing is 1, and that of this run is 99"):
        made(stored(asked(teacher), store))


def test_how_a_network_is_asked_is_a_field(
    teacher: Path, store: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(identity, "ANSWERING", 99)
    with pytest.raises(StoreError, match="its answering is 1, and that of this run is 99"):
        made(stored(asked(teacher), store))


def test_a_store_that_was_made_again_to_other_bits_is_another_run(teacher: Path, tmp_path: Path):
    value = asked(teacher)
    cache(resolved(value), tmp_path / "store", EXACT, shown=False)
    before = made(stored(value, tmp_path / "store")).content["teacher"]
    shard = existing(tmp_path / "store")["train-0000-00000"]
    tensors = load_file(shard)
    shard.unlink()
    write_shard(tmp_path / "store", "train-0000-00000", {"logits": tensors["logits"] + 1e-6})
    known = Manifest.read(tmp_path / "store")
    assert complete(tmp_path / "store", replace(known, checksums=None))
    after = made(stored(value, tmp_path / "store")).content["teacher"]
    assert {key for key in before if before[key] != after[key]} == {"files"}


def test_the_largest_serve_the_temperature_they_were_stored_for(teacher: Path, tmp_path: Path):
    value = asked(teacher)
    choices = Choices(logits="top", share=0.2, shard_size=100)
    cache(resolved(value), tmp_path / "store", choices, shown=False)
    made(stored(value, tmp_path / "store"))
    value["methods"] = {"kd": {"weight": 0.9, "temperature": 2}}
    with pytest.raises(StoreError, match=r"at temperature 4, but .* soften answers at 2"):
        made(stored(value, tmp_path / "store"))


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_content_of_pictures_is_a_field(teacher: Path, store: Path, part: str):
    source = digits()
    pictures = getattr(source, part)
    images = pictures.images.clone()
    images[0, 0, 0, 0] ^= 1
    source = replace(source, **{part: replace(pictures, pixels=images)})
    value = stored(asked(teacher), store)
    value["data"] = DATA | {"source": None}
    with pytest.raises(StoreError, match=f"its {'training' if part == 'train' else part} pictures"):
        made(value, data=source)


def test_another_teacher_than_the_named_one_is_a_field(teacher: Path, store: Path, tmp_path: Path):
    entry = {"run": str(teacher), "cache": str(store)}
    made(asked(teacher, teacher=entry))
    other = train(recipe(), name="other", runs=tmp_path, with_test=False, shown=False).folder
    named = {"run": str(other), "cache": str(store)}
    with pytest.raises(StoreError, match=r"its teacher file is .* the teacher that the recipe"):
        made(asked(teacher, teacher=named))
    gone = {"run": str(tmp_path / "gone"), "cache": str(store)}
    assert made(asked(teacher, teacher=gone)).teacher is not None  # the store is enough


def test_settings_of_the_named_teacher_are_a_field(teacher: Path, tmp_path: Path):
    entry = {
        "name": "resnet8",
        "width": 8,
        "checkpoint": str(teacher / "student.safetensors"),
    }
    folder = tmp_path / "store"
    cache(resolved(asked(teacher, teacher=entry)), folder, EXACT, shown=False)
    made(asked(teacher, teacher=entry | {"cache": str(folder)}))
    with pytest.raises(StoreError, match="its teacher settings is"):
        made(asked(teacher, teacher=entry | {"cache": str(folder), "mean": [0.1], "std": [0.2]}))


def test_fewer_pictures_than_were_asked_about_are_served(teacher: Path, store: Path):
    # whoever keeps fewer labels keeps some of the same pictures
    kept = made(stored(asked(teacher, **changed(labelled=150)), store))
    assert len(kept.split.train) == 150


def test_a_run_goes_on_only_with_the_store_it_was_begun_with(
    teacher: Path, store: Path, tmp_path: Path
):
    begun = made(stored(asked(teacher), store))
    require_same_content(begun, begun.content, tmp_path, CONTENT)
    cache(resolved(asked(teacher)), tmp_path / "half", Choices(shard_size=100), shown=False)
    other = made(stored(asked(teacher), tmp_path / "half"))
    with pytest.raises(DataError, match="this has changed: teacher"):
        require_same_content(other, begun.content, tmp_path, CONTENT)


# Less than all of a map


@pytest.mark.slow
def test_what_a_method_needs_of_a_map_is_kept_alone(teacher: Path, tmp_path: Path):
    value = asked(teacher, steps=5, methods=ATTENTION, precision="bf16")
    sizes = {}
    for kept in ("whole", "encoded"):
        folder = tmp_path / kept
        choices = EXACT._replace(maps=kept)
        cache(resolved(value), folder, choices, shown=False)
        sizes[kept] = plan(resolved(value), folder, choices)["entry_bytes"]["train"]
    # 8 · 8² + 16 · 4² + 32 · 2² numbers of 2 bytes, or one channel each; and 10 logits of 4
    assert sizes == {"whole": 40 + 2 * 896, "encoded": 40 + 2 * 84}
    live = losses(value, tmp_path, "live")
    whole, encoded = (
        losses(stored(value, tmp_path / kept), tmp_path, f"run-{kept}")
        for kept in ("whole", "encoded")
    )
    assert whole == live
    ours, theirs = ([line["loss"] for line in lines] for lines in (encoded, live))
    assert ours[0] == pytest.approx(theirs[0], rel=0.01)
    assert ours == pytest.approx(theirs, rel=0.1)
    assert ours != theirs


def test_an_encoding_serves_its_method_alone(teacher: Path, tmp_path: Path):
    value = asked(teacher, methods=ATTENTION)
    cache(resolved(value), tmp_path / "store", EXACT._replace(maps="encoded"), shown=False)
    made(stored(value, tmp_path / "store"))
    for methods, words in (
        (HINTS, "only what attention_transfer needs .* are fitnet_hints"),
        (ATTENTION | HINTS, "are attention_transfer, fitnet_hints"),
        ({"attention_transfer": {"weight": 1.0, "power": 4.0}}, "'power': 2.0.*'power': 4.0"),
    ):
        with pytest.raises(StoreError, match=words):
            made(stored(asked(teacher, methods=methods), tmp_path / "store"))
    lighter = {"attention_transfer": {"weight": 7.0}}
    made(stored(asked(teacher, methods=lighter), tmp_path / "store"))


@pytest.mark.parametrize("methods", [HINTS, HINTS | ATTENTION])
def test_what_cannot_do_with_less_says_so(teacher: Path, tmp_path: Path, methods: Any):
    value = asked(teacher, methods=methods)
    with pytest.raises(Exception, match=r"Maps can be stored encoded where one method"):
        cache(resolved(value), tmp_path / "store", EXACT._replace(maps="encoded"), shown=False)
    assert not (tmp_path / "store").exists()


def test_maps_of_equal_size_are_pooled_to_themselves(teacher: Path, tmp_path: Path):
    value = asked(teacher, steps=3, methods=HINTS, precision="bf16")
    cache(resolved(value), tmp_path / "store", EXACT._replace(maps="pooled"), shown=False)
    live = losses(value, tmp_path, "live")
    assert losses(stored(value, tmp_path / "store"), tmp_path, "cached") == live


# What it costs, before it does


def test_a_plan_is_arithmetic(teacher: Path, tmp_path: Path):
    found = plan(resolved(asked(teacher, steps=40)), tmp_path / "store", Choices(shard_size=100))
    assert not (tmp_path / "store").exists()
    # 200 pictures · 3 views · 10 logits · 2 bytes + (2 · 100 + 500) · 10 · 4 + 800 · 8 of index
    assert found["bytes"] == 12_000 + 28_000 + 6_400
    assert found["entry_bytes"] == {"train": 20, "validation": 80, "test": 40}
    assert found["teacher_passes"] == 3 * 200 + 2 * 100 + 500
    assert found["break_even_epoch"] == 3  # 600 passes at 200 an epoch
    assert found["epochs"] == 10.0
    assert (found["shards"], found["there"]) == (3 * 2 + 1 + 1, 0)


@pytest.mark.parametrize(
    ("entry_bytes", "batch_size", "wanted"),
    [(20, 128, 16_384), (57_364, 128, 36 * 128), (20, 500, 32 * 500), (2**30, 128, 128)],
)
def test_files_hold_whole_batches_and_not_too_many_bytes(
    entry_bytes: int, batch_size: int, wanted: int
):
    assert Choices().entries(entry_bytes, batch_size) == wanted


def test_top_is_planned_after_asking_a_few(teacher: Path, tmp_path: Path):
    choices = Choices(logits="top", share=0.2, shard_size=100)
    found = plan(resolved(asked(teacher)), tmp_path / "store", choices)
    top = found["logits"]["top"]
    assert 1 <= top < 4
    assert found["logits"]["temperature"] == 4.0  # kd's
    assert found["entry_bytes"]["train"] == 4 * top + 4
    assert found["teacher_passes"] == 3 * 200 + 700 + 200


def test_top_that_saves_nothing_is_stored_whole(teacher: Path, tmp_path: Path):
    with pytest.warns(NoEffectWarning, match="no fewer bytes than all of them in fp16"):
        found = plan(resolved(asked(teacher)), tmp_path / "s", Choices(logits="top", share=0.999))
    assert found["logits"]["kind"] == "fp16"


def test_a_disk_that_is_too_small_is_said_before_the_teacher_is_asked(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("tutelage.runs.caching.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match=r"takes 0\.00 GB, and where .* 0\.00 GB are free"):
        cache(resolved(asked(teacher)), tmp_path / "store", shown=False)
    assert not (tmp_path / "store").exists()


def test_a_teacher_at_chance_is_not_asked(teacher: Path, tmp_path: Path):
    weights = tmp_path / "untrained.safetensors"
    untrained = made(recipe(student={"name": "resnet8", "width": 8})).student
    nn.init.normal_(untrained.module.get_submodule("linear").get_parameter("weight"))
    save_file(untrained.module.state_dict(), weights)
    entry = {"name": "resnet8", "width": 8, "checkpoint": str(weights)}
    with pytest.raises(Exception, match="which is chance"):
        cache(resolved(asked(teacher, teacher=entry)), tmp_path / "store", shown=False)
    assert not (tmp_path / "store").exists()


def test_what_was_noted_can_be_read(store: Path):
    about = json.loads((store / "manifest.json").read_text())["about"]
    assert about["made"]["threads"] == 1
    assert about["validation_accuracy"] > 0.2
    assert [stage["name"] for stage in about["stages"]] == ["layer1", "layer2", "layer3"]


def test_a_file_in_the_place_of_a_folder_is_named(teacher: Path, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=r"is no store|cannot be made: Not a directory"):
            cache(resolved(asked(teacher)), folder, EXACT, shown=False)
        with pytest.raises(RecipeError, match="is a file or lies below one"):
            train(stored(asked(teacher), folder), name="run", runs=tmp_path, shown=False)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_the_place_of_a_shard_is_named(teacher: Path, store: Path, tmp_path: Path):
    copied = tmp_path / "store"
    shutil.copytree(store, copied)
    shard = min(copied.glob("train-*.safetensors"))
    shard.unlink()
    shard.mkdir()
    with pytest.raises(StoreError, match="is a folder where a file of the store belongs"):
        cache(resolved(asked(teacher)), copied, EXACT, shown=False)
