"""Figures of classes, confidence, robustness and likeness, as plotly's plain dictionaries."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.report.blocks import Figure, Grid, points, signed
from tutelage.report.networks import (
    Network,
    bins,
    class_names,
    confusion,
    corruptions,
    mean,
    per_class,
)
from tutelage.report.styles import Style, marker, plain, short

__all__ = [
    "MOST_CLASSES",
    "class_figure",
    "confusion_figure",
    "corruption_figure",
    "reliability_figure",
    "severity_figure",
    "similarity_figure",
]

MOST_CLASSES = 100
"""Of more classes a table of the largest differences is shown, and no map."""

_MOST_BARS = 40
_LARGEST = 10
_DIVERGING = [[0, "var(--low)"], [0.5, "var(--middle)"], [1, "var(--high)"]]
_RISING = [[0, "var(--middle)"], [1, "var(--high)"]]


# Classes


def class_figure(
    students: Sequence[Network], reference: Network, styles: Mapping[str, Style], slug: str
) -> Figure | None:
    """By how much students differ from another network on each class.

    Args:
        slug: here and below, makes the figure's name in the page its own.
    """
    held, names = per_class(reference), class_names(reference)
    if held is None or names is None:
        return None
    differences: dict[str, list[float | None]] = {}
    for student in students:
        own = per_class(student)
        if own is not None and class_names(student) == names:
            differences[student.name] = [
                None if a is None or b is None else 100 * (a - b)
                for a, b in zip(own, held, strict=True)
            ]
    if not differences:
        return None
    order = list(range(len(names)))
    if len(names) > _MOST_BARS:
        first = next(iter(differences.values()))
        order.sort(key=lambda place: first[place] or 0.0)
        order = order[: _MOST_BARS // 2] + order[-_MOST_BARS // 2 :]
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": plain(name),
            "legendgroup": name,
            "x": [short(values[place]) for place in order],
            "y": [plain(names[place]) for place in order],
            "marker": marker(styles[name], 9),
            "hovertemplate": "%{fullData.name}, %{y}: %{x:+.1f} points<extra></extra>",
        }
        for name, values in differences.items()
    ]
    part = "" if len(order) == len(names) else f" The {len(order)} most different classes."
    rows = [
        [names[place], *(signed(values[place]) for values in differences.values())]
        for place in range(len(names))
    ]
    return Figure(
        f"classes-{reference.role}{slug}",
        f"Each class, minus {reference.name}",
        f"Points of test accuracy on each class by which a student is above "
        f"{reference.name}.{part}",
        f"Differences of {len(differences)} networks to {reference.name} on {len(names)} classes.",
        Grid(
            f"Accuracy on each class minus that of {reference.name}, points",
            ["class", *differences],
            rows,
        ),
        data,
        {
            "height": 100 + 24 * len(order),
            "xaxis": {
                "title": {"text": "points"},
                "rangemode": "tozero",
                "zeroline": True,
                "zerolinewidth": 2,
            },
            "yaxis": {"autorange": "reversed", "type": "category", "dtick": 1},
        },
    )


def confusion_figure(student: Network, reference: Network, slug: str) -> Figure | None:
    """How a student's confusions differ from another network's."""
    own, other = confusion(student), confusion(reference)
    names = class_names(student)
    if own is None or other is None or names is None or names != class_names(reference):
        return None
    difference = 100 * (own - other)
    largest = _largest_confusions(difference)
    rows = [
        [names[i], names[j], signed(difference[i, j]), points(own[i, j]), points(other[i, j])]
        for i, j in largest
    ]
    told = "; ".join(f"{row[0]} taken for {row[1]}: {row[2]} points" for row in rows[:3])
    drawn = len(names) <= MOST_CLASSES
    limit = max(float(np.abs(difference).max()), 1.0)
    shown = [plain(name) for name in names]
    trace = {
        "type": "heatmap",
        "z": np.round(difference, 1).tolist(),
        "x": shown,
        "y": shown,
        "zmin": -limit,
        "zmax": limit,
        "colorscale": _DIVERGING,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "ticksuffix": " pt"},
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{y} taken for %{x}: %{z:+.1f} points<extra></extra>",
    }
    head = ["true class", "taken for", "difference, points", student.name, reference.name]
    return Figure(
        f"confusion{slug}",
        f"Confusions of {student.name}, minus {reference.name}",
        "Percentage points of each true class (rows) that go to each class (columns); on the "
        "diagonal more is better, elsewhere less."
        + ("" if drawn else f" With {len(names)} classes only the largest are listed."),
        f"The largest differences: {told or 'none'}.",
        Grid("The largest differences off the diagonal, % of the true class", head, rows),
        [trace] if drawn else [],
        {
            "height": int(min(230 + 22 * len(names), 760)),
            "xaxis": {"type": "category", "showgrid": False, "tickangle": -45},
            "yaxis": {"type": "category", "showgrid": False, "autorange": "reversed"},
        },
    )


def _largest_confusions(difference: NDArray[np.float64]) -> list[tuple[int, int]]:
    off = np.abs(difference) * (1 - np.eye(len(difference)))
    order = np.argsort(-off, axis=None, kind="stable")[:_LARGEST]
    places = [(int(place) // len(off), int(place) % len(off)) for place in order]
    return [place for place in places if off[place] > 0]


# Confidence


def reliability_figure(
    networks: Sequence[Network], styles: Mapping[str, Style], slug: str
) -> Figure | None:
    """How often networks are right when they are so sure."""
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [0, 1],
            "y": [0, 1],
            "line": {"color": "var(--soft)", "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
        }
    ]
    rows = []
    for network in networks:
        pooled = bins(network)
        if pooled is None:
            continue
        style = styles[network.name]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(network.name),
                "legendgroup": network.name,
                "x": [short(confidence) for _, confidence, _ in pooled],
                "y": [short(accuracy) for _, _, accuracy in pooled],
                "line": {"color": style.color, "dash": style.dash, "width": 2},
                "marker": marker(style, 7),
                "hovertemplate": "%{fullData.name}: %{y:.0%} right at confidence %{x:.0%}"
                "<extra></extra>",
            }
        )
        rows += [
            [network.name, points(confidence), points(accuracy), f"{count:,.0f}"]
            for count, confidence, accuracy in pooled
        ]
    if not rows:
        return None
    head = ["network", "confidence %", "right %", "pictures, all seeds"]
    return Figure(
        f"reliability{slug}",
        "Reliability",
        "Share of test pictures that are right against the confidence given, in bins. Below the "
        "dotted line a network is surer than it is right.",
        f"Reliability diagram of {len(data) - 1} networks.",
        Grid("Reliability", head, rows),
        data,
        {
            "height": 400,
            "xaxis": {"title": {"text": "confidence"}, "tickformat": ".0%", "range": [0, 1.02]},
            "yaxis": {"title": {"text": "right"}, "tickformat": ".0%", "range": [0, 1.02]},
        },
    )


# Robustness


def corruption_figure(networks: Sequence[Network], slug: str) -> Figure | None:
    """Accuracy under each corruption, mean over severities."""
    found = {one.name: known for one in networks if (known := corruptions(one))}
    if not found:
        return None
    names = list(dict.fromkeys(name for known in found.values() for name in known))
    table = [[_whole_mean(known.get(name, ())) for known in found.values()] for name in names]
    shown = [[None if share is None else round(100 * share, 1) for share in row] for row in table]
    trace = {
        "type": "heatmap",
        "z": shown,
        "x": [plain(name) for name in found],
        "y": [plain(name) for name in names],
        "colorscale": _RISING,
        "zmin": 0,
        "zmax": 100,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "ticksuffix": " %"},
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{x}, %{y}: %{z:.1f} %<extra></extra>",
    }
    if len(found) <= 6:
        trace |= {"texttemplate": "%{z:.0f}"}
    rows = [[name, *map(points, row)] for name, row in zip(names, table, strict=True)]
    return Figure(
        f"corruptions{slug}",
        "Accuracy under corruptions",
        "Percent right, mean over severities 1 to 5.",
        f"Accuracy of {len(found)} networks under {len(names)} corruptions.",
        Grid("Accuracy under corruptions, %", ["corruption", *found], rows),
        [trace],
        {
            "height": 130 + 26 * len(names),
            "xaxis": {"type": "category", "showgrid": False, "side": "top", "tickangle": -30},
            "yaxis": {"type": "category", "showgrid": False, "autorange": "reversed", "dtick": 1},
        },
    )


def severity_figure(
    networks: Sequence[Network], styles: Mapping[str, Style], slug: str
) -> Figure | None:
    """How accuracy falls with severity, mean over corruptions."""
    data, rows = [], []
    deepest = 0
    for network in networks:
        known = corruptions(network)
        if not known:
            continue
        levels = max(map(len, known.values()))
        shares = [mean(network, "robustness", "clean")]
        for level in range(levels):
            at_level = [shares_of[level] for shares_of in known.values() if level < len(shares_of)]
            shares.append(_whole_mean(at_level))
        deepest = max(deepest, levels)
        style = styles[network.name]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(network.name),
                "legendgroup": network.name,
                "x": list(range(levels + 1)),
                "y": [None if share is None else short(100 * share) for share in shares],
                "line": {"color": style.color, "dash": style.dash, "width": 2},
                "marker": marker(style, 8),
                "hovertemplate": "%{fullData.name}, severity %{x}: %{y:.1f} %<extra></extra>",
            }
        )
        rows.append([network.name, *map(points, shares)])
    if not data:
        return None
    rows = [row + [""] * (deepest + 2 - len(row)) for row in rows]
    return Figure(
        f"severity{slug}",
        "Accuracy against severity",
        "Percent right, mean over corruptions; severity 0 is the clean picture.",
        f"Accuracy of {len(data)} networks from severity 0 to {deepest}.",
        Grid(
            "Accuracy against severity, %",
            ["network", *(f"severity {level}" for level in range(deepest + 1))],
            rows,
        ),
        data,
        {
            "height": 360,
            "xaxis": {"title": {"text": "severity"}, "dtick": 1},
            "yaxis": {"title": {"text": "accuracy, %"}, "rangemode": "tozero"},
        },
    )


def _whole_mean(values: Sequence[float | None]) -> float | None:
    """None if any of them is missing: the rest would be easier or harder than all."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


# Likeness inside


class _Alike(NamedTuple):
    """One way in which maps can be alike: how its figure is called, and what it says."""

    slug: str
    title: str
    caption: str
    name: str
    least: int


ALIKE: Mapping[str, _Alike] = {
    "cka": _Alike(
        "similarity",
        "Likeness of maps to the teacher's",
        "Linear CKA of a student's tap (left) and a teacher's; 1 is alike up to rotation and "
        "scale.",
        "Linear CKA",
        0,
    ),
    "attention": _Alike(
        "attention",
        "Whether student and teacher look at the same places",
        "Correlation, over the places of a picture, of how strong a student's tap (left) and a "
        "teacher's are there; the mean over pictures. 1 is the same places, 0 no relation.",
        "Correlation of attention maps",
        -1,
    ),
}
"""What a record holds of a pair of maps → how it is shown."""


def similarity_figure(
    similar: Mapping[str, Mapping[tuple[str, str], float]], slug: str, key: str = "cka"
) -> Figure | None:
    """How alike maps of student and teacher are.

    Args:
        similar: name of the network → (student's tap, teacher's tap) → likeness.
        key: in which way, of `ALIKE`.
    """
    alike = ALIKE[key]
    pairs = list(dict.fromkeys(pair for known in similar.values() for pair in known))
    if not pairs:
        return None
    titles = [f"{student} – {teacher}" for student, teacher in pairs]
    table = [[known.get(pair) for known in similar.values()] for pair in pairs]
    trace = {
        "type": "heatmap",
        "z": [[short(value) for value in row] for row in table],
        "x": [plain(name) for name in similar],
        "y": [plain(title) for title in titles],
        "colorscale": _DIVERGING if alike.least < 0 else _RISING,
        "zmin": alike.least,
        "zmax": 1,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{x}, %{y}: %{z:.2f}<extra></extra>",
    }
    if len(similar) <= 6:
        trace |= {"texttemplate": "%{z:.2f}"}
    rows = [
        [title, *("–" if value is None else f"{value:.3f}" for value in row)]
        for title, row in zip(titles, table, strict=True)
    ]
    return Figure(
        f"{alike.slug}{slug}",
        alike.title,
        alike.caption,
        f"{alike.name} of {len(pairs)} pairs of taps in {len(similar)} networks.",
        Grid(alike.name, ["student's – teacher's tap", *similar], rows),
        [trace],
        {
            "height": 130 + 28 * len(pairs),
            "xaxis": {"type": "category", "showgrid": False, "side": "top", "tickangle": -30},
            "yaxis": {"type": "category", "showgrid": False, "autorange": "reversed", "dtick": 1},
        },
    )
