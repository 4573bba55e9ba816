"""What was measured of a network's answers, one line each."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from tutelage.report.robustness import mean_corruption_error
from tutelage.report.tables import percent

__all__ = ["measures"]

Record = Mapping[str, Any]


def measures(student: Record, teacher: Record | None = None) -> list[tuple[str, str]]:
    """Name and words of each measure that a student's entry holds, its teacher's beside it."""
    lines = []
    for name, of in _MEASURES.items():
        ours, theirs = of(student), of(teacher or {})
        if ours:
            lines.append((name, f"{ours} (teacher {theirs})" if theirs else ours))
    ours, theirs = (entry.get("robustness") for entry in (student, teacher or {}))
    if ours and theirs and (error := mean_corruption_error(ours, theirs)) is not None:
        relative = mean_corruption_error(ours, theirs, relative=True)
        said = "" if relative is None else f", relative to its loss by corruption {relative:.2f}"
        lines.append(("corruption error", f"{error:.2f} times the teacher's{said}"))
    return lines


def _within(*path: str, show: Callable[[Any], str]) -> Callable[[Record], str]:
    def find(entry: Record) -> str:
        value: Any = entry
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return "" if value is None else show(value)

    return find


def _calibrated(value: Record) -> str:
    said = f"ECE {percent(value['ece'])}, NLL {value['nll']:.3f}, Brier {value['brier']:.3f}"
    if "scaled" in value:
        scaled = value["scaled"]
        said += (
            f"; at temperature {value['temperature']:.2f} ECE {percent(scaled['ece'])}, "
            f"NLL {scaled['nll']:.3f}"
        )
        if scaled["nll"] > value["nll"]:
            said += ", which is worse: what fits validation does not fit test"
    return said


def _worst_classes(test: Record) -> str:
    known = [(share, name) for share, name in zip(test["per_class"], test["classes"], strict=True)]
    worst = sorted((share, name) for share, name in known if share is not None)[:3]
    return ", ".join(f"{name} {percent(share)}" for share, name in worst)


def _corrupted(value: Record) -> str:
    shares = [share for severities in value["corruptions"].values() for share in severities]
    return (
        f"{percent(fmean(shares))} over {len(value['corruptions'])} corruptions of "
        f"{value['pictures']} pictures, {percent(value['clean'])} without"
    )


def _fit(entry: Record) -> str:
    """How much better it is on what it was trained on."""
    train, test = entry.get("train_accuracy"), entry.get("test_accuracy")
    if train is None:
        return ""
    above = "" if test is None else f", {100 * (train - test):+.1f} points to test"
    return f"{percent(train)}{above}"


def _places(pairs: Sequence[Record]) -> str:
    """Where attention maps were compared, how alike they are."""
    known = [one for one in pairs if one.get("attention") is not None]
    return ", ".join(
        f"{one['student']} to {one['teacher']} {one['attention']:.2f}" for one in known
    )


_MEASURES: dict[str, Callable[[Record], str]] = {
    "fit": _fit,
    "top-1": _within("test", "top1", show=percent),
    "top-5": _within("test", "top5", show=percent),
    "balanced": _within("test", "balanced", show=percent),
    "worst classes": _within("test", show=_worst_classes),
    "calibration": _within("test", "calibration", show=_calibrated),
    "KL to the teacher": _within("fidelity", "kl", show=lambda nats: f"{nats:.3f}"),
    "teacher's errors repeated": _within("fidelity", "on_teacher_errors", show=percent),
    "corrupted": _within("robustness", show=_corrupted),
    "similarity": _within(
        "similarity",
        show=lambda pairs: ", ".join(
            f"{one['student']} to {one['teacher']} {one['cka']:.2f}" for one in pairs
        ),
    ),
    "same places": _within("similarity", show=_places),
    "people's labels": _within(
        "people", show=lambda found: f"KL {found['kl']:.3f}, top-1 {percent(found['top1'])}"
    ),
    "latency": _within(
        "latency_batched",
        show=lambda found: (
            f"{found['median_ms']:.1f} ms for {found['batch']} at once, 95th percentile "
            f"{found['p95_ms']:.1f}"
        ),
    ),
    "file": _within("file_bytes", show=lambda size: f"{size / 1e6:.2f} MB"),
    "peak memory": _within("peak_memory_bytes", show=lambda size: f"{size / 1e6:.2f} MB"),
}
"""Name → what an entry of the record says of it; empty where it does not."""
