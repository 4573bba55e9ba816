"""Writing a network into a file, and opening the file as what it is: a network again."""

import copy
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float32
from torch import Tensor

from tutelage.errors import CheckpointError
from tutelage.exporting import executorch_files, onnx_files
from tutelage.exporting.extras import needed, quiet
from tutelage.exporting.form import About, Form
from tutelage.exporting.tracing import trace
from tutelage.models.network import Network

__all__ = ["EXPORTED", "is_exported", "just_made", "make", "open_file", "warm_up"]

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


def open_file(path: Path) -> tuple[Network, About]:
    """A file as a network without weights, which resizes and, where the file does not, normalizes.

    Raises:
        CheckpointError: it is absent, damaged, or was not written by us.
        SettingError: its runtime is not installed.
    """
    runtime = _runtime(path)
    about = runtime.read(path)
    return as_network(runtime.session(path), about), about


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
        answered = [answer(part) for part in _in_parts(images, batch)]
        return torch.cat(answered)[: len(images)]

    return Network(all_of, about.shown).eval()


def _in_parts(images: Images, batch: int) -> list[Float32[Tensor, "m c h w"]]:
    """All of them in batches; a last one that is short is filled up with its last picture."""
    *whole, last = images.split(batch)
    missing = batch - len(last)
    return [*whole, torch.cat([last, last[-1:].expand(missing, -1, -1, -1)])]


class _Runtime(NamedTuple):
    """What opens the files of one suffix.

    Attributes:
        read: a file → what it says of itself.
        session: such a file → what answers images.
        modules: that it loads.
    """

    read: Callable[[Path], About]
    session: Callable[[Path], Callable[[Images], Tensor]]
    modules: tuple[str, ...]


_RUNTIMES = {
    ".onnx": _Runtime(onnx_files.read_about, onnx_files.OnnxSession, ("onnx", "onnxruntime")),
    ".pte": _Runtime(
        executorch_files.read_about, executorch_files.ExecutorchSession, ("executorch.runtime",)
    ),
}

EXPORTED = tuple(_RUNTIMES)
"""Suffixes of files that can be opened."""


def is_exported(path: Path) -> bool:
    """Whether a file's name says that it can be opened."""
    return path.suffix.lower() in _RUNTIMES


def warm_up(path: Path) -> None:
    """Loads what opening a file takes, so that its own needs can be told from that."""
    if is_exported(path):
        with quiet():
            needed(*_runtime(path).modules)


def _runtime(path: Path) -> _Runtime:
    if not is_exported(path):
        raise CheckpointError(
            f"{path} is no exported network that can be run here: its name ends in none of "
            f"{', '.join(EXPORTED)}."
        )
    return _RUNTIMES[path.suffix.lower()]
