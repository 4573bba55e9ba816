"""Writing a network into a file, and opening the file as what it is: a network again."""

import copy
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor

from tutelage.errors import CheckpointError
from tutelage.exporting import executorch_files, onnx_files
from tutelage.exporting.extras import needed, quiet
from tutelage.exporting.form import About, Form
from tutelage.exporting.tracing import trace
from tutelage.models.network import Network

__all__ = ["EXPORTED", "just_made", "make", "open_file", "read_about", "warm_up"]

Images = Float32[Tensor, "n c h w"]

_AT_ONCE = 32
"""Calibration pictures, where the file takes any number."""


def make(
    network: Network,
    form: Form,
    about: About,
    calibration: Iterable[Float32[Tensor, "_ c h w"]] = (),
) -> bytes:
    """The file's bytes.

    Args:
        network: on the CPU, in float32; it stays as it is.
        calibration: pixels in [0, 1], in the network's size; only int8 asks for them.

    Raises:
        ExportError: it cannot be written down, or the target lacks an operator.
        SettingError: the target's extra is not installed.
    """
    halved = form.precision == "fp16" and form.target != "onnx"
    plain = form if halved else form._replace(precision="fp32")
    program = trace(copy.deepcopy(network) if halved else network, plain)
    images = list(calibration)
    shown = [network.prepare(part) if form.normalized else part for part in images]
    some = _in_parts(torch.cat(shown), form.batch or _AT_ONCE) if shown else []
    if form.target == "onnx":
        return onnx_files.make_onnx(program, form, about, some)
    if form.target == "executorch":
        return executorch_files.make_pte(program, form, about, some)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"tutelage": about.to_json()})
    return buffer.getvalue()


def read_about(path: Path) -> About:
    """What a file says of itself.

    Raises:
        CheckpointError: it is absent, damaged, or was not written by us.
        SettingError: its runtime is not installed.
    """
    return _reader(path)[0](path)


def open_file(path: Path) -> tuple[Network, About]:
    """A file as a network without weights, which resizes and, where the file does not, normalizes.

    Raises:
        CheckpointError: it is absent, damaged, or was not written by us.
        SettingError: its runtime is not installed.
    """
    read, session = _reader(path)
    about = read(path)
    return as_network(session(path), about), about


def just_made(path: Path, about: About) -> Network:
    """As `open_file`, of a file that this process has written, so that it may be of any target."""
    if about.form.target != "torch":
        return open_file(path)[0]
    # Reading such a file may run what is in it, so nobody else's is ever opened.
    return as_network(torch.export.load(path).module(), about)


def as_network(answer: Callable[[Images], Tensor], about: About) -> Network:
    """What answers images as the form says, as a network that takes any number of pictures."""
    batch = about.form.batch

    def all_of(images: Images) -> Tensor:
        if batch is None:
            return answer(images)
        return torch.cat([_answered(answer, part, batch) for part in images.split(batch)])

    return Network(all_of, about.shown).eval()


def _answered(answer: Callable[[Images], Tensor], images: Images, batch: int) -> Tensor:
    """Of a file that takes so many pictures and no fewer."""
    number = len(images)
    if number < batch:
        images = torch.cat([images, images[-1:].expand(batch - number, -1, -1, -1)])
    return answer(images)[:number]


def _in_parts(images: Images, batch: int) -> list[Float32[Tensor, "m c h w"]]:
    """All of them in batches; a last one that is short is filled up with its last picture."""
    *whole, last = images.split(batch)
    missing = batch - len(last)
    return [*whole, torch.cat([last, last[-1:].expand(missing, -1, -1, -1)])]


_Reader = Callable[[Path], About]
_Session = Callable[[Path], Callable[[Images], Tensor]]
_READERS: dict[str, tuple[_Reader, _Session]] = {
    ".onnx": (onnx_files.read_about, onnx_files.OnnxSession),
    ".pte": (executorch_files.read_about, executorch_files.ExecutorchSession),
}
"""Suffix → who reads the file and who runs it."""

EXPORTED = tuple(_READERS)
"""Suffixes of files that can be opened."""


def warm_up(path: Path) -> None:
    """Loads what opening a file takes, so that its own needs can be told from that."""
    if path.suffix == ".onnx":
        needed("onnx", "onnxruntime")
    elif path.suffix == ".pte":
        with quiet():
            needed("executorch.runtime")


def _reader(path: Path) -> tuple[_Reader, _Session]:
    if path.suffix.lower() not in _READERS:
        raise CheckpointError(
            f"{path} is no exported network that can be run here: its name ends in none of "
            f"{', '.join(_READERS)}."
        )
    return _READERS[path.suffix.lower()]
