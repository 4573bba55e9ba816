"""A budgeted search of a row's settings on validation, by Optuna, before its trials are run.

Each try begins as a short run. One that is worse than the median of others at the same length ends
there (Optuna's MedianPruner); the others are run again, three times as long, up to the full length.
A short run is a whole one, with a whole schedule of its learning rate: a longer one cut off would
not say how well a short one can do. Runs are built without test, with a seed that no trial has.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tutelage.comparison.jobs import Pool
from tutelage.comparison.spec import Range, Spec, Tune, Tuned
from tutelage.comparison.trials import Trials
from tutelage.errors import RecipeError, RunError
from tutelage.exporting.extras import needed
from tutelage.provenance import digest
from tutelage.report.lines import of_student, student_of, works

__all__ = ["file_beside", "tuned"]

_SHORTER, _LENGTHS = 3, 3
_DIGITS = 3
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
    lengths = _lengths(tune.steps or recipe.train.steps)
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
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=min(first, 5))
    states = optuna.trial.TrialState
    for left in study.get_trials(deepcopy=False, states=[states.RUNNING]):  # when it was stopped
        study.tell(left.number, state=states.FAIL)
        study.enqueue_trial(left.params)
    while (done := len(study.get_trials(False, [states.COMPLETE, states.PRUNED]))) < tune.tries:
        alive = []
        for _ in range(min(pool.count, tune.tries - done)):
            one = study.ask()
            found = {key: _suggest(one, key, what) for key, what in tune.space.items()}
            one.set_user_attr("settings", found)
            alive.append((one, found))
        for steps in lengths:
            started = [
                trials.start("try", name, at, spec.recipe(at, seed))
                for _, found in alive
                if (at := {**settings, **found, _STEPS: steps})
            ]
            last = steps == lengths[-1]
            scores = [_score(one.line(), spec.subnet(name), last=last) for one in started]
            alive = _go_on(study, states, alive, scores, steps, last=last)
    return _result(study, states, name, seed, lengths)


def _lengths(steps: int) -> list[int]:
    """Of the runs of one try, shortest first.

    >>> _lengths(900)
    [100, 300, 900]
    """
    shorter = (max(steps // _SHORTER**n, 1) for n in reversed(range(_LENGTHS)))
    return list(dict.fromkeys(shorter))


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
    left = []
    for (one, found), score in zip(alive, scores, strict=True):
        if score is not None:
            one.report(score, steps)
        if score is None or (not last and one.should_prune()):
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
    return Tuned(
        settings=best.user_attrs["settings"],
        validation=best.value,
        tries=len(complete) + len(pruned),
        pruned=len(pruned),
        seed=seed,
        steps=lengths[-1],
    )
