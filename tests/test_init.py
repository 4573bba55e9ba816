"""The public names: each is there, is what it says, and comes only when it is asked for."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import tutelage

NAMES = sorted(tutelage._PUBLIC)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_the_thing_of_that_name(name: str):
    thing = getattr(tutelage, name)
    assert thing.__name__ == name
    assert thing.__module__.startswith("tutelage.")
    assert thing.__doc__
    assert getattr(import_module(thing.__module__), name) is thing


def test_what_type_checkers_see_is_what_there_is():
    tree = ast.parse(Path(tutelage.__file__).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (alias.asname, node.module)
        for node in blocks[0].body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == set(tutelage._PUBLIC.items())
    assert len(seen) > 5


def test_the_listing_and_a_star_import_show_them():
    assert dir(tutelage) == sorted(tutelage.__all__)
    into: dict[str, object] = {}
    exec("from tutelage import *", into)
    assert {*NAMES, "__version__"} <= set(tutelage.__all__) <= into.keys()
    assert tutelage.methods is import_module("tutelage.methods")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tutelage' has no attribute 'Destiller'"):
        tutelage.Destiller  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
