"""A budgeted search of a row's settings on validation, by Optuna, before its trials are run.

Each try begins as a short run. One that is worse than the median of all at the same length ends
there; the others are run again, three times as long, up to the full length. A short run is a whole
one, with a whole schedule of its learning rate: a longer one cut off would not say how well a short
one can do. Runs are built without test, with a seed that no trial has.

Optuna chooses what is tried (its TPE sampler, after a third of random ones) and remembers. Where
several tries run at once, a third begin together, later ones a quarter at a time, so that there is
something to learn from.
"""

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC
from math import inf
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

from tutelage.comparison.jobs import Pool
from tutelage.comparison.spec import Range, Spec, Tune, Tuned
from tutelage.comparison.trials import Trials
from tutelage.errors import Interrupted, RecipeError, RunError, TutelageError
from tutelage.exporting.extras import needed
from tutelage.provenance import digest
from tutelage.report.lines import of_student, student_of, works

__all__ = ["file_beside", "tuned"]

_DIGITS = 3
_FEW = 3
"""With fewer at a length, none is the worse half."""
_STEPS = "train.steps"


def file_beside(records: Path) -> Path:
    """Where the tries of a search are entered: beside the lines of the comparison."""
    return records.with_name(f"{records.stem}-tries.jsonl")


def tuned(spec: Spec, trials: Trials, pool: Pool, folder: Path) -> Spec:
    """The specification with what each row's search has found in the place of the search.

    Args:
        trials: of the tries; what is there already is not run again.
        pool: so many tries run at once.
        folder: Optuna's journals lie here, one for each row; a search that was stopped goes on.

    Raises:
        SettingError: Optuna is not installed.
        RunError: no try learned anything.
    """
    if not any(row.tune for row in spec.rows.values()):
        raise RecipeError("There is nothing to tune: no row of the specification says `tune`.")
    optuna = needed("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in _parents_first(spec):
        tune = spec.rows[name].tune
        if tune is not None:
            spec = spec.with_tuned(name, _search(optuna, spec, name, tune, trials, pool, folder))
    return spec


def _parents_first(spec: Spec) -> list[str]:
    """Rows after those that they are like, whose settings they begin with."""
    return sorted(spec.rows, key=lambda name: len(spec.lineage(name)))


def _search(
    optuna: ModuleType,
    spec: Spec,
    name: str,
    tune: Tune,
    trials: Trials,
    pool: Pool,
    folder: Path,
) -> Tuned:
    settings, seed = spec.settings(name, {}), max(spec.seeds) + 1
    recipe = spec.recipe(settings, seed)
    lengths = tune.lengths(recipe.train.steps)
    # What is tried elsewhere, or by other code, is another search.
    asked = [trials.parts(recipe), tune.model_dump(mode="json"), lengths]
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / f"tune-{digest([name, asked])[:12]}.journal"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        backend = optuna.storages.journal.JournalFileBackend(str(journal))
        storage = optuna.storages.JournalStorage(backend)
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
        begun = len(study.trials)
        first = max(tune.tries // 3, 2)
        study.sampler = optuna.samplers.TPESampler(seed=begun, n_startup_trials=first)
    states = optuna.trial.TrialState
    for left in study.get_trials(deepcopy=False, states=[states.RUNNING]):  # when it was stopped
        study.tell(left.number, state=states.FAIL)
        study.enqueue_trial(left.params)
    while (done := len(study.get_trials(False, [states.COMPLETE, states.PRUNED]))) < tune.tries:
        together = first if done < first else max(tune.tries // 4, 1)
        alive: list[tuple[Any, dict[str, Any]]] = []
        for _ in range(min(pool.count, together, tune.tries - done)):
            one = study.ask()
            found = {key: _suggest(one, key, what) for key, what in tune.space.items()}
            one.set_user_attr("settings", found)
            alive.append((one, found))
        for steps in lengths:
            ats = [{**settings, **found, _STEPS: steps} for _, found in alive]
            started = [trials.start("try", name, at, spec.recipe(at, seed)) for at in ats]
            last = steps == lengths[-1]
            scores = []
            for (trial, found), one in zip(alive, started, strict=True):
                try:
                    scores.append(_score(one.line(), spec.subnet(name), last=last))
                except Interrupted:
                    raise
                except TutelageError as error:
                    study.tell(trial, state=states.FAIL)  # not to be tried again
                    raise RunError(f"{name} with {found}: {error}") from None
            alive = _go_on(study, states, alive, scores, steps, last=last)
    return _result(study, states, name, seed, lengths)


def _suggest(one: Any, key: str, what: Range | Sequence[Any]) -> Any:
    if not isinstance(what, Range):
        # By its place: Optuna's choices are numbers and words, and these may be lists.
        return what[one.suggest_categorical(key, list(range(len(what))))]
    if what.whole:
        return one.suggest_int(key, int(what.low), int(what.high), log=what.log)
    value = one.suggest_float(key, what.low, what.high, log=what.log)
    rounded = float(f"{value:.{_DIGITS}g}")
    return min(max(rounded, what.low), what.high)


def _score(line: Mapping[str, Any], subnet: str | None, *, last: bool) -> float | None:
    """Accuracy on validation; None if it failed, or in its longest run learned nothing."""
    seen = of_student(line, subnet)
    if "failed" in seen or (last and not works(seen)):
        return None
    return student_of(seen)["validation_accuracy"]


def _go_on(
    study: Any,
    states: Any,
    alive: list[tuple[Any, dict[str, Any]]],
    scores: list[float | None],
    steps: int,
    *,
    last: bool,
) -> list[tuple[Any, dict[str, Any]]]:
    """Those that are worth a longer run; of the others the study is told."""
    for (one, _), score in zip(alive, scores, strict=True):
        if score is not None:
            one.report(score, steps)
    known = [one.intermediate_values.get(steps) for one in study.get_trials(deepcopy=False)]
    known = [value for value in known if value is not None]
    least = median(known) if len(known) >= _FEW else -inf
    left = []
    for (one, found), score in zip(alive, scores, strict=True):
        if score is None or (not last and score < least):
            study.tell(one, state=states.PRUNED)
        elif last:
            study.tell(one, score)
        else:
            left.append((one, found))
    return left


def _result(study: Any, states: Any, name: str, seed: int, lengths: list[int]) -> Tuned:
    complete = study.get_trials(deepcopy=False, states=[states.COMPLETE])
    pruned = study.get_trials(deepcopy=False, states=[states.PRUNED])
    if not complete:
        raise RunError(
            f"None of {len(pruned)} tries for {name} learned anything. Narrow its space."
        )
    best = max(complete, key=lambda one: (one.value, -one.number))
    until = max(one.datetime_complete for one in (*complete, *pruned))
    return Tuned(
        settings=best.user_attrs["settings"],
        validation=best.value,
        tries=len(complete) + len(pruned),
        pruned=len(pruned),
        seed=seed,
        steps=lengths[-1],
        until=until.astimezone(UTC).isoformat(timespec="seconds"),
    )
