"""A report as one HTML file that needs nothing but a browser."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from tutelage.errors import RunError
from tutelage.records import write_atomic
from tutelage.report.blocks import Figure, Figures, More, Section, signed
from tutelage.report.comparisons import Table, make_table
from tutelage.report.networks import controls, mean, networks_of, teacher_of
from tutelage.report.sections import sections
from tutelage.report.sources import Comparison, Runs, Source, finite_only
from tutelage.report.styles import styles_of
from tutelage.report.tables import cautions, percent, ratio
from tutelage.report.views import View

__all__ = ["make_page", "verdict_sentence", "write_page"]


def write_page(source: Source, path: Path) -> None:
    """Writes a report's page, whole or not at all.

    Args:
        path: of the file, ending in .html; one that is there is replaced.

    Raises:
        RunError: the path is no place for a page, or no space is left.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"{path} is no name for a page. Give one that ends in .html.")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"cannot be: there is no folder {path.parent}"
        raise RunError(f"{path} {what}. Name a file in a folder that exists.")
    write_atomic(path, make_page(source))


def make_page(source: Source) -> str:
    """A report's page: text, tables, and figures that are drawn when they are scrolled to.

    The same source gives the same page. It holds no picture of the data, sends no request, and is
    all there without JavaScript but for the figures, whose numbers stand in tables beside them.
    """
    view = _view(source)
    made = sections(view)
    figures = {figure.key: figure for section in made for figure in _figures_of(section.blocks)}
    title, kind = _title(source)
    environment = Environment(
        loader=PackageLoader("tutelage.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment.get_template("page.html").render(
        title=title,
        kind=kind,
        verdict=verdict_sentence(view),
        sections=made,
        figures=script_json({key: _for_plotly(figure) for key, figure in figures.items()}),
        plotly=get_plotlyjs() if figures else "",
    )


def _view(source: Source) -> View:
    networks = networks_of(source)
    roles = {network.name: network.role for network in networks}
    if isinstance(source, Runs):
        names = [str(record["name"]) for record in source.records]
        table, notes = None, cautions(source.records)
    else:
        names = list(source.spec["rows"])
        held = source.spec["controls"]
        roles |= {} if held == "none" else dict.fromkeys(held.values(), "control")
        table = make_table(source.spec, source.lines, source.stale)
        notes = [*table.notes, *source.remarks()]
    everyone = dict.fromkeys([*(network.name for network in networks), *names])
    return View(source, table, networks, styles_of(list(everyone), roles), notes)


def _title(source: Source) -> tuple[str, str]:
    """Name of the page, and what it is a report of."""
    if isinstance(source, Comparison):
        rows, seeds = len(source.spec["rows"]), len(source.spec["seeds"])
        return str(
            source.spec["name"]
        ), f"Comparison of {_of(rows, 'row')} with {_of(seeds, 'seed')} each"
    names = [str(record["name"]) for record in source.records]
    if len(names) == 1:
        return names[0], "One run"
    return " · ".join(names[:3]) + (" …" if len(names) > 3 else ""), f"{len(names)} runs"


def _of(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _figures_of(blocks: Iterable[Any]) -> list[Figure]:
    found = []
    for block in blocks:
        if isinstance(block, Figures):
            found += [figure for figure in block.items if figure.data]
        elif isinstance(block, More | Section):
            found += _figures_of(block.blocks)
    return found


def _for_plotly(figure: Figure) -> dict[str, Any]:
    return {"data": figure.data, "layout": figure.layout}


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element, whatever its texts are.

    Numbers that are not finite become null.
    """
    text = json.dumps(finite_only(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


# The verdict


def verdict_sentence(view: View) -> str:
    """What a report comes to, in one sentence."""
    if isinstance(view.source, Runs):
        return _of_runs(view)
    assert view.table is not None
    return _of_comparison(view.source, view.table)


_PHRASES = {
    "shown": "is shown for",
    "not shown": "is not shown for",
    "contradicted": "is contradicted for",
}


def _of_comparison(source: Comparison, table: Table) -> str:
    held = {} if source.spec["controls"] == "none" else source.spec["controls"]
    judged: dict[str, list[str]] = {}
    for row in table.rows:
        if held and "verdict" in row:
            judged.setdefault(row["verdict"], []).append(_gained(row, held))
    said = [
        f"{phrase} {_enumerate(judged[word])}"
        for word, phrase in _PHRASES.items()
        if word in judged
    ]
    said += [
        f"cannot be judged for {_enumerate(rows)} ({word})"
        for word, rows in judged.items()
        if word not in _PHRASES
    ]
    if not held:
        sentence = "Nothing is shown: the comparison has no label-only controls"
    elif said:
        sentence = f"A gain over both label-only controls {_enumerate(said)}"
    else:
        sentence = "Nothing can be judged yet: no row that is held against the controls has run"
    failed = [str(row["row"]) for row in table.rows if "failed" in row]
    waiting = [str(row["row"]) for row in table.rows if row.get("seeds") == 0]
    more = [f"{_enumerate(failed)} failed"] if failed else []
    more += [f"{_enumerate(waiting)} not run yet"] if waiting else []
    return "; ".join([sentence, *more]) + "."


def _gained(row: Mapping[str, Any], held: Mapping[str, str]) -> str:
    gains = [
        (signed(row[f"over_{which}"][0]), held[which])
        for which in ("short", "long")
        if row.get(f"over_{which}")
    ]
    if not gains:
        return str(row["row"])
    (first, control), *more = gains
    said = [f"{first} points over {control}", *(f"{gain} over {name}" for gain, name in more)]
    return f"{row['row']} ({', '.join(said)})"


def _enumerate(texts: Sequence[str]) -> str:
    """Texts as they are said one after the other."""
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


def _of_runs(view: View) -> str:
    students = [one for one in view.networks if one.role != "teacher"]
    if len(students) != 1:
        return (
            f"{len(students)} runs side by side, one seed each: that one is better than another "
            "is not shown."
        )
    (student,) = students
    tested, validated = (mean(student, f"{split}_accuracy") for split in ("test", "validation"))
    split, accuracy = ("test", tested) if tested is not None else ("validation", validated)
    said = f"The student reaches {percent(accuracy)} on {split} in one run"
    teacher = teacher_of(view.networks)
    if teacher is not None and accuracy is not None:
        whole = mean(teacher, f"{split}_accuracy")
        if whole is not None:
            side = "below" if accuracy < whole else "above"
            said += f", {100 * abs(accuracy - whole):.1f} points {side} its teacher"
        own, other = mean(student, "macs"), mean(teacher, "macs")
        if own and other:
            costs = ratio(other, own).rstrip("×")
            said += f", at 1/{costs} of its MACs" if other > own else ", at no fewer MACs"
        if not controls(view.networks):
            said += "; what the method adds is not shown, for no control ran beside it"
    return said + "."
