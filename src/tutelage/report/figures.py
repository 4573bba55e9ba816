"""Figures of what was gained and what it costs, as plotly's plain dictionaries."""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.report.blocks import Figure, Grid, signed
from tutelage.report.networks import Network, interval, mean, numbers
from tutelage.report.styles import Style, log_axis, marker, plain, short

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


def pareto_front(costs: Sequence[float], accuracies: Sequence[float]) -> list[bool]:
    """Which of several are not beaten: no other is as cheap and as accurate, and better in one.

    >>> pareto_front([1.0, 1.0, 2.0, 3.0], [0.6, 0.7, 0.65, 0.9])
    [False, True, False, True]
    """
    pairs = list(zip(costs, accuracies, strict=True))
    return [
        not any(
            other_cost <= cost and other >= accuracy and (other_cost, other) != (cost, accuracy)
            for other_cost, other in pairs
        )
        for cost, accuracy in pairs
    ]


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
    known = [one for one in networks if numbers(one, cost) and numbers(one, f"{split}_accuracy")]
    if not known:
        return None
    costs = [scale * (mean(one, cost) or 0.0) for one in known]
    accuracies = [100 * (mean(one, f"{split}_accuracy") or 0.0) for one in known]
    front = pareto_front(costs, accuracies)
    edge = sorted(
        (x, y) for x, y, is_front in zip(costs, accuracies, front, strict=True) if is_front
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
        spans = [
            interval([scale * value for value in numbers(one, cost)]),
            interval([100 * value for value in numbers(one, f"{split}_accuracy")]),
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(one.name),
                "legendgroup": one.name,
                "x": [short(x)],
                "y": [short(y)],
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
                for axis, span in zip("xy", spans, strict=True)
                if span is not None and span.high > span.mean
            }
        )
        told = f"{spans[1].low:.1f} … {spans[1].high:.1f}" if spans[1] else "–"
        rows.append([one.name, f"{x:.3g}", f"{y:.1f}", told, "yes" if is_front else "no"])
    wide = max(costs) > 5 * min(costs) > 0
    head = ["network", f"{title}, {unit}", f"{split} accuracy %", "95 % interval", "on the front"]
    return Figure(
        f"cost-{cost.replace('_', '-')}",
        f"Accuracy against {title}",
        f"Accuracy on {split}. Filled: on the Pareto front (dotted); hollow: "
        "another is at least as cheap and as accurate. Bars: 95 % t-intervals over seeds, none "
        "below three.",
        f"Of {len(known)} networks {sum(front)} are on the Pareto front of accuracy and {title}.",
        Grid(f"Accuracy against {title}", head, rows),
        data,
        {
            "height": 360,
            "xaxis": {"title": {"text": f"{title}, {unit}"}}
            | (log_axis(min(costs), max(costs)) if wide else {"rangemode": "tozero"}),
            "yaxis": {"title": {"text": f"{split} accuracy, %"}},
        },
    )
