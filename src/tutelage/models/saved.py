"""A trained student as one file that says itself what it is."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from tutelage import rng
from tutelage.errors import CheckpointError, RunError
from tutelage.models import create
from tutelage.models.checkpoints import load_into, read_description, read_state, save_state
from tutelage.models.network import Network
from tutelage.records import RunFolder
from tutelage.types import InputSpec

__all__ = ["Description", "load", "read_network", "save_network"]

_KEY = "tutelage"


class Description(NamedTuple):
    """How to make a network anew, without its weights.

    Attributes:
        name: in the index of networks; a class's full name if `given`.
        settings: of the network.
        num_classes: size of its output.
        spec: what it wants to be shown.
        given: it was handed over as an object, so its name does not make it.
    """

    name: str
    settings: dict[str, Any]
    num_classes: int
    spec: InputSpec
    given: bool = False

    def make(self) -> Network:
        """The network, with fresh weights from torch's global generator.

        Raises:
            NetworkError: the name or a setting is unknown.
            RunError: it was given as an object.
        """
        if self.given:
            raise RunError(
                f"This student was handed over as a Python object ({self.name}), so it cannot be "
                "made from its name. Make it yourself and load the file into it."
            )
        module = create(
            self.name,
            num_classes=self.num_classes,
            in_channels=self.spec.channels,
            **self.settings,
        )
        return Network(module, self.spec)


def save_network(path: Path, network: Network, description: Description) -> None:
    """Writes weights and description, atomically.

    Raises:
        RunError: no space is left on the device.
    """
    values = description._asdict() | {"spec": description.spec._asdict()}
    save_state(path, network.module.state_dict(), {_KEY: json.dumps(values)})


def load(run: Path | str) -> Network:
    """The student of a finished run, in eval mode: an ordinary module.

    It takes pixels in [0, 1], shape (n, channels, height, width), resizes and normalizes by itself,
    and puts out logits. What is inside, without that, is its attribute `module`.

    Args:
        run: the run's folder, or the file `student.safetensors` in it.

    Raises:
        RunError: the folder is no run, or the run has not finished.
        CheckpointError: the file is damaged or was not written by us.
    """
    return read_network(Path(run))[0]


def read_network(run: Path) -> tuple[Network, Description]:
    """As `load`, with the description.

    Raises:
        RunError: the folder is no run, or the run has not finished.
        CheckpointError: the file is damaged or was not written by us.
    """
    path = run
    if not run.is_file():
        folder = RunFolder(run)
        folder.require()
        if not folder.student.is_file():
            raise RunError(
                f"The run in {run} has no trained student yet. Continue it: "
                f"tutelage train {folder.recipe} --resume --name {run.name}"
            )
        path = folder.student
    try:
        values = json.loads(read_description(path)[_KEY])
        wanted = values["spec"]
        spec = InputSpec(**wanted | {key: tuple(wanted[key]) for key in ("mean", "std")})
        description = Description(**values | {"spec": spec})
    except (KeyError, TypeError, json.JSONDecodeError):
        raise CheckpointError(
            f"{path} holds weights, but is no student that tutelage has written. Name a run folder."
        ) from None
    with rng.part(0, "load"):  # drawn for nothing; the caller's generator shall not move
        network = description.make()
    load_into(network.module, read_state(path), str(path))
    return network.eval(), description
