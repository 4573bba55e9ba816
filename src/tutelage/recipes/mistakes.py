"""What is wrong with a value from YAML, in one sentence: where, what is known there, the rule."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from tutelage.errors import RecipeError, nearest

__all__ = ["first_mistake", "mistake", "require_plain"]


def mistake(sentence: str) -> PydanticCustomError:
    """For a validator to raise: a sentence, without its full stop."""
    return PydanticCustomError("tutelage", "{sentence}", {"sentence": sentence})


_DEEPEST, _LARGEST = 20, 2**63 - 1


def require_plain(value: Any, where: str, place: str = "", depth: int = 0) -> None:
    """Checks that a value could as well have been written in JSON.

    Raises:
        RecipeError: it holds a date or the like, a number that is not finite or has no end, a key
            that is no text, or itself.
    """
    at = f"{where}: {place}" if place else where
    if depth > _DEEPEST:
        raise RecipeError(f"{where} is nested more than {_DEEPEST} deep. Write it flat.")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{at} must be a finite number, not {value}.")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise RecipeError(f"{at} must be a number of at most 63 bits.")
    if isinstance(value, Mapping):
        for key, inside in value.items():
            if not isinstance(key, str):
                raise RecipeError(f"{at}: the key {key!r} is no text. Put it in quotes.")
            require_plain(inside, where, f"{place}.{key}".lstrip("."), depth + 1)
    elif isinstance(value, list | tuple):
        for number, inside in enumerate(value):
            require_plain(inside, where, f"{place}.{number}".lstrip("."), depth + 1)
    elif not isinstance(value, str | int | float | None):
        raise RecipeError(
            f"{at} must be a text, a number, a list or a mapping, but is a "
            f"{type(value).__name__}. Put it in quotes."
        )


def first_mistake(error: ValidationError, model: type[BaseModel], what: str = "") -> str:
    """What is wrong first, where, and what is known there.

    Args:
        model: that the value was checked against.
        what: is described by it; empty for a whole file.
    """
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    where = ".".join(path)
    if first["type"] == "tutelage":
        return f"{where}: {first['msg']}" if where else first["msg"]
    of = f" of {what}" if what else ""
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where!r} is no key{of}; {_meant(path, model)}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{where!r} is missing{of}; add it"
    if first["type"] == "value_error":
        return f"{where}: {first.get('ctx', {}).get('error')}"
    return f"{where}{of} must be {_rule(first)}, not {first['input']!r}"


def _meant(path: list[str], model: type[BaseModel]) -> str:
    """What an unknown key may have been meant for."""
    for part in _keys(model, []) if len(path) == 1 else ():
        if path[0] in _keys(model, [part]):
            return f"write {part}.{path[0]}"
    return nearest(path[-1], _keys(model, path[:-1]))


_RULES = {
    "bool": "true or false",
    "dataclass": "a mapping from settings to values",
    "dict": "a mapping from settings to values",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "mapping": "a mapping from settings to values",
    "model": "a mapping from settings to values",
    "string": "a text",
    "tuple": "a list",
}
"""How kinds of pydantic's errors begin → what the value must be."""


def _rule(error: ErrorDetails) -> str:
    """What a value must be, in plain words."""
    if error["type"] == "string_pattern_mismatch":
        return "made of letters, digits, dots, dashes and underscores"
    if error["type"] == "too_short":
        return "at least one entry long"
    if error["type"] == "literal_error":
        return error.get("ctx", {})["expected"].replace("'", "")
    kind = error["type"].partition("_")[0]
    return _RULES.get(kind, error["msg"].lower().removeprefix("input should be "))


def _keys(model: type[BaseModel], path: Iterable[str]) -> list[str]:
    """The keys that are known at a place in a model."""
    kind: Any = model
    for part in path:
        kind = get_args(kind)[1] if get_origin(kind) is dict else _fields(kind).get(part)
    return list(_fields(kind))


def _fields(kind: Any) -> dict[str, Any]:
    """Key → type, of a model, of a dataclass, or of either if it is optional; else nothing."""
    kinds = [one for one in (kind, *get_args(kind)) if isinstance(one, type)]
    for one in kinds:
        if issubclass(one, BaseModel):
            return {f.alias or name: f.annotation for name, f in one.model_fields.items()}
        if is_dataclass(one):
            return {field.name: field.type for field in fields(one)}
    return {}
