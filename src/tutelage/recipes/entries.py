"""Entries of a recipe: constructor signatures are the schema.

A recipe names things that stand in an index (networks, data sets, methods, optimizers) and gives
arguments of their constructors; there are no import paths.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from tutelage.data import Views
from tutelage.errors import nearest
from tutelage.methods import METHODS
from tutelage.models import SUPPLIED
from tutelage.recipes.mistakes import first_mistake, mistake
from tutelage.tasks import Classification

__all__ = [
    "entry_of",
    "methods_entry",
    "or_open",
    "settings_of",
    "strength_entry",
    "taps_entry",
    "task_entry",
    "views_entry",
    "views_of",
]


@cache
def settings_of(constructor: Callable[..., Any]) -> type[BaseModel]:
    """A model of what a recipe may say of a constructor: its arguments, except what we supply.

    Positional arguments without default are ours to supply.
    """
    function = constructor.func if isinstance(constructor, partial) else constructor
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    required = inspect.Parameter.empty
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is required else parameter.default)
        for name, parameter in inspect.signature(constructor).parameters.items()
        if name not in SUPPLIED
        and (parameter.kind is inspect.Parameter.KEYWORD_ONLY or parameter.default is not required)
    }
    return create_model("Settings", __config__=ConfigDict(extra="forbid", strict=False), **fields)


def _fill(
    constructor: Callable[..., Any], settings: Mapping[str, Any], what: str
) -> dict[str, Any]:
    """The settings with defaults filled in."""
    try:
        return settings_of(constructor).model_validate(dict(settings)).model_dump(mode="json")
    except ValidationError as error:
        raise mistake(first_mistake(error, settings_of(constructor), what)) from None


def entry_of(index: Mapping[str, Callable[..., Any]], what: str) -> Callable[[Any], Any]:
    """A validator of `NAME`, or of `{name: NAME, setting: value, …}`."""

    def validate(value: Any) -> dict[str, Any]:
        entry = {"name": value} if isinstance(value, str) else value
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise mistake(f"the {what} must be a name or {{name: NAME, …}}, not {value!r}")
        name = entry["name"]
        if name not in index:
            more = "; `tutelage models` lists them" if what == "network" else ""
            raise mistake(f"there is no {what} {name!r}; {nearest(name, index)}{more}")
        settings = {key: value for key, value in entry.items() if key != "name"}
        return {"name": name, **_fill(index[name], settings, name)}

    return validate


def or_open(validate: Callable[[Any], Any], value: Any) -> Any:
    """As `validate`, but null stays: an object given in Python takes the place."""
    return None if value is None else validate(value)


def methods_entry(value: Any) -> dict[str, Any]:
    """`{method: {setting: value, …, weight: …}}`; an empty list or mapping for none.

    They come out by name: in another order their terms would be summed to other last bits.
    """
    if value in ([], None):
        return {}
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        value = {name: {} for name in value}
    if not isinstance(value, Mapping):
        raise mistake("methods is a mapping from names to settings, or [] for none")
    filled = {}
    for name, settings in sorted(value.items()):
        if name not in METHODS:
            raise mistake(f"there is no method {name!r}; {nearest(str(name), METHODS)}")
        if not isinstance(settings, Mapping | None):
            raise mistake(f"settings of {name} must be a mapping, not {settings!r}")
        settings = dict(settings or {})
        if "weight" not in settings:
            raise mistake(f"{name} needs a weight, for instance `weight: 1.0`")
        weight = _weight(settings.pop("weight"), name)
        filled[name] = {**_fill(METHODS[name], settings, name), "weight": weight}
    return filled


class ScheduleRecipe(BaseModel):
    """A weight that changes: see `distiller.objective.Schedule`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    kind: Literal["constant", "linear", "cosine"]
    from_: float = Field(default=1.0, alias="from")
    to: float = 0.0
    start: float = 0.0
    end: float = 1.0


def _weight(value: Any, method: str) -> Any:
    """A number, a schedule, or a mapping from parts of a method's terms to these."""
    if isinstance(value, Mapping) and "kind" not in value:
        return {part: strength_entry(number, f"{method}, {part}") for part, number in value.items()}
    return strength_entry(value, method, ", or a mapping from parts to these")


def strength_entry(value: Any, what: str, more: str = "") -> Any:
    """A number or a schedule."""
    if isinstance(value, Mapping) and "kind" in value:
        try:
            return ScheduleRecipe.model_validate(value).model_dump(by_alias=True)
        except ValidationError as error:
            raise mistake(first_mistake(error, ScheduleRecipe, f"weight of {what}")) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise mistake(
            f"the weight of {what} must be a number or a schedule {{kind: …}}{more}, not {value!r}"
        )
    return float(value)


def views_of(entry: Mapping[str, Any]) -> Views:
    """The views that an entry says."""
    return TypeAdapter(Views).validate_python(dict(entry))


def views_entry(value: Any) -> dict[str, Any]:
    """Settings of the views."""
    if not isinstance(value, Mapping):
        raise mistake("views is a mapping, such as {crop_padding: 4, flip: true}")
    adapter = TypeAdapter(Views)
    known = set(inspect.signature(Views).parameters)
    for key in value:
        if key not in known:
            raise mistake(f"views know no {key!r}; {nearest(str(key), known)}")
    try:
        return adapter.dump_python(adapter.validate_python(dict(value)), mode="json")
    except ValidationError as error:
        raise mistake(first_mistake(error, settings_of(Views))) from None


def task_entry(value: Any) -> dict[str, Any]:
    """Settings of the task."""
    if not isinstance(value, Mapping):
        raise mistake(f"task must be a mapping from settings to values, not {value!r}")
    return _fill(Classification, value, "the task")


def taps_entry(value: Any) -> Any:
    """`auto`, or a list of pairs of names."""
    if value == "auto" or (isinstance(value, list | tuple) and all(map(_is_pair, value))):
        return value
    raise mistake(f"write auto, or a list of pairs [student's, teacher's], not {value!r}")


def _is_pair(value: Any) -> bool:
    names = value if isinstance(value, list | tuple) else ()
    return len(names) == 2 and all(isinstance(name, str) for name in names)
