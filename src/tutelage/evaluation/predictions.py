"""One pass of a network over pictures; every measure of outputs reads its result."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tutelage.models.network import Network
from tutelage.types import Batch

__all__ = ["Predictions", "predict"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Outputs beside what was true, in the order of the pictures, on the CPU.

    Attributes:
        outputs: logits, float32.
        targets: class numbers; a placeholder where there is no label.
        has_label: whether there is one.
        index: which pictures.
    """

    outputs: Float[Tensor, "n k"]
    targets: Int64[Tensor, " n"]
    has_label: Bool[Tensor, " n"]
    index: Int64[Tensor, " n"]


def predict(
    network: Network,
    batches: Iterable[Batch],
    *,
    device: torch.device,
    precision: str = "fp32",
    max_pictures: int | None = None,
) -> Predictions:
    """Runs a network in eval mode; modes are restored.

    Args:
        network: is moved to `device`.
        batches: un-augmented.
        precision: "bf16" runs under autocast.
        max_pictures: stop after the batch that reaches this number.
    """
    network.to(device)
    modes = {child: child.training for child in network.modules()}
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    seen = 0
    try:
        network.eval()
        with (
            torch.no_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            for batch in batches:
                assert batch.index is not None
                images = batch.images.to(device, memory_format=torch.channels_last)
                output = network(images).float().cpu()
                parts.append((output, batch.targets, batch.has_label, batch.index))
                seen += len(output)
                if max_pictures is not None and seen >= max_pictures:
                    break
    finally:
        for child, mode in modes.items():
            child.training = mode
    return Predictions(*(torch.cat(column) for column in zip(*parts, strict=True)))
