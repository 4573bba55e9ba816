"""The index of sources is complete."""

import inspect
from importlib import import_module
from pathlib import Path

import tutelage.data
from tutelage.data import DATASETS
from tutelage.data.pictures import Source


def test_every_source_is_in_the_index_under_its_own_name() -> None:
    found = {}
    for file in sorted(Path(tutelage.data.__path__[0]).glob("[a-z]*.py")):
        if file.stem == "gathering":  # makes sources of what others have found
            continue
        module = import_module(f"tutelage.data.{file.stem}")
        for name, value in inspect.getmembers(module, inspect.isfunction):
            public = value.__module__ == module.__name__ and not name.startswith("_")
            if public and inspect.signature(value).return_annotation is Source:
                found[name] = value
    assert len(found) >= 4
    assert found == DATASETS


def test_the_arguments_of_a_source_are_named() -> None:
    for source in DATASETS.values():
        kinds = {parameter.kind for parameter in inspect.signature(source).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}
