"""What may be said: packaged recipes, defaults, overrides, and words for all that is wrong."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny import recipe

from tutelage.comparison import read_spec
from tutelage.data import DATASETS, Views
from tutelage.engine import TrainSettings
from tutelage.errors import RecipeError
from tutelage.methods import METHODS
from tutelage.models import NETWORKS
from tutelage.recipes import (
    Recipe,
    apply_overrides,
    dump,
    json_schema,
    leave_open,
    packaged,
    plain,
    read_mapping,
    read_recipe,
    settings_of,
    validate,
)

PACKAGED = {name: yaml.safe_load(text) for name, text in packaged().items()}
RECIPES = sorted(name for name, value in PACKAGED.items() if "rows" not in value)
SPECS = sorted(PACKAGED.keys() - RECIPES)
FULL = {
    "schema": 1,
    "data": {"source": "digits", "validation": 100},
    "student": "resnet8",
    "teacher": "weights.th:resnet14",
    "methods": {"kd": {"weight": 0.9}, "attention_transfer": {"weight": {"kind": "linear"}}},
    "train": {"steps": 10},
}


# What is packaged


@pytest.mark.parametrize("name", RECIPES)
def test_packaged_recipes_are_valid(name: str):
    assert read_recipe(name).train.steps > 0


@pytest.mark.parametrize("name", SPECS)
def test_packaged_comparisons_are_valid(name: str):
    assert read_spec(name).rows


def test_something_is_packaged():
    assert {"digits", "digits-teacher", "cifar10-small"} <= set(RECIPES)
    assert "digits-demo" in SPECS


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_packaged_recipes_open_with_a_claim_and_a_command(name: str):
    comment = packaged()[name].partition("schema:")[0]
    assert all(line.startswith("#") for line in comment.splitlines())
    assert any(word in comment for word in ("tutelage train", "tutelage compare", "make demo"))


# Defaults


@pytest.mark.parametrize("value", [FULL, *(PACKAGED[name] for name in RECIPES)])
def test_what_is_written_out_is_read_back_as_the_same(value: Any):
    once = validate(value, "x")
    text = dump(once)
    again = validate(yaml.safe_load(text), "x")
    assert again == once
    assert dump(again) == text


def test_every_default_is_written_out():
    written = plain(validate(FULL, "x"))
    assert written["student"].keys() == {"name"} | keys_of(NETWORKS["resnet8"])
    assert written["teacher"].keys() == {"name", "checkpoint"} | keys_of(NETWORKS["resnet14"])
    assert written["data"]["source"].keys() == {"name"} | keys_of(DATASETS["digits"])
    assert written["data"]["views"].keys() == keys_of(Views)
    for name in ("kd", "attention_transfer"):
        assert written["methods"][name].keys() == {"weight"} | keys_of(METHODS[name])
    assert written["methods"]["attention_transfer"]["weight"] == {
        "kind": "linear",
        "from": 1.0,
        "to": 0.0,
        "start": 0.0,
        "end": 1.0,
    }
    assert written["task"] == {"label_smoothing": 0.0, "class_weights": None}
    assert written["train"].keys() == {field.name for field in fields(TrainSettings)}
    assert written["train"]["optimizer"]["weight_decay"] == 5e-4
    assert written["train"]["schedule"].keys() > {"name"}


def keys_of(constructor: Callable[..., Any]) -> set[str]:
    return set(settings_of(constructor).model_fields)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"student": "resnet8"}, {"student": {"name": "resnet8"}}),
        ({"student": "a:b.th:resnet8"}, {"student": {"name": "resnet8", "checkpoint": "a:b.th"}}),
        ({"methods": []}, {"methods": {}}),
        ({"train": {"steps": 3, "optimizer": "adamw"}},
         {"train": {"steps": 3, "optimizer": {"name": "adamw"}}}),
        ({"train": {"steps": 3, "optimizer": {"lr": 0.2}}},
         {"train": {"steps": 3, "optimizer": {"name": "sgd", "lr": 0.2}}}),
        ({"methods": None}, {}),
        ({"data": {"source": "digits", "validation": 9, "views": None}},
         {"data": {"source": {"name": "digits"}, "validation": 9}}),
    ],
)  # fmt: skip
def test_short_forms_mean_the_long_ones(short: Any, long: Any):
    assert validate(recipe() | short, "x") == validate(recipe() | long, "x")


def test_methods_come_by_name_in_whatever_order_they_are_written():
    names = ["kd", "fitnet_hints", "attention_transfer"]
    for order in (names, names[::-1]):
        value = recipe(methods={name: {"weight": 1.0} for name in order})
        assert list(validate(value, "x").methods) == sorted(names)


# Overrides


def test_overrides_replace_what_lies_at_dotted_keys(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(FULL))
    words = ["train.steps=7", "methods.kd.temperature=2.5", "student.width=4", "seed=3"]
    got = plain(read_recipe(path, [*words, "teacher=null", "methods.attention_transfer.weight=5"]))
    assert got["train"]["steps"] == 7
    assert got["methods"]["kd"]["temperature"] == 2.5
    assert got["methods"]["attention_transfer"]["weight"] == 5.0
    assert (got["student"]["name"], got["student"]["width"]) == ("resnet8", 4)
    assert (got["seed"], got["teacher"]) == (3, None)
    assert yaml.safe_load(path.read_text()) == FULL


def test_overriding_leaves_the_original_alone():
    value = {"train": {"steps": 5, "phases": 1}}
    assert apply_overrides(value, {"train.steps": 6})["train"] == {"steps": 6, "phases": 1}
    assert value == {"train": {"steps": 5, "phases": 1}}


def test_a_key_below_a_number_is_refused():
    with pytest.raises(RecipeError, match="seed holds no keys"):
        apply_overrides({"seed": 1}, {"seed.steps": 2})


@pytest.mark.parametrize("text", ["steps", "=3", "a={", "a=2020-99-99", "a=" + "[" * 3000])
def test_what_is_no_override_is_refused(text: str, tmp_path: Path):
    with pytest.raises(RecipeError):
        read_recipe("digits", [text])


# What is wrong, in words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"studnt": 1}, ["'studnt' is no key", "did you mean student?"]),
        ({"labelled": 5}, ["write data.labelled"]),
        ({"steps": 5}, ["write train.steps"]),
        ({"train": {"steps": 5, "bach_size": 5}}, ["train.bach_size", "batch_size?"]),
        ({"train": {}}, ["'train.steps' is missing"]),
        ({"train": {"steps": "many"}}, ["train.steps must be a whole number", "'many'"]),
        ({"train": {"steps": 0}}, ["steps must be at least 1"]),
        ({"train": {"steps": 5, "precision": "fp8"}}, ["precision", "fp32 or bf16", "fp8"]),
        ({"train": {"steps": 5, "optimizer": "sdg"}}, ["no optimizer 'sdg'", "sgd?"]),
        ({"train": {"steps": 5, "optimizer": {"name": "sgd", "rl": 1}}}, ["'rl'", "lr"]),
        ({"train": {"steps": 5, "schedule": "onecycle"}}, ["did you mean one_cycle?"]),
        ({"student": "resnet9"}, ["no network 'resnet9'", "did you mean resnet?"]),
        ({"student": {"width": 4}}, ["network must be a name"]),
        ({"student": {"name": "resnet8", "widht": 4}}, ["'widht'", "did you mean width?"]),
        ({"student": {"name": "resnet8", "num_classes": 3}}, ["'num_classes' is no key"]),
        ({"student": {"name": "resnet8", "checkpoint": 5}}, ["a file's name", "5"]),
        ({"student": {"name": "resnet8", "new_head": True}}, ["goes with a checkpoint"]),
        (
            {"student": {"name": "resnet8", "checkpoint": "x", "new_head": 1}},
            ["new_head is true or false, not 1"],
        ),
        (
            {"teacher": {"name": "resnet8", "checkpoint": "x", "new_head": True}},
            ["new_head: true is for what is trained"],
        ),
        ({"student": {"name": "resnet8", "mean": 0.5}}, ["mean", "list of numbers"]),
        ({"student": {"run": "x", "width": 4}}, ["{run: FOLDER}, with subnet", "nothing else"]),
        ({"student": {"run": "x", "subnet": 8}}, ["sub-net's name in quotes, not 8"]),
        ({"student": {"name": "resnet14", "subnets": [2]}}, ["subnets is a mapping", "not [2]"]),
        ({"student": {"name": "resnet14", "subnets": {"8": "one"}}}, ["subnets is a mapping"]),
        ({"student": {"name": "resnet14", "subnets": {"8": [1, True, 1]}}}, ["a mapping"]),
        (
            {"student": {"name": "resnet14", "subnets": {"8": 1}, "subnet_norms": "own"}},
            ["subnet_norms is separate or shared, not 'own'"],
        ),
        ({"subnet_weight": -1}, ["subnet_weight"]),
        ({"student": {"name": "resnet14", "subnets": {}}}, ["subnets is a mapping", "not {}"]),
        ({"student": {"name": "resnet14", "subnets": {8: 1}}}, ["the key 8 is no text"]),
        ({"methods": ["kd"]}, ["kd needs a weight"]),
        ({"methods": [["kd"]]}, ["methods is a mapping"]),
        ({"methods": {"kdd": {}}}, ["no method 'kdd'", "did you mean kd?"]),
        ({"methods": {"kd": 3}}, ["settings of kd must be a mapping"]),
        ({"methods": {"kd": {"weight": "big"}}}, ["weight of kd must be a number"]),
        ({"methods": {"kd": {"weight": True}}}, ["weight of kd must be a number"]),
        ({"methods": {"kd": {"weight": {"kind": "step"}}}}, ["kind", "constant", "step"]),
        ({"methods": {"kd": {"weight": {"kind": "linear", "form": 1}}}}, ["'form'", "from?"]),
        ({"methods": {"kd": {"weight": float("nan")}}}, ["weight must be a finite number"]),
        ({"methods": {"kd": {"weight": {"kl": {"a": 1}}}}}, ["weight of kd, kl must be a number"]),
        ({"methods": {"kd": {"weight": {"kl": None}}}}, ["weight of kd, kl must be a number"]),
        ({"task_weight": {"a": 1}}, ["task_weight", "number or a schedule", "{'a': 1}"]),
        ({"student": ":resnet8"}, ["student", "FILE:NAME", "':resnet8'"]),
        ({"teacher": "x:"}, ["teacher", "FILE:NAME", "'x:'"]),
        ({"student": {"name": ["a:b"]}}, ["student"]),
        (
            {"student": {"name": "a.pt:resnet8", "checkpoint": "b.pt"}},
            ["'a.pt:resnet8' names a file with weights, and so does checkpoint"],
        ),
        ({"task": {"smoothing": 0.1}}, ["'smoothing'", "label_smoothing"]),
        ({"task": 3}, ["task must be a mapping"]),
        ({"taps": ["layer1"]}, ["list of pairs"]),
        ({"data": {"source": "digit", "validation": 5}}, ["'digit'", "did you mean digits?"]),
        ({"data": {"source": "digits", "validation": 9, "views": 4}}, ["views is a mapping"]),
        ({"data": {"source": "digits", "validation": 9, "views": {"flop": 1}}}, ["flip?"]),
        ({"data": {"source": "digits", "validation": 9, "views": {"flip": "no way"}}},
         ["flip must be true or false", "'no way'"]),
        ({"data": {"source": "digits", "validation": 9, "views": {"mixup": -1.0}}}, ["mixup"]),
        ({"schema": 2}, ["must say `schema: 1`", "2"]),
        ({"rows": {}}, ["tutelage compare"]),
        ({7: 1}, ["the key 7 is no text"]),
        ({"seed": 10**30}, ["seed", "63 bits"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_sentence(change: dict[Any, Any], words: list[str]):
    with pytest.raises(RecipeError) as error:
        validate(recipe() | change, "mine.yaml")
    text = str(error.value)
    assert text.startswith("mine.yaml")
    assert text.endswith(".")
    assert "\n" not in text
    assert "pydantic" not in text
    for word in words:
        assert word in text


def test_a_student_may_be_left_open_but_not_left_out():
    assert validate(recipe(student=None), "x").student is None
    without = {key: value for key, value in recipe().items() if key != "student"}
    with pytest.raises(RecipeError, match="'student' is missing"):
        validate(without, "x")
    assert validate(leave_open(without, ["student"]), "x").student is None


@pytest.mark.parametrize("text", ["", "# nothing\n", "a: [", "a: 2020-99-99", "[" * 5000, "\0"])
def test_what_is_no_recipe_is_no_traceback(text: str, tmp_path: Path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"bad\.yaml"):
        read_mapping(path)


@pytest.mark.parametrize("text", ["&a [*a]", "&a {b: *a}"])
def test_a_value_that_holds_itself_is_refused(text: str, tmp_path: Path):
    value = recipe(taps=yaml.safe_load(text))
    with pytest.raises(RecipeError, match="deep"):
        validate(value, "x")


def scalars() -> st.SearchStrategy[Any]:
    numbers = st.integers() | st.floats() | st.booleans()
    return st.none() | numbers | st.text(max_size=5) | st.dates() | st.binary(max_size=3)


KEYS = st.sampled_from(
    ["name", "run", "weight", "kind", "kd", "steps", "mean", "source", "sgd", "resnet8", "0"]
)
NAMES = st.sampled_from(["resnet8", "digits", "kd", "sgd", "auto", "a:resnet8", "linear"])
VALUES = st.recursive(
    scalars() | NAMES,
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(KEYS | st.text(max_size=4) | st.integers(), inside, max_size=3)
    ),
    max_leaves=6,
)
PLACES = st.sampled_from(
    [
        (*path, key)
        for path, keys in {
            (): ["seed", "data", "student", "teacher", "methods", "taps", "task", "task_weight"],
            ("data",): ["source", "limit", "validation", "labelled", "views", "num_views"],
            ("data", "views"): ["flip", "mixup", "crop_padding"],
            ("student",): ["name", "width", "checkpoint", "mean"],
            ("methods", "kd"): ["weight", "temperature"],
            ("train",): ["steps", "optimizer", "schedule", "early_stopping", "trackers", "phases"],
        }.items()
        for key in keys
    ]
)


@given(PLACES, VALUES)
def test_any_value_anywhere_is_accepted_or_refused_in_words(place: tuple[str, ...], value: Any):
    changed = apply_overrides(recipe(methods={"kd": {"weight": 1.0}}), {".".join(place): value})
    accepted = accepted_or_words(changed)
    if isinstance(accepted, Recipe):
        assert validate(yaml.safe_load(dump(accepted)), "x") == accepted
    else:
        assert accepted.startswith("x")
        assert len(accepted) < 2000


def accepted_or_words(value: Any) -> Recipe | str:
    try:
        return validate(value, "x")
    except RecipeError as error:
        return str(error)


@given(VALUES)
def test_any_value_as_a_whole_is_refused_in_words(value: Any):
    with pytest.raises(RecipeError):
        validate(value, "x")


# A teacher that answers from a store


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"cache": "s"}, {"cache": "s"}),
        ({"run": "r", "cache": "s"}, {"run": "r", "cache": "s"}),
        ({"run": "r", "cache": None}, {"run": "r"}),
        ({"name": "f.th:resnet14", "cache": "s"}, "f.th:resnet14"),
        ({"name": "resnet14", "width": 8, "cache": "s"}, {"name": "resnet14", "width": 8}),
    ],
)
def test_a_cache_stands_beside_its_teacher_or_alone(said: Any, wanted: Any):
    got = plain(validate(recipe(teacher=said), "x"))["teacher"]
    if isinstance(wanted, str) or "name" in wanted:
        wanted = plain(validate(recipe(teacher=wanted), "x"))["teacher"] | {"cache": "s"}
    assert got == wanted
    assert plain(validate(recipe(teacher=got), "x"))["teacher"] == got


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher": {"cache": 3}}, "cache must be the folder of a store, not 3"),
        ({"student": {"name": "resnet8", "cache": "s"}}, "'cache' is no key of resnet8"),
        ({"teacher": {"run": "r", "cache": "s", "width": 3}}, "and nothing else"),
    ],
)
def test_a_cache_is_a_teachers_and_a_folder(change: dict[str, Any], words: str):
    with pytest.raises(RecipeError, match=words):
        validate(recipe(**change), "x")


# The schema for editors


@pytest.mark.parametrize("value", [FULL, *(PACKAGED[name] for name in RECIPES)])
def test_the_schema_knows_every_key_of_a_recipe(value: Any):
    schema = json_schema()
    assert unknown(plain(validate(value, "x")), schema, schema) == []
    assert unknown(value, schema, schema) == []


def test_the_schema_refuses_what_is_unknown():
    schema = json_schema()
    bad = recipe(studnet=1, methods={"kd": {"temprature": 1}, "dk": {}}, bach=2)
    bad["train"] = {"steps": 1, "bach_size": 3}
    found = unknown(bad, schema, schema)
    assert {"studnet", "methods.kd.temprature", "methods.dk", "train.bach_size"} <= set(found)
    assert "methods.kd.weight is missing" in found


def unknown(value: Any, schema: Any, root: Any, place: str = "") -> list[str]:
    """Keys that a schema does not know, or misses; types are left to a real validator."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return min((unknown(value, option, root, place) for option in options), key=len)
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    found = [f"{place}{key} is missing" for key in schema.get("required", []) if key not in value]
    for key, inside in value.items():
        if key in schema["properties"]:
            found += unknown(inside, schema["properties"][key], root, f"{place}{key}.")
        elif schema.get("additionalProperties") is False:
            found.append(f"{place}{key}")
    return found
