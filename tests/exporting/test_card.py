from typing import Any

import pytest
import yaml
from exported_files import about

from tutelage.exporting import Form, card

ENTRY: dict[str, Any] = {
    "name": "onnx-int8",
    "parameters": 4900,
    "macs": 48500,
    "threads": 2,
    "command": "tutelage export runs/x --to onnx",
    "hardware": {"processor": "Some CPU"},
    "bytes": {"network": 20000, "exported": 9000},
    "latency_ms": {"network": 1.25, "exported": 0.5},
    "parity": {
        "pictures": 500,
        "largest_difference": 0.123456,
        "same_answer": 0.998,
        "accuracy": {"network": 0.94, "exported": 0.938},
        "teacher_agreement": {"network": 0.954, "exported": 0.95},
    },
}
RECORD: dict[str, Any] = {
    "name": "mine",
    "recipe": {"schema": 1, "student": {"name": "tiny"}},
    "data": {"classes": 3},
    "hardware": {"processor": "where it was trained"},
    "commit": None,
    "code": "0123",
}


def test_it_says_what_was_measured_and_how_it_is_called():
    text = card(about(Form("onnx", "int8")), ENTRY, RECORD, "")
    assert "| PyTorch, fp32 | 94.0 % | 95.4 % | 20,000 | 1.25 ms |" in text
    assert "| onnx-int8 | 93.8 % | 95.0 % | 9,000 | 0.50 ms |" in text
    assert "500 test pictures" in text
    assert "difference of a logit is 0.123" in text
    assert "3 classes (a, b, c)" in text
    assert "## License" in text
    assert "2 thread(s), Some CPU." in text
    assert "where it was trained" not in text
    assert "tutelage predict model.onnx" in text
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["pipeline_tag"] == "image-classification"


def test_without_a_teacher_it_has_no_column_for_it():
    parity = ENTRY["parity"] | {"teacher_agreement": None}
    text = card(about(Form()), ENTRY | {"parity": parity}, RECORD, "")
    assert "as its teacher" not in text
    assert "| PyTorch, fp32 | 94.0 % | 20,000 | 1.25 ms |" in text


@pytest.mark.parametrize("form", [Form(), Form("torch"), Form("executorch", batch=1)])
def test_its_code_is_python(form: Form):
    text = card(about(form), ENTRY, RECORD, "import timm\n\nnetwork = 1")
    blocks = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "card", "exec")


def test_how_pictures_must_come_is_said():
    assert "pixels in [0, 1]; it normalizes by itself" in card(about(Form()), ENTRY, RECORD, "")
    said = card(about(Form(normalized=True, batch=4)), ENTRY, RECORD, "")
    assert "minus (0.5), over (0.5)" in said
    assert "exactly 4 gray pictures of 8×8" in said


EVIL = "<script>alert(1)</script> [x](javascript:y) `a` |b| *c* _d_\n# e"


def test_names_cannot_become_markup():
    record = RECORD | {"name": EVIL, "code": EVIL}
    entry = ENTRY | {"hardware": {"processor": EVIL}, "command": EVIL.replace("`", "```")}
    evil = about(Form())._replace(classes=(EVIL, "b", "c"), name=EVIL)
    text = card(evil, entry, record, "")
    outside = "\n".join(part for part in text.split("```")[::2])
    assert "<script>" not in outside
    assert "](javascript" not in outside.replace("\\]", "")
    assert "\n# e" not in outside
    assert "|b|" not in outside


def test_a_recipe_cannot_end_its_block():
    record = RECORD | {"recipe": {"note": "```\n<script>\n````"}}
    text = card(about(Form()), ENTRY, record, "")
    assert "`````yaml" in text
    assert text.count("`````") == 2
