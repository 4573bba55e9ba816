"""One pass of a network over pictures; every measure of outputs reads its result."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tutelage.models.network import Network
from tutelage.taps import evaluating
from tutelage.teachers import StoredTeacher
from tutelage.types import Batch

__all__ = ["Predictions", "gathered", "predict", "recall"]


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
    channels_last: bool = True,
) -> Predictions:
    """Runs a network in eval mode; modes are restored.

    Args:
        network: is moved to `device`.
        batches: un-augmented.
        precision: "bf16" runs under autocast.
        channels_last: memory format of the images.
    """
    network.to(device)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    layout = torch.channels_last if channels_last else torch.contiguous_format
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with evaluating(network), autocast:
        for batch in batches:
            assert batch.index is not None
            images = batch.images.to(device).contiguous(memory_format=layout)
            output = network(images).float().cpu()
            parts.append((output, batch.targets, batch.has_label, batch.index))
    return Predictions(*(torch.cat(column) for column in zip(*parts, strict=True)))


def recall(teacher: StoredTeacher, batches: Iterable[Batch]) -> Predictions:
    """As `predict`, from a store.

    Raises:
        StoreError: it does not hold these pictures as they are.
    """
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for batch in batches:
        assert batch.index is not None
        parts.append((teacher.recall(batch), batch.targets, batch.has_label, batch.index))
    return Predictions(*(torch.cat(column) for column in zip(*parts, strict=True)))


def gathered(mine: Predictions, collect: Callable[[Tensor], list[Tensor]]) -> Predictions:
    """What several processes saw, of all pictures, in their order, each once.

    Args:
        mine: of this process's share, every n-th picture from its rank on, as `EvalLoader` gives.
        collect: of rows, those of every process, by rank; all call this.
    """
    columns = []
    for rows in (mine.outputs, mine.targets, mine.has_label, mine.index):
        parts = collect(rows)
        together = rows.new_empty(sum(map(len, parts)), *rows.shape[1:])
        for rank, part in enumerate(parts):
            together[rank :: len(parts)] = part
        columns.append(together)
    return Predictions(*columns)
