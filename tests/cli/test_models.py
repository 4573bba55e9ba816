"""`tutelage models`."""

import json
from typing import Any

import pytest


def test_all_names_are_listed_and_a_pattern_selects(call: Any):
    names = call("models").out.split()
    assert names[0] == "resnet8"
    assert len(names) > 1000
    some = json.loads(call("models", "shufflenet*", "--json").out)
    assert some == [name for name in names if name.startswith("shufflenet")]
    assert some


def test_a_network_is_shown_with_what_it_is_shown_and_its_settings(call: Any):
    said = call("models", "vit_tiny_patch16_224").out
    assert "224×224; mean [0.5, 0.5, 0.5]" in said
    assert "pretrained" in said
    found = json.loads(call("models", "resnet8", "--json").out)
    assert found["library"] == "tutelage"
    assert found["settings"]["width"] == 16
    assert (found["mean"], found["size"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet500", "no network 'resnet500'; did you mean resnet50?"),
        ("x*y*z", "called like 'x*y*z"),
    ],
)
def test_an_unknown_name_or_pattern_is_refused(name: str, said: str, call: Any):
    refused = call("models", name)
    assert refused.code == 2
    assert said in refused.err
