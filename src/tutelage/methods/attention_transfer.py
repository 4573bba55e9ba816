"""The student learns to look where the teacher looks.

## Idea

Where a network's activations are strong, it found something that matters. Summed over the channels
they make a gray picture, an attention map, that two networks share whatever their channels mean.
The student is asked to have the teacher's map after each stage: the pattern, not its brightness.

## Formula

    Q = vec( Σ_c |A_c|^p )                                                  (section 3.1)
    L_AT = L(W_S, x) + β/2 Σ_j ‖ Q_S^j / ‖Q_S^j‖₂ − Q_T^j / ‖Q_T^j‖₂ ‖_p     (2)
    here, for each j: mean over batch and locations of ( Q_S / ‖Q_S‖₂ − Q_T / ‖Q_T‖₂ )²

A, the map after a stage → `student`, `teacher`; p in Q → `power`. L is the supervised term; β is
this method's weight. One term per pair of taps j, `at/<student tap>`.

## Needs

At least one pair of taps that are maps. Channels and sizes may differ; of two sizes the larger
*feature map* is average-pooled to the smaller before its attention is taken. No labels, no classes
in common.

## Settings

- `power`, 2 (authors' code): higher follows the strongest places only, 1 weighs all alike. At
  least 1, since below the gradient is infinite where a channel is silent.
- Weight: 1000 (RepDistiller). Large because the mean runs over locations: a map of unit length has
  squares of about 1 / (h · w). Try 100 to 10,000 on validation.

## Cost

No parameters. Per pair one pass over both maps, and in the backward pass one over the student's; no
copy of either is kept. Nothing at inference.

## When to use it, when not

For networks whose stages correspond, and for teachers of other classes. Not between very different
families: from VGG to MobileNet it costs more than it brings (RepDistiller). Not at taps of a single
location: one place has no pattern, and the term is zero.

## With other methods

Says where, `kd` says what: the two add. Beside `fitnet_hints`, which fixes the maps wholly, it has
little left to say.

## Source

S. Zagoruyko, N. Komodakis: Paying More Attention to Attention: Improving the Performance of
Convolutional Neural Networks via Attention Transfer, ICLR 2017, arXiv:1612.03928, equation 2,
activation-based; the authors' code. **Differences**: squared difference, mean over batch and
locations, no ½, as the authors' code has it (equation 2 has the plain norm and ½); the weight
differs accordingly. The code takes channel means for sums, which normalization makes the same.
Pooling two sizes to the smaller is RepDistiller's; the authors compare maps of one size.

## Evidence

Published, CIFAR-100, ResNet-56 → ResNet-20 (RepDistiller): 70.55 % against 69.06 % from labels
alone. With this package, CIFAR-10 with 2,500 labels, ResNet-56 → ResNet-8, three seeds
(`benchmarks/baselines.yaml`): 72.4 ± 0.2 % against 67.7 ± 1.2 % from labels alone, and 69.7 ± 0.6 %
from labels for more than its time. Of the weights 100, 1000 and 10,000 the second was best on
validation by six points.
"""

from math import inf
from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from tutelage.errors import SettingError
from tutelage.methods._base import Method, Needs
from tutelage.methods._pairs import paired_maps
from tutelage.ops import channel_norm, pool_to_smaller
from tutelage.types import Pair, Shapes, Terms, TransferBatch

__all__ = ["AttentionTransfer", "attention_map", "attention_transfer_loss"]


def attention_map(features: Float[Tensor, "n c h w"], *, power: float) -> Float[Tensor, "n h*w"]:
    """Channel mean of |features|^power, flattened and of unit length; zero where all is silent.

    Args:
        features: the map after a stage.
        power: at least 1.

    Example:
        Squares add up to 3 and 4 at the two places; (3, 4) has the length 5.

        >>> import torch
        >>> attention_map(torch.tensor([[[[1.0, 2.0]], [[1.0, 0.0]], [[1.0, 0.0]]]]), power=2)
        tensor([[0.6000, 0.8000]])
    """
    # That the sum was not divided by the number of channels is undone by the last line.
    energy = channel_norm(features, power) ** power
    return normalize(energy.flatten(1), dim=1)


def attention_transfer_loss(
    student: Float[Tensor, "n c_s h_s w_s"],
    teacher: Float[Tensor, "n c_t h_t w_t"],
    *,
    power: float,
) -> Float[Tensor, ""]:
    """Mean over batch and locations of the squared difference of two attention maps.

    Nothing is detached: pass the teacher's map without gradient.

    Args:
        student: map after a stage.
        teacher: map after the corresponding stage; the larger of the two is average-pooled.
        power: at least 1.

    Example:
        (0.6, 0.8) against (0, 1): (0.36 + 0.04) / 2.

        >>> import torch
        >>> student = torch.tensor([[[[1.0, 2.0]], [[1.0, 0.0]], [[1.0, 0.0]]]])
        >>> attention_transfer_loss(student, torch.tensor([[[[0.0, 5.0]]]]), power=2)
        tensor(0.2000)
    """
    student, teacher = pool_to_smaller(student, teacher)
    difference = attention_map(student, power=power) - attention_map(teacher, power=power)
    return difference.square().mean()


@final
class AttentionTransfer(Method):
    """Attention transfer for every pair of taps; the module's docstring is its card.

    Args:
        power: how much the strong places outweigh the weak ones, at least 1.

    Raises:
        SettingError: the power is below 1 or not finite.
    """

    needs = Needs(taps="pairs")

    def __init__(self, *, power: float = 2.0) -> None:
        super().__init__()
        if not 1 <= power < inf:
            raise SettingError(
                f"attention_transfer needs a power of at least 1, but it is {power}: below 1 the "
                "gradient is infinite where a channel is silent. Try 2."
            )
        self.power = power
        self.pairs: tuple[Pair, ...] = ()

    def build(self, shapes: Shapes) -> None:
        """Checks that every pair of taps is one of maps."""
        paired_maps("attention_transfer", shapes)
        self.pairs = shapes.pairs

    def encode(
        self, maps: Float[Tensor, "n c h w"], size: tuple[int, int]
    ) -> Float[Tensor, "n 1 h_2 w_2"]:
        """One channel with the same attention map, at the smaller size."""
        maps, _ = pool_to_smaller(maps, maps.new_empty(len(maps), 1, *size))
        return channel_norm(maps, self.power, keepdim=True)

    def forward(self, batch: TransferBatch) -> Terms:
        """One term per pair, `at/<student tap>`."""
        student, teacher = batch.student.features, batch.teachers[0].features
        return {
            f"at/{pair.student}": attention_transfer_loss(
                student[pair.student], teacher[pair.teacher], power=self.power
            )
            for pair in self.pairs
        }
