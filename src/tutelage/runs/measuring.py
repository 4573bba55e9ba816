"""What is measured of a run: the teacher before the first step, the student after the last."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import torch

from tutelage.build import EVALUATION_BATCH, Built
from tutelage.data import EvalLoader
from tutelage.data.duplicates import duplicates
from tutelage.data.subsets import draw_stratified
from tutelage.engine import Trained
from tutelage.errors import TeacherError
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
from tutelage.models.network import Network
from tutelage.provenance import git_commit
from tutelage.records import RunFolder
from tutelage.runs.extras import measuring_code
from tutelage.runs.pictures import save_pictures
from tutelage.teachers import LiveTeacher, StoredTeacher

__all__ = [
    "COSTS",
    "add_test",
    "check_teacher",
    "cost",
    "enter_measured",
    "enter_reading",
    "image_size",
    "look",
    "results",
    "teacher_cost",
]

SANITY_PICTURES = 1000
COSTS = frozenset(
    {
        *("parameters", "macs", "file_bytes", "peak_memory_bytes"),
        *("latency_ms", "latency_p95_ms", "latency_batch", "latency_batched"),
    }
)
"""Under which names a record holds what a network costs."""

_TOGETHER, _FEW_ROUNDS = 32, 10


def look(
    network: Network | StoredTeacher, pictures: EvalLoader, built: Built, device: torch.device
) -> Predictions:
    """What a network says, in the precision of the run; or has said, if it is stored."""
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


def check_teacher(built: Built, device: torch.device) -> Predictions | None:
    """Refuses a teacher that knows nothing, before the first step.

    Raises:
        TeacherError: it is at or near chance.
    """
    if built.teacher is None:
        return None
    validation = built.split.validation
    number = min(len(validation), SANITY_PICTURES)
    # Of all classes: a source may be sorted by them.
    some = validation.take(draw_stratified(validation, number, 0, "sanity"))
    loader = EvalLoader(some, batch_size=EVALUATION_BATCH)
    seen = look(built.teacher, loader, built, device)
    share = accuracy(seen)
    if near_chance(share, seen):
        raise TeacherError(
            f"The teacher is right on {100 * share:.1f} % of {len(seen.targets)} validation "
            "pictures, which is chance. Likely causes: another normalization (give its mean and "
            "std), another order of classes, or a head that was never trained."
        )
    return seen


def results(
    built: Built, device: torch.device, trained: Trained, teacher_on_validation: Predictions | None
) -> dict[str, Any]:
    """What came out, without test."""
    on_validation = look(built.student, built.validation, built, device)
    share = accuracy(on_validation)
    student = {"validation_accuracy": share, "weights": weights_of(built.student)}
    return {
        "seconds": round(trained.seconds, 3),
        "steps": trained.steps,
        "ended": trained.ended,
        "peak_memory": trained.peak_memory,
        "collapsed": near_chance(share, on_validation),
        "phases": list(trained.phases),
        "students": {"student": student | cost(built.student, device)},
        "teacher": _teacher_entry(built, device, teacher_on_validation),
        "data": {
            "train": len(built.split.train),
            "labelled": int(built.split.train.has_label.sum()),
            "validation": len(built.split.validation),
            "test": len(built.split.test),
            "classes": len(built.source.classes),
            "duplicates": duplicates(built.split),
        },
        "readings": [],
    }


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
        "latency_batched": {
            "batch": batched.batch_size,
            "median_ms": batched.median_ms,
            "p95_ms": batched.p95_ms,
        },
    }


def _teacher_entry(
    built: Built, device: torch.device, on_validation: Predictions | None
) -> dict[str, Any] | None:
    if built.teacher is None or on_validation is None:
        return None
    entry = {
        "validation_accuracy": accuracy(on_validation),
        "validation_pictures": len(on_validation.targets),
    }
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
    student = record["students"]["student"]
    on_test = look(built.student, built.test, built, device)
    record["data"]["test"] = len(on_test.targets)  # 0 as long as a choice depended on the run
    student["test_accuracy"] = accuracy(on_test)
    student["test"] = _outputs(built.student, on_test, built, device)
    if built.teacher is not None:
        teacher_on_test = look(built.teacher, built.test, built, device)
        record["teacher"]["test_accuracy"] = accuracy(teacher_on_test)
        record["teacher"]["test"] = _outputs(built.teacher, teacher_on_test, built, device)
        student["agreement"] = agreement(on_test, teacher_on_test)
        student["fidelity"] = fidelity(on_test, teacher_on_test)
    save_pictures(place, built, on_test, teacher_on_test, device)
    enter_measured(record, ["test"])
    enter_reading(record, command, purpose)


def enter_measured(record: dict[str, Any], parts: Iterable[str]) -> None:
    """Says in the record by which code parts of it were measured."""
    commit = git_commit()
    known = {part: {"code": measuring_code(part), "commit": commit} for part in parts}
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
