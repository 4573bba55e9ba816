"""The student's attention has the same frequencies as the teacher's.

## Idea

Where a network's activations are strong, it found something that matters. Compared place by place,
two attention maps differ most where something is slightly shifted. Compared by their frequencies,
the whole layout counts at once: broad shapes, their rhythm, their contrast. Each map is brought to
one range, its mean taken out, and its frequencies compared.

## Formula

    M  = mean over channels of F²                       M̃ = (M − min M) / max M        (code)
    Z  = M̃ − mean over places of M̃                      D  = | Re FFT2(Z) |
    D̃  = (D − min D) / max D
    l  = ‖ D̃_S − D̃_T ‖₂ for each picture                loss = mean over the batch of g · l

F, the map after a stage → `student`, `teacher`. g is 1, or with `guide` 0 where the teacher is
wrong. One term per pair of taps, `dct/<student tap>`. D by `transform`, and what both rescalings
divide by:

| `transform` | D | divided by |
|---|---|---|
| `abs_real_fft` | as above | maximum |
| `real_fft` | Re FFT2(Z) | maximum − minimum |
| `dct2` | orthonormal DCT-II of Z | maximum − minimum |
| `none` | Z | maximum − minimum |

## Needs

At least one pair of taps that are maps. Channels and sizes may differ; of two sizes the larger
*feature map* is average-pooled to the smaller first. With `guide`: a teacher's logits over the
classes of the labels, and labels of some of the pictures.

## Settings

- `transform`, abs_real_fft: the authors' first code, from which their tables most probably are;
  real_fft is their second. The real part of a Fourier transform stands in for a cosine transform,
  and sees only what is symmetric about the map's first place: a map and its circular point
  reflection look the same. dct2 is the transform that the paper names, and blind to nothing.
- `rescale`, True: whether D is rescaled, too. Without, dct2 keeps lengths (Parseval) and compares
  what none compares, the maps themselves.
- `guide`, False (authors: on for scenes, off for CIFAR-100).
- Weight: 1 alone (authors). A length is not divided by the number of places, so that large maps
  count more: two random maps are 13.6 apart at 56×56, 2.8 at 8×8. The authors' own trials were best
  at 2 to 5.

## Cost

No parameters. Per pair one pass over both maps, a transform of one channel each, and in the
backward pass one over the student's map. Nothing at inference.

## When to use it, when not

Where the layout of a picture decides, as in scenes. Alone it was below `kd` in seven of the
authors' nine columns: it is an addition. Not at taps of a single location, which have no pattern:
the term is zero.

## With other methods

With `kd` (authors): task_weight 0.1, both weights 1. Beside `attention_transfer` it compares the
same maps twice.

## Source

A. López-Cifuentes, M. Escudero-Viñolo, J. Bescós, J. C. San Miguel: Attention-based Knowledge
Distillation in Scene Recognition: The Impact of a DCT-driven Loss, IEEE TCSVT 2023,
arXiv:2205.01997, of which the abstract could be read, and the authors' code
(alexlopezcifuentes/Distillation-Attention) whole. **Differences**: the default is the code as of
June 2021, when their tables stood there; which one the article has is unknown. dct2, none and
rescale are ours. Maps whose spread is below a millionth of their maximum have no pattern here: they
are zeros, with gradient zero, where the code divides by zero; where two codes agree the gradient
is zero, not infinite. Maps of two sizes are pooled; the code compares equal ones.

## Evidence

Published, ADE20K, ResNet-50 → ResNet-18: 47.35 % alone and 54.25 % with KD, against 40.97 % from
labels alone, 45.43 % with attention transfer and 50.54 % with KD. With this package: not yet
measured.
"""

from math import pi
from typing import Literal, final, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tutelage.errors import NetworkError, SettingError, one_of
from tutelage.methods._base import Method, Needs
from tutelage.methods._pairs import paired_maps
from tutelage.ops import channel_norm, pool_to_smaller, teacher_is_right
from tutelage.types import Pair, Shapes, Terms, TransferBatch

__all__ = [
    "DCTAttention",
    "Transform",
    "activation_map",
    "dct_2d",
    "dct_attention_loss",
    "frequency_code",
]

Transform = Literal["abs_real_fft", "real_fft", "dct2", "none"]
EPSILON = 1e-6


def activation_map(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Channel mean of the squares.

    Example:
        >>> activation_map(torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]]))
        tensor([[[5., 2.]]])
    """
    return channel_norm(features).square() / features.shape[1]


def dct_2d(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """The orthonormal DCT-II over both places: it keeps lengths.

    Example:
        A constant of 1 at four places has the length 2, all of it in the first coefficient.

        >>> dct_2d(torch.ones(1, 2, 2)).round(decimals=4).abs()
        tensor([[[2., 0.],
                 [0., 0.]]])
    """
    height, width = maps.shape[1:]
    # In bfloat16 lengths are kept to two digits, and it would be the one transform in it.
    with torch.autocast(maps.device.type, enabled=False):
        return _cosines(height, maps) @ maps @ _cosines(width, maps).T


def _cosines(size: int, like: Tensor) -> Float[Tensor, "frequency place"]:
    place = torch.arange(size, dtype=like.dtype, device=like.device)
    angle = torch.outer(place, place + 0.5) * (pi / size)
    first = (place == 0).to(like.dtype)
    return angle.cos() * ((2 - first) / size).sqrt()[:, None]


def frequency_code(
    maps: Float[Tensor, "n h w"], *, transform: Transform, rescale: bool = True
) -> Float[Tensor, "n h w"]:
    """What is compared of an activation map; zeros where it has no pattern.

    Args:
        maps: 0 or more.
        rescale: whether the frequencies are brought to one range, too.

    Example:
        (3, 1) is rescaled to (2/3, 0), less its mean (1/3, −1/3), of which the Fourier transform is
        (0, 2/3), rescaled to (0, 1).

        >>> frequency_code(torch.tensor([[[3.0, 1.0]]]), transform="abs_real_fft")
        tensor([[[0., 1.]]])
    """
    signed = transform != "abs_real_fft"
    ranged = _rescaled(maps, by_range=signed)
    centered = ranged - ranged.mean(dim=(1, 2), keepdim=True)
    code = centered
    if transform == "dct2":
        code = dct_2d(centered)
    elif transform == "real_fft":
        code = torch.fft.fft2(centered).real
    elif transform == "abs_real_fft":
        code = torch.fft.fft2(centered).real.abs()
    return _rescaled(code, by_range=signed) if rescale else code


def _rescaled(maps: Float[Tensor, "n h w"], *, by_range: bool) -> Float[Tensor, "n h w"]:
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    spread = high - low
    varies = spread > EPSILON * torch.maximum(high.abs(), low.abs())
    divisor = torch.where(varies, spread if by_range else high, 1.0)
    return torch.where(varies, (maps - low) / divisor, 0.0)


def dct_attention_loss(
    student: Float[Tensor, "n c_s h_s w_s"],
    teacher: Float[Tensor, "n c_t h_t w_t"],
    *,
    transform: Transform = "abs_real_fft",
    rescale: bool = True,
    counts: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Distance of the frequencies of two maps, mean over the batch.

    Nothing is detached: pass the teacher's map without gradient.

    Args:
        student: map after a stage.
        teacher: map after the corresponding stage; the larger of the two is average-pooled.
        counts: False where a picture counts as 0 in the mean; all count unless given.

    Example:
        Of (1, 0, 0), less its mean, the real part of the transform is (0, 1, 1); of (1, 1, 0) it is
        (0, 1/2, 1/2), which rescaling makes the same.

        >>> one, other = torch.tensor([[[[1.0, 0.0, 0.0]]]]), torch.tensor([[[[1.0, 1.0, 0.0]]]])
        >>> dct_attention_loss(one, other).round(decimals=4)
        tensor(0.)
        >>> dct_attention_loss(one, other, transform="none")
        tensor(1.)
    """
    student, teacher = pool_to_smaller(student, teacher)
    code_s = frequency_code(activation_map(student), transform=transform, rescale=rescale)
    code_t = frequency_code(activation_map(teacher), transform=transform, rescale=rescale)
    # The gradient of a norm is taken to be zero at zero.
    distance = torch.linalg.vector_norm(code_s - code_t, dim=(1, 2))
    return (distance if counts is None else distance * counts).mean()


@final
class DCTAttention(Method):
    """Frequencies of attention for every pair of taps; the module's docstring is its card.

    Args:
        transform: what is taken of a map; see the card.
        rescale: whether the result is brought to one range.
        guide: whether pictures that the teacher gets wrong count as 0.

    Raises:
        SettingError: there is no such transform.
    """

    needs = Needs(taps="pairs")

    def __init__(
        self, *, transform: Transform = "abs_real_fft", rescale: bool = True, guide: bool = False
    ) -> None:
        super().__init__()
        one_of("transform", transform, get_args(Transform), SettingError)
        self.transform: Transform = transform
        self.rescale, self.guide = rescale, guide
        if guide:
            self.needs = Needs(outputs=("logits",), taps="pairs", labels="class")
        self.pairs: tuple[Pair, ...] = ()

    def build(self, shapes: Shapes) -> None:
        """Checks that every pair of taps is one of maps."""
        paired_maps("dct_attention", shapes)
        output = shapes.teachers[0].output
        if self.guide and (output is None or len(output) != 1):
            raise NetworkError(
                "dct_attention's guide asks whether the teacher is right, which needs its logits, "
                f"but it puts out {output} per sample. Set guide: false."
            )
        self.pairs = shapes.pairs

    def encode(
        self, maps: Float[Tensor, "n c h w"], size: tuple[int, int]
    ) -> Float[Tensor, "n 1 h_2 w_2"]:
        """One channel with the same activation map, at the smaller size."""
        maps, _ = pool_to_smaller(maps, maps.new_empty(len(maps), 1, *size))
        return activation_map(maps).sqrt()[:, None]

    def forward(self, batch: TransferBatch) -> Terms:
        """One term per pair, `dct/<student tap>`."""
        student, (teacher,) = batch.student, batch.teachers
        counts = None
        if self.guide:
            counts = teacher_is_right(teacher.output, batch.targets, batch.has_label)
        return {
            f"dct/{pair.student}": dct_attention_loss(
                student.features[pair.student],
                teacher.features[pair.teacher],
                transform=self.transform,
                rescale=self.rescale,
                counts=counts,
            )
            for pair in self.pairs
        }
