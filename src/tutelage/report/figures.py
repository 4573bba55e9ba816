"""Figures of what was gained and what it costs, as plotly's plain dictionaries."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from tutelage.report.blocks import Figure, Grid, signed
from tutelage.report.networks import Network, interval, numbers
from tutelage.report.styles import Style, log_axis, marker, plain, short
from tutelage.stats import Interval

__all__ = ["cost_figure", "gain_figure", "pareto_front"]


# Gains


def gain_figure(
    rows: Sequence[Mapping[str, Any]], controls: Mapping[str, str], slug: str
) -> Figure | None:
    """Gains over both controls with their intervals.

    Args:
        rows: of the comparison's table; gains in points.
        controls: names of the short and the long one.
        slug: makes its name in the page its own.
    """
    judged = [row for row in rows if row.get("over_short") or row.get("over_long")]
    if not judged:
        return None
    data, cells = [], []
    for which, style, shift in (
        ("short", Style("var(--series-1)", "circle", "solid"), 0.12),
        ("long", Style("var(--series-2)", "diamond", "solid"), -0.12),
    ):
        gains = [
            (place + shift, tuple(row[f"over_{which}"])[:3])
            for place, row in enumerate(reversed(judged))
            if row.get(f"over_{which}")
        ]
        title = f"over {controls[which]}"
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(title),
                "legendgroup": title,
                "x": [short(gain[0]) for _, gain in gains],
                "y": [place for place, _ in gains],
                "error_x": {
                    "type": "data",
                    "array": [short(gain[2] - gain[0]) for _, gain in gains],
                    "arrayminus": [short(gain[0] - gain[1]) for _, gain in gains],
                    "thickness": 2,
                    "width": 5,
                    "color": style.color,
                },
                "marker": marker(style),
                "hovertemplate": "%{fullData.name}: %{x:+.1f} points<extra></extra>",
            }
        )
    for row in judged:
        shown = [row.get(f"over_{which}") for which in ("short", "long")]
        cells.append(
            [
                str(row["row"]),
                *(
                    f"{signed(gain[0])} ({signed(gain[1])} … {signed(gain[2])})" if gain else "–"
                    for gain in shown
                ),
                str(row.get("verdict", "")),
            ]
        )
    head = ["row", f"over {controls['short']}", f"over {controls['long']}", "verdict"]
    return Figure(
        f"gains{slug}",
        "Gain over the label-only controls",
        "Points of test accuracy; bars are 95 % intervals of the mean paired difference over "
        "seeds. A gain is shown where both lie to the right of zero.",
        f"Gains of {len(judged)} rows over both controls; the numbers are in the table below.",
        Grid("Gain over the controls, in points of test accuracy", head, cells),
        data,
        {
            "height": 96 + 52 * len(judged),
            "xaxis": {
                "title": {"text": "points"},
                "rangemode": "tozero",
                "zeroline": True,
                "zerolinewidth": 2,
            },
            "yaxis": {
                "tickvals": list(range(len(judged))),
                "ticktext": [plain(row["row"]) for row in reversed(judged)],
                "range": [-0.6, len(judged) - 0.4],
                "showgrid": False,
                "zeroline": False,
            },
        },
    )


# Accuracy and cost


def pareto_front(costs: Sequence[Interval], accuracies: Sequence[Interval]) -> list[bool]:
    """Which of several are not certainly beaten.

    One is beaten by another that is as cheap and as accurate, and better in one. What differs must
    do so beyond both intervals: of two whose intervals overlap neither beats the other.

    >>> free, dear = Interval(1.0, 0.9, 1.1), Interval(2.0, 1.5, 2.5)
    >>> pareto_front([free, dear], [Interval(0.7, 0.7, 0.7), Interval(0.65, 0.65, 0.65)])
    [True, False]
    """
    pairs = list(zip(costs, accuracies, strict=True))
    return [
        not any(
            (other_cost == cost or other_cost.high <= cost.low)
            and (other == accuracy or other.low >= accuracy.high)
            and (other_cost, other) != (cost, accuracy)
            for other_cost, other in pairs
        )
        for cost, accuracy in pairs
    ]


def _exactly(number: float) -> Interval:
    return Interval(number, number, number)


def _span(values: Sequence[float], overlap: float = 0.0) -> Interval:
    """The interval of a mean over seeds; of too few seeds, or without a spread, the mean alone.

    Args:
        overlap: of folds; see `stats.paired_interval`.
    """
    if len(set(values)) == 1:
        return _exactly(values[0])
    return interval(values, overlap=overlap) or _exactly(fmean(values))


def cost_figure(
    networks: Sequence[Network],
    styles: Mapping[str, Style],
    split: str,
    cost: str,
    title: str,
    unit: str,
    scale: float = 1.0,
) -> Figure | None:
    """Accuracy against a cost.

    Args:
        split: on which accuracy was measured.
        cost: its key in records.
        title: what it is called.
        unit: its unit, once multiplied by `scale`.
    """
    right = f"{split}_accuracy"
    known = [one for one in networks if numbers(one, cost) and numbers(one, right)]
    if not known:
        return None
    costs = [_span([scale * value for value in numbers(one, cost)]) for one in known]
    accuracies = [
        _span([100 * value for value in numbers(one, right)], one.overlap) for one in known
    ]
    front = pareto_front(costs, accuracies)
    means = [[_exactly(span.mean) for span in spans] for spans in (costs, accuracies)]
    edge = sorted(
        (x.mean, y.mean)
        for x, y, is_edge in zip(*means, pareto_front(*means), strict=True)
        if is_edge
    )
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [short(x) for x, _ in edge],
            "y": [short(y) for _, y in edge],
            "line": {"color": "var(--soft)", "width": 1.5, "dash": "dot", "shape": "hv"},
            "hoverinfo": "skip",
        }
    ]
    rows = []
    for one, x, y, is_front in zip(known, costs, accuracies, front, strict=True):
        style = styles[one.name]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(one.name),
                "legendgroup": one.name,
                "x": [short(x.mean)],
                "y": [short(y.mean)],
                "marker": marker(style, 11, filled=is_front),
                "hovertemplate": f"%{{fullData.name}}: %{{y:.1f}} %, %{{x:.3~s}} {unit}"
                "<extra></extra>",
            }
            | {
                f"error_{axis}": {
                    "type": "data",
                    "array": [short(span.high - span.mean)],
                    "color": style.color,
                    "thickness": 1.5,
                    "width": 4,
                }
                for axis, span in (("x", x), ("y", y))
                if span.high > span.mean
            }
        )
        rows.append(
            [
                one.name,
                f"{x.mean:.3g}",
                _ends(x, ".3g"),
                f"{y.mean:.1f}",
                _ends(y, ".1f"),
                "yes" if is_front else "no",
            ]
        )
    lowest, highest = min(x.mean for x in costs), max(x.mean for x in costs)
    head = ["network", f"{title}, {unit}", "95 % interval of it", f"{split} accuracy %"]
    head += ["95 % interval of that", "on the front"]
    pooled = " " + _POOLED if cost.startswith("latency") else ""
    return Figure(
        f"cost-{cost.replace('_', '-')}",
        f"Accuracy against {title}",
        f"Accuracy on {split}. Dotted: the Pareto front of the means. Hollow: another is at least "
        "as cheap and as accurate, and better beyond the intervals. Bars: 95 % t-intervals over "
        f"seeds, none below three.{pooled}",
        f"Of {len(known)} networks {sum(front)} are on the Pareto front of accuracy and {title}.",
        Grid(f"Accuracy against {title}", head, rows),
        data,
        {
            "height": 360,
            "xaxis": {"title": {"text": f"{title}, {unit}"}}
            | (log_axis(lowest, highest) if highest > 5 * lowest > 0 else {"rangemode": "tozero"}),
            "yaxis": {"title": {"text": f"{split} accuracy, %"}},
        },
    )


_POOLED = (
    "Latencies are means of all measurements of one architecture, so that equal networks stand at "
    "one place, and their intervals are over measurements."
)


def _ends(span: Interval, form: str) -> str:
    return f"{span.low:{form}} … {span.high:{form}}" if span.high > span.low else "–"
