"""How networks look in every figure of a report, and what plotly is told."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Style", "log_axis", "marker", "numbered_style", "plain", "short", "styles_of"]

_COLORS = 6  # --series-1 and so on, of the page's style
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


class Style(NamedTuple):
    """How a network looks in every figure; no two differ in color alone."""

    color: str
    symbol: str
    dash: str


def styles_of(
    names: Sequence[str], roles: Mapping[str, str], rows: Mapping[str, str] | None = None
) -> dict[str, Style]:
    """A style for each name: teachers dark, controls gray, students in colors.

    Args:
        names: in the order of the report.
        roles: of those that are not students.
        rows: of names; those of one row share a color.
    """
    found: dict[str, Style] = {}
    places: dict[str, int] = {}
    students = others = 0
    for name in names:
        if roles.get(name) in ("teacher", "control"):
            color = "var(--teacher)" if roles[name] == "teacher" else "var(--control)"
            symbol = "star" if roles[name] == "teacher" else _SYMBOLS[others % len(_SYMBOLS)]
            found[name] = Style(color, symbol, _DASHES[others % len(_DASHES)])
            others += roles[name] == "control"
        else:
            place = places.setdefault((rows or {}).get(name, name), len(places))
            own, shared = numbered_style(students), numbered_style(place)
            found[name] = own._replace(color=shared.color)
            students += 1
    return found


def numbered_style(number: int) -> Style:
    """The style of one of several students, or of one of several terms."""
    dash = _DASHES[number // _COLORS % len(_DASHES)]
    return Style(f"var(--series-{number % _COLORS + 1})", _SYMBOLS[number % len(_SYMBOLS)], dash)


def plain(text: object) -> str:
    """Text that plotly shows as it stands, though it knows some HTML."""
    return html.escape(str(text), quote=False)


def short(number: float | None) -> float | None:
    """Four digits, which is more than can be seen, in few characters."""
    return None if number is None else float(f"{number:.4g}")


def marker(style: Style, size: int = 10, *, filled: bool = True) -> dict[str, Any]:
    """Plotly's marker of a style; hollow unless `filled`. Its size is in pixels."""
    symbol = style.symbol if filled else f"{style.symbol}-open"
    return {
        "color": style.color,
        "symbol": symbol,
        "size": size,
        "line": {"width": 1.5, "color": style.color},
    }


def log_axis(low: float, high: float) -> dict[str, Any]:
    """Of plotly's axis: logarithmic, with round numbers on it.

    Args:
        low, high: of what is drawn; both above 0.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high < 300 * low else (1,)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
