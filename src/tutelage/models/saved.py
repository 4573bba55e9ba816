"""A trained student as one file that says itself what it is."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from tutelage import rng
from tutelage.errors import CheckpointError, RunError
from tutelage.models import create
from tutelage.models.checkpoints import load_into, read_description, read_state, save_state
from tutelage.models.depth_dynamic import DepthDynamic, Norms
from tutelage.models.network import Network
from tutelage.records import RunFolder
from tutelage.types import InputSpec

__all__ = ["Description", "load", "read_description_of", "read_network", "save_network"]

_KEY = "tutelage"


class Description(NamedTuple):
    """How to make a network anew, without its weights.

    Attributes:
        name: in the index of networks; a class's full name if `given`.
        settings: of the network.
        num_classes: size of its output.
        spec: what it wants to be shown.
        given: it was handed over as an object, so its name does not make it.
        subnets: name → blocks of each stage; none of an ordinary network.
        subnet_norms: what of a batch norm each sub-net has for itself.
        depth: the sub-net that it is, taken out of such a network.
        classes: names of its classes; none if they are not known.
        pictures: how a file becomes a picture, as `data.photographs.Rule` has it; None if that is
            not known.
    """

    name: str
    settings: dict[str, Any]
    num_classes: int
    spec: InputSpec
    given: bool = False
    subnets: Mapping[str, int | Sequence[int]] = {}
    subnet_norms: Norms = "separate"
    depth: str | None = None
    classes: tuple[str, ...] = ()
    pictures: tuple[int, int, Literal[1, 3]] | None = None

    def of(self, subnet: str) -> "Description":
        """Of a sub-net, taken out."""
        return self._replace(depth=subnet)

    def make(self, fill: Callable[[nn.Module], None] | None = None) -> Network:
        """The network, with fresh weights from torch's global generator.

        Args:
            fill: loads weights into the plain network, before sub-nets are made of it.

        Raises:
            NetworkError: the name or a setting is unknown.
            RunError: it was given as an object.
        """
        if self.given:
            raise RunError(
                f"This student was made by somebody's own code ({self.name}), so it cannot be "
                "made from its name. Make it yourself and load the file into it; for an export "
                "hand it over: tutelage.export(RUN, student=...)."
            )
        module = create(
            self.name,
            num_classes=self.num_classes,
            in_channels=self.spec.channels,
            image_size=(self.spec.height, self.spec.width),
            **self.settings,
        )
        return self.wrap(module, fill)

    def wrap(self, module: nn.Module, fill: Callable[[nn.Module], None] | None = None) -> Network:
        """As `make`, of a module that is there already."""
        if fill is not None:
            fill(module)
        if self.subnets:
            module = DepthDynamic(module, self.subnets, norms=self.subnet_norms)
        network = Network(module, self.spec)
        return network if self.depth is None else network.extract(self.depth)


def save_network(path: Path, network: Network, description: Description) -> None:
    """Writes weights and description, atomically.

    Raises:
        RunError: no space is left on the device.
    """
    values = description._asdict() | {"spec": description.spec._asdict()}
    save_state(path, network.module.state_dict(), {_KEY: json.dumps(values)})


def load(run: Path | str, *, subnet: str | None = None) -> Network:
    """The student of a finished run, in eval mode: an ordinary module.

    It takes pixels in [0, 1], shape (n, channels, height, width), resizes and normalizes by itself,
    and puts out logits. What is inside, without that, is its attribute `module`.

    Args:
        run: the run's folder, or the file `student.safetensors` in it.
        subnet: of a student with sub-nets takes out one of them, or with "full" the whole.

    Raises:
        RunError: the folder is no run, or the run has not finished.
        CheckpointError: the file is damaged or was not written by us.
        NetworkError: it has no such sub-net.
    """
    network, _ = read_network(Path(run))
    return network if subnet is None else network.extract(subnet)


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
    description = read_description_of(path)
    with rng.part(0, "load"):  # drawn for nothing; the caller's generator shall not move
        network = description.make()
    load_into(network.module, read_state(path), str(path))
    return network.eval(), description


def read_description_of(path: Path) -> Description:
    """What a student's file says of itself.

    Raises:
        CheckpointError: it is damaged or was not written by us.
    """
    try:
        values = json.loads(read_description(path)[_KEY])
        wanted = values["spec"]
        spec = InputSpec(**wanted | {key: tuple(wanted[key]) for key in ("mean", "std")})
        pictures = values.get("pictures")
        more = {
            "spec": spec,
            "classes": tuple(values.get("classes", ())),
            "pictures": None if pictures is None else tuple(pictures),
        }
        return Description(**values | more)
    except (KeyError, TypeError, json.JSONDecodeError):
        raise CheckpointError(
            f"{path} holds weights, but is no student that tutelage has written. Name a run folder."
        ) from None
