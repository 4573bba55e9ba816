"""ONNX: a file for onnxruntime and for whoever else reads it. Needs the extra `tutelage[onnx]`.

int8 is onnxruntime's static quantization: each weight and activation becomes a whole number times a
scale, per channel for weights; scales of activations come from calibration pictures, from the
smallest to the largest value seen. Activations have 8 bits, weights 7, for with 8 the instructions
of x86 processors without VNNI would saturate, so that the answers depended on the machine.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator
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

__all__ = ["OnnxSession", "make_onnx", "read_about"]

_MOST_BYTES = 2_000_000_000
_IMAGES, _LOGITS, _KEY = "images", "logits", "tutelage"


def make_onnx(
    program: ExportedProgram,
    form: Form,
    about: About,
    calibration: Iterable[Float32[Tensor, "n c h w"]] = (),
) -> bytes:
    """The file's bytes.

    Args:
        program: the network, in float32.
        calibration: images as the program takes them, for int8.

    Raises:
        ExportError: ONNX has no such operator.
        SettingError: the extra is not installed.
    """
    model = _translated(program)
    if form.precision == "fp16":
        model = _halved(model)
    if form.precision == "int8":
        model = _quantized(model, calibration)
    model.metadata_props.add(key=_KEY, value=about.to_json())
    return model.SerializeToString()


def _translated(program: ExportedProgram) -> Any:
    onnx = needed("onnxscript", "onnxruntime", "onnx")
    size = sum(one.numel() * one.element_size() for one in program.state_dict.values())
    if size > _MOST_BYTES:
        raise ExportError(
            f"An ONNX file holds 2 GB at most, and the network's weights take {size / 1e9:.1f} "
            "GB. Export to another target."
        )
    try:
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=[_IMAGES], output_names=[_LOGITS]
        )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(_untranslatable(program, error)) from error
    assert made is not None
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.onnx"
        made.save(path, external_data=False)
        model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param:
            first.dim_param = "batch"
    return model


def _untranslatable(program: ExportedProgram, error: Exception) -> str:
    """Which operator of which sub-module it is, as far as the exporter tells."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(str(cause))
        cause = cause.__cause__
    found = re.search(r"OpOverload\(op='([^']+)'", "\n".join(chain))
    if found is None:
        return (
            f"The network could not be turned into ONNX ({first_line(error)}). Try another target."
        )
    return no_operator(program, "ONNX", found[1], found[1].rpartition(".")[2])


def _halved(model: Any) -> Any:
    convert = needed("onnxruntime.transformers.float16").convert_float_to_float16
    return convert(model, keep_io_types=True)


def _quantized(model: Any, calibration: Iterable[Tensor]) -> Any:
    onnx = needed("onnx")
    quantization = needed("onnxruntime.quantization")
    prepare = needed("onnxruntime.quantization.shape_inference").quant_pre_process
    images = iter(calibration)

    class Reader(quantization.CalibrationDataReader):
        """Hands calibration pictures out."""

        def get_next(self) -> dict[str, Any] | None:
            some = next(images, None)
            return None if some is None else {_IMAGES: some.numpy()}

    with tempfile.TemporaryDirectory() as place, quiet():
        plain, ready, done = (Path(place) / f"{name}.onnx" for name in ("plain", "ready", "done"))
        onnx.save(model, plain)
        try:
            prepare(str(plain), str(ready))
            quantization.quantize_static(
                str(ready),
                str(done),
                Reader(),
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as error:  # whatever onnxruntime has to say
            raise cannot_quantize("onnxruntime", error) from error
        return onnx.load(done)


# Reading


def read_about(path: Path) -> About:
    """What a file says of itself; no operator is run.

    Raises:
        CheckpointError: it is absent, no ONNX file, not ours, or its weights lie elsewhere.
    """
    onnx = needed("onnx")
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise CheckpointError(f"There is no file {path}. Correct the path.") from None
    except Exception as error:
        raise damaged(path, "ONNX", error) from error
    _require_inside(model, path)
    said = {one.key: one.value for one in model.metadata_props}
    return About.from_json(said.get(_KEY, ""), str(path))


def _require_inside(model: Any, path: Path) -> None:
    """Refuses a file that reads others, anywhere on this machine, as its weights."""
    folder = path.resolve().parent
    nodes = [node for function in model.functions for node in function.node]
    for tensor in (*_tensors(model.graph), *_of_nodes(nodes)):
        for entry in tensor.external_data:
            place = (folder / entry.value).resolve()
            if entry.key == "location" and not place.is_relative_to(folder):
                raise CheckpointError(
                    f"{path} takes weights from {entry.value!r}, which is outside its folder. Do "
                    "not open files that you do not trust; save it with its weights inside."
                )


def _tensors(graph: Any) -> Iterator[Any]:
    """All that a graph holds, and the graphs in it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    """All that nodes hold."""
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


@final
class OnnxSession:
    """Answers by onnxruntime, on the CPU, with as many threads as torch has.

    Args:
        path: a file that `read_about` has looked at.

    Raises:
        CheckpointError: onnxruntime cannot run it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        runtime = needed("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors alone
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise cannot_run("onnxruntime", path, error) from error

    def __call__(self, images: Float32[Tensor, "n c h w"]) -> Float32[Tensor, "n k"]:
        """Logits."""
        try:
            (logits,) = self._session.run(None, {_IMAGES: images.contiguous().numpy()})
        except Exception as error:
            raise cannot_ask("onnxruntime", self._path, tuple(images.shape), error) from error
        return torch.from_numpy(logits)
