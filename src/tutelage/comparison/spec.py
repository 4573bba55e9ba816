"""What a comparison compares: a base recipe, rows that differ from it, and seeds."""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from tutelage.comparison.folds import MARK, of_seed, texts
from tutelage.engine.choosing import Chosen, settled
from tutelage.errors import RecipeError, TutelageError, one_of
from tutelage.recipes import (
    SCHEMA,
    Recipe,
    apply_overrides,
    first_mistake,
    read_mapping,
    require_plain,
    validate,
)
from tutelage.report.claims import parse_claim
from tutelage.report.lines import combinations, subnet_of

__all__ = ["Range", "Row", "Spec", "Tune", "Tuned", "read_spec"]


class Range(BaseModel):
    """Numbers between two.

    Attributes:
        low, high: both may be taken.
        log: equal factors are equally likely, not equal distances.
        whole: only whole numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(
                f"whole numbers go from one to another, not from {self.low:g} to {self.high:g}"
            )
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"a range goes from low to a larger high, above 0 with log, not from {self.low:g} "
                f"to {self.high:g}"
            )
        return self


class Tune(BaseModel):
    """A search; see `comparison.tuning`.

    Attributes:
        tries: how many.
        space: dotted keys of the recipe → a range, or a list of values.
        steps: of a try's longest run; those of the row's recipe unless said.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    tries: int = Field(ge=2)
    space: dict[str, Range | Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)
    steps: int | None = Field(default=None, ge=1)

    def lengths(self, steps: int) -> list[int]:
        """Of the runs of one try, shortest first.

        Args:
            steps: of the row's recipe.

        >>> Tune(tries=2, space={"seed": [1]}).lengths(900)
        [100, 300, 900]
        """
        longest = self.steps or steps
        return list(dict.fromkeys(max(longest // part, 1) for part in (9, 3, 1)))

    def ends(self) -> Iterator[dict[str, Any]]:
        """Of each key by itself what must fit the recipe: the ends of a range, or every value."""
        for key, what in self.space.items():
            if isinstance(what, Range):
                values = [int(v) if what.whole else v for v in (what.low, what.high)]
            else:
                values = what
            yield from ({key: value} for value in values)


class Tuned(BaseModel):
    """What a search has found.

    Attributes:
        settings: taken.
        validation: accuracy with them, in [0, 1].
        tries, pruned: how many there were, and of these ended early or did not learn.
        seed: of the tries.
        steps: of their longest runs.
        until: when the last of them ended.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    settings: dict[str, Any]
    validation: float
    tries: int
    pruned: int
    seed: int
    steps: int
    until: str


class Row(BaseModel):
    """One setting.

    Attributes:
        like: another row, whose settings and choice this one starts from; what it sets itself
            stands above both.
        set: dotted keys of the recipe → values.
        choose: dotted keys → values to be tried on the first seed; the best on validation is taken
            for all seeds. Of several keys each is chosen after the one before it, at the first
            value of those that follow. Tries have no access to test.
        tune: a search of more settings, in the place of which its result then stands. Rows that are
            like this one begin with the result.
        subnet: shows, and chooses by, this sub-net of the student in the place of the whole; "full"
            is the whole. Rows that are like this one show it, too. A row that differs from another
            in this alone has the same trials, which run once; of their wall time each row shows a
            share, by its MACs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    like: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    choose: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    tune: Tune | None = None
    subnet: str | None = None

    def first(self) -> dict[str, Any]:
        """What it sets, and the first value of whatever it chooses."""
        return self.set | {key: values[0] for key, values in self.choose.items()}


class Controls(BaseModel):
    """The rows that every other is held against.

    Attributes:
        short: label-only, for as many steps as the methods.
        long: label-only, for at least their time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    short: str
    long: str


class Evaluation(BaseModel):
    """What is measured of every trial on test beside its answers; see `tutelage.runs.Extras`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    corruptions: int = Field(default=0, ge=0)
    similarity: bool = False
    soft_labels: str | None = None


class Spec(BaseModel):
    """A comparison.

    Attributes:
        schema_version: of this format.
        name: of the folder of its runs.
        base: a recipe: a file, a packaged one's name, or the mapping itself.
        seeds: fixed before anything runs.
        controls: may be missing only with `controls: none`.
        rows: name → what differs from the base.
        axes: dotted keys → values; all rows are run at every combination of them, each with
            controls, choices and table of its own.
        claims: what the comparison is run to decide, `A > B on METRIC` each; their intervals are
            corrected for their number. B may be "best other": best on validation.
        evaluate: what is measured of every trial on test beside its answers.
        folds: a cross-validation: each seed tests a part of the pictures of its own. `{seed}` in
            any text of the recipe is the seed, such as in the name of the source's file and of the
            teacher's run.
        note: what a reader of the table must know; printed under it.
        tuned: row → what its search has found; `tutelage compare --tune` enters it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    base: str | dict[str, Any]
    seeds: list[int] = Field(min_length=1)
    controls: Controls | Literal["none"]
    rows: dict[str, Row] = Field(min_length=1)
    axes: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    claims: list[str] = Field(default_factory=list)
    evaluate: Evaluation = Evaluation()
    folds: bool = False
    note: str = ""
    tuned: dict[str, Tuned] = Field(default_factory=dict)
    _decided: Chosen = PrivateAttr(default=Chosen({}))

    @property
    def decided(self) -> Chosen:
        """What was measured once for all trials whose recipes leave it to that."""
        return self._decided

    def deciding(self, chosen: Chosen) -> "Spec":
        """The same, once this is decided."""
        spec = self.model_copy()
        spec._decided = chosen
        return spec

    def with_tuned(self, name: str, found: Tuned) -> "Spec":
        """The same with the result of a row's search in the search's place."""
        row = self.rows[name]
        row = row.model_copy(update={"set": row.set | found.settings, "tune": None})
        changed = {"rows": self.rows | {name: row}, "tuned": self.tuned | {name: found}}
        return self.model_copy(update=changed).deciding(self._decided)

    def groups(self) -> list[dict[str, Any]]:
        """All combinations of the axes' values; a single empty one without axes."""
        return combinations(self.axes)

    def lineage(self, name: str) -> list[Row]:
        """A row after those that it is like, the most distant first."""
        row = self.rows[name]
        return [*(self.lineage(row.like) if row.like else []), row]

    def subnet(self, name: str) -> str | None:
        """The sub-net that a row shows; None for the whole."""
        rows = {one: row.model_dump(include={"like", "subnet"}) for one, row in self.rows.items()}
        return subnet_of(rows, name)

    def settings(self, name: str, group: Mapping[str, Any]) -> dict[str, Any]:
        """A row's settings, as if the first value were taken of whatever is chosen.

        Args:
            group: one of `groups`.
        """
        settings = dict(group)
        for row in self.lineage(name):
            settings |= row.first()
        return settings

    def every(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every row's name, with each of the settings that it may have.

        Of several keys one is varied at a time.
        """
        for group in self.groups():
            for name, row in self.rows.items():
                tried = [{key: one} for key, values in row.choose.items() for one in values]
                tried += row.tune.ends() if row.tune else []
                for value in tried or [{}]:
                    yield name, self.settings(name, group) | value

    def value(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The base with these settings, as it would be written."""
        return apply_overrides(self._read()[0], settings)

    def _read(self) -> tuple[Any, str]:
        """The base, and what it is called in an error."""
        return read_mapping(self.base) if isinstance(self.base, str) else (self.base, "base")

    def recipe(self, settings: Mapping[str, Any], seed: int) -> Recipe:
        """The base with these settings and this seed, and what was decided for all.

        Raises:
            RecipeError: the result is no valid recipe.
        """
        base, where = self._read()
        value = apply_overrides(base, {**settings, "seed": seed})
        recipe = validate(of_seed(value, seed) if self.folds else value, where)
        return recipe.model_copy(update={"train": settled(recipe.train, self._decided.values)})


def read_spec(name: str | Path | Mapping[str, Any]) -> Spec:
    """Reads and checks a specification.

    Args:
        name: a file, a packaged specification's name, or the mapping itself.

    Raises:
        RecipeError: something in it is unknown, missing or contradictory; in a sentence.
    """
    value, where = (name, "the specification") if isinstance(name, Mapping) else read_mapping(name)
    if not isinstance(value, Mapping) or "rows" not in value:
        raise RecipeError(
            f"{where} is no specification of a comparison: it has no rows. A single recipe goes to "
            "`tutelage train`."
        )
    require_plain(value, where)
    if value.get("schema") != SCHEMA:
        raise RecipeError(f"{where} must say `schema: {SCHEMA}`, not {value.get('schema')!r}.")
    try:
        spec = Spec.model_validate(dict(value))
    except ValidationError as error:
        raise RecipeError(f"{where}: {first_mistake(error, Spec)}.") from None
    _check(spec, where)
    return spec


def _check(spec: Spec, where: str) -> None:
    if len(set(spec.seeds)) < len(spec.seeds):
        raise RecipeError(f"{where} names a seed twice. Each seed counts once.")
    if spec.controls != "none":
        for control in (spec.controls.short, spec.controls.long):
            one_of("row (for a control)", control, spec.rows, RecipeError)
        if spec.controls.short == spec.controls.long:
            raise RecipeError(
                f"{where}: {spec.controls.short} cannot be both controls. Name one that trains as "
                "long as the methods, and one that trains longer."
            )
    if len({parse_claim(claim, spec.rows) for claim in spec.claims}) < len(spec.claims):
        raise RecipeError(f"{where} makes a claim twice. Each counts once.")
    for name, row in spec.rows.items():
        seen = {name}
        while row.like:
            one_of(f"row (which {name} is like)", row.like, spec.rows, RecipeError)
            if row.like in seen:
                raise RecipeError(f"{where}: rows are like each other in a circle at {name!r}.")
            seen.add(row.like)
            row = spec.rows[row.like]
    _check_axes(spec, where)
    _check_folds(spec, where)
    _check_evaluation(spec, where)
    _check_subnets(spec, where)
    _check_tuning(spec, where)
    for _, settings in spec.every():
        spec.recipe(settings, spec.seeds[0])
    if spec.controls != "none":
        for group in spec.groups():
            _check_controls(spec, spec.controls, group, where)


def _check_axes(spec: Spec, where: str) -> None:
    for key, values in spec.axes.items():
        if any(value in values[:place] for place, value in enumerate(values)):
            raise RecipeError(f"{where}: the axis {key} has the same value twice. Name each once.")
        for other in spec.axes:
            if key != other and _overlap(key, other):
                raise RecipeError(
                    f"{where}: the axes {key} and {other} set the same key. Leave one of them out."
                )
    for name, row in spec.rows.items():
        if "seed" in row.first() or "seed" in spec.axes:
            raise RecipeError(
                f"{where}: {name} or an axis sets the seed. A comparison's seeds are `seeds`."
            )
        for key, axis in product(row.first(), spec.axes):
            if _overlap(key, axis):
                raise RecipeError(
                    f"{where}: {name} sets {key}, and {axis} is an axis. Leave one of them out."
                )


def _check_folds(spec: Spec, where: str) -> None:
    """Folds have data of their own; what is no fold names no seed."""
    for name, settings in spec.every():
        said = sorted({text for text in texts(spec.value(settings)) if MARK in text})
        if said and not spec.folds:
            raise RecipeError(
                f"{where}: {name} says {said[0]!r}, and {MARK} stands for the seed in the name of "
                "a store (teacher.cache), or where seeds are folds. Say `folds: true` for those."
            )
        if not spec.folds:
            continue
        if len(spec.seeds) < 2:
            raise RecipeError(f"{where}: folds are two seeds or more. Name one for each fold.")
        sources = [spec.recipe(settings, seed).data.source for seed in spec.seeds[:2]]
        if sources[0] == sources[1]:
            raise RecipeError(
                f"{where}: folds are seeds with test pictures of their own, and data.source of "
                f"{name} is {sources[0]} at every seed. Write {MARK} in the name of its file."
            )
    if spec.folds and any(row.tune for row in spec.rows.values()):
        raise RecipeError(
            f"{where}: a search has a seed that no trial has, and folds have no data for it. Use "
            "choose, or search on other data."
        )
    if spec.folds and spec.evaluate.soft_labels is not None:
        raise RecipeError(
            f"{where}: a file of soft labels is of one set of test pictures, and each fold has its "
            "own. Leave it out."
        )


def _check_evaluation(spec: Spec, where: str) -> None:
    """Maps are a network's, not a store's."""
    if not spec.evaluate.similarity:
        return
    for name, settings in spec.every():
        recipe = spec.recipe(settings, spec.seeds[0])
        if set(recipe.teacher or {}) == {"cache"} and not recipe.teachers:
            raise RecipeError(
                f"{where}: similarity looks at maps of the teacher on test pictures, and {name} "
                "names a store alone. Name the teacher beside its cache, or leave similarity out."
            )


def _check_tuning(spec: Spec, where: str) -> None:
    """A search is one of all, and the controls get as many tries."""
    tries = {
        name: sum(row.tune.tries for row in spec.lineage(name) if row.tune) for name in spec.rows
    }
    for name, row in spec.rows.items():
        if row.tune is None:
            continue
        if spec.axes:
            raise RecipeError(
                f"{where}: {name} says `tune`, which finds one setting for all, and there are "
                "axes. Make a comparison of its own for each value."
            )
        for key in row.tune.space:
            if key in ("seed", "train.steps"):
                raise RecipeError(
                    f"{where}: {name} tunes {key}, which the search itself sets. Leave it out."
                )
        _require_short(spec, name, row.tune, where)
        for key, other in product(row.tune.space, row.first()):
            if _overlap(key, other):
                raise RecipeError(
                    f"{where}: {name} sets or chooses {other}, and tunes {key}. Leave one out."
                )
    if spec.controls == "none":
        return
    most = max(tries, key=lambda name: tries[name])
    for control in (spec.controls.short, spec.controls.long):
        if tries[control] < tries[most]:
            raise RecipeError(
                f"{where}: {most} is tuned by {tries[most]} tries, and the control {control} by "
                f"{tries[control]}. Give it as many, of its learning rate for instance, or a gain "
                "is that of tuning."
            )


def _require_short(spec: Spec, name: str, tune: Tune, where: str) -> None:
    """What fits a long run may not fit a short one."""
    settings = spec.settings(name, {})
    steps = tune.lengths(spec.recipe(settings, spec.seeds[0]).train.steps)[0]
    for ends in tune.ends():
        try:
            spec.recipe({**settings, **ends, "train.steps": steps}, spec.seeds[0])
        except TutelageError as error:
            raise RecipeError(
                f"{where}: the shortest runs of {name} would have {steps} steps. {error}"
            ) from None


def _check_subnets(spec: Spec, where: str) -> None:
    for group in spec.groups():
        for name in spec.rows:
            subnet = spec.subnet(name)
            student = spec.recipe(spec.settings(name, group), spec.seeds[0]).student or {}
            known = student.get("subnets", {})
            # What another run has is seen when its trials are.
            if subnet is not None and subnet not in known and "run" not in student:
                raise RecipeError(
                    f"{where}: {name} is to be the sub-net {subnet!r}, but its student has "
                    f"{', '.join(known) or 'none'}. Name one of student.subnets, or full."
                )


def _overlap(one: str, other: str) -> bool:
    """Whether one dotted key says something of the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _check_controls(spec: Spec, controls: Controls, group: Mapping[str, Any], where: str) -> None:
    """Controls learn from labels alone, the long one for longer."""
    short, long = (
        spec.recipe(spec.settings(name, group), spec.seeds[0])
        for name in (controls.short, controls.long)
    )
    for name, recipe in ((controls.short, short), (controls.long, long)):
        if recipe.methods:
            raise RecipeError(
                f"{where}: {name} is named as a control, but learns by "
                f"{', '.join(recipe.methods)}. A control has `methods: []`; to go without one, say "
                "`controls: none`."
            )
    if long.train.steps <= short.train.steps:
        raise RecipeError(
            f"{where}: {controls.long} takes {long.train.steps} steps, and {controls.short} "
            f"{short.train.steps}. The long control takes more, about as many as fill the wall "
            "time of the dearest method."
        )
