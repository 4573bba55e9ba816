"""Which lines of a comparison's file count, worked out from the file alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, final

__all__ = ["Choice", "Line", "Pool", "Record", "is_trial", "that_count"]

Record = Mapping[str, Any]
Line = Mapping[str, Any]

_SHARED = ("code", "versions", "device", "threads")
"""What the trials of a row have in common, besides their data."""


class Choice(NamedTuple):
    """What a row chose on validation.

    Attributes:
        row: its name.
        key: of the recipe, dotted.
        tried: each value asked for, and the line of its try; None if that has not been run.
        taken: the value; None while it is undecided.
    """

    row: str
    key: str
    tried: list[tuple[Any, Line | None]]
    taken: Any


@final
class Pool:
    """The lines of a file, and which of them were of use."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines
        self._used: set[int] = set()

    def find(self, kind: str, row: str, seed: int, settings: Record) -> Line | None:
        """The newest fitting line; of another row, which then has the same recipe, if need be."""
        fits = [
            line
            for line in self.lines
            if (line["kind"], line["seed"], line["settings"]) == (kind, seed, settings)
        ]
        own = [line for line in fits if line["row"] == row]
        return (own or fits or [None])[-1]

    def newest_first(self, row: str) -> Iterable[Line]:
        """The trials of a row."""
        return (line for line in reversed(self.lines) if is_trial(line, row))

    def use(self, line: Line, row: str) -> Line:
        """The line, which now counts for a row."""
        self._used.add(id(line))
        return {**line, "row": row}

    def unused(self) -> list[Line]:
        """Lines that count for no row."""
        return [line for line in self.lines if id(line) not in self._used]


def that_count(spec: Record, pool: Pool) -> tuple[list[Line], list[Choice]]:
    """The lines that count, under the rows for which they do, and what was chosen.

    Of equal lines (kind, row, seed, settings) the newest counts, if its settings are what the
    specification asks for, with what the tries have chosen; while tries are missing, with what the
    newest trial of the row has. The trials of a row must agree in code, versions, device and
    threads with its newest.
    """
    lines: list[Line] = []
    choices: list[Choice] = []
    for row in spec["rows"]:
        settings, own_choices = _settings(spec, row, pool)
        choices += own_choices
        for choice in own_choices:
            used = [pool.use(line, row) for _, line in choice.tried if line is not None]
            lines += [line for line in used if line not in lines]
        trials = [pool.find("trial", row, seed, settings) for seed in spec["seeds"]]
        present = [line for line in trials if line is not None]
        newest = max(present, key=lambda line: _place(pool.lines, line), default=None)
        for line in present:
            if newest is not None and _shared(line) == _shared(newest):
                lines.append(pool.use(line, row))
    return lines, choices


def _place(lines: Sequence[Line], line: Line) -> int:
    return next(number for number, other in enumerate(lines) if other is line)


def _shared(line: Line) -> Record:
    parts = line.get("parts", {})
    return {key: parts.get(key) for key in _SHARED}


def _settings(spec: Record, name: str, pool: Pool) -> tuple[dict[str, Any], list[Choice]]:
    """A row's settings with what was chosen, as `tutelage compare` works them out; its choices."""
    settings: dict[str, Any] = {}
    undecided: dict[str, list[Any]] = {}
    tries: dict[str, list[tuple[Any, Line | None]]] = {}
    for ancestor in _lineage(spec, name):
        row = spec["rows"][ancestor]
        choose = row.get("choose", {})
        settings |= {**row.get("set", {}), **{key: values[0] for key, values in choose.items()}}
        undecided = {
            key: values for key, values in undecided.items() if key not in row.get("set", {})
        }
        tries = {}
        for key, values in choose.items():
            seed = spec["seeds"][0]
            tries[key] = [
                (value, pool.find("try", ancestor, seed, {**settings, key: value}))
                for value in values
            ]
            taken = None if undecided else _best(tries[key])
            if taken is None:
                undecided[key] = values
            else:
                settings[key] = values[taken]
    if undecided:
        fits = (line for line in pool.newest_first(name) if _may(line, settings, undecided))
        known = next(fits, None)
        if known is not None:
            settings, undecided = dict(known["settings"]), {}
    return settings, [
        Choice(name, key, tried, None if key in undecided else settings[key])
        for key, tried in tries.items()
    ]


def _lineage(spec: Record, name: str) -> list[str]:
    like = spec["rows"][name].get("like")
    return [*(_lineage(spec, like) if like else []), name]


def _best(tried: Sequence[tuple[Any, Line | None]]) -> int | None:
    """Which value is best on validation, of equal ones the first; None if one is missing."""
    if any(line is None for _, line in tried):
        return None
    scores = [_validation(line) for _, line in tried if line is not None]
    return scores.index(max(scores)) if max(scores) >= 0 else None


def _validation(line: Line) -> float:
    if "failed" in line or line["record"]["collapsed"]:
        return -1.0
    return line["record"]["students"]["student"]["validation_accuracy"]


def _may(line: Line, settings: Record, undecided: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a trial has a row's settings, whatever of the undecided ones it has."""
    own = line["settings"]
    return own.keys() == settings.keys() and all(
        own[key] in undecided[key] if key in undecided else own[key] == value
        for key, value in settings.items()
    )


def is_trial(line: Line, row: str) -> bool:
    """Whether a line is a trial of a row."""
    return line["kind"] == "trial" and line["row"] == row
