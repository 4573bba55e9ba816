import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from tiny import recipe

from tutelage.cli.main import main
from tutelage.comparison import compare, read_spec
from tutelage.comparison.jobs import Jobs
from tutelage.comparison.trials import Started, Trials
from tutelage.comparison.tuning import file_beside, tuned
from tutelage.errors import OutOfMemoryError, RecipeError, RunError, SettingError
from tutelage.records import read_lines
from tutelage.runs import NOTHING

LR = "train.optimizer.lr"
SPACE = {LR: {"low": 1e-3, "high": 10, "log": True}}


def spec(rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"schema": 1, "name": "tiny", "base": recipe(), "seeds": [0, 1], "controls": "none"}
    return base | {"rows": rows} | more


def searching(tries: int = 12, space: Any = SPACE, **more: Any) -> dict[str, Any]:
    return {"tune": {"tries": tries, "space": space, **more}}


class Asked(list[tuple[str, dict[str, Any]]]):
    """Rows and settings of runs that are not made; validation is a function of the settings."""

    def __init__(self, patch: pytest.MonkeyPatch, score: Callable[[dict[str, Any]], float]) -> None:
        super().__init__()

        def start(this: Trials, kind: str, row: str, settings: Any, recipe: Any) -> Started:
            assert kind == "try"
            assert recipe.seed == 2
            assert recipe.train.steps == settings["train.steps"]
            self.append((row, dict(settings)))
            future: Future[Any] = Future()
            try:
                entry = {"validation_accuracy": score(dict(settings))}
            except OutOfMemoryError as error:
                future.set_exception(error)
                return Started(future, row, dict(settings))
            record = {"students": {"student": entry}, "collapsed": entry["validation_accuracy"] < 0}
            future.set_result({"kind": kind, "row": row, "settings": settings, "record": record})
            return Started(future, row, dict(settings))

        patch.setattr(Trials, "start", start)
        patch.setattr(Trials, "parts", lambda *_: {"code": "c"})

    def search(self, value: dict[str, Any], folder: Path, jobs: int = 1) -> Any:
        pool = Jobs(jobs)
        trials = Trials(
            folder / "tries.jsonl",
            folder,
            pool,
            extras=NOTHING,
            notice=lambda *_: None,
            shown=False,
            command="",
        )
        found = tuned(read_spec(value), trials, pool, folder)
        pool.close()
        return found


def near(best: float) -> Callable[[dict[str, Any]], float]:
    """Highest where the learning rate is the best one; longer runs are better."""

    def score(settings: dict[str, Any]) -> float:
        off = abs(settings[LR] / best - 1)
        return 0.8 / (1 + off) + 0.0001 * settings["train.steps"]

    return score


def test_a_search_takes_what_is_best_on_validation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked = Asked(monkeypatch, near(0.3))
    found = asked.search(spec({"row": searching(20, steps=90)}), tmp_path)
    (said,) = found.tuned.values()
    full = [settings for _, settings in asked if settings["train.steps"] == 90]
    best = max(full, key=near(0.3))
    assert said.settings == {LR: best[LR]}
    assert found.rows["row"].set == said.settings
    assert found.rows["row"].tune is None
    assert 0.1 < best[LR] < 0.9
    assert (said.tries, said.seed, said.steps) == (20, 2, 90)
    assert said.validation == pytest.approx(near(0.3)(best))


def test_what_is_worse_than_others_at_its_length_ends_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    asked = Asked(monkeypatch, near(0.3))
    found = asked.search(spec({"row": searching(20, steps=90)}), tmp_path)
    steps = [settings["train.steps"] for _, settings in asked]
    assert set(steps) == {10, 30, 90}
    assert [steps.count(n) for n in (10, 30, 90)] == sorted(
        [steps.count(n) for n in (10, 30, 90)], reverse=True
    )
    assert steps.count(10) == 20
    assert steps.count(90) == 20 - found.tuned["row"].pruned
    assert found.tuned["row"].pruned >= 4


def test_several_at_once_end_early_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked = Asked(monkeypatch, near(0.3))
    found = asked.search(spec({"row": searching(16, steps=90)}), tmp_path, jobs=16)
    steps = [settings["train.steps"] for _, settings in asked]
    assert steps[:6] == [10] * 5 + [30]  # a third begin together, and the better half goes on
    assert steps.count(10) == 16
    assert found.tuned["row"].pruned >= 6


def test_a_try_that_cannot_run_is_named_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    calls = 0

    def failing(settings: dict[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OutOfMemoryError("Too large.")
        return near(1.0)(settings)

    asked = Asked(monkeypatch, failing)
    value = spec({"row": searching(4, steps=1)})
    with pytest.raises(RunError, match=r"^row with \{'train.optimizer.lr': .*\}: Too large\."):
        asked.search(value, tmp_path)
    bad = asked[-1][1][LR]
    assert asked.search(value, tmp_path).tuned["row"].tries == 4
    assert bad not in [settings[LR] for _, settings in asked[2:]]


@pytest.mark.parametrize("jobs", [1, 3])
def test_so_many_tries_as_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jobs: int):
    asked = Asked(monkeypatch, near(1.0))
    asked.search(spec({"row": searching(7, steps=1)}), tmp_path, jobs)
    assert len(asked) == 7


def test_a_search_that_is_stopped_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    calls = 0

    def stopping(settings: dict[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return near(1.0)(settings)

    asked = Asked(monkeypatch, stopping)
    value = spec({"row": searching(8, steps=9)})
    with pytest.raises(KeyboardInterrupt):
        asked.search(value, tmp_path)
    last = asked[-1][1][LR]
    before = len(asked)
    found = asked.search(value, tmp_path)
    assert asked[before][1][LR] == last  # the try in which it was stopped comes first
    assert found.tuned["row"].tries == 8
    again = len(asked)
    assert asked.search(value, tmp_path).tuned == found.tuned
    assert len(asked) == again


def test_another_space_is_another_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked = Asked(monkeypatch, near(1.0))
    asked.search(spec({"row": searching(3, steps=1)}), tmp_path)
    asked.search(spec({"row": searching(3, {LR: [0.5, 1.0]}, steps=1)}), tmp_path)
    assert len(asked) == 6
    assert {settings[LR] for _, settings in asked[3:]} <= {0.5, 1.0}


def test_lists_and_whole_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    space = {
        "taps": [[["layer1", "layer1"]], [["layer2", "layer2"], ["layer3", "layer3"]], "auto"],
        "student.width": {"low": 2, "high": 4, "whole": True},
    }

    def score(settings: dict[str, Any]) -> float:
        return 0.1 * settings["student.width"] + 0.05 * (settings["taps"] == "auto")

    found = Asked(monkeypatch, score).search(spec({"row": searching(40, space, steps=1)}), tmp_path)
    assert found.tuned["row"].settings == {"taps": "auto", "student.width": 4}


def test_rows_begin_with_what_those_found_that_they_are_like(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    rows = {
        "later": {"like": "first"} | searching(3, {"student.width": [3, 4]}, steps=1),
        "first": searching(5, {LR: [0.1, 1.0]}, steps=1),
        "longer": {"like": "first", "set": {"train.steps": 9}},
    }
    asked = Asked(monkeypatch, lambda settings: settings.get(LR, 0) / 2)
    found = asked.search(spec(rows), tmp_path)
    assert [row for row, _ in asked] == ["first"] * 5 + ["later"] * 3
    assert all(settings[LR] == 1.0 for row, settings in asked if row == "later")
    assert found.settings("longer", {}) == {LR: 1.0, "train.steps": 9}
    assert found.settings("later", {}).keys() == {LR, "student.width"}


def test_a_search_that_finds_nothing_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked = Asked(monkeypatch, lambda _: -1.0)
    with pytest.raises(RunError, match="None of 3 tries for row learned anything"):
        asked.search(spec({"row": searching(3, steps=1)}), tmp_path)


# A whole comparison


def test_winners_run_with_the_seeds_and_say_how_they_were_found(tmp_path: Path):
    value = spec({"row": searching(3, {LR: [1e-12, 0.05]}, steps=20)}, base=recipe(steps=20))
    runs, file = tmp_path / "runs", tmp_path / "tiny.jsonl"
    done = compare(value, runs=runs, records=file, tune=True, shown=False)
    tries = [line for line in read_lines(file_beside(file)) if line["kind"] != "spec"]
    trials = [line for line in read_lines(file) if line["kind"] == "trial"]
    assert {line["seed"] for line in tries} == {2}
    assert all(line["record"]["readings"] == [] for line in tries)
    assert {line["seed"] for line in trials} == {0, 1}
    assert {line["settings"][LR] for line in trials} == {0.05}
    assert f"row: {LR} 0.05, tuned on validation (" in done.text()
    assert "in 3 tries of up to 20 steps with seed 2" in done.text()
    number = len(read_lines(file_beside(file)))
    again = compare(value, runs=runs, records=file, tune=True, shown=False)
    assert again.text() == done.text()
    assert len(read_lines(file_beside(file))) == number
    assert main(["report", str(file)]) == 0
    assert "before the last value was tried" not in done.text()


def test_a_search_after_test_was_read_is_said(tmp_path: Path):
    runs, file = tmp_path / "runs", tmp_path / "tiny.jsonl"
    base = recipe(steps=20) | {
        "train": recipe(steps=20)["train"] | {"optimizer": {"name": "sgd", "lr": 0.05}}
    }
    compare(spec({"row": {"set": {LR: 0.05}}}, base=base), runs=runs, records=file, shown=False)
    time.sleep(1.1)  # times are whole seconds
    value = spec({"row": searching(2, {LR: [0.05]})}, base=base)
    done = compare(value, runs=runs, records=file, tune=True, shown=False)
    assert "row: test was read before the last value was tried" in done.text()


# What is refused


CONTROL = {"set": {"methods": [], "task_weight": 1.0}}
LONG = {"like": "short", "set": {"train.steps": 9}}


def test_the_control_gets_as_many_tries(monkeypatch: pytest.MonkeyPatch):
    controls = {"controls": {"short": "short", "long": "long"}}
    rows = {"short": CONTROL, "long": LONG, "row": searching(4)}
    with pytest.raises(RecipeError, match=r"row is tuned by 4 tries, and the control short by 0"):
        read_spec(spec(rows, **controls))
    even = rows | {"short": CONTROL | searching(4)}
    assert read_spec(spec(even, **controls))
    with pytest.raises(RecipeError, match=r"row is tuned by 8 tries, and the control short by 4"):
        read_spec(
            spec(
                even | {"row": {"like": "short"} | searching(4, {"student.width": [3]})}, **controls
            )
        )


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ({"row": searching(1)}, {}, "tries"),
        ({"row": searching(space={})}, {}, "space"),
        ({"row": searching(space={LR: {"low": 2, "high": 1}})}, {}, "larger high"),
        (
            {"row": searching(space={LR: {"low": 0, "high": 1, "log": True}})},
            {},
            "above 0 with log",
        ),
        ({"row": searching(space={"train.optimizr.lr": [1]})}, {}, "optimizr"),
        ({"row": searching(space={"student.width": {"low": -2, "high": 1}})}, {}, "width"),
        ({"row": {"set": {LR: 1}} | searching()}, {}, "sets or chooses"),
        ({"row": searching(space={"seed": [1, 2]})}, {}, "which the search itself sets"),
        ({"row": searching(space={"train.steps": [1, 2]})}, {}, "which the search itself sets"),
        ({"row": searching(space={LR: {"low": 0.5, "high": 2, "whole": True}})}, {}, "whole"),
        ({"row": searching(steps=9)}, {"base": recipe(phases=3)}, "runs of row would have 1 steps"),
        ({"row": searching()}, {"axes": {"student.width": [2, 3]}}, "there are axes"),
    ],
)
def test_bad_searches_are_refused_before_anything_runs(
    rows: dict[str, Any], more: dict[str, Any], words: str
):
    with pytest.raises(Exception, match=words) as caught:
        compare(spec(rows, **more), tune=True, shown=False)
    assert caught.type.__module__ == "tutelage.errors"


def test_a_search_must_be_asked_for(tmp_path: Path):
    with pytest.raises(RecipeError, match="--tune"):
        compare(spec({"row": searching()}), runs=tmp_path, shown=False)
    with pytest.raises(RecipeError, match="nothing to tune"):
        compare(spec({"row": {}}), runs=tmp_path / "other", tune=True, shown=False)


def test_without_optuna_its_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SettingError, match=r"pip install 'tutelage\[tune\]'"):
        compare(spec({"row": searching()}), runs=tmp_path, tune=True, shown=False)
