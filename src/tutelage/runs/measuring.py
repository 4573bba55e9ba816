"""What is measured of a run: the teacher before the first step, the student after the last."""

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, NamedTuple

import torch

from tutelage.build import EVALUATION_BATCH, Built
from tutelage.data import EvalLoader, Pictures
from tutelage.data.duplicates import duplicates
from tutelage.data.subsets import draw_stratified
from tutelage.distiller import Ensemble
from tutelage.distiller.aggregation import known_classes
from tutelage.engine import Trained
from tutelage.errors import NonFiniteError, TeacherError
from tutelage.evaluation.accuracy import accuracy, near_chance
from tutelage.evaluation.agreement import agreement
from tutelage.evaluation.calibration import calibration, fit_temperature
from tutelage.evaluation.classes import by_class, correct_bits
from tutelage.evaluation.cost import macs, num_parameters
from tutelage.evaluation.fidelity import fidelity
from tutelage.evaluation.latency import latency
from tutelage.evaluation.memory import file_size, peak_memory
from tutelage.evaluation.predictions import Predictions, predict, recall
from tutelage.identity import weights_of
from tutelage.models.depth_dynamic import DepthDynamic
from tutelage.models.network import Network
from tutelage.provenance import git_commit, versions
from tutelage.records import RunFolder
from tutelage.runs.extras import Extras, measuring_code
from tutelage.runs.pictures import save_pictures
from tutelage.teachers import LiveTeacher, StoredTeacher

__all__ = [
    "COSTS",
    "Checked",
    "add_test",
    "check_teacher",
    "cost",
    "enter_measured",
    "enter_reading",
    "image_size",
    "look",
    "predicted",
    "require_finite",
    "results",
    "students_of",
    "teacher_cost",
]

SANITY_PICTURES = 1000
FIT_PICTURES = 2500
"""Of how many labelled training pictures, at most, it is measured how well they are fitted."""

COSTS = frozenset(
    {
        *("parameters", "macs", "file_bytes", "peak_memory_bytes"),
        *("latency_ms", "latency_p95_ms", "latency_batch", "latency_threads", "latency_batched"),
    }
)
"""Under which names a record holds what a network costs."""

_TOGETHER, _FEW_ROUNDS = 32, 10
_MEASURING = ("torchmetrics", "scipy", "pillow")
"""Packages that measure, beside those that train."""


def students_of(built: Built) -> dict[str, Network]:
    """The networks that a run trains, as records name them: "student", and its sub-nets if any.

    Sub-nets, and the whole beside them, are taken out as ordinary networks: copies.
    """
    student = built.student
    return {"student": student.whole()} | {name: student.extract(name) for name in student.subnets}


def look(
    network: Network | StoredTeacher, pictures: EvalLoader, built: Built, device: torch.device
) -> Predictions:
    """What a network says, in the precision of the run; or has said, if it is stored."""
    seen = predicted(network, pictures, built, device)
    require_finite(seen)
    return seen


def predicted(
    network: Network | StoredTeacher, pictures: EvalLoader, built: Built, device: torch.device
) -> Predictions:
    """As `look`, finite or not."""
    if isinstance(network, StoredTeacher):
        return recall(network, pictures)
    settings = built.recipe.train
    return predict(
        network,
        pictures,
        device=device,
        precision=settings.precision,
        channels_last=settings.channels_lie_last,
    )


def require_finite(seen: Predictions) -> None:
    """Refuses answers that say nothing.

    Raises:
        NonFiniteError: some are infinite or NaN.
    """
    bad = int((~seen.outputs.isfinite()).any(dim=1).sum())
    if bad:
        raise NonFiniteError(
            f"Of {len(seen.targets)} pictures {bad} are answered with infinite numbers or NaN; "
            "nothing can be measured of such a network. Lower the learning rate that it was "
            "trained with, or train it in fp32."
        )


class Checked(NamedTuple):
    """What a teacher said before the first step.

    Attributes:
        seen: of some validation pictures; None of a teacher whose answers say nothing of their
            classes.
        members: of several teachers, what each is: "name", "validation_accuracy" on pictures of the
            classes that it knows, and "classes", how many these are.
    """

    seen: Predictions | None
    members: tuple[dict[str, Any], ...] = ()

    @property
    def accuracy(self) -> float | None:
        """On those pictures."""
        return None if self.seen is None else accuracy(self.seen)


def check_teacher(built: Built, device: torch.device) -> Checked | None:
    """Refuses a teacher that knows nothing, before the first step.

    Of several, each is measured, and their aggregator is told.

    Raises:
        TeacherError: it is, or one of them is, at or near chance.
    """
    if built.teacher is None:
        return None
    if not built.teacher.answers:
        return Checked(None, ())
    validation = built.split.validation
    number = min(len(validation), SANITY_PICTURES)
    # Of all classes: a source may be sorted by them.
    some = validation.take(draw_stratified(validation, number, 0, "sanity"))
    loader = EvalLoader(some, batch_size=EVALUATION_BATCH)
    members: list[dict[str, Any]] = []
    if isinstance(built.teacher, Ensemble):
        names = _names_of(built)
        above = []
        for name, one in zip(names, built.teacher.members, strict=True):
            seen, classes = _of_known(predicted(one, loader, built, device))
            if not len(seen.targets):
                raise TeacherError(
                    f"None of {number} validation pictures is of a class that the teacher {name} "
                    "knows, so nobody can say how good it is. Validate with more pictures."
                )
            # One that knows a single class is always right about it.
            share = _require_teacher(seen, f"teacher {name}") if classes > 1 else accuracy(seen)
            above.append(max(share - 1 / classes, 0.0))
            members.append({"name": name, "validation_accuracy": share, "classes": classes})
        built.teacher.aggregator.weigh(above)
    seen = predicted(built.teacher, loader, built, device)
    _require_teacher(seen, "teacher" if not members else "answer of all teachers together")
    return Checked(seen, tuple(members))


def _require_teacher(seen: Predictions, what: str) -> float:
    """Its accuracy, unless that is chance."""
    share = accuracy(seen)
    if near_chance(share, seen):
        raise TeacherError(
            f"The {what} is right on {100 * share:.1f} % of {len(seen.targets)} validation "
            "pictures, which is chance. Likely causes: another normalization (give its mean and "
            "std), another order of classes, or a head that was never trained."
        )
    return share


def _names_of(built: Built) -> list[str]:
    """What several teachers are called: by what is said of them, and by number where alike."""
    assert isinstance(built.teacher, Ensemble)
    entries = built.recipe.teachers or [{}] * len(built.teacher.members)
    keys = ("name", "run", "python")
    said = [next((entry[key] for key in keys if key in entry), "network") for entry in entries]
    return [
        name if said.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(said, 1)
    ]


def _of_known(seen: Predictions) -> tuple[Predictions, int]:
    """On pictures of the classes that it knows, and how many classes that are."""
    known = known_classes(seen.outputs)
    kept = seen.has_label & known[seen.targets]
    parts = (seen.outputs, seen.targets, seen.has_label, seen.index)
    return Predictions(*(part[kept] for part in parts)), int(known.sum())


def results(
    built: Built, device: torch.device, trained: Trained, teacher_on_validation: Checked | None
) -> dict[str, Any]:
    """What came out, without test."""
    students, chance = {}, {}
    labelled = _labelled(built)
    for name, network in students_of(built).items():
        on_validation = look(network, built.validation, built, device)
        share = accuracy(on_validation)
        students[name] = {"validation_accuracy": share, "weights": weights_of(network)}
        if len(labelled):
            fitted = EvalLoader(labelled, batch_size=EVALUATION_BATCH)
            on_train = look(network, fitted, built, device)
            students[name]["train_accuracy"] = accuracy(on_train)
        students[name] |= cost(network, device)
        chance[name] = near_chance(share, on_validation)
        if name != "student":
            students[name]["collapsed"] = chance[name]
    return {
        "seconds": round(trained.seconds, 3),
        "steps": trained.steps,
        "ended": trained.ended,
        "peak_memory": trained.peak_memory,
        "collapsed": chance["student"],
        "phases": list(trained.phases),
        "students": students,
        **({"depths": _depths(built.student)} if built.student.subnets else {}),
        "teacher": _teacher_entry(built, device, teacher_on_validation),
        "data": {
            "train": len(built.split.train),
            "labelled": int(built.split.train.has_label.sum()),
            "train_measured": len(labelled),
            "validation": len(built.split.validation),
            "test": len(built.split.test),
            "classes": len(built.source.classes),
            "duplicates": duplicates(built.split),
        },
        "readings": [],
    }


def _labelled(built: Built) -> Pictures:
    """Training pictures of all classes; none if they have no labels."""
    train = built.split.train
    labelled = train.take(train.has_label.nonzero().flatten())
    number = min(len(labelled), FIT_PICTURES)
    return labelled.take(draw_stratified(labelled, number, 0, "fit"))


def _depths(student: Network) -> dict[str, Any]:
    """What a network with sub-nets is made of."""
    assert isinstance(student.module, DepthDynamic)
    own = sum(p.numel() for p in student.module.subnet_norms.parameters())
    counts = {name: list(kept) for name, kept in student.module.counts.items()}
    return {"blocks": counts, "parameters": num_parameters(student), "own_parameters": own}


def image_size(network: Network) -> tuple[int, int, int]:
    """Channels, height and width of what it is shown."""
    assert network.spec is not None
    return network.spec.channels, network.spec.height, network.spec.width


def cost(network: Network, device: torch.device) -> dict[str, Any]:
    """What a network costs, for a record."""
    size = image_size(network)
    speed = latency(network, size, device=device)
    batched = latency(
        network, size, batch_size=_TOGETHER, rounds=_FEW_ROUNDS, warmup=2, device=device
    )
    return {
        "parameters": num_parameters(network),
        "macs": macs(network, size),
        "file_bytes": file_size(network),
        "peak_memory_bytes": peak_memory(network, size),
        "latency_ms": speed.median_ms,
        "latency_p95_ms": speed.p95_ms,
        "latency_batch": speed.batch_size,
        "latency_threads": torch.get_num_threads(),
        "latency_batched": {
            "batch": batched.batch_size,
            "median_ms": batched.median_ms,
            "p95_ms": batched.p95_ms,
        },
    }


def _teacher_entry(
    built: Built, device: torch.device, checked: Checked | None
) -> dict[str, Any] | None:
    if built.teacher is None or checked is None:
        return None
    entry: dict[str, Any] = {}
    if checked.seen is not None:
        entry["validation_accuracy"] = checked.accuracy
        entry["validation_pictures"] = len(checked.seen.targets)
    stored = built.teacher.about if isinstance(built.teacher, StoredTeacher) else {}
    members = list(checked.members) or stored.get("members")
    if members:
        entry["members"] = members
    folded = _folded(built)
    if folded is not None:
        entry["folded"] = folded
    return entry | teacher_cost(built.teacher, device)


def _folded(built: Built) -> dict[str, Any] | None:
    """What of the teacher was folded in training; None if nobody asked for that, or asked it."""
    for teacher in built.distiller.teachers:
        if isinstance(teacher, LiveTeacher):
            return teacher.folded
        if isinstance(teacher, StoredTeacher):
            return teacher.about.get("folded")
    return None


def teacher_cost(teacher: Network | StoredTeacher, device: torch.device) -> dict[str, Any]:
    """What a teacher costs; of a stored one, what it did when it was asked."""
    if isinstance(teacher, StoredTeacher):
        return dict(teacher.about["cost"])
    return cost(teacher, device)


def add_test(
    record: dict[str, Any],
    place: RunFolder,
    built: Built,
    device: torch.device,
    command: str,
    purpose: str,
) -> None:
    """Reads test, once, says so, and leaves a few of its pictures in the run folder."""
    assert built.test is not None, "a choice has no test"
    teacher_on_test = None
    if built.teacher is not None and built.teacher.answers:
        teacher_on_test = look(built.teacher, built.test, built, device)
        record["teacher"]["test_accuracy"] = accuracy(teacher_on_test)
        record["teacher"]["test"] = _outputs(built.teacher, teacher_on_test, built, device)
    answers = {}
    for name, network in students_of(built).items():
        student = record["students"][name]
        on_test = answers[name] = look(network, built.test, built, device)
        student["test_accuracy"] = accuracy(on_test)
        student["test"] = _outputs(network, on_test, built, device)
        if teacher_on_test is not None:
            student["agreement"] = agreement(on_test, teacher_on_test)
            student["fidelity"] = fidelity(on_test, teacher_on_test)
    # Neither was known as long as a choice depended on the run.
    record["data"]["test"] = len(answers["student"].targets)
    record["data"]["duplicates"] = duplicates(built.split)
    save_pictures(place, built, answers["student"], teacher_on_test, device)
    enter_measured(record)
    enter_reading(record, command, purpose)


def enter_measured(record: dict[str, Any], extras: Extras | None = None) -> None:
    """Says in the record by which code, versions and threads parts of it were measured.

    Args:
        extras: those that were asked for; without, the answers to test were measured.
    """
    student = record["students"]["student"]
    parts = ["test"] if extras is None else [key for key in extras.keys if key in student]
    by = {
        "commit": git_commit(),
        "versions": versions() | {name: version(name) for name in _MEASURING},
        "threads": torch.get_num_threads(),
    }
    known = {part: {"code": measuring_code(part), **by} for part in parts}
    if "people" in known and extras is not None:
        known["people"]["file"] = extras.digest()
    record["measured"] = record.get("measured", {}) | known


def enter_reading(record: dict[str, Any], command: str, purpose: str) -> None:
    """Says in the record that test was read."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    record["readings"].append(
        {"split": "test", "time": time, "command": command, "purpose": purpose}
    )


def _outputs(
    network: Network | StoredTeacher,
    on_test: Predictions,
    built: Built,
    device: torch.device,
) -> dict[str, Any]:
    """What outputs on test say; the temperature is fitted on validation."""
    temperature = fit_temperature(look(network, built.validation, built, device))
    scaled = calibration(on_test, temperature=temperature)
    return {
        **by_class(on_test),
        "classes": list(built.source.classes),
        "calibration": {**calibration(on_test), "temperature": temperature, "scaled": scaled},
        "correct": correct_bits(on_test),
    }
