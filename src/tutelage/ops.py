"""Small operations on maps that several methods share."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

__all__ = ["pool_to_smaller"]


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
