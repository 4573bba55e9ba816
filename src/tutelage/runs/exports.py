"""Handing a finished run's student out: written, opened again, compared on test, then kept."""

import copy
import hashlib
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tutelage import __version__
from tutelage.build import Built, build
from tutelage.data import EvalLoader, Pictures, Source
from tutelage.data.subsets import draw_stratified
from tutelage.errors import DataError, ExportError, NoEffectWarning, RunError, SettingError
from tutelage.evaluation.cost import macs, num_parameters
from tutelage.evaluation.latency import latency
from tutelage.evaluation.memory import file_size
from tutelage.evaluation.predictions import Predictions, predict, recall
from tutelage.exporting import (
    About,
    Form,
    Tolerance,
    card,
    checked,
    compare,
    just_made,
    make,
    require_parity,
    usual,
    versions_of,
)
from tutelage.identity import weights_of
from tutelage.models import library, made_for
from tutelage.models.checkpoints import load_into, read_state, state_bytes
from tutelage.models.network import Network
from tutelage.models.saved import Description, read_description_of
from tutelage.provenance import circumstances
from tutelage.recipes import validate
from tutelage.records import RunFolder, is_free, write_new_folder
from tutelage.runs.finished import named_student, weigh, with_its_student
from tutelage.runs.measuring import enter_reading, image_size, students_of
from tutelage.runs.surroundings import MEASURED, require_same_content, surroundings
from tutelage.teachers import StoredTeacher

__all__ = ["LEAST_CALIBRATION", "Exported", "export"]

LEAST_CALIBRATION = 32
"""Pictures; with fewer the ranges of activations are a matter of luck."""

_USUAL_CALIBRATION = 256

_AT_ONCE = 32
_WEIGHTS = "weights.safetensors"


class Exported(NamedTuple):
    """What became of it.

    Attributes:
        folder: holds the file and its README.
        file: the file itself.
        entry: what the run's record says of it.
    """

    folder: Path
    file: Path
    entry: dict[str, Any]


def export(
    run: Path | str,
    form: Form = Form(),  # noqa: B008 - a tuple
    *,
    subnet: str | None = None,
    out: Path | str | None = None,
    calibration: int | None = None,
    calibrate_on: Source | None = None,
    tolerance: Tolerance | None = None,
    teacher: bool = True,
    student: nn.Module | None = None,
    data: Source | None = None,
    command: str = "tutelage.export",
) -> Exported:
    """Writes the student of a finished run into a file that another runtime can run.

    The file is opened by that runtime and shown the test pictures beside the network itself, in
    float32 on the CPU; what it says must be the same within the tolerance. Test is read, which is
    entered in the record whatever comes out. The folder appears as a whole or not at all.

    Args:
        run: the run's folder.
        form: which file.
        subnet: of a student with sub-nets takes one out, or with "full" the whole.
        out: a new folder; None: `exports/` in the run's folder, by the form's name.
        calibration: training pictures, of all classes, that int8 takes the ranges from; None: 256,
            or as many as there are.
        calibrate_on: the training pictures of this source in the place of the recipe's.
        tolerance: see `exporting.parity`; None: what is usual for the precision.
        teacher: whether to measure agreement with the teacher, if the run had one.
        student: for a run whose student was handed over as an object, another such object; a copy
            of it gets the run's weights.
        data: for a run whose pictures were handed over as an object, these.

    Raises:
        ExportError: it cannot be written in this form, or says something else than the network.
        RunError: there is no finished run, or the folder is taken.
        SettingError: the form does not exist, or its extra is not installed.
        DataError: pictures or teacher are no longer those of the run.
    """
    form = form.check()
    place = RunFolder(Path(run))
    record = place.read_record()
    name = named_student(record, subnet)
    title = form.name if name == "student" else f"{form.name}-{name}"
    folder = place.path / "exports" / title if out is None else Path(out)
    _require_free(folder)
    allowed = checked(usual(form.precision) if tolerance is None else tolerance)
    if form.precision != "int8" and (calibration is not None or calibrate_on is not None):
        warnings.warn(
            f"Calibration pictures change nothing in {form.precision}; leave them out.",
            NoEffectWarning,
            stacklevel=2,
        )
    guided = teacher and record["teacher"] is not None
    recipe = validate(record["recipe"], str(place.recipe))
    recipe = with_its_student(recipe, place.path, teacher=guided)
    own = None if student is None else _with_weights(student, place)
    if own is not None:
        recipe = recipe.model_copy(update={"student": None})
    with surroundings(replace(recipe.train, device="cpu")) as device:
        built = build(recipe, student=own, data=data)
        parts = MEASURED if guided else MEASURED - {"teacher"}
        require_same_content(built, record["content"], place.path, parts)
        weigh(built, device)
        if guided and built.teacher is None:
            warnings.warn(
                "The run's teacher was handed over as an object, so agreement with it is not "
                "measured.",
                stacklevel=2,
            )
        network = students_of(built)[name]
        about = _about(built, network, form, None if name == "student" else name)
        images = _calibration(built, calibrate_on, form, calibration)
        content = make(network, form, about, images)
        entry = _entry(title, about, network, content, images, command)
        with place.changing() as record:
            enter_reading(record, command, f"comparing the exported {title} with the network")
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / form.file
            path.write_bytes(content)
            made = just_made(path, about)
            entry |= _measured(made, network, built, form, len(content), device)
            del made  # before its file goes
    entry["tolerance"] = allowed._asdict()
    could_learn = form.precision == "int8" and recipe.train.quantization != form.target
    remedy = (
        f"go on for a short run with student={{run: {place.path}}} train.precision=fp32 "
        f"train.quantization={form.target}"
    )
    alone = name == "student"
    require_parity(entry["parity"], allowed, title, remedy=remedy if could_learn and alone else "")
    file = folder / form.file
    entry["file"] = file.relative_to(place.path).as_posix() if out is None else str(file.absolute())
    files = {form.file: content, **_beside(built, network, about, entry, record)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_new_folder(folder, files, _taken(folder), go_on="export again")
    with place.changing() as record:
        others = [one for one in record.get("exports", []) if one["file"] != entry["file"]]
        record["exports"] = [*others, entry]
    return Exported(folder, file, entry)


def _with_weights(student: nn.Module, place: RunFolder) -> nn.Module:
    """A copy of a module with the weights that a run's own ended in.

    Raises:
        SettingError: the run knows its student itself.
        CheckpointError: they do not fit.
    """
    if not read_description_of(place.student).given:
        raise SettingError(
            f"The run in {place.path} makes its student by name, so none is to be handed over. "
            "Leave `student` out."
        )
    made = copy.deepcopy(student)
    module = made.module if isinstance(made, Network) else made
    load_into(module, read_state(place.student), str(place.student))
    return made.eval()


def _entry(
    title: str,
    about: About,
    network: Network,
    content: bytes,
    images: Sequence[Tensor],
    command: str,
) -> dict[str, Any]:
    """What is known of a file before it is opened."""
    around = circumstances(command)
    return {
        "name": title,
        **about.form._asdict(),
        "subnet": about.subnet,
        "calibration": sum(map(len, images)) or None,
        "sha256": hashlib.sha256(content).hexdigest(),
        "weights": about.weights,
        "parameters": num_parameters(network),
        "macs": macs(network, image_size(network)),
        "threads": torch.get_num_threads(),
        **around,
        "versions": around["versions"] | versions_of(about.form.target),
    }


def _beside(
    built: Built,
    network: Network,
    about: About,
    entry: Mapping[str, Any],
    record: Mapping[str, Any],
) -> dict[str, bytes]:
    """What else lies in the folder: the README, and weights for timm where it knows the network."""
    how = _for_timm(built.description, about) if about.form.target == "torch" else ""
    weights = {_WEIGHTS: state_bytes(network.module.state_dict())} if how else {}
    return {**weights, "README.md": card(about, entry, record, how).encode()}


def _require_free(folder: Path) -> None:
    above = next((one for one in folder.absolute().parents if one.exists()), None)
    if above is not None and not above.is_dir():
        raise RunError(f"{folder} cannot be a folder: the file {above} is in its way.")
    if not is_free(folder):
        raise _taken(folder)


def _taken(folder: Path) -> RunError:
    return RunError(
        f"{folder} exists already, and an export is never overwritten. Remove it, or choose "
        "another folder with --out."
    )


def _about(built: Built, network: Network, form: Form, subnet: str | None) -> About:
    assert network.spec is not None
    return About(
        name=built.description.name,
        subnet=subnet,
        classes=tuple(built.source.classes),
        spec=network.spec,
        rule=built.source.test.rule,
        form=form,
        weights=weights_of(network),
        made_by=__version__,
    )


def _calibration(
    built: Built, source: Source | None, form: Form, number: int | None
) -> list[Tensor]:
    """Training pictures as they are, of all classes, in the network's size; none unless needed."""
    if form.precision != "int8":
        return []
    least = max(LEAST_CALIBRATION, form.batch or 1)
    if number is not None and number < least:
        raise SettingError(
            f"int8 needs at least {least} calibration pictures here, but {number} are asked for; "
            f"{_USUAL_CALIBRATION} are usual."
        )
    pictures = _pictures(built, source)
    if len(pictures) < least:
        raise DataError(
            f"int8 needs at least {least} calibration pictures, but there are {len(pictures)} to "
            "train on. Name others with --calibrate-on."
        )
    if number is not None and len(pictures) < number:
        warnings.warn(
            f"There are {len(pictures)} pictures to calibrate with, fewer than the {number} asked "
            "for; all are taken.",
            stacklevel=3,
        )
    return _images(pictures, min(number or _USUAL_CALIBRATION, len(pictures)), built.student)


def _pictures(built: Built, source: Source | None) -> Pictures:
    if source is None:
        return built.split.train
    known, given = set(built.source.classes), set(source.classes)
    if known != given:
        strange = sorted(given - known) or sorted(known - given)
        warnings.warn(
            f"The calibration pictures are of other classes than the network's ({strange[0]!r} is "
            "not in both), so ranges may be found that its own pictures do not have.",
            stacklevel=4,
        )
    return source.train


def _images(pictures: Pictures, number: int, network: Network) -> list[Tensor]:
    known = int(pictures.has_label.sum())
    if known >= number:
        chosen = draw_stratified(pictures, number, 0, "calibration")
    else:
        chosen = torch.linspace(0, len(pictures) - 1, number).long()
    spec = network.spec
    assert spec is not None
    fit = Network(torch.nn.Identity(), spec.plain())
    loader = EvalLoader(pictures.take(chosen), batch_size=_AT_ONCE)
    return [fit.prepare(batch.images) for batch in loader]


def _measured(
    made: Network, network: Network, built: Built, form: Form, size: int, device: torch.device
) -> dict[str, Any]:
    """What the file says and costs beside the network; in float32."""
    assert built.test is not None
    theirs = _answers_of(built.teacher, built, device)
    by_network, by_file = (
        predict(one, built.test, device=device, channels_last=False) for one in (network, made)
    )
    if not by_file.outputs.isfinite().all():
        raise ExportError(
            f"In {form.precision} some answers are infinite or NaN, so nothing was written. Take "
            "fp32 or int8."
        )
    speeds = [latency(one, image_size(network)) for one in (network, made)]
    return {
        "parity": compare(by_file, by_network, theirs),
        "bytes": {"network": file_size(network), "exported": size},
        "latency_ms": {"network": speeds[0].median_ms, "exported": speeds[1].median_ms},
        "latency_p95_ms": {"network": speeds[0].p95_ms, "exported": speeds[1].p95_ms},
    }


def _answers_of(
    teacher: Network | StoredTeacher | None, built: Built, device: torch.device
) -> Predictions | None:
    assert built.test is not None
    if teacher is None or not teacher.answers:
        return None
    if isinstance(teacher, StoredTeacher):
        return recall(teacher, built.test)
    return predict(teacher, built.test, device=device)


def _for_timm(description: Description, about: About) -> str:
    """The lines that make the network by timm; empty where they are not sure to."""
    if description.given or description.subnets or about.subnet is not None:
        return ""
    where = library(description.name)
    fixed = made_for(description.name)
    if where == "torchvision" or (fixed is not None and fixed.size is not None):
        return ""
    ours = where is None
    name = f"{description.name}_cifar" if ours else description.name.removeprefix("timm/")
    arguments = description.settings.get("arguments", {})
    settings: Mapping[str, Any] = {
        "num_classes": description.num_classes,
        "in_chans": about.spec.channels,
        **{key: value for key, value in description.settings.items() if key != "arguments"},
        **arguments,
        "checkpoint_path": _WEIGHTS,
    }
    said = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    needs = "import timm" + (", tutelage.models.with_timm" if ours else "")
    mean, std = (tuple(round(number, 6) for number in pair) for pair in about.spec[3:5])
    return (
        f"{needs}\n\nnetwork = timm.create_model({name!r}, {said}).eval()\n"
        f"# It takes normalized pictures: minus {mean}, over {std}."
    )
