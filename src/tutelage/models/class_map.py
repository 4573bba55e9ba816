"""A network's classes as somebody else's: other order, a part of them, or several taken for one."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tutelage.errors import NetworkError

__all__ = ["ClassMap", "Strange"]


class Strange(nn.Module):
    """In the place of a `ClassMap`: the network's classes are none of the others.

    What it puts out says nothing, equal logits. Only the network's maps are of use.

    >>> Strange(3)(torch.ones(1, 5))
    tensor([[0., 0., 0.]])

    Args:
        num_classes: of the others.

    Attributes:
        parts: as a `ClassMap` has them.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.parts: tuple[tuple[int, ...], ...] = ((),) * num_classes

    def forward(self, output: Tensor) -> Float[Tensor, "n c"]:
        """Zeros."""
        return output.new_zeros(len(output), len(self.parts))


class ClassMap(nn.Module):
    """Logits of a network's own classes → logits of other classes, each made of some of them.

    A class that is made of one keeps its logit. One that is made of several gets log Σ exp of
    theirs, so that its probability is the sum of theirs. Classes that are part of none are left
    out, and the probabilities of the others grow in proportion. A new class that is made of none
    has the logit -∞: the network does not know it.

    >>> ClassMap([[2], [0, 1]], 3)(torch.tensor([[0.0, 0.0, 5.0]]).exp().log())
    tensor([[5.0000, 0.6931]])

    Args:
        parts: for each new class, which of the network's own it is made of; at least one has some.
        num_classes: of the network.

    Raises:
        NetworkError: a part is none of the network's classes, or stands in two places; or there
            are none.
    """

    index: Tensor
    missing: Tensor

    def __init__(self, parts: Sequence[Sequence[int]], num_classes: int) -> None:
        super().__init__()
        flat = [part for own in parts for part in own]
        for part in flat:
            if not 0 <= part < num_classes:
                raise NetworkError(
                    f"class_map names class {part}, but the network has the classes 0 … "
                    f"{num_classes - 1}. Correct it, or say how many classes the network knows."
                )
            if flat.count(part) > 1:
                raise NetworkError(
                    f"class_map names class {part} of the network twice. A class of the network is "
                    "part of one class at most."
                )
        self.parts = tuple(tuple(own) for own in parts)
        longest = max(len(own) for own in parts)
        if longest == 0:
            raise NetworkError(
                "class_map makes no class of the network's, so the network says nothing of the "
                "data. Name the classes that it knows."
            )
        index = torch.zeros(len(parts), longest, dtype=torch.int64)
        missing = torch.ones(len(parts), longest, dtype=torch.bool)
        for row, own in enumerate(parts):
            index[row, : len(own)] = torch.tensor(own)
            missing[row, : len(own)] = False
        self.plain = not bool(missing.any()) and longest == 1
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("missing", missing, persistent=False)

    def forward(self, logits: Float[Tensor, "n k"]) -> Float[Tensor, "n c"]:
        """Logits of the new classes."""
        if self.plain:
            return logits.index_select(1, self.index[:, 0])
        gathered = logits[:, self.index].masked_fill(self.missing, float("-inf"))
        return gathered.logsumexp(dim=2)
