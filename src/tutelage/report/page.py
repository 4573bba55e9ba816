"""A report as one HTML file that needs nothing but a browser."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from tutelage.errors import RunError
from tutelage.records import write_atomic
from tutelage.report.blocks import Figure, Figures, Group, More, Section, signed, spans
from tutelage.report.claims import Finding
from tutelage.report.comparisons import make_tables
from tutelage.report.layout import Table
from tutelage.report.lines import full_name
from tutelage.report.metrics import METRICS
from tutelage.report.networks import controls, mean, networks_of, teacher_of
from tutelage.report.sections import sections
from tutelage.report.sources import Comparison, Runs, Source, finite_only
from tutelage.report.styles import styles_of
from tutelage.report.tables import cautions, percent, ratio
from tutelage.report.views import Part, View, notes_of

__all__ = ["make_page", "verdict_sentence", "write_page"]


def write_page(source: Source, path: Path, *, pictures: bool = False) -> None:
    """Writes a report's page, whole or not at all.

    Args:
        path: of the file, ending in .html; one that is there is replaced.
        pictures: whether it shows pictures of the data, as run folders hold them.

    Raises:
        RunError: the path is no place for a page, no space is left, or a file of pictures is
            damaged.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"{path} is no name for a page. Give one that ends in .html.")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"cannot be: there is no folder {path.parent}"
        raise RunError(f"{path} {what}. Name a file in a folder that exists.")
    write_atomic(path, make_page(source, pictures=pictures))


def make_page(source: Source, *, pictures: bool = False) -> str:
    """A report's page: text, tables, and figures that are drawn when they are scrolled to.

    The same source gives the same page. It sends no request, and is all there without JavaScript
    but for the figures, whose numbers stand in tables beside them.

    Args:
        pictures: whether it shows pictures of the data; otherwise there is none in it.

    Raises:
        RunError: a file of pictures is damaged.
    """
    view = _view(source)
    made = sections(view, with_pictures=pictures)
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
    environment.filters["spans"] = spans
    return environment.get_template("page.html").render(
        title=title,
        kind=kind,
        verdict=verdict_sentence(view),
        pictures=pictures,
        sections=made,
        figures=script_json({key: _for_plotly(figure) for key, figure in figures.items()}),
        plotly=get_plotlyjs() if figures else "",
    )


def _view(source: Source) -> View:
    networks = networks_of(source)
    roles = {network.name: network.role for network in networks}
    if isinstance(source, Runs):
        tables: list[Table] = []
        titles, short = [""], None
        rows = {str(record["name"]): str(record["name"]) for record in source.records}
        notes = ([*cautions(source.records), *source.remarks()], [[]])
    else:
        tables = make_tables(source.spec, source.lines, source.stale, source.late)
        titles = [table.title for table in tables]
        rows = {full_name(row, title): row for title in titles for row in source.spec["rows"]}
        held = {} if source.spec["controls"] == "none" else source.spec["controls"]
        short = held.get("short")
        roles |= {name: "control" for name, row in rows.items() if row in held.values()}
        notes = notes_of(source, tables)
    everyone = dict.fromkeys([*(network.name for network in networks), *rows])
    rows |= {network.name: network.row for network in networks}
    by_row = {rows[name]: roles[name] for name in everyone if name in roles}
    within = styles_of(list(dict.fromkeys(rows[name] for name in everyone)), by_row)
    parts = [
        Part(
            title,
            f"-{number}" if number else "",
            [one._replace(name=one.row) for one in networks if one.part in ("", title)],
            within,
            short,
        )
        for number, title in enumerate(titles)
    ]
    styles = styles_of(list(everyone), roles, rows)
    return View(source, tables, networks, styles, parts, *notes)


def _title(source: Source) -> tuple[str, str]:
    """Name of the page, and what it is a report of."""
    if isinstance(source, Comparison):
        rows, seeds = len(source.spec["rows"]), len(source.spec["seeds"])
        axes = " and ".join(source.spec.get("axes", {}))
        at = f" at {_of(len(source.parts), 'setting')} of {axes}," if axes else ""
        return (
            str(source.spec["name"]),
            f"Comparison of {_of(rows, 'row')}{at} with {_of(seeds, 'seed')} each"
            + ("; numbers are means over seeds" if seeds > 1 else ""),
        )
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
        elif isinstance(block, More | Group | Section):
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
    """What a report comes to, in one sentence.

    Of a comparison: what became of its claims, if it makes any; then the gains over controls.
    """
    if isinstance(view.source, Runs):
        return _of_runs(view, view.source)
    return _of_comparison(view.source, view.tables)


_CLAIMED = {
    "shown": "shown",
    "contradicted": "contradicted",
    "not shown": "not shown",
    "at unequal time": "shown only at unequal training time",
    "declared late": "shown, but claimed only after trials had run",
    "too few seeds": "not decided, with too few seeds",
    "not measured": "not yet measured",
    "measured unevenly": "not decided, as it was measured by different code",
    "fails": "not decided, as a row fails",
}
_PHRASES = {
    "shown": "is shown for",
    "not shown": "is not shown for",
    "contradicted": "is contradicted for",
}
_FEW = 4
"""Of so many claims the sentence also gives numbers."""


def _of_comparison(source: Comparison, tables: Sequence[Table]) -> str:
    held = {} if source.spec["controls"] == "none" else source.spec["controls"]
    failed = [
        full_name(row["row"], table.title)
        for table in tables
        for row in table.rows
        if "failed" in row
    ]
    waiting = [
        full_name(row["row"], table.title)
        for table in tables
        for row in table.rows
        if row.get("seeds") == 0
    ]
    said = _of_claims(tables)
    if held or not said:
        said.append(_of_gains(tables, held))
    said += [f"{_enumerate(failed)} failed"] if failed else []
    said += [f"{_enumerate(waiting)} not run yet"] if waiting else []
    sentence = "; ".join(said)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _of_claims(tables: Sequence[Table]) -> list[str]:
    """What became of claims: one text for each verdict."""
    judged: dict[str, dict[str, list[str]]] = {}
    for table in tables:
        for finding in table.findings:
            few = len(tables) == 1 and len(table.findings) <= _FEW
            said = finding.claim + (_by(finding) if few else "")
            judged.setdefault(finding.verdict, {}).setdefault(said, []).append(table.title)
    order = [*_CLAIMED, *judged]
    return [
        f"claimed and {_CLAIMED.get(word, word)}: {_enumerate(_where(judged[word], tables))}"
        for word in sorted(judged, key=order.index)
    ]


def _by(finding: Finding) -> str:
    """The difference in favor of a claim."""
    if finding.interval is None:
        return ""
    metric = METRICS[finding.claim.rpartition(" on ")[2]]
    return f" (by {signed(finding.interval.mean, metric.decimals)} {metric.unit}".rstrip() + ")"


def _of_gains(tables: Sequence[Table], held: Mapping[str, str]) -> str:
    """For which rows there is a gain over both controls."""
    if not held:
        return "nothing is shown: the comparison has no label-only controls"
    cases = [(row, table.title) for table in tables for row in table.rows if "verdict" in row]
    if not cases:
        return "nothing can be judged yet: no row that is held against the controls has run"
    judged: dict[str, dict[str, list[str]]] = {}
    for row, title in cases:
        name = _gained(row, held) if len(tables) == 1 else str(row["row"])
        judged.setdefault(row["verdict"], {}).setdefault(name, []).append(title)
    said = [
        f"{phrase} {_enumerate(_where(judged[word], tables))}"
        for word, phrase in _PHRASES.items()
        if word in judged
    ]
    said += [
        f"cannot be judged for {_enumerate(_where(rows, tables))} ({word})"
        for word, rows in judged.items()
        if word not in _PHRASES
    ]
    return f"a gain over both label-only controls {_enumerate(said)}"


def _where(said: Mapping[str, Sequence[str]], tables: Sequence[Table]) -> list[str]:
    """Rows or claims, and at which of several parts it is said of them."""
    if len(tables) == 1:
        return list(said)
    return [
        f"{name} everywhere" if len(titles) == len(tables) else f"{name} at {_enumerate(titles)}"
        for name, titles in said.items()
    ]


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


def _of_runs(view: View, source: Runs) -> str:
    if len(source.records) != 1:
        return (
            f"{len(source.records)} runs side by side, one seed each: that one is better than "
            "another is not shown."
        )
    student, *subnets = [one for one in view.networks if one.role != "teacher"]
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
    (record,) = source.records
    if subnets:
        names = [one.name.removeprefix(f"{record['name']}, ") for one in subnets]
        reached = [percent(mean(one, f"{split}_accuracy")) for one in subnets]
        shares = [f"{name} {share}" for name, share in zip(names, reached, strict=True)]
        said += f"; of its sub-nets {' and '.join(shares)}"
        if own := record.get("depths", {}).get("own_parameters"):
            said += f", for which it holds {own:,} parameters more, of norms of their own"
    if answers := record.get("accepted"):
        limits = ", ".join(f"{key} {value}" for key, value in answers[-1]["limits"].items())
        who = f"its sub-net {answers[-1]['subnet']}" if "subnet" in answers[-1] else "it"
        said += f"; does {who} keep {limits}? {answers[-1]['answer']}"
    return said + "."
