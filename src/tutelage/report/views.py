"""What all sections of a page share."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tutelage.report.blocks import Block, Figure, Figures, Group, Section, Text
from tutelage.report.comparisons import make_tables
from tutelage.report.layout import Table
from tutelage.report.lines import Record, full_name
from tutelage.report.networks import Network, controls, teacher_of
from tutelage.report.sources import Comparison, Runs, Source
from tutelage.report.styles import Style

__all__ = [
    "One",
    "Part",
    "View",
    "by_part",
    "every_one",
    "notes_of",
    "of_every_seed",
    "one_each",
    "section",
    "setting",
    "shown",
]


class Part(NamedTuple):
    """Networks that are held against each other: all, or those of one combination of the axes.

    Attributes:
        title: the axes' values; empty without axes.
        slug: for names in the page, of letters, digits and dashes; empty without axes.
        networks: teachers, then rows or runs; named as within the part.
        styles: of all of them, also of rows that failed.
        short: name of the control that was trained for as many steps as the students, if it is
            known which.
    """

    title: str
    slug: str
    networks: list[Network]
    styles: Mapping[str, Style]
    short: str | None

    @property
    def teacher(self) -> Network | None:
        """The teacher, if there is exactly one."""
        return teacher_of(self.networks)

    @property
    def control(self) -> Network | None:
        """The short one, or another if that is missing."""
        held = controls(self.networks)
        return next((one for one in held if one.name == self.short), next(iter(held), None))

    @property
    def references(self) -> list[Network]:
        """What students are held against."""
        return [one for one in (self.teacher, self.control) if one is not None]


class View(NamedTuple):
    """A source, and what all sections share.

    Attributes:
        source: what was read.
        tables: of the comparison, one for each part; none for runs.
        networks: teachers, then rows or runs, of all parts.
        styles: of all of them, also of rows that failed.
        parts: at least one.
        notes: what must be read with all the numbers.
        own_notes: what must be read with those of a part.
    """

    source: Source
    tables: list[Table]
    networks: list[Network]
    styles: Mapping[str, Style]
    parts: list[Part]
    notes: list[str]
    own_notes: list[list[str]]


def notes_of(source: Comparison, tables: Sequence[Table]) -> tuple[list[str], list[list[str]]]:
    """What must be read with all tables of a comparison, and what with each of them alone."""
    shared = [note for note in tables[0].notes if all(note in table.notes for table in tables)]
    if source.stale:
        # Of no trials at all nothing is said after the stale ones.
        stale = make_tables(source.spec, [], source.stale)[-1].notes[-1]
        shared += [] if stale in shared else [stale]
    own = [[note for note in table.notes if note not in shared] for table in tables]
    return [*shared, *source.remarks()], own


def by_part(view: View, make: Callable[[Part], Sequence[Block]]) -> list[Block]:
    """What is made of each part, under its title if there are several."""
    blocks: list[Block] = []
    for part in view.parts:
        made = make(part)
        if made:
            blocks += [Group(part.title, made)] if part.title else made
    return blocks


def section(key: str, title: str, blocks: Sequence[Block], otherwise: str) -> Section:
    """A section; of one sentence if there is nothing to show."""
    return Section(key, title, blocks or [Text(otherwise)])


def shown(*made: Figure | None) -> list[Block]:
    """Those figures that could be made, side by side."""
    known = [figure for figure in made if figure is not None]
    return [Figures(known)] if known else []


class One(NamedTuple):
    """One record of a row or run.

    Attributes:
        row: its name within the part.
        part: title of the part.
        record: the first whole one.
    """

    row: str
    part: str
    record: Record

    @property
    def name(self) -> str:
        """In the whole report."""
        return full_name(self.row, self.part)


def every_one(source: Source) -> list[One]:
    """Every whole record."""
    if isinstance(source, Runs):
        return [One(str(record["name"]), "", record) for record in source.records]
    return [
        One(line["row"], line["part"], line["record"])
        for line in source.lines
        if line["kind"] == "trial" and "students" in line["record"]
    ]


def one_each(source: Source) -> list[One]:
    """Each row's first whole record at each part, or each run's record."""
    every = every_one(source)
    if isinstance(source, Runs):
        return every
    found: dict[tuple[str, str], One] = {}
    for one in every:
        found.setdefault((one.row, one.part), one)
    return list(found.values())


def setting(value: Any) -> str:
    """A setting as one would write it in a recipe."""
    if isinstance(value, str):
        return value
    return "none" if value in ({}, None) else json.dumps(value, ensure_ascii=False)


def of_every_seed(network: Network, key: str) -> list[Any]:
    """What every seed has under a key; empty unless every seed has something."""
    found = [measured.get(key) for measured in network.measured]
    return found if all(found) else []
