"""Runs a comparison: choices first, on validation; then every row with every seed."""

from collections.abc import Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tutelage.build import build
from tutelage.comparison.board import Board, showing
from tutelage.comparison.cluster import Cluster, Share
from tutelage.comparison.folds import require_folds
from tutelage.comparison.jobs import Jobs, running
from tutelage.comparison.spec import Spec, read_spec
from tutelage.comparison.trials import Line, Started, Trials
from tutelage.comparison.tuning import file_beside, tuned
from tutelage.engine.log import CONSOLE
from tutelage.errors import RecipeError, RunError, SettingError
from tutelage.launcher import require_one_process
from tutelage.networks import teacher_files
from tutelage.records import RunFolder, alone_in, read_lines
from tutelage.report.claims import Finding
from tutelage.report.comparisons import make_tables
from tutelage.report.declared import late_claims
from tutelage.report.layout import Table
from tutelage.report.lines import of_student, works
from tutelage.runs import NOTHING, Extras
from tutelage.runs.settling import caution, settle
from tutelage.runs.surroundings import surroundings

__all__ = ["Comparison", "compare"]

_Made = TypeVar("_Made")
_Steps = Generator[list[Started], None, _Made]
"""Yields what it has begun and waits for; returns what it makes of that."""


class Comparison(NamedTuple):
    """A finished comparison.

    Attributes:
        tables: one for each combination of the axes' values.
        folder: of the run folders.
        records: the file with one line per finished trial.
    """

    tables: list[Table]
    folder: Path
    records: Path

    def table(self) -> list[dict[str, Any]]:
        """One mapping per row."""
        return [row for table in self.tables for row in table.rows]

    def findings(self) -> list[Finding]:
        """What became of the claims."""
        return [finding for table in self.tables for finding in table.findings]

    def text(self) -> str:
        """The tables in plain characters."""
        return "\n\n".join(table.text() for table in self.tables)

    def markdown(self) -> str:
        """The tables as Markdown."""
        return "\n\n".join(table.markdown() for table in self.tables)


def compare(
    spec: str | Path | Mapping[str, Any],
    *,
    runs: Path | str = "runs",
    records: Path | str | None = None,
    restamp: bool = False,
    jobs: int = 1,
    cluster: Share | None = None,
    tune: bool = False,
    shown: bool = True,
    command: str = "tutelage.compare",
) -> Comparison:
    """Runs what is not there yet, and makes the table.

    Args:
        spec: a file, a packaged specification's name, or the mapping itself.
        runs: folder of run folders; the comparison's own lie in a folder of its name below.
        records: the JSON-lines file with one line per finished trial; `trials.jsonl` beside the
            runs unless said.
        restamp: take over lines that differ from what would be run now in the code alone, or in
            settings that there were not when they were run. For each row one trial is run anew;
            only if it ends in the same weights, bit for bit, do the row's lines count for the new
            code too.
        jobs: how many trials run at once, each in a process of its own with its share of the CPU's
            threads; another share gives other bits, so these are other trials, and their wall
            times are those of a busy machine. A script that asks for more than 1 must do so below
            `if __name__ == "__main__":`.
        cluster: trials are tasks of Ray, each with this share, as many at once as there is room
            for. All machines see this folder and have the same versions; a trial whose machine is
            lost goes on elsewhere. Not beside `jobs`.
        tune: first search what rows leave to `tune`, on validation; see `comparison.tuning`. Needed
            if one does.
        shown: whether to show progress.
        command: how it was called, for the records.

    Raises:
        TutelageError: the specification or one of its recipes is wrong; nothing has run then.
        RunError: a choice finds nothing that learns, or a row cannot be re-stamped.
    """
    require_one_process("comparisons")
    known = read_spec(spec)
    folder = Path(runs) / known.name
    path = Path(records) if records is not None else folder / "trials.jsonl"
    _require_place(path, folder)
    if not tune and any(row.tune for row in known.rows.values()):
        raise RecipeError("A row of the specification says `tune`. Ask for the search: --tune.")
    _extras(known).digest()
    groups = known.groups()
    subnets = {name: known.subnet(name) for name in known.rows}
    board = Board(subnets, len(known.seeds), known.axes)
    if cluster is not None and jobs != 1:
        raise SettingError("A cluster has room for so many trials as it has; leave jobs out.")
    pool = Jobs(jobs) if cluster is None else Cluster(cluster)
    with running(pool):
        making = partial(
            Trials,
            runs=folder,
            jobs=pool,
            notice=board.notice,
            shown=shown and pool.here,
            command=command,
        )
        trials = making(path, extras=_extras(known))
        for group in groups:  # what cannot be built shall say so before anything runs
            _require_one_test(known, group, trials)
        _require_guides(known)
        with alone_in(folder, "tutelage compare"):
            trials.read_lines()
            if cluster is not None:
                _require_closed(known)
            known = _decide(known, trials, pool.threads, shown=shown)
            if tune:
                # The claims come before the search, and so does what was measured.
                trials.note_spec(known.model_dump(mode="json", by_alias=True), known.decided)
                tries = making(file_beside(path), extras=NOTHING)
                tries.read_lines()
                with showing(board, shown=shown):
                    known = tuned(known, tries, pool, folder)
            described = known.model_dump(mode="json", by_alias=True)
            trials.note_spec(described, known.decided)
            board.note_file(trials.finished)
            with showing(board, shown=shown):
                if restamp:
                    _restamp(known, trials)
                lines = _run(known, trials)
    identities = {line["identity"] for line in lines}
    stale = [line for line in trials.finished if line["identity"] not in identities]
    late = late_claims(trials.entries, lines)
    return Comparison(make_tables(described, lines, stale, late), folder, path)


def _require_place(records: Path, folder: Path) -> None:
    """Refuses a file that is not a comparison's, and a folder that is a run's."""
    if records.suffix != ".jsonl" or records.is_dir():
        raise RunError(
            f"{records} is no place for a comparison's lines. Name a file that ends in .jsonl."
        )
    if records.exists() and records.stat().st_size and not read_lines(records):
        raise RunError(f"{records} holds no line of a comparison. Name another file.")
    if RunFolder(folder).recipe.exists():
        raise RunError(
            f"{folder} is the folder of a run. Give the comparison another name, or other --runs."
        )


def _require_one_test(spec: Spec, group: Mapping[str, Any], trials: Trials) -> None:
    """Refuses rows that would be held against each other on different test pictures."""
    for seed in spec.seeds if spec.folds else spec.seeds[:1]:
        tests: dict[Any, str] = {}
        for row in spec.rows:
            parts = trials.parts(spec.recipe(spec.settings(row, group), seed))
            tests.setdefault(parts["content"]["test"], row)
        if len(tests) > 1:
            raise RecipeError(
                f"The rows {' and '.join(tests.values())} have different test pictures "
                "(data.source), and would not compare. Make the source an axis, or a comparison of "
                "its own."
            )
    if spec.folds:
        settings = spec.settings(next(iter(spec.rows)), group)
        require_folds({seed: spec.recipe(settings, seed) for seed in spec.seeds})


def _require_guides(spec: Spec) -> None:
    """Refuses to look at maps of a teacher that is gone: behind its store nobody would miss it."""
    if not spec.evaluate.similarity:
        return
    for (name, settings), seed in product(spec.every(), spec.seeds):
        for file in teacher_files(spec.recipe(settings, seed)):
            if file is not None and not file.is_file():
                raise RunError(
                    f"Similarity is measured on maps of the teacher of {name}, whose weights are "
                    f"not in {file}. Bring them back, or leave similarity out."
                )


def _require_closed(spec: Spec) -> None:
    """Refuses to measure here what is to run elsewhere."""
    for _, settings in spec.every():
        for key in spec.recipe(settings, spec.seeds[0]).train.open:
            raise SettingError(
                f"train.{key} is auto, which is measured on this machine, and trials run on the "
                "cluster's. Say a value."
            )


def _decide(spec: Spec, trials: Trials, threads: int, *, shown: bool) -> Spec:
    """Measures, once for all trials, what recipes leave to that; what the file knows is kept.

    Of each setting the first row that leaves it open decides.

    Args:
        threads: that a trial has, unless its recipe says.
    """
    spec = spec.deciding(trials.decided)
    said = None
    for _, settings in spec.every():
        recipe = spec.recipe(settings, spec.seeds[0])
        if not recipe.train.open:
            said = said or caution(recipe.train)
            continue
        known = replace(recipe.train, threads=recipe.train.threads or threads)
        with surroundings(known) as device:
            _, chosen = settle(build(recipe, with_test=False), device)
        assert chosen is not None
        if shown:
            CONSOLE.print(f"{spec.name}: {chosen}", highlight=False, soft_wrap=True)
        spec = spec.deciding(spec.decided.joined(chosen))
    if said is not None and shown and "precision" not in spec.decided.values:
        CONSOLE.print(f"{spec.name}: {said}", highlight=False, soft_wrap=True)
    return spec


def _restamp(spec: Spec, trials: Trials) -> None:
    for group in spec.groups():
        for row in spec.rows:
            own = [line for line in trials.finished if _is_of(line, row, spec, group)]
            trials.restamp(own, spec)


def _run(spec: Spec, trials: Trials) -> list[Line]:
    """The lines of all trials and tries that the specification asks for.

    While one row waits for what it has tried, the next begins.
    """
    rows = [_Row(spec, name, group, trials) for group in spec.groups() for name in spec.rows]
    waiting: dict[_Steps[None], list[Started]] = {row.begin(): [] for row in rows}
    unfinished: list[Future[Line]] = []
    while waiting or unfinished:
        for steps in list(waiting):
            while steps in waiting and all(one.future.done() for one in waiting[steps]):
                awaited = next(steps, None)
                if awaited is None:
                    del waiting[steps]
                else:
                    waiting[steps] = awaited
        begun = [one.future for awaited in waiting.values() for one in awaited]
        begun += [one.future for row in rows for one in row.started]
        for future in begun:
            if future.done():
                future.result()  # raises if it could not run; then all the others end, too
        unfinished = [future for future in begun if not future.done()]
        if unfinished:
            wait(unfinished, return_when=FIRST_COMPLETED)
    ends = (of_student(one.line(), spec.subnet(one.row)) for row in rows for one in row.started)
    found: list[Line] = []
    for line in (*(line for row in rows for line in row.tries), *map(dict, ends)):
        if line["kind"] == "trial" or line not in found:  # rows that are alike share their tries
            found.append(line)
    return found


class _Row:
    """A row in a group: what it has tried, and what it has begun."""

    def __init__(self, spec: Spec, name: str, group: Mapping[str, Any], trials: Trials) -> None:
        self.spec = spec
        self.name = name
        self.group = group
        self.trials = trials
        self.tries: list[Line] = []
        self.started: list[Started] = []

    def begin(self) -> _Steps[None]:
        """Begins its trials, once it has made its choices."""
        settings = yield from self._settings(self.name)
        for seed in self.spec.seeds:
            recipe = self.spec.recipe(settings, seed)
            self.started.append(self.trials.start("trial", self.name, settings, recipe))

    def _settings(self, name: str) -> _Steps[dict[str, Any]]:
        """Settings of a row, itself or one that it is like, with what that chooses.

        Keys are chosen one after the other: earlier ones at what was chosen, later ones at their
        first value.
        """
        row = self.spec.rows[name]
        settings = dict(self.group)
        if row.like:
            settings = yield from self._settings(row.like)
        settings |= row.first()
        for key, values in row.choose.items():
            tried = [{**settings, key: value} for value in values]
            scores = yield from self._scores(name, tried)
            if max(scores) < 0:
                raise RunError(
                    f"No value of {key} that was tried for {name} learned anything: "
                    f"{', '.join(map(str, values))}. Try smaller ones."
                )
            settings = tried[scores.index(max(scores))]  # of equal ones the first
        return settings

    def _scores(self, name: str, every: list[dict[str, Any]]) -> _Steps[list[float]]:
        """Accuracy on validation, in [0, 1], on the first seed; -1 of what does not work."""
        seed = self.spec.seeds[0]
        started = [
            self.trials.start("try", name, tried, self.spec.recipe(tried, seed)) for tried in every
        ]
        yield started
        lines = [dict(of_student(one.line(), self.spec.subnet(name))) for one in started]
        self.tries += lines
        return [_validation(line) if works(line) else -1.0 for line in lines]


def _extras(spec: Spec) -> Extras:
    asked = spec.evaluate
    people = Path(asked.soft_labels) if asked.soft_labels is not None else None
    return Extras(asked.corruptions, asked.similarity, people)


def _validation(line: Line) -> float:
    return line["record"]["students"]["student"]["validation_accuracy"]


def _is_of(line: Line, row: str, spec: Spec, group: Mapping[str, Any]) -> bool:
    """Whether a line has a row's settings in a group, whatever was chosen."""
    chosen = {key for ancestor in spec.lineage(row) for key in ancestor.choose}

    def fixed(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key not in chosen}

    return line["row"] == row and fixed(line["settings"]) == fixed(spec.settings(row, group))
