"""What may be said: recipes are YAML, validated, with every default filled in.

Constructor signatures are the schema. A recipe names things that stand in an index (networks, data
sets, methods, optimizers) and gives arguments of their constructors; there are no import paths.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from tutelage.data import DATASETS, Views
from tutelage.engine import OPTIMIZERS, SCHEDULES, TrainSettings
from tutelage.errors import CheckpointError, RecipeError, TutelageError, nearest
from tutelage.methods import METHODS
from tutelage.models import NETWORKS
from tutelage.models.checkpoints import parse
from tutelage.tasks import Classification

__all__ = [
    "SCHEMA",
    "DataRecipe",
    "Recipe",
    "apply_overrides",
    "dump",
    "first_mistake",
    "json_schema",
    "leave_open",
    "packaged",
    "parse_overrides",
    "plain",
    "read_mapping",
    "read_recipe",
    "require_plain",
    "settings_of",
    "validate",
]

SCHEMA = 1
_SUPPLIED = {"num_classes", "in_channels"}  # by the data, not by a recipe


# From a signature to a schema


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
        if name not in _SUPPLIED
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
        raise _custom(first_mistake(error, settings_of(constructor), what)) from None


def _custom(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("tutelage", "{sentence}", {"sentence": sentence})


def _entry(index: Mapping[str, Callable[..., Any]], what: str) -> Callable[[Any], Any]:
    """A validator of `NAME`, or of `{name: NAME, setting: value, …}`."""

    def validate(value: Any) -> dict[str, Any]:
        entry = {"name": value} if isinstance(value, str) else value
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise _custom(f"the {what} must be a name or {{name: NAME, …}}, not {value!r}")
        name = entry["name"]
        if name not in index:
            raise _custom(f"there is no {what} {name!r}; {nearest(name, index)}")
        settings = {key: value for key, value in entry.items() if key != "name"}
        return {"name": name, **_fill(index[name], settings, name)}

    return validate


def _or_open(validate: Callable[[Any], Any], value: Any) -> Any:
    """As `validate`, but null stays: an object given in Python takes the place."""
    return None if value is None else validate(value)


def _network(value: Any) -> Any:
    """`NAME`, `FILE:NAME`, `{name: …, checkpoint: FILE, mean: …, std: …}` or `{run: FOLDER}`."""
    if isinstance(value, str) and ":" in value:
        try:
            checkpoint, name = parse(value)
        except CheckpointError as error:
            raise _custom(str(error).removesuffix(".")) from None
        value = {"name": name, "checkpoint": str(checkpoint)}
    if isinstance(value, Mapping) and "run" in value:
        if set(value) != {"run"} or not isinstance(value["run"], str):
            raise _custom("a network from an earlier run is {run: FOLDER} and nothing else")
        return dict(value)
    own = {}
    if isinstance(value, Mapping):
        own = {key: value[key] for key in ("checkpoint", "mean", "std") if key in value}
        value = {key: value[key] for key in value if key not in own}
    if not isinstance(own.get("checkpoint", ""), str):
        raise _custom(f"checkpoint must be a file's name, not {own['checkpoint']!r}")
    for key in ("mean", "std"):
        if key in own and not (
            isinstance(own[key], list | tuple) and all(isinstance(x, int | float) for x in own[key])
        ):
            raise _custom(f"{key} must be a list of numbers, one per channel, not {own[key]!r}")
    return _entry(NETWORKS, "network")(value) | own


def _methods(value: Any) -> dict[str, Any]:
    """`{method: {setting: value, …, weight: …}}`; an empty list or mapping for none.

    They come out by name: in another order their terms would be summed to other last bits.
    """
    if value in ([], None):
        return {}
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        value = {name: {} for name in value}
    if not isinstance(value, Mapping):
        raise _custom("methods is a mapping from names to settings, or [] for none")
    filled = {}
    for name, settings in sorted(value.items()):
        if name not in METHODS:
            raise _custom(f"there is no method {name!r}; {nearest(str(name), METHODS)}")
        if not isinstance(settings, Mapping | None):
            raise _custom(f"settings of {name} must be a mapping, not {settings!r}")
        settings = dict(settings or {})
        if "weight" not in settings:
            raise _custom(f"{name} needs a weight, for instance `weight: 1.0`")
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
        return {part: _strength(number, f"{method}, {part}") for part, number in value.items()}
    return _strength(value, method, ", or a mapping from parts to these")


def _strength(value: Any, what: str, more: str = "") -> Any:
    """A number or a schedule."""
    if isinstance(value, Mapping) and "kind" in value:
        try:
            return ScheduleRecipe.model_validate(value).model_dump(by_alias=True)
        except ValidationError as error:
            raise _custom(first_mistake(error, ScheduleRecipe, f"weight of {what}")) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _custom(
            f"the weight of {what} must be a number or a schedule {{kind: …}}{more}, not {value!r}"
        )
    return float(value)


# The recipe


class DataRecipe(BaseModel):
    """Which pictures, how they are split, and what happens to them on the way."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: Annotated[
        dict[str, Any] | None,
        BeforeValidator(lambda value: _or_open(_entry(DATASETS, "data set"), value)),
    ]
    limit: int | None = None
    validation: int
    labelled: int | None = None
    unlabelled: bool = False
    split_seed: int = 0
    views: Annotated[
        dict[str, Any],
        BeforeValidator(lambda value: _view_settings(value or {})),
    ] = Field(default_factory=lambda: _view_settings({}))
    num_views: int | None = None


def _view_settings(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _custom("views is a mapping, such as {crop_padding: 4, flip: true}")
    adapter = TypeAdapter(Views)
    known = set(inspect.signature(Views).parameters)
    for key in value:
        if key not in known:
            raise _custom(f"views know no {key!r}; {nearest(str(key), known)}")
    try:
        return adapter.dump_python(adapter.validate_python(dict(value)), mode="json")
    except ValidationError as error:
        raise _custom(first_mistake(error, Recipe)) from None


def _task(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise _custom(f"task must be a mapping from settings to values, not {value!r}")
    return _fill(Classification, value, "the task")


def _taps(value: Any) -> Any:
    """`auto`, or a list of pairs of names."""
    if value == "auto" or (isinstance(value, list | tuple) and all(map(_is_pair, value))):
        return value
    raise _custom(f"write auto, or a list of pairs [student's, teacher's], not {value!r}")


def _is_pair(value: Any) -> bool:
    names = value if isinstance(value, list | tuple) else ()
    return len(names) == 2 and all(isinstance(name, str) for name in names)


class Recipe(BaseModel):
    """One run.

    Attributes:
        schema_version: of this format.
        seed: of initial weights, order, views and methods.
        data: see `DataRecipe`.
        student, teacher: a network's name and settings; `FILE:NAME`; or `{run: FOLDER}`. A student,
            like a data source, is null where an object is handed over in Python.
        methods: name → settings and weight.
        taps: "auto", or pairs of sub-module names, student first.
        task: settings of the task.
        task_weight: of the supervised term: a number or a schedule.
        train: see `engine.settings.TrainSettings`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    schema_version: Literal[1] = Field(alias="schema")
    seed: int = 0
    data: DataRecipe
    student: Annotated[
        dict[str, Any] | None, BeforeValidator(lambda value: _or_open(_network, value))
    ]
    teacher: Annotated[
        dict[str, Any] | None, BeforeValidator(lambda value: _or_open(_network, value))
    ] = None
    methods: Annotated[dict[str, Any], BeforeValidator(_methods)] = Field(default_factory=dict)
    taps: Annotated[Literal["auto"] | list[tuple[str, str]], BeforeValidator(_taps)] = "auto"
    task: Annotated[dict[str, Any], BeforeValidator(_task)] = Field(
        default_factory=lambda: _task({})
    )
    task_weight: Annotated[Any, BeforeValidator(lambda value: _strength(value, "the task"))] = 1.0
    train: TrainSettings


def validate(value: Any, where: str) -> Recipe:
    """A recipe from what YAML gave.

    Args:
        where: how errors call the recipe.

    Raises:
        RecipeError: in one sentence, the first thing that is wrong.
    """
    if not isinstance(value, Mapping):
        raise RecipeError(
            f"{where} must be a mapping that begins with `schema: {SCHEMA}`; "
            "`tutelage recipes ls` lists examples."
        )
    require_plain(value, where)
    if "rows" in value:
        raise RecipeError(f"{where} is a comparison. Run it with `tutelage compare {where}`.")
    if value.get("schema") != SCHEMA:
        raise RecipeError(
            f"{where} must say `schema: {SCHEMA}`, and says {value.get('schema')!r}. Recipes of "
            "another schema need the version that they were written for."
        )
    try:
        recipe = Recipe.model_validate(_with_entries(value))
        train = {
            "optimizer": _entry(OPTIMIZERS, "optimizer")(recipe.train.optimizer),
            "schedule": _entry(SCHEDULES, "schedule")(recipe.train.schedule),
        }
    except ValidationError as error:
        raise RecipeError(f"{where}: {first_mistake(error, Recipe)}.") from None
    except PydanticCustomError as error:
        raise RecipeError(f"{where}: {error.message()}.") from None
    except TutelageError as error:
        raise RecipeError(f"{where}: {error}") from None
    return recipe.model_copy(update={"train": replace(recipe.train, **train)})


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


def _with_entries(value: Mapping[str, Any]) -> dict[str, Any]:
    """With `{name: NAME, …}` for optimizer and schedule, of which a recipe may say a part."""
    train = value.get("train")
    if not isinstance(train, Mapping):
        return dict(value)
    usual, full = TrainSettings(steps=1), {}
    for key in train.keys() & {"optimizer", "schedule"}:
        entry = train[key]
        if isinstance(entry, Mapping):
            full[key] = {"name": getattr(usual, key)["name"], **entry}
        elif isinstance(entry, str):
            full[key] = {"name": entry}
    return {**value, "train": {**train, **full}}


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
    for part in ("data", "train") if model is Recipe and len(path) == 1 else ():
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


# Reading and writing

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


def read_recipe(name: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Reads and validates a recipe.

    Args:
        name: of a file, or of a packaged recipe.
        overrides: `key=value` each, keys dotted, values YAML.

    Raises:
        RecipeError: in one or two sentences.
    """
    value, where = read_mapping(name)
    if isinstance(value, dict):
        value = apply_overrides(value, parse_overrides(overrides))
    return validate(value, where)


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
        elif isinstance(below, Mapping):
            result["data"] = {**below, "source": None}
    return result


def plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON values, defaults filled in."""
    return recipe.model_dump(mode="json", by_alias=True)


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every default filled in."""
    return yaml.safe_dump(plain(recipe), sort_keys=False, default_flow_style=None, width=100)


def json_schema() -> dict[str, Any]:
    """A JSON schema of recipes, for editors."""
    schema = Recipe.model_json_schema(by_alias=True)
    weight = {"description": "number, schedule {kind: …}, or mapping from parts to these"}
    schema["properties"]["methods"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: _settings_schema(method, {"weight": weight}) for name, method in METHODS.items()
        },
    }
    return schema


def _settings_schema(constructor: Callable[..., Any], more: dict[str, Any]) -> dict[str, Any]:
    schema = settings_of(constructor).model_json_schema()
    schema["properties"] = schema.get("properties", {}) | more
    schema["required"] = [*schema.get("required", []), *more]
    return schema
