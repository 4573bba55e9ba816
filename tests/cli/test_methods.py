import inspect
from typing import Any

import pytest
import yaml

from tutelage.methods import METHODS


def test_the_index_has_a_line_for_each(call: Any):
    code, out, _ = call("methods")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(METHODS)
    assert "The student learns to look where the teacher looks." in out


@pytest.mark.parametrize("name", METHODS)
def test_a_card_ends_with_what_a_recipe_may_say(name: str, call: Any):
    code, out, _ = call("methods", name)
    assert code == 0
    assert all(f"## {head}" in out for head in ("Idea", "Formula", "Needs", "Settings", "Source"))
    said = yaml.safe_load(inspect.cleandoc(out.partition("## In a recipe")[2]))
    settings = said["methods"][name]
    assert settings.pop("weight") == 1.0
    METHODS[name](**settings)
    assert settings.keys() == inspect.signature(METHODS[name]).parameters.keys()


def test_an_unknown_method_is_answered_with_the_nearest(call: Any):
    code, out, err = call("methods", "kdd")
    assert (code, out) == (2, "")
    assert "did you mean kd?" in err
