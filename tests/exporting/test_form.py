import json

import pytest

from tutelage.data.photographs import Rule
from tutelage.errors import CheckpointError, SettingError
from tutelage.exporting import About, Form
from tutelage.types import InputSpec

ABOUT = About(
    name="resnet8",
    subnet=None,
    classes=("cat", "dög"),
    spec=InputSpec(8, 10, 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
    rule=Rule(10, 12, 3),
    form=Form("onnx", "int8", 3, normalized=True),
    weights="abc",
    made_by="1.2",
)


@pytest.mark.parametrize(
    ("form", "name", "file"),
    [
        (Form(), "onnx-fp32", "model.onnx"),
        (Form("onnx", "int8", 1), "onnx-int8-batch1", "model.onnx"),
        (Form("torch", "fp16", None, True), "torch-fp16-normalized", "model.pt2"),
        (Form("executorch"), "executorch-fp32", "model.pte"),
        (Form("executorch", batch=1), "executorch-fp32", "model.pte"),
        (Form("executorch", batch=4), "executorch-fp32-batch4", "model.pte"),
    ],
)
def test_forms_are_told_apart_by_name(form: Form, name: str, file: str):
    assert (form.name, form.file) == (name, file)


def test_executorch_plans_its_memory_for_a_number_of_pictures():
    assert Form("executorch").check() == Form("executorch", batch=1)
    assert Form("onnx").check() == Form("onnx")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (Form("onxx"), "There is no target 'onxx'; did you mean onnx?"),  # pyright: ignore[reportArgumentType]
        (Form(precision="int4"), "There is no precision 'int4'"),  # pyright: ignore[reportArgumentType]
        (Form(batch=0), "A batch is of 1 to 4,096 pictures, but 0 are asked for"),
        (Form(batch=4097), "4097 are asked for. Leave it out"),
        (Form("torch", "int8"), "int8 is for onnx and executorch"),
    ],
)
def test_a_form_that_does_not_exist_is_refused(form: Form, said: str):
    with pytest.raises(SettingError, match=said):
        form.check()


def test_what_a_file_says_of_itself_comes_back():
    again = About.from_json(ABOUT.to_json(), "x")
    assert again == ABOUT
    assert isinstance(again.form, Form)
    assert isinstance(again.spec, InputSpec)
    assert isinstance(again.rule, Rule)


def test_a_file_that_normalizes_is_shown_pixels():
    assert ABOUT.shown == ABOUT.spec
    plain = ABOUT._replace(form=Form()).shown
    assert plain == ABOUT.spec._replace(mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"name": "x"}', '{"spec": 1}'])
def test_other_files_are_not_taken_for_ours(text: str):
    with pytest.raises(CheckpointError, match=r"model\.onnx does not say what network it holds"):
        About.from_json(text, "model.onnx")


@pytest.mark.parametrize(
    "changes",
    [
        {"side": "8"},
        {"rule": {"size": 80, "side": 8, "channels": 3}},
        {"rule": {"size": 8, "side": 8, "channels": 2}},
        {"form": {"target": "onnx", "precision": "fp32", "batch": 0, "normalized": False}},
        {"form": {"target": "onnx", "precision": "fp32", "batch": 1.5, "normalized": False}},
        {"spec": {"height": "x", "width": 8, "channels": 1, "mean": [0], "std": [1]}},
        {"spec": {"height": 8, "width": 8, "channels": 2, "mean": [0], "std": [1]}},
        {"spec": {"height": 8, "width": 8, "channels": 1, "mean": [0], "std": [0]}},
        {"spec": {"height": 10**9, "width": 8, "channels": 1, "mean": [0], "std": [1]}},
        {"classes": [1, 2]},
        {"name": None},
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object]):
    text = json.dumps(json.loads(ABOUT.to_json()) | changes)
    with pytest.raises(CheckpointError, match="does not say what network it holds"):
        About.from_json(text, "x")
