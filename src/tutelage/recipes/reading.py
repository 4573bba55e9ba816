"""From a file, a packaged recipe or the command line to what is then validated."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tutelage.errors import RecipeError, nearest

__all__ = ["apply_overrides", "leave_open", "packaged", "parse_overrides", "read_mapping"]

# Impossible dates and endless integers end in a ValueError, brackets without end in recursion.
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)


def packaged() -> dict[str, str]:
    """The recipes in the package: name → text."""
    folder = files("tutelage") / "recipe_files"
    return {
        entry.name.removesuffix(".yaml"): entry.read_text()
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".yaml")
    }


def read_mapping(name: str | Path) -> tuple[Any, str]:
    """What a YAML file, or a packaged recipe of that name, says.

    Returns:
        The value, and how errors should call it.

    Raises:
        RecipeError: there is no such thing, or it is no YAML.
    """
    path, known = Path(name), packaged()
    if path.is_file():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            raise RecipeError(f"{path} is no text file; a recipe is YAML.") from None
    elif str(name) in known:
        text = known[str(name)]
    elif path.is_dir():
        raise RecipeError(f"{path} is a folder; a recipe is a YAML file.")
    else:
        raise RecipeError(
            f"There is no file and no packaged recipe {str(name)!r}; {nearest(str(name), known)}."
        )
    try:
        value = yaml.safe_load(text)
    except _YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise RecipeError(f"{name} is not YAML{line}. Mend it there.") from None
    if value is None:
        raise RecipeError(f"{name} is empty; `tutelage recipes cat digits` shows a recipe.")
    return value, str(name)


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Dotted keys and their new values, from `key=value` each.

    Raises:
        RecipeError: one has another form, or its value is not YAML.
    """
    return dict(map(_parse_override, texts))


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"{text!r} is no override; write key=value, such as train.steps=100.")
    try:
        return key, yaml.safe_load(value)
    except _YAML_ERRORS:
        raise RecipeError(f"The value in {text!r} is not YAML; put it in quotes.") from None


def apply_overrides(value: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which dotted keys have new values.

    >>> apply_overrides({"train": {"steps": 5}}, {"train.steps": 7, "seed": 1})
    {'train': {'steps': 7}, 'seed': 1}
    """
    result: dict[str, Any] = dict(value)
    for key, new in overrides.items():
        head, dot, rest = key.partition(".")
        if not dot:
            result[head] = new
            continue
        below = result.get(head)
        below = {"name": below} if isinstance(below, str) else below or {}
        if not isinstance(below, Mapping):
            raise RecipeError(f"{head} holds no keys, so {key!r} cannot be set. Set {head} itself.")
        result[head] = apply_overrides(below, {rest: new})
    return result


def leave_open(value: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """What YAML gave, with null where an object given in Python takes an entry's place.

    Args:
        names: of "student", "teacher", "data".

    >>> leave_open({"student": "resnet8", "data": {"source": "digits"}}, ["student", "data"])
    {'student': None, 'data': {'source': None}}
    """
    result = dict(value)
    for name in names:
        below = result.get("data")
        if name != "data":
            result[name] = None
            if name == "teacher":
                result |= {key: None for key in ("teachers", "aggregation") if key in result}
        elif isinstance(below, Mapping):
            result["data"] = {**below, "source": None}
    return result
