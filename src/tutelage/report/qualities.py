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
    class_names,
    corrupted,
    mean,
    numbers,
    over_control,
    over_teacher,
    per_class,
)
from tutelage.report.views import Part, View, by_part, section, shown

__all__ = ["agreement", "calibration", "classes", "robustness"]


def _decimals(number: float | None) -> str:
    return "–" if number is None else f"{number:.3f}"


def _known(name: str, cells: Sequence[str]) -> list[list[Cell]]:
    """A row of a table, unless there is nothing in it."""
    return [[name, *cells]] if set(cells) != {"–"} else []


def _grid(caption: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Grid:
    """A table without the columns in which there is nothing."""
    kept = [place for place in range(len(head)) if any(row[place] != "–" for row in rows)]
    return Grid(
        caption, [head[place] for place in kept], [[row[place] for place in kept] for row in rows]
    )


# Classes


def classes(view: View) -> Section:
    """Accuracy and confusions by class, against the teacher and a control."""
    blocks = by_part(view, _classes_of)
    return section(
        "classes",
        "Classes",
        blocks,
        "Not measured: these records hold no accuracy by class and no confusions of a student "
        "beside those of a teacher or control.",
    )


def _classes_of(part: Part) -> list[Block]:
    students = [one for one in part.networks if one.role == "student"]
    blocks = shown(
        *(class_figure(students, held, part.styles, part.slug) for held in part.references)
    )
    best = best_student(part.networks)
    confusions: list[Block] = []
    for student in sorted(students, key=lambda one: one is not best):
        place = len(part.references) * students.index(student)
        own = shown(
            *(
                confusion_figure(student, held, f"-{place + number}{part.slug}")
                for number, held in enumerate(part.references)
            )
        )
        if own:
            confusions += own if student is best else [More(f"Confusions of {student.name}", own)]
    if confusions and best is not None and len(students) > 1:
        blocks.append(Text(f"Confusions are shown of {best.name}, the best on validation."))
    rows = [row for one in part.networks for row in _over_classes(one)]
    if rows:
        head = ["network", "top-1 %", "top-5 %", "balanced %", "worst class"]
        blocks.insert(0, _grid("Accuracy on test", head, rows))
    return blocks + confusions


def _over_classes(network: Network) -> list[list[Cell]]:
    cells = [points(mean(network, "test", key)) for key in ("top1", "top5", "balanced")]
    shares, names = per_class(network) or [], class_names(network) or []
    known = [(share, name) for share, name in zip(shares, names, strict=False) if share is not None]
    worst = min(known, default=None)
    return _known(network.name, [*cells, f"{worst[1]} {points(worst[0])} %" if worst else "–"])


# Confidence


def calibration(view: View) -> Section:
    """How far confidence can be trusted."""
    blocks = by_part(view, lambda part: [*_calibration_of(part), *_beside_people(part)])
    if blocks:
        people = (
            "KL is the mean divergence of a network's answer from the shares of people who named "
            "each class; 0 doubts exactly as people do."
        )
        known = any(mean(one, "people", "kl") is not None for one in view.networks)
        blocks += [
            Text(
                "ECE is the expected calibration error, NLL the mean negative log-likelihood. "
                "Scaled: after dividing logits by the temperature, which was fitted on validation."
            ),
            Text(people if known else "Doubt beside that of people: not measured."),
        ]
    return section(
        "calibration",
        "Calibration",
        blocks,
        "Not measured: these records hold no calibration.",
    )


def _calibration_of(part: Part) -> list[Block]:
    rows: list[list[Cell]] = []
    for network in part.networks:
        path = ("test", "calibration")
        own = [mean(network, *path, key) for key in ("ece", "nll", "brier", "temperature")]
        own += [mean(network, *path, "scaled", key) for key in ("ece", "nll", "brier")]
        rows += _known(network.name, list(map(_decimals, own)))
    blocks = shown(reliability_figure(part.networks, part.styles, part.slug))
    if rows:
        head = ["network", "ECE", "NLL", "Brier", "temperature"]
        head += ["ECE, scaled", "NLL, scaled", "Brier, scaled"]
        blocks.insert(0, _grid("Calibration on test; less is better", head, rows))
    if worse := [network.name for network in part.networks if _is_worse_scaled(network)]:
        blocks.append(
            Text(
                f"Scaling makes the NLL of {', '.join(worse)} worse: what fits validation does not "
                "fit test, as happens to a network that was trained on the validation pictures."
            )
        )
    return blocks


def _is_worse_scaled(network: Network) -> bool:
    """Whether the temperature, which is best on validation, is worse than none on test."""
    scaled, plain = (
        mean(network, "test", "calibration", *path) for path in (("scaled", "nll"), ("nll",))
    )
    return scaled is not None and plain is not None and scaled > plain


def _beside_people(part: Part) -> list[Block]:
    rows: list[list[Cell]] = []
    for network in part.networks:
        own = [_decimals(mean(network, "people", key)) for key in ("kl", "cross_entropy")]
        same = points(mean(network, "people", "top1"))
        rows += _known(network.name, [*own, same])
    head = ["network", "KL", "cross-entropy", "their most named class %"]
    caption = "Beside people's labels of the test pictures"
    return [_grid(caption, head, rows)] if rows else []


# The teacher


def agreement(view: View) -> Section:
    """How far students answer like their teacher."""
    blocks = by_part(view, _agreement_of)
    if blocks:
        blocks.append(
            Text(
                "KL is the mean divergence of the student's answer from the teacher's; an error "
                "is repeated if student and teacher give the same wrong class."
            )
        )
    return section(
        "agreement",
        "Agreement with the teacher",
        blocks,
        "Not measured: these records hold no agreement with a teacher.",
    )


def _agreement_of(part: Part) -> list[Block]:
    rows: list[list[Cell]] = []
    for network in part.networks:
        same = mean(network, "fidelity", "top1")
        same = mean(network, "agreement") if same is None else same
        kl = mean(network, "fidelity", "kl")
        errors = mean(network, "fidelity", "on_teacher_errors")
        rows += _known(network.name, [points(same), _decimals(kl), points(errors)])
    head = ["network", "same class %", "KL", "teacher's errors repeated %"]
    caption = "Agreement with the teacher on test"
    return [_grid(caption, head, rows)] if rows else []


# Robustness


def robustness(view: View) -> Section:
    """Accuracy under corruptions."""
    blocks = by_part(view, _robustness_of)
    if blocks:
        shown_to = {n for one in view.networks for n in numbers(one, "robustness", "pictures")}
        said = " or ".join(f"{number:,.0f}" for number in sorted(shown_to))
        blocks.append(
            Text(
                f"Measured on {said} test pictures, spoiled alike for all. Corruption errors: of "
                "each corruption, errors are summed over severities and divided by those of the "
                "student's own teacher, or of the control with the same seed; the mean over "
                "corruptions, then over seeds. Below 1 is more robust than the other."
            )
        )
    return section(
        "robustness",
        "Robustness",
        blocks,
        "Not measured: these records hold no accuracy under corruptions.",
    )


def _robustness_of(part: Part) -> list[Block]:
    blocks = shown(
        severity_figure(part.networks, part.styles, part.slug),
        corruption_figure(part.networks, part.slug),
    )
    control = part.control
    rows: list[list[Cell]] = []
    for network in part.networks:
        errors = [over_teacher(network), *([over_control(network, control)] if control else [])]
        shares = [points(mean(network, "robustness", "clean")), points(corrupted(network))]
        rows += _known(network.name, [*shares, *map(_decimals, errors)])
    if rows:
        head = ["network", "clean %", "corrupted %", "error / teacher's"]
        head += [f"error / {control.name}'s"] if control else []
        caption = "Accuracy under all corruptions, and corruption errors"
        blocks.insert(0, _grid(caption, head, rows))
    return blocks
