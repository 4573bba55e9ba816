"""What a comparison may say, how rows build on each other, and what is refused in words."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import recipe

from tutelage.comparison import read_spec
from tutelage.errors import RecipeError
from tutelage.recipes import plain, read_recipe

SPEC: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "base": recipe(),
    "seeds": [0, 1],
    "controls": "none",
    "rows": {"a": {}},
}


TAUGHT = {
    "methods": {"kd": {"weight": 1}},
    "teacher": {"name": "resnet8", "checkpoint": "nowhere.safetensors"},
}


def test_rows_differ_from_the_base_in_what_they_set():
    spec = read_spec(SPEC | {"rows": {"a": {}, "b": {"set": {"student.width": 5}}}})
    a, b = (plain(spec.recipe(spec.settings(row, {}), 1)) for row in ("a", "b"))
    assert (a["student"]["width"], b["student"]["width"]) == (2, 5)
    assert a["seed"] == b["seed"] == 1
    assert a["train"] == b["train"]


def test_a_row_that_is_like_another_starts_from_it():
    rows = {
        "c": {"like": "b", "set": {"train.steps": 9}},
        "b": {"like": "a", "set": {"student.width": 6, "task_weight": 0.5}},
        "a": {"set": {"student.width": 5, "train.phases": 2}},
    }
    spec = read_spec(SPEC | {"rows": rows})
    assert spec.settings("c", {}) == {
        "student.width": 6,
        "train.phases": 2,
        "task_weight": 0.5,
        "train.steps": 9,
    }


def test_the_base_may_be_a_file_or_a_packaged_recipe(tmp_path: Path):
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(recipe(steps=7)))
    spec = read_spec(SPEC | {"base": str(path)})
    assert spec.recipe({}, 0).train.steps == 7
    packaged = read_spec(SPEC | {"base": "digits", "seeds": [3]})
    assert packaged.recipe({"seed": 3}, 3) == read_recipe("digits", ["seed=3"])


def test_a_specification_may_be_a_file(tmp_path: Path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC))
    assert read_spec(path) == read_spec(SPEC)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"naem": "x"}, ["'naem' is no key", "did you mean name?"]),
        ({"name": "a b"}, ["name must be made of letters", "'a b'"]),
        ({"name": 3}, ["name must be a text"]),
        ({"seeds": []}, ["seeds must be at least one entry long"]),
        ({"seeds": [1, 1]}, ["names a seed twice"]),
        ({"seeds": ["x"]}, ["seeds.0 must be a whole number"]),
        ({"schema": 2}, ["must say `schema: 1`", "2"]),
        ({"rows": {}}, ["rows must be at least one entry"]),
        ({"rows": {"a": {"sett": {}}}}, ["'rows.a.sett' is no key", "did you mean set?"]),
        ({"rows": {"a": {"like": "b"}}}, ["'b'", "a is like"]),
        ({"rows": {"a": {"like": "b"}, "b": {"like": "a"}}}, ["in a circle"]),
        ({"rows": {"a": {"set": {"train.stpes": 5}}}}, ["'train.stpes'", "did you mean steps?"]),
        ({"rows": {"a": {"choose": {"train.steps": []}}}}, ["choose.train.steps", "one entry"]),
        ({"rows": {"a": {"choose": {"train.steps": 5}}}}, ["choose.train.steps", "a list"]),
        ({"rows": {"a": {"choose": {"train.steps": [2, "x"]}}}}, ["train.steps", "'x'"]),
        (
            {"rows": {"a": {"choose": {"train.steps": [2, 3], "seed": [1, 2]}}}},
            ["sets the seed", "`seeds`"],
        ),
        ({"rows": {"a": {"set": {"seed": 9}}}}, ["sets the seed", "`seeds`"]),
        ({"controls": {"short": "a", "long": "z"}}, ["'z'", "control", "Known: a"]),
        ({"controls": {"short": "a"}}, ["long", "missing"]),
        ({"controls": "nine"}, ["controls", "'nine'"]),
        ({"controls": {"short": "a", "long": "a"}}, ["cannot be both controls"]),
        (
            {"rows": {"a": {}, "b": {}}, "controls": {"short": "a", "long": "b"}},
            ["b takes 3 steps, and a 3", "takes more"],
        ),
        (
            {
                "rows": {"a": {"set": TAUGHT}, "b": {"set": {"train.steps": 9}}},
                "controls": {"short": "a", "long": "b"},
            },
            ["a is named as a control, but learns by kd", "`methods: []`", "`controls: none`"],
        ),
        ({"axes": {"student.width": [2, 4, 2]}}, ["axis student.width", "twice"]),
        ({"axes": {"data.labelled": [100, 100.0]}}, ["axis data.labelled", "twice"]),
        (
            {"axes": {"student": [{"name": "resnet8"}], "student.width": [2]}},
            ["axes student and student.width"],
        ),
        (
            {"axes": {"student.width": [2]}, "rows": {"a": {"set": {"student.width": 4}}}},
            ["a sets student.width", "an axis"],
        ),
        (
            {"axes": {"student.width": [2]}, "rows": {"a": {"set": {"student": {}}}}},
            ["a sets student, and student.width is an axis"],
        ),
        ({"base": {"schema": 1}}, ["base: ", "missing"]),
        ({"base": "digit"}, ["'digit'", "did you mean digits?"]),
        ({"note": float("nan")}, ["note must be a finite number"]),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(change: dict[str, Any], words: list[str]):
    with pytest.raises(RecipeError) as error:
        read_spec(SPEC | change)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    for word in words:
        assert word in text, text


def test_controls_cannot_be_forgotten():
    without = {key: value for key, value in SPEC.items() if key != "controls"}
    with pytest.raises(RecipeError, match="'controls' is missing"):
        read_spec(without)


@pytest.mark.parametrize("value", [[], {}, 3, {"schema": 1, "data": {}}])
def test_what_is_no_comparison_is_told_so(value: Any, tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(RecipeError, match=r"no rows.*tutelage train"):
        read_spec(path)
