"""Which claims were written down only after test had been read for their rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tutelage.report.claims import BEST_OTHER, parse_claim
from tutelage.report.lines import Line

__all__ = ["late_claims"]


def late_claims(entries: Sequence[Mapping[str, Any]], lines: Iterable[Line] = ()) -> dict[str, int]:
    """Claims of the newest specification that came after trials which they are about.

    Args:
        entries: all of a comparison's file in order, specifications among them.
        lines: those that count, under the names that rows have now: a row may have been renamed
            since its trials ran.

    Returns:
        Claim → how many trials of its rows had run, with test read, when a specification first made
        it. Claims that came in time are not in it, nor is any if there is no specification.
    """
    specs = [(place, one["spec"]) for place, one in enumerate(entries) if one["kind"] == "spec"]
    if not specs:
        return {}
    newest = specs[-1][1]
    rows_of = {}
    for line in lines:
        rows_of.setdefault(line["identity"], set()).add(line["row"])
    late = {}
    for text in newest.get("claims", []):
        declared = next(place for place, spec in specs if text in spec.get("claims", []))
        claim = parse_claim(text, newest["rows"])
        about = {claim.better, claim.other}
        about = set(newest["rows"]) if claim.other == BEST_OTHER else about
        run = {
            one["identity"]
            for one in entries[:declared]
            if one["kind"] == "trial" and one["record"].get("readings")
            if about & {one["row"], *rows_of.get(one["identity"], ())}
        }
        if run:
            late[str(claim)] = len(run)
    return late
