"""The student learns to carry what the teacher's middle layers know.

## Idea

A deep network's answer is the end of a long way; a student that is only shown the end must find the
way itself. A hint shows it a point in between: from the student's map at one place a small learned
layer must be able to tell the teacher's map at the corresponding place, channel by channel. That
layer is thrown away after training.

## Formula

    loss = ½ ‖ u_h(x) − r(v_g(x)) ‖²                                        (3)
    here: mean over batch, channels and locations of (u_h(x) − r(v_g(x)))²

v_g(x), the guided layer of the student → `student`; u_h(x), the hint layer of the teacher →
`teacher`; r → `regressor`, a 1×1 convolution with bias from the student's channels to the
teacher's. Of two sizes the larger map is average-pooled to the smaller. One term per pair of taps,
`hint/<student tap>`.

## Needs

At least one pair of taps that are maps. Channels and sizes may differ. No labels, no classes in
common.

## Settings

None: the layers are chosen by the run's pairs of taps. The paper hints at one pair, in the middle;
RepDistiller takes the output of the second stage. With all three stages the terms add up.

- Weight: 100 (RepDistiller, whose regressor ends in BatchNorm). Here the gradient grows with the
  square of the maps' scale, so try 1 to 1,000 on validation; if the loss explodes, less weight, a
  lower learning rate or a warm-up.

## Cost

Per pair c_s · c_t + c_t parameters in training, and c_s · c_t MACs per location of the smaller map:
for ResNet-8 from ResNet-56 (16, 32, 64 channels, three pairs) 5,488 parameters and 0.8 million MACs
a picture, 6 % of the student's. Nothing at inference.

## When to use it, when not

For students so deep and thin that they train badly from the end alone, for teachers of other
classes, and with few labels where the stages of both are equally wide: there it gained more than
`kd` (Evidence). With all labels of CIFAR-100 it gained less (RepDistiller). Not where the student
has far fewer channels than the teacher: it spends them on maps that it cannot have.

## With other methods

The paper goes on with `kd` after the hints; here both terms can run at once, or the weight of this
one can fall to zero by a schedule.

## Source

A. Romero, N. Ballas, S. E. Kahou, C. Chassang, C. Gatta, Y. Bengio: FitNets: Hints for Thin Deep
Nets, ICLR 2015, arXiv:1412.6550, equation 3. **Differences**: mean instead of half the sum, so
that one weight serves maps of any size (RepDistiller). The paper's regressor is a convolution large
enough to make up for the difference in size, with the teacher's non-linearity; RepDistiller's
adds BatchNorm. Here it is 1×1 and linear: pooling settles the size, and a rectifier would pass no
gradient where it is shut. The paper first trains the layers up to the guided one on the hint alone,
then all of them without it; here the term is one of a sum.

## Evidence

Published, CIFAR-100, ResNet-56 → ResNet-20 (RepDistiller, its regressor): 69.21 % against 69.06 %
from labels alone. With this package, CIFAR-10 with 2,500 labels, ResNet-56 → ResNet-8, three seeds
(`benchmarks/baselines.yaml`): 79.1 ± 0.3 % against 67.7 ± 1.2 % from labels alone, and 69.7 ± 0.6 %
from labels for more than its time. Weight 10 at learning rate 0.1; weight 100, or learning rate
0.3, became infinite.
"""

from collections.abc import Callable
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from tutelage.methods._base import Method, Needs
from tutelage.methods._pairs import paired_maps
from tutelage.ops import channel_norm, pool_to_smaller
from tutelage.types import Pair, Shapes, Terms, TransferBatch

__all__ = ["FitNetHints", "hint_loss"]


def hint_loss(
    student: Float[Tensor, "n c_s h_s w_s"],
    teacher: Float[Tensor, "n c_t h_t w_t"],
    *,
    regressor: Callable[[Tensor], Tensor],
) -> Float[Tensor, ""]:
    """Equation 3 for one pair of taps, as a mean over batch, channels and locations.

    Nothing is detached: pass the teacher's map without gradient.

    Args:
        student: the guided layer.
        teacher: the hint layer.
        regressor: from (n, c_s, h, w) to (n, c_t, h, w); a 1×1 convolution, say.

    Example:
        The student's map is pooled to its mean, 4, and compared to 6: (6 − 4)² = 4.

        >>> import torch
        >>> student = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
        >>> hint_loss(student, torch.tensor([[[[6.0]]]]), regressor=nn.Identity())
        tensor(4.)
    """
    # Pooling first is the same, since both are linear, and leaves the regressor less to do.
    student, teacher = pool_to_smaller(student, teacher)
    error = regressor(student) - teacher
    return channel_norm(error).square().mean() / error.shape[1]


@final
class FitNetHints(Method):
    """Hints for every pair of taps; the module's docstring is its card."""

    needs = Needs(taps="pairs")

    def __init__(self) -> None:
        super().__init__()
        self.pairs: tuple[Pair, ...] = ()
        self.regressors = nn.ModuleList()

    def build(self, shapes: Shapes) -> None:
        """Makes one regressor per pair, in the order of the pairs."""
        maps = paired_maps("fitnet_hints", shapes)
        self.pairs = shapes.pairs
        self.regressors.extend(
            nn.Conv2d(student[0], teacher[0], kernel_size=1) for student, teacher in maps
        )

    def forward(self, batch: TransferBatch) -> Terms:
        """One term per pair, `hint/<student tap>`."""
        student, teacher = batch.student.features, batch.teachers[0].features
        return {
            f"hint/{pair.student}": hint_loss(
                student[pair.student], teacher[pair.teacher], regressor=regressor
            )
            for pair, regressor in zip(self.pairs, self.regressors, strict=True)
        }
