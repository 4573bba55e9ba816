"""What all sections of a page share."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tutelage.report.blocks import Block, Figure, Figures, Section, Text
from tutelage.report.comparisons import Table
from tutelage.report.counting import Record
from tutelage.report.networks import Network
from tutelage.report.sources import Runs, Source
from tutelage.report.styles import Style

__all__ = ["View", "of_every_seed", "one_each", "section", "setting", "shown"]


class View(NamedTuple):
    """A source, and what all sections share.

    Attributes:
        source: what was read.
        table: of the comparison; None for runs.
        networks: teachers, then rows or runs.
        styles: of all of them, also of rows that failed.
        notes: what must be read with the numbers.
    """

    source: Source
    table: Table | None
    networks: list[Network]
    styles: Mapping[str, Style]
    notes: list[str]


def section(key: str, title: str, blocks: Sequence[Block], otherwise: str) -> Section:
    """A section; of one sentence if there is nothing to show."""
    return Section(key, title, blocks or [Text(otherwise)])


def shown(*made: Figure | None) -> list[Block]:
    """Those figures that could be made, side by side."""
    known = [figure for figure in made if figure is not None]
    return [Figures(known)] if known else []


def one_each(source: Source) -> list[tuple[str, Record]]:
    """Each row's first whole record, or each run's record, under its name."""
    if isinstance(source, Runs):
        return [(record["name"], record) for record in source.records]
    found: dict[str, Record] = {}
    for line in source.lines:
        if line["kind"] == "trial" and "students" in line["record"]:
            found.setdefault(line["row"], line["record"])
    return list(found.items())


def setting(value: Any) -> str:
    """A setting as one would write it in a recipe."""
    if isinstance(value, str):
        return value
    return "none" if value in ({}, None) else json.dumps(value, ensure_ascii=False)


def of_every_seed(network: Network, key: str) -> list[Any]:
    """What every seed has under a key; empty unless every seed has something."""
    found = [measured.get(key) for measured in network.measured]
    return found if all(found) else []
