"""How alike two networks' maps are: what is in them, and where.

Linear CKA (Kornblith et al. 2019, arXiv:1905.00414) says whether two layers tell the same pictures
apart; the correlation of attention maps, whether both are strong at the same places of a picture.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from tutelage.models.network import Network
from tutelage.taps import evaluating
from tutelage.types import Batch, Pair

__all__ = ["MAX_NUMBERS", "attention_correlation", "linear_cka", "similarity"]

MAX_NUMBERS = 2**14
"""Of a map with more numbers, its locations are average-pooled until it has no more."""


def linear_cka(first: Float[Tensor, "n a"], second: Float[Tensor, "n b"]) -> float:
    """Centered kernel alignment with a linear kernel, in [0, 1].

    It is 1 if one is the other rotated, mirrored, scaled and shifted. With few pictures and many
    numbers it is biased upwards; compare values of equally many pictures only.

    Args:
        first, second: one row per picture, the same pictures in both.

    >>> linear_cka(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[2.0], [4.0], [8.0]]))
    1.0
    """
    kernels = [_centered_gram(rows) for rows in (first, second)]
    across = (kernels[0] * kernels[1]).sum()
    alone = [torch.linalg.matrix_norm(kernel) for kernel in kernels]
    if alone[0] == 0 or alone[1] == 0:
        return 0.0
    return round(float(across / (alone[0] * alone[1])), 6)


def _centered_gram(rows: Float[Tensor, "n a"]) -> Float[Tensor, "n n"]:
    centered = rows.double() - rows.double().mean(dim=0)
    return centered @ centered.T


def attention_correlation(
    first: Float[Tensor, "n h w"], second: Float[Tensor, "n h2 w2"]
) -> Float64[Tensor, " n"] | None:
    """Of each picture the correlation, over places, of how strong two maps are there.

    The larger map is averaged to the size of the smaller. A map that is equally strong everywhere
    looks nowhere: its correlation is 0.

    Args:
        first, second: strength at each place, such as the mean of squares over channels.

    Returns:
        In [-1, 1]; None where one of them has a single place.

    >>> one, other = torch.tensor([[[0.0, 1.0, 2.0]]]), torch.tensor([[[5.0, 3.0, 1.0]]])
    >>> attention_correlation(one, other).round(decimals=6)
    tensor([-1.], dtype=torch.float64)
    """
    height, width = (min(sides) for sides in zip(first.shape[1:], second.shape[1:], strict=True))
    if height * width == 1:
        return None
    flat = [
        adaptive_avg_pool2d(maps[:, None].double(), (height, width)).flatten(1)
        for maps in (first, second)
    ]
    one, other = (rows - rows.mean(dim=1, keepdim=True) for rows in flat)
    norms = one.norm(dim=1) * other.norm(dim=1)
    along = (one * other).sum(dim=1)
    return torch.where(norms > 0, along / norms.clamp(min=1e-300), 0.0)


def similarity(
    student: Network,
    teacher: Network,
    batches: Iterable[Batch],
    pairs: Sequence[Pair],
    *,
    device: torch.device,
) -> list[dict[str, Any]]:
    """How alike each pair of maps is, over all the pictures.

    Args:
        student, teacher: are moved to `device`; both are observed in eval mode and float32.
        batches: un-augmented; a thousand pictures are enough.
        pairs: sub-modules of both.

    Returns:
        One {"student": tap, "teacher": tap, "cka": number, "attention": number} per pair, in the
        order of `pairs`; "attention" is the mean of `attention_correlation`, and may be None.
    """
    networks = {"student": student, "teacher": teacher}
    taps = {
        "student": list(dict.fromkeys(pair.student for pair in pairs)),
        "teacher": list(dict.fromkeys(pair.teacher for pair in pairs)),
    }
    rows: dict[tuple[str, str], list[Tensor]] = {}
    strengths: dict[tuple[str, str], list[Tensor]] = {}
    for what, network in networks.items():
        network.to(device).tap(taps[what], what)
    with evaluating(student), evaluating(teacher):
        for batch in batches:
            images = batch.images.to(device)
            for what, network in networks.items():
                seen = network.observe(images, taps[what]).features
                for name, value in seen.items():
                    rows.setdefault((what, name), []).append(_flat(value).cpu())
                    strength = value.float().square().mean(dim=1).cpu()
                    strengths.setdefault((what, name), []).append(strength)
    found = []
    for pair in pairs:
        keys = ("student", pair.student), ("teacher", pair.teacher)
        cka = linear_cka(*(torch.cat(rows[key]) for key in keys))
        looks = attention_correlation(*(torch.cat(strengths[key]) for key in keys))
        attention = None if looks is None else round(float(looks.mean()), 6)
        found.append(pair._asdict() | {"cka": cka, "attention": attention})
    return found


def _flat(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    channels, height, width = maps.shape[1:]
    while channels * height * width > MAX_NUMBERS and height * width > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
    return adaptive_avg_pool2d(maps.float(), (height, width)).flatten(1)
