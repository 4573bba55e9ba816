"""Curves of training runs: loss, accuracy and every term, thinned out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tutelage.report.blocks import Figure, Grid
from tutelage.report.counting import finite
from tutelage.report.lines import Record
from tutelage.report.styles import Style, log_axis, numbered_style, plain, short

__all__ = ["MOST_POINTS", "Logged", "curve_figures", "terms_of", "thin"]

MOST_POINTS = 150
"""Of a curve; more cannot be told apart on a screen."""

_LOSS, _SUPERVISED = "loss", "supervised"
_NO_TERMS = {
    *("step", "lr", "images_per_second", "accuracy", "validation_accuracy", _LOSS),
}


class Logged(NamedTuple):
    """What one run has logged.

    Attributes:
        row: whose style it has.
        seed: shown beside the row's name.
        first: whether it is the first of its row; others are drawn thin, and can be hidden.
        lines: of metrics.jsonl.
    """

    row: str
    seed: int
    first: bool
    lines: Sequence[Record]


def thin(steps: Sequence[float], most: int = MOST_POINTS) -> list[int]:
    """Places of evenly spread points, both ends among them.

    >>> thin([10, 20, 30, 40, 50], most=3)
    [0, 2, 4]
    """
    count = len(steps)
    if count <= most:
        return list(range(count))
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})


def terms_of(lines: Sequence[Record]) -> list[str]:
    """Names of the terms of a run's loss, in the order in which they first appear."""
    return list(dict.fromkeys(key for line in lines for key in line if key not in _NO_TERMS))


def curve_figures(runs: Sequence[Logged], styles: Mapping[str, Style], slug: str) -> list[Figure]:
    """One figure each for the loss, accuracies, the supervised term, and each method's terms.

    Args:
        styles: of the rows.
        slug: makes their names in the page their own.
    """
    single = (
        (_LOSS, "Loss", "The weighted sum of all terms; its scale differs between rows."),
        (
            "accuracy",
            "Accuracy on training pictures",
            "Percent right of the labelled pictures of the last interval, as they were augmented.",
        ),
        ("validation_accuracy", "Accuracy on validation", "Percent right, while training."),
        (_SUPERVISED, "Supervised term", "The loss from labels, before its weight."),
    )
    found = [
        _figure(f"curve-{key.replace('_', '-')}{slug}", title, caption, _by_row(runs, key, styles))
        for key, title, caption in single
    ]
    methods: dict[str, list[str]] = {}
    for run in runs:
        for term in terms_of(run.lines):
            if term != _SUPERVISED:
                known = methods.setdefault(_group(term), [])
                known += [] if term in known else [term]
    for number, (method, terms) in enumerate(methods.items()):
        title = terms[0] if len(terms) == 1 else f"Terms of {method}"
        if method == _SUPERVISED:
            title = "Supervised terms of sub-nets"
        traces = _by_term(runs, terms, styles)
        found.append(_figure(f"curve-term-{number}{slug}", title, "Before its weight.", traces))
    return [figure for figure in found if figure is not None]


def _group(term: str) -> str:
    """The method that a term is of; those of sub-nets' labels stand together."""
    return _SUPERVISED if term.startswith(f"{_SUPERVISED}/") else term.partition(".")[0]


class _Curve(NamedTuple):
    """A line of a figure."""

    name: str
    run: Logged
    style: Style
    points: list[tuple[float, float]]


def _points(run: Logged, key: str) -> list[tuple[float, float]]:
    scale = 100 if key.endswith("accuracy") else 1
    known = [
        (line["step"], scale * number)
        for line in run.lines
        if (number := finite(line.get(key))) is not None
    ]
    return [known[place] for place in thin([step for step, _ in known])]


def _by_row(runs: Sequence[Logged], key: str, styles: Mapping[str, Style]) -> list[_Curve]:
    curves = [_Curve(run.row, run, styles[run.row], _points(run, key)) for run in runs]
    return [curve for curve in curves if curve.points]


def _by_term(
    runs: Sequence[Logged], terms: Sequence[str], styles: Mapping[str, Style]
) -> list[_Curve]:
    """Colors tell terms apart if only one row has them, rows otherwise."""
    rows = {run.row for run in runs if set(terms) & set(terms_of(run.lines))}
    curves = []
    for run in runs:
        for number, term in enumerate(terms):
            name = run.row
            style = styles[run.row]
            if len(terms) > 1:
                own = numbered_style(number)
                style = own if len(rows) == 1 else style._replace(dash=own.dash)
                name = term if len(rows) == 1 else f"{run.row}, {term}"
            curves.append(_Curve(name, run, style, _points(run, term)))
    return [curve for curve in curves if curve.points]


def _figure(key: str, title: str, caption: str, curves: Sequence[_Curve]) -> Figure | None:
    if not curves:
        return None
    lowest = min(y for curve in curves for _, y in curve.points)
    highest = max(y for curve in curves for _, y in curve.points)
    percent = "accuracy" in key
    log = not percent and lowest > 0 and highest > 5 * lowest
    thinned = any(len(curve.points) >= MOST_POINTS for curve in curves)
    rows = [
        [
            curve.name,
            str(curve.run.seed),
            *(f"{value:.4g}" for value in _ends(curve.points)),
        ]
        for curve in curves
    ]
    more = f" Thinned to {MOST_POINTS} points a curve." if thinned else ""
    several = any(not curve.run.first for curve in curves)
    return Figure(
        key,
        title,
        caption + (" Thin: further seeds." if several else "") + more,
        f"{title} of {len(curves)} curves over training steps.",
        Grid(title, ["curve", "seed", "first", "lowest", "highest", "last"], rows),
        [_trace(curve) for curve in curves],
        {
            "height": 320,
            "xaxis": {"title": {"text": "step"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "%" if percent else ""}}
            | (log_axis(lowest, highest) if log else {}),
        },
    )


def _trace(curve: _Curve) -> dict[str, Any]:
    style = curve.style
    return {
        "type": "scatter",
        "mode": "lines" if len(curve.points) > 1 else "markers",
        "name": plain(curve.name),
        "legendgroup": curve.name,
        "meta": {"seed": curve.run.seed, "further": not curve.run.first},
        "x": [_whole(step) for step, _ in curve.points],
        "y": [short(value) for _, value in curve.points],
        "line": {"color": style.color, "dash": style.dash, "width": 2 if curve.run.first else 1},
        "opacity": 1 if curve.run.first else 0.55,
        "hovertemplate": "%{fullData.name}, seed %{fullData.meta.seed}, step %{x}: %{y:.4g}"
        "<extra></extra>",
    }


def _whole(step: float) -> float:
    """A whole number without its point."""
    return int(step) if step == int(step) else step


def _ends(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    values = [value for _, value in points]
    return values[0], min(values), max(values), values[-1]
