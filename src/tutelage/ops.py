"""Small operations on maps that several methods share."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

__all__ = ["channel_norm", "pool_to_smaller", "teacher_is_right"]


def channel_norm(
    maps: Float[Tensor, "n c h w"], order: float = 2.0, *, keepdim: bool = False
) -> Float[Tensor, "n ..."]:
    """Norm over the channels at each place, in float32 at least.

    Reads bfloat16 and adds in float32, without a float32 copy of the map.

    Example:
        >>> channel_norm(torch.tensor([[[[3.0]], [[4.0]]]]))
        tensor([[[5.]]])
    """
    wide = torch.promote_types(maps.dtype, torch.float32)
    return torch.linalg.vector_norm(maps, order, dim=1, keepdim=keepdim, dtype=wide)


def teacher_is_right(
    teacher_logits: Float[Tensor, "n k"],
    targets: Int64[Tensor, " n"],
    has_label: Bool[Tensor, " n"],
) -> Bool[Tensor, " n"]:
    """Where the teacher's first class is the label, or where there is none.

    Example:
        >>> logits, targets = torch.tensor([[2.0, 1.0]]).repeat(3, 1), torch.tensor([0, 1, 1])
        >>> teacher_is_right(logits, targets, torch.tensor([True, True, False]))
        tensor([ True, False,  True])
    """
    return ~has_label | (teacher_logits.argmax(dim=1) == targets)


def pool_to_smaller(
    first: Float[Tensor, "n c_1 h_1 w_1"], second: Float[Tensor, "n c_2 h_2 w_2"]
) -> tuple[Float[Tensor, "n c_1 h w"], Float[Tensor, "n c_2 h w"]]:
    """Adaptive-average-pools the larger map to the size of the smaller, in each direction."""
    height = min(first.shape[-2], second.shape[-2])
    width = min(first.shape[-1], second.shape[-1])
    return _pool(first, height, width), _pool(second, height, width)


def _pool(maps: Tensor, height: int, width: int) -> Tensor:
    same = maps.shape[-2:] == (height, width)
    return maps if same else adaptive_avg_pool2d(maps, (height, width))
