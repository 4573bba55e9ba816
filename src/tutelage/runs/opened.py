"""Any model that lies on disk, as a network: a run's student, or a file that was exported."""

from pathlib import Path
from typing import NamedTuple

from tutelage.data.photographs import Rule
from tutelage.errors import CheckpointError
from tutelage.exporting import EXPORTED, Form, is_exported, open_file
from tutelage.models.network import Network
from tutelage.networks import open_student
from tutelage.records import RunFolder

__all__ = ["Opened", "open_model"]


class Opened(NamedTuple):
    """A model that can be asked.

    Attributes:
        network: takes pixels in [0, 1] in any size.
        classes: their names; none if they are not known.
        rule: how a file becomes a picture for it.
        file: that was opened, of an exported network; None of a run's student.
        form: of that file.
    """

    network: Network
    classes: tuple[str, ...]
    rule: Rule
    file: Path | None = None
    form: Form | None = None


def open_model(model: Path, *, subnet: str | None = None) -> Opened:
    """Opens a run's folder, its `student.safetensors`, or an exported file or its folder.

    Args:
        subnet: of a student with sub-nets takes this one, or with "full" the whole.

    Raises:
        RunError: the folder is no run, or has not finished.
        CheckpointError: there is no such file, or it is damaged or not ours.
        NetworkError: there is no such sub-net.
        SettingError: the runtime that the file needs is not installed.
    """
    if model.is_dir() and not RunFolder(model).recipe.exists():
        inside = [path for path in sorted(model.iterdir()) if is_exported(path)]
        if len(inside) == 1:
            model = inside[0]
    if is_exported(model):
        if subnet is not None:
            raise CheckpointError(
                f"{model} holds one network, so there is no {subnet!r} in it. Export that one, or "
                "name the run."
            )
        network, about = open_file(model)
        return Opened(network, about.classes, about.rule, model, about.form)
    if model.suffix == ".pt2":
        raise CheckpointError(
            f"{model} is for torch.export.load in code of your own: reading it may run what is in "
            f"it. Name its run, or a file that ends in {' or '.join(EXPORTED)}."
        )
    if not model.exists():
        raise CheckpointError(
            f"There is no {model}. Name a run's folder, or a file that ends in "
            f"{' or '.join(EXPORTED)}."
        )
    if model.is_file() and model.suffix != ".safetensors":
        raise CheckpointError(
            f"{model} is no model. Name a run's folder, its student.safetensors, or a file that "
            f"ends in {' or '.join(EXPORTED)}."
        )
    network, description = open_student(model)
    network = network.whole() if subnet is None else network.extract(subnet)
    spec = description.spec
    side = max(spec.height, spec.width)
    known = description.pictures
    rule = Rule(side, side, 1 if spec.channels == 1 else 3) if known is None else Rule(*known)
    return Opened(network.eval(), description.classes, rule)
