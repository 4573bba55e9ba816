"""ExecuTorch: a file for phones and small devices. Needs the extra `tutelage[executorch]`.

Convolutions and all else that XNNPACK knows go to it, the rest to ExecuTorch's own operators. int8
is PyTorch's export quantization (PT2E) after training: 8 bits, symmetric for weights, per channel,
with scales of activations from calibration pictures.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.export import ExportedProgram

from tutelage.errors import CheckpointError, ExportError, first_line
from tutelage.exporting.extras import needed, quiet
from tutelage.exporting.form import About, Form
from tutelage.exporting.refusals import (
    cannot_ask,
    cannot_quantize,
    cannot_run,
    damaged,
    no_operator,
)

__all__ = ["ExecutorchSession", "make_pte", "read_about"]

_RUN, _ABOUT = "forward", "tutelage"


def make_pte(
    program: ExportedProgram,
    form: Form,
    about: About,
    calibration: Iterable[Float32[Tensor, "n c h w"]] = (),
) -> bytes:
    """The file's bytes.

    Args:
        program: the network, in the form's precision, or in float32 for int8.
        calibration: images as the program takes them, for int8.

    Raises:
        ExportError: ExecuTorch has no such operator.
        SettingError: the extra is not installed.
    """
    with quiet():
        if form.precision == "int8":
            try:
                program = _quantized(program, form, calibration)
            except Exception as error:  # whatever torchao has to say
                raise cannot_quantize("torchao", error) from error
        lower = needed("executorch.exir").to_edge_transform_and_lower
        xnnpack = needed("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        try:
            edge = lower(
                program,
                partitioner=[xnnpack.XnnpackPartitioner()],
                constant_methods={_ABOUT: about.to_json()},
            )
            return bytes(edge.to_executorch().buffer)
        except Exception as error:
            raise ExportError(_untranslatable(program, error)) from error


def _untranslatable(program: ExportedProgram, error: Exception) -> str:
    """Which operator of which sub-module it is, as far as ExecuTorch tells."""
    text = str(error)
    found = re.search(r"Operator \S*?aten\.(\w+)", text) or re.search(r"aten::([\w.]+)", text)
    if found is None:
        return (
            f"The network could not be turned into ExecuTorch ({type(error).__name__}: "
            f"{first_line(error)}). Try another target."
        )
    return no_operator(program, "ExecuTorch", found[1], found[1].partition(".")[0])


def _quantized(
    program: ExportedProgram, form: Form, calibration: Iterable[Tensor]
) -> ExportedProgram:
    pt2e = needed("torchao.quantization.pt2e.quantize_pt2e")
    xnnpack = needed("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    quantizer = xnnpack.XNNPACKQuantizer()
    quantizer.set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
    observed = pt2e.prepare_pt2e(program.module(), quantizer)
    images = None
    with torch.no_grad():
        for images in calibration:
            observed(images)
    assert images is not None
    made = pt2e.convert_pt2e(observed)
    assert form.batch is not None
    example = images.new_full((form.batch, *images.shape[1:]), 0.5)
    return torch.export.export(made, (example,))


# Reading


def _program(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}. Correct the path.")
    with quiet():
        runtime = needed("executorch.runtime").Runtime.get()
        try:
            return runtime.load_program(path)
        except RuntimeError as error:
            raise damaged(path, "ExecuTorch", error) from error


def read_about(path: Path) -> About:
    """What a file says of itself.

    Raises:
        CheckpointError: it is absent, damaged, or not ours.
    """
    program = _program(path)
    if _ABOUT not in program.method_names:
        return About.from_json("", str(path))
    (text,) = program.load_method(_ABOUT).execute([])
    return About.from_json(text, str(path))


@final
class ExecutorchSession:
    """Answers by ExecuTorch's runtime, with as many threads as torch has.

    Raises:
        CheckpointError: it cannot run the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._program = _program(path)  # whose memory the method uses
        with quiet():
            native = needed("executorch.extension.pybindings.portable_lib")
            native._unsafe_reset_threadpool(torch.get_num_threads())
            try:
                self._method = self._program.load_method(_RUN)
            except RuntimeError as error:
                raise cannot_run("ExecuTorch", path, error) from error

    def __call__(self, images: Float32[Tensor, "n c h w"]) -> Float32[Tensor, "n k"]:
        """Logits."""
        try:
            (logits,) = self._method.execute([images.contiguous()])
        except RuntimeError as error:
            raise cannot_ask("ExecuTorch", self._path, tuple(images.shape), error) from error
        return logits.clone()
