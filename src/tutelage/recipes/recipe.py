"""The recipe of one run, validated, with every default filled in."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from tutelage.data import DATASETS
from tutelage.engine import OPTIMIZERS, SCHEDULES, TrainSettings
from tutelage.errors import RecipeError, TutelageError
from tutelage.methods import METHODS
from tutelage.recipes.entries import (
    entry_of,
    methods_entry,
    or_open,
    settings_of,
    strength_entry,
    taps_entry,
    task_entry,
    views_entry,
)
from tutelage.recipes.mistakes import first_mistake, require_plain
from tutelage.recipes.networks import (
    aggregation_entry,
    network_entry,
    teacher_entry,
    teachers_entry,
)
from tutelage.recipes.reading import apply_overrides, parse_overrides, read_mapping

__all__ = [
    "SCHEMA",
    "DataRecipe",
    "Recipe",
    "dump",
    "json_schema",
    "left_open",
    "plain",
    "read_recipe",
    "source_entry",
    "validate",
]

SCHEMA = 1


class DataRecipe(BaseModel):
    """Which pictures, how they are split, and what happens to them on the way.

    Attributes:
        validation: how many pictures validate; of a source that sets some apart null is all those.
        unlabelled: true trains on pictures whose label `labelled` hides, without it; the name of a
            folder trains on all pictures in it as well.
        balanced: whether labelled pictures of all classes are visited equally often.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: Annotated[
        dict[str, Any] | None,
        BeforeValidator(lambda value: or_open(entry_of(DATASETS, "data set"), value)),
    ]
    limit: int | None = None
    validation: int | None = None
    labelled: int | None = None
    unlabelled: bool | str = False
    split_seed: int = 0
    views: Annotated[
        dict[str, Any],
        BeforeValidator(lambda value: views_entry(value or {})),
    ] = Field(default_factory=lambda: views_entry({}))
    num_views: int | None = None
    balanced: bool = False


class Recipe(BaseModel):
    """One run.

    Attributes:
        schema_version: of this format.
        seed: of initial weights, order, views and methods.
        data: see `DataRecipe`.
        student, teacher: see `recipes.networks`. A student, like a data source, is null where an
            object is handed over in Python. A teacher with `cache: FOLDER` answers from a store;
            `{seed}` in the folder's name is the run's seed.
        teachers: several in the place of one; they may know parts of the classes, as their
            `class_map` says. `teacher: {cache: FOLDER}` beside them is a store of what they say
            together.
        aggregation: how their answers become one (see `distiller.aggregation`): uniform, accuracy
            or confidence.
        methods: name → settings and weight.
        taps: "auto", or pairs of sub-module names, student first.
        task: settings of the task.
        task_weight: of the supervised term: a number or a schedule.
        subnet_weight: of the mean of the sub-nets' supervised terms, within `task_weight`.
        train: see `engine.settings.TrainSettings`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    schema_version: Literal[1] = Field(alias="schema")
    seed: int = 0
    data: DataRecipe
    student: Annotated[
        dict[str, Any] | None, BeforeValidator(lambda value: or_open(network_entry, value))
    ]
    teacher: Annotated[
        dict[str, Any] | None, BeforeValidator(lambda value: or_open(teacher_entry, value))
    ] = None
    teachers: Annotated[list[dict[str, Any]], BeforeValidator(teachers_entry)] = Field(
        default_factory=list
    )
    aggregation: Annotated[
        dict[str, Any] | None, BeforeValidator(lambda value: or_open(aggregation_entry, value))
    ] = None
    methods: Annotated[dict[str, Any], BeforeValidator(methods_entry)] = Field(default_factory=dict)
    taps: Annotated[Literal["auto"] | list[tuple[str, str]], BeforeValidator(taps_entry)] = "auto"
    task: Annotated[dict[str, Any], BeforeValidator(task_entry)] = Field(
        default_factory=lambda: task_entry({})
    )
    task_weight: Annotated[
        Any, BeforeValidator(lambda value: strength_entry(value, "the task"))
    ] = 1.0
    subnet_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    train: TrainSettings

    @property
    def store(self) -> Path | None:
        """The folder of the store that answers for the teacher, if one does.

        Raises:
            RecipeError: there is a file of that name.
        """
        named = (self.teacher or {}).get("cache")
        if named is None:
            return None
        folder = Path(named.replace("{seed}", str(self.seed)))
        if folder.is_file() or folder.parent.is_file():
            raise RecipeError(
                f"teacher.cache is the folder of a store, but {folder} is a file or lies below "
                "one. Name the folder that `tutelage cache` has made."
            )
        return folder


def left_open(key: str, argument: str) -> RecipeError:
    """The error of a recipe that names no source, or no student, where none was handed over."""
    return RecipeError(
        f"The recipe leaves {key} open, for an object that is handed over in Python. Name one "
        f"there, or call tutelage.train(..., {argument}=...)."
    )


def source_entry(value: Any) -> dict[str, Any]:
    """A data source's name and settings, defaults filled in.

    Raises:
        RecipeError: it is unknown, or a setting is.
    """
    try:
        return entry_of(DATASETS, "data set")(value)
    except PydanticCustomError as error:
        sentence = error.message()
        raise RecipeError(f"{sentence[0].upper()}{sentence[1:]}.") from None


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
            "optimizer": entry_of(OPTIMIZERS, "optimizer")(recipe.train.optimizer),
            "schedule": entry_of(SCHEDULES, "schedule")(recipe.train.schedule),
        }
    except ValidationError as error:
        raise RecipeError(f"{where}: {first_mistake(error, Recipe)}.") from None
    except PydanticCustomError as error:
        raise RecipeError(f"{where}: {error.message()}.") from None
    except TutelageError as error:
        raise RecipeError(f"{where}: {error}") from None
    update = {"train": replace(recipe.train, **train)} | _several(recipe, where)
    return recipe.model_copy(update=update)


def _several(recipe: Recipe, where: str) -> dict[str, Any]:
    """What is to be filled in where a recipe has several teachers."""
    if recipe.teachers and (recipe.teacher or {}).keys() - {"cache"}:
        raise RecipeError(
            f"{where} names a teacher and teachers. Name one, or put all of them into the list."
        )
    if recipe.aggregation is None:
        return {"aggregation": aggregation_entry("uniform")} if recipe.teachers else {}
    if not recipe.teachers:
        raise RecipeError(
            f"{where} says how the answers of several teachers become one, but names no teachers. "
            "Give a list of them, or leave aggregation out."
        )
    return {}


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
