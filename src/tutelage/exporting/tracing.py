"""From a network to a graph of operations that needs no Python."""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tutelage.errors import ExportError, first_line
from tutelage.exporting.form import MOST_AT_ONCE, Form
from tutelage.models.network import Network
from tutelage.taps import evaluating

__all__ = ["trace"]


class _Halved(nn.Module):
    """Computes in half precision between an input and an output of float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.half()

    def forward(self, images: Tensor) -> Tensor:
        """The output for images as the module takes them."""
        return self.module(images.half()).float()


def trace(network: Network, form: Form) -> ExportedProgram:
    """The network's graph in eval mode, for one input in the size that it wants.

    Args:
        network: on the CPU, with a spec. Computing in half precision changes it, so that is asked
            of a copy.

    Raises:
        ExportError: it cannot be traced.
    """
    images = network.example(None, 2 if form.batch is None else form.batch)
    batch = {0: Dim("batch", min=1, max=MOST_AT_ONCE)} if form.batch is None else None
    module = network.module if form.normalized else network
    if form.precision == "fp16":
        module = _Halved(module)
    with evaluating(module), torch.no_grad():
        try:
            return torch.export.export(module, (images,), dynamic_shapes=(batch,), strict=False)
        except Exception as error:  # whatever tracing has to say of somebody's network
            raise ExportError(
                "The network cannot be written down as a graph of operations "
                f"({type(error).__name__}: {first_line(error)}). What decides by the values of a "
                "picture, or leaves PyTorch, cannot be exported; write it with tensors."
            ) from error
