"""What methods chose between phases: candidates, their scores, and which stayed.

A method shows here what it finds as `{"score": what it ranked by, "scores": {candidate: number},
"kept": [candidates]}`, lower scores being better.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tutelage.report.blocks import Figure, Grid
from tutelage.report.counting import finite
from tutelage.report.lines import Record
from tutelage.report.styles import marker, numbered_style, plain, short

__all__ = ["Selection", "selection_figure", "selections", "survivors"]


class Selection(NamedTuple):
    """What one method of one run chose.

    Attributes:
        run: its name.
        seed: of the run.
        method: that chose.
        score: what it ranked by.
        phases: number of the phase, from 1 → scores (None: no number) and what was kept.
    """

    run: str
    seed: int
    method: str
    score: str
    phases: Mapping[int, tuple[Mapping[str, float | None], Sequence[str]]]

    @property
    def left(self) -> Sequence[str]:
        """What stayed to the end."""
        return self.phases[max(self.phases)][1]


def selections(run: str, record: Record) -> list[Selection]:
    """The choices of a run's methods, as its record tells them."""
    found: dict[str, dict[int, tuple[Mapping[str, float | None], Sequence[str]]]] = {}
    by: dict[str, str] = {}
    for number, phase in enumerate(record.get("phases") or [], start=1):
        for method, findings in phase.items():
            if not _is_choice(findings):
                continue
            scores = {str(name): finite(value) for name, value in findings["scores"].items()}
            found.setdefault(method, {})[number] = scores, [str(name) for name in findings["kept"]]
            by[method] = str(findings.get("score", "score"))
    seed = record.get("recipe", {}).get("seed", 0)
    return [Selection(run, seed, method, by[method], phases) for method, phases in found.items()]


def _is_choice(findings: Any) -> bool:
    return (
        isinstance(findings, Mapping)
        and isinstance(findings.get("scores"), Mapping)
        and isinstance(findings.get("kept"), list | tuple)
    )


def selection_figure(selection: Selection, slug: str) -> Figure | None:
    """Scores over phases, one line per candidate, which ends where it was dropped.

    None where nothing was scored: what there was at the start stayed.

    Args:
        slug: makes its name in the page its own.
    """
    names = list(dict.fromkeys(name for scores, _ in selection.phases.values() for name in scores))
    if not names:
        return None
    data, rows = [], []
    for place, name in enumerate(names):
        known = [
            (number, scores[name])
            for number, (scores, _) in selection.phases.items()
            if name in scores
        ]
        stayed = name in selection.left
        fate = "stayed" if stayed else f"dropped after phase {known[-1][0]}"
        values = [scores.get(name) for scores, _ in selection.phases.values()]
        rows.append([name, fate, *("–" if one is None else f"{one:.4g}" for one in values)])
        style = numbered_style(place)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(name),
                "legendgroup": name,
                "x": [number for number, _ in known],
                "y": [short(score) for _, score in known],
                "line": {"color": style.color, "dash": style.dash, "width": 3 if stayed else 1},
                "marker": marker(style, 12 if stayed else 8, filled=stayed),
                "hovertemplate": "%{fullData.name}, phase %{x}: %{y:.4g}<extra></extra>",
            }
        )
    left = " and ".join(selection.left)
    return Figure(
        f"selection{slug}",
        f"What {selection.method} chose in {selection.run}",
        f"Score ({selection.score}; lower is better) of each candidate after each phase. A line "
        "ends where its candidate was dropped; what stayed is filled.",
        f"Of {len(names)} candidates {left} stayed.",
        Grid(
            f"Scores of {selection.method}",
            ["candidate", "fate", *(f"phase {number}" for number in selection.phases)],
            rows,
        ),
        data,
        {
            "height": 360,
            "xaxis": {"title": {"text": "phase"}, "dtick": 1},
            "yaxis": {"title": {"text": selection.score}},
        },
    )


def survivors(found: Sequence[Selection]) -> Grid:
    """What stayed in every run."""
    rows = [
        [one.run, str(one.seed), one.method, ", ".join(one.left)]
        for one in sorted(found, key=lambda one: (one.run, one.seed))
    ]
    return Grid("What stayed of the candidates", ["row", "seed", "method", "stayed"], rows)
