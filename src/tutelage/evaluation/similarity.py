"""How alike two networks' maps are: linear CKA (Kornblith et al. 2019, arXiv:1905.00414)."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from tutelage.models.network import Network
from tutelage.taps import evaluating
from tutelage.types import Batch, Pair

__all__ = ["MAX_NUMBERS", "linear_cka", "similarity"]

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


def similarity(
    student: Network,
    teacher: Network,
    batches: Iterable[Batch],
    pairs: Sequence[Pair],
    *,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Linear CKA of each pair of maps, over all the pictures.

    Args:
        student, teacher: are moved to `device`; both are observed in eval mode and float32.
        batches: un-augmented; a thousand pictures are enough.
        pairs: sub-modules of both.

    Returns:
        One {"student": tap, "teacher": tap, "cka": number} per pair, in the order of `pairs`.
    """
    networks = {"student": student, "teacher": teacher}
    taps = {
        "student": list(dict.fromkeys(pair.student for pair in pairs)),
        "teacher": list(dict.fromkeys(pair.teacher for pair in pairs)),
    }
    rows: dict[tuple[str, str], list[Tensor]] = {}
    for what, network in networks.items():
        network.to(device).tap(taps[what], what)
    with evaluating(student), evaluating(teacher):
        for batch in batches:
            images = batch.images.to(device)
            for what, network in networks.items():
                seen = network.observe(images, taps[what]).features
                for name, value in seen.items():
                    rows.setdefault((what, name), []).append(_flat(value).cpu())
    whole = {key: torch.cat(parts) for key, parts in rows.items()}
    return [
        {
            "student": pair.student,
            "teacher": pair.teacher,
            "cka": linear_cka(whole["student", pair.student], whole["teacher", pair.teacher]),
        }
        for pair in pairs
    ]


def _flat(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    channels, height, width = maps.shape[1:]
    while channels * height * width > MAX_NUMBERS and height * width > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
    return adaptive_avg_pool2d(maps.float(), (height, width)).flatten(1)
