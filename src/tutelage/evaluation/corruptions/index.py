"""Ways to spoil a picture: four of each group, at five severities.

| group | name | what happens | departs from CIFAR-10-C |
| --- | --- | --- | --- |
| noise | `gaussian_noise` | normal numbers are added | no |
| noise | `shot_noise` | few photons are counted | no |
| noise | `impulse_noise` | some values become black or white | no |
| noise | `speckle_noise` | normal numbers in proportion to the pixel are added | no |
| blur | `gaussian_blur` | a Gaussian | no |
| blur | `defocus_blur` | a disc with softened stairs | the softening is not cut at one pixel |
| blur | `motion_blur` | half a Gaussian along a slanted line | severity 4 |
| blur | `zoom_blur` | the mean of enlargements | centers are exact, not whole pixels |
| photometric | `brightness` | HSV's value is raised | no |
| photometric | `contrast` | channels are drawn to their mean | no |
| photometric | `saturation` | HSV's saturation is lowered | only ever lowered |
| photometric | `fog` | fractal clouds are added | no |
| digital | `jpeg` | lossy compression | no |
| digital | `pixelate` | a grid of coarser cells | severities 2 to 5; cells have exact sizes |
| digital | `posterize` | the first bits of each byte | not in CIFAR-10-C |
| digital | `elastic` | neighbors move together | no affine part; ways that grow |

**Source.** Hendrycks and Dietterich, *Benchmarking neural network robustness to common corruptions
and perturbations*, 2019 (arXiv 1903.12261). Parameters are those of CIFAR-10-C, from
`make_cifar_c.py` in the authors' repository `hendrycks/robustness`.

**Differences** beside those that the table says in full:

- Results are not rounded to bytes, except where the corruption itself works on bytes. The five
  severities of a picture share their draws. Defocus blur does not mirror the picture outside.
- Motion blur's severities 3 and 4 differ there only in a radius that lies beyond 3 σ, which is no
  difference; here σ of severity 4 is 2.25, in between. Radii are always 4 σ.
- Pixelate there has a whole number of cells, 0.95, 0.9, 0.85, 0.75 and 0.65 per pixel, and a pixel
  belongs to one cell. At other sizes than 32 that is no order: what matters is how cells happen to
  lie on pixels. Here cells have exact sizes, and a pixel is mixed from those that it lies in.
- Saturation there is 0.3, 0.1, 1.5, 2 and 2.5 times as high, so that severity is no order.
- Elastic there is an affine map that shrinks with severity, and a field of ways. Severities 3 to 5
  of that field have standard deviations of about 0.2, 0.4 and 0.5 pixels.
- Left out are glass blur (pixels swapped one after the other), frost (needs photographs), snow and
  spatter (many parameters, no order).

**Sizes.** Lengths are in pixels of 32×32 pictures. They grow with the shorter side, and do not
shrink below 32 pixels, since a fraction of a pixel would change nothing; `zoom_blur` and `fog` are
in proportion to the picture at any size.

**Replay.** What is random is a hash of (seed, name, index), and every step is a single operation
that IEEE 754 defines exactly, or works on bytes. So a picture is spoiled the same way, bit for bit,
in any batch, order, process and number of threads. torchvision's transforms serve where they work
on bytes (`jpeg`, `posterize`). Of the others, its noise draws from the global generator, its
contrast and saturation blend with luma where CIFAR-10-C has channels and HSV, and its blur goes on
in mirror image outside and rests on convolutions, whose order of additions nobody promises.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from tutelage import rng
from tutelage.errors import SettingError, one_of
from tutelage.evaluation.corruptions.blur import (
    defocus_blur,
    gaussian_blur,
    motion_blur,
    zoom_blur,
)
from tutelage.evaluation.corruptions.digital import elastic, jpeg, pixelate, posterize
from tutelage.evaluation.corruptions.noise import (
    gaussian_noise,
    impulse_noise,
    shot_noise,
    speckle_noise,
)
from tutelage.evaluation.corruptions.photometric import brightness, contrast, fog, saturation

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "corrupt", "corruptions_for", "require"]

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a picture.

    Attributes:
        group: what it belongs to.
        function: (images, strength) → images, or (images, strength, keys) → images if `random`.
            Results may lie outside [0, 1].
        strengths: of the severities 1 to 5; what they mean, `function` says.
        random: whether it needs one key per picture (`rng.keys`).
        needs_color: whether gray pictures stay as they are.
    """

    group: Literal["noise", "blur", "photometric", "digital"]
    function: Callable[..., Tensor]
    strengths: tuple[Any, Any, Any, Any, Any]
    random: bool = False
    needs_color: bool = False


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption("noise", gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.1), True),
    "shot_noise": Corruption("noise", shot_noise, (500, 250, 100, 75, 50), True),
    "impulse_noise": Corruption("noise", impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), True),
    "speckle_noise": Corruption("noise", speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2), True),
    "gaussian_blur": Corruption("blur", gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "defocus_blur": Corruption(
        "blur", defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
    ),
    "motion_blur": Corruption("blur", motion_blur, (1.0, 1.5, 2.0, 2.25, 2.5), True),
    "zoom_blur": Corruption("blur", zoom_blur, (5, 10, 15, 20, 25)),
    "brightness": Corruption("photometric", brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption("photometric", contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "saturation": Corruption(
        "photometric", saturation, (0.7, 0.5, 0.3, 0.1, 0.0), needs_color=True
    ),
    "fog": Corruption(
        "photometric", fog, ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)), True
    ),
    "jpeg": Corruption("digital", jpeg, (80, 65, 58, 50, 40)),
    "pixelate": Corruption("digital", pixelate, (0.95, 0.85, 0.75, 0.65, 0.5)),
    "posterize": Corruption("digital", posterize, (5, 4, 3, 2, 1)),
    "elastic": Corruption("digital", elastic, (0.1, 0.2, 0.3, 0.4, 0.55), True),
}
"""Name → what it does, by group."""


def corruptions_for(channels: int) -> tuple[str, ...]:
    """The names of those that change pictures of so many channels.

    >>> sorted(set(corruptions_for(3)) - set(corruptions_for(1)))
    ['saturation']
    """
    return tuple(
        name
        for name, corruption in CORRUPTIONS.items()
        if channels > 1 or not corruption.needs_color
    )


def require(name: str, severity: int) -> None:
    """Refuses what is not there.

    Raises:
        SettingError: there is no such corruption or severity.
    """
    one_of("corruption", name, CORRUPTIONS, SettingError)
    if severity not in (0, *SEVERITIES):
        raise SettingError(
            f"A severity is a whole number from 0 (the picture as it is) to {len(SEVERITIES)}, "
            f"but is {severity}; choose one of these."
        )


def corrupt(
    images: Float32[Tensor, "n c h w"],
    name: str,
    severity: int,
    *,
    index: Int64[Tensor, " n"],
    seed: int = 0,
) -> Float32[Tensor, "n c h w"]:
    """Spoils pictures, each as a function of its own pixels, its index and the seed alone.

    What is random is the same for all severities of one picture; they differ in strength.

    Args:
        images: gray or RGB, pixels in [0, 1].
        name: a key of `CORRUPTIONS`.
        severity: 1 (mild) to 5; 0 gives the images back as they are.
        index: which pictures these are.

    Returns:
        Pixels in [0, 1], on the same device.

    Raises:
        SettingError: there is no such corruption or severity.
    """
    require(name, severity)
    if severity == 0:
        return images
    corruption = CORRUPTIONS[name]
    strength = corruption.strengths[severity - 1]
    if not corruption.random:
        return corruption.function(images, strength).clamp(0, 1)
    index = index.to(images.device)
    keys = rng.keys(seed, f"corruption/{name}", index, torch.zeros_like(index))
    return corruption.function(images, strength, keys).clamp(0, 1)
