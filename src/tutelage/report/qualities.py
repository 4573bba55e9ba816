"""The sections of a page on what is measured beyond accuracy."""

from collections.abc import Sequence

from tutelage.report.blocks import Block, Cell, Grid, More, Section, Text, points
from tutelage.report.maps import (
    class_figure,
    confusion_figure,
    corruption_figure,
    reliability_figure,
    severity_figure,
)
from tutelage.report.networks import (
    Network,
    best_student,
    controls,
    corruption_error,
    mean,
    numbers,
    teacher_of,
)
from tutelage.report.views import View, section, shown

__all__ = ["agreement", "calibration", "classes", "robustness"]


def _references(networks: Sequence[Network]) -> list[Network]:
    """What students are held against: the teacher, and the first control."""
    teacher = teacher_of(networks)
    return [*([teacher] if teacher else []), *controls(networks)[:1]]


def classes(view: View) -> Section:
    """Accuracy and confusions by class, against the teacher and a control."""
    students = [one for one in view.networks if one.role == "student"]
    references = _references(view.networks)
    blocks = shown(*(class_figure(students, reference, view.styles) for reference in references))
    best = best_student(view.networks)
    number = 0
    for student in sorted(students, key=lambda one: one is not best):
        made = [
            confusion_figure(student, reference, number + place)
            for place, reference in enumerate(references)
        ]
        number += len(made)
        if any(made):
            own = shown(*made)
            blocks += own if student is best else [More(f"Confusions of {student.name}", own)]
    if blocks and best is not None and len(students) > 1:
        blocks.insert(0, Text(f"Confusions are shown of {best.name}, the best on validation."))
    return section(
        "classes",
        "Classes",
        blocks,
        "Not measured: these records hold no accuracy by class and no confusions of a student "
        "beside those of a teacher or control.",
    )


def calibration(view: View) -> Section:
    """How far confidence can be trusted."""
    rows: list[list[Cell]] = []
    for network in view.networks:
        path = ("test", "calibration")
        own = [mean(network, *path, key) for key in ("ece", "nll", "brier", "temperature")]
        own += [mean(network, *path, "scaled", key) for key in ("ece", "nll", "brier")]
        if any(number is not None for number in own):
            rows.append([network.name, *("–" if n is None else f"{n:.3f}" for n in own)])
    blocks = shown(reliability_figure(view.networks, view.styles))
    if rows:
        head = ["network", "ECE", "NLL", "Brier", "temperature"]
        head += ["ECE, scaled", "NLL, scaled", "Brier, scaled"]
        blocks.insert(0, Grid("Calibration on test, means over seeds; less is better", head, rows))
        blocks.append(
            Text(
                "ECE is the expected calibration error, NLL the mean negative log-likelihood. "
                "Scaled: after dividing logits by the temperature."
            )
        )
    return section(
        "calibration",
        "Calibration",
        blocks,
        "Not measured: these records hold no calibration.",
    )


def agreement(view: View) -> Section:
    """How far students answer like their teacher."""
    rows: list[list[Cell]] = []
    for network in view.networks:
        same = mean(network, "likeness", "top1")
        same = mean(network, "agreement") if same is None else same
        kl = mean(network, "likeness", "kl")
        errors = mean(network, "likeness", "on_teacher_errors")
        if any(number is not None for number in (same, kl, errors)):
            rows.append(
                [network.name, points(same), "–" if kl is None else f"{kl:.3f}", points(errors)]
            )
    head = ["network", "same class %", "KL", "teacher's errors repeated %"]
    blocks: list[Block] = []
    if rows:
        blocks = [
            Grid("Agreement with the teacher on test, means over seeds", head, rows),
            Text(
                "KL is the mean divergence of the student's answer from the teacher's; an error "
                "is repeated if student and teacher give the same wrong class."
            ),
        ]
    return section(
        "agreement",
        "Agreement with the teacher",
        blocks,
        "Not measured: these records hold no agreement with a teacher.",
    )


def robustness(view: View) -> Section:
    """Accuracy under corruptions."""
    blocks = shown(
        severity_figure(view.networks, view.styles),
        corruption_figure(view.networks),
    )
    references = _references(view.networks)
    rows: list[list[Cell]] = []
    for network in view.networks:
        ratios = [corruption_error(network, reference) for reference in references]
        if any(number is not None for number in ratios):
            rows.append([network.name, *("–" if n is None else f"{n:.3f}" for n in ratios)])
    if rows:
        head = ["network", *(f"relative to {reference.name}" for reference in references)]
        caption = "Mean corruption error as a multiple of another's; below 1 is more robust"
        blocks.insert(0, Grid(caption, head, rows))
    if blocks:
        pictures = numbers(view.networks[-1], "robustness", "pictures")
        if pictures:
            blocks.append(Text(f"Measured on {pictures[0]:,.0f} test pictures, the same for all."))
    return section(
        "robustness",
        "Robustness",
        blocks,
        "Not measured: these records hold no accuracy under corruptions.",
    )
