"""The student learns the teacher's whole answer, not only its first choice.

## Idea

A trained network that sees a truck gives a little of its probability to *car* and next to none to
*frog*. Which mistakes are near and which are far says more about the picture than its label does,
and it is said about unlabelled pictures too. Both networks' answers are softened by the same
temperature, so that these small probabilities count, and the student's are drawn to the teacher's.

## Formula

    q_i = exp(z_i / T) / Σ_j exp(z_j / T)                       (1)
    loss = T² · mean over the batch of Σ_i p_i log(p_i / q_i)

z, q: logits and softened probabilities of the student → `student_logits`; p: the same of the
teacher → `teacher_logits`; T → `temperature`. T² keeps the gradient's size about the same for all
T. For large T it tends to (z − v) / number of classes, v being the teacher's logits (4): matching
logits is a special case.

## Needs

Logits of both networks over the same classes in the same order. Architecture, depth, input size
and normalization may differ. No labels, no taps.

## Settings

- `temperature`, 4: RepDistiller's; the paper found 2.5 to 4 best for its smallest student. Higher
  asks the student to follow even the classes that the teacher finds absurd.
- Weight: 0.9 with the supervised term at 0.1 (RepDistiller).

## Cost

No parameters; two softmaxes over the classes. What costs is the teacher's forward pass. Nothing at
inference.

## When to use it, when not

The first thing to try, the more so with pictures that have no label, and the baseline for
everything else. Not with a teacher of other classes, and not with one that is wrong on these
pictures: the student learns that as well.

## With other methods

Adds to methods that compare maps: this at 0.9, the other at its own weight.

## Source

G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network, 2015,
arXiv:1503.02531, equations 1 to 4. **Differences**: KL divergence in the place of the cross-entropy
with soft targets; they differ by the teacher's entropy, which has no gradient, and KL is zero when
the student has learned everything. Summed over classes and averaged over the batch: a mean over
classes too, `kl_div`'s default, would divide the loss by their number.

## Evidence

Published, CIFAR-100, ResNet-56 → ResNet-20 (RepDistiller): 70.66 % against 69.06 % from labels
alone. With this package, CIFAR-10 with 2,500 labels, ResNet-56 → ResNet-8, three seeds
(`benchmarks/baselines.yaml`): 74.5 ± 0.8 % against 67.7 ± 1.2 % from labels alone, and 69.7 ± 0.6 %
from labels for more than its time. Learning rate 1.0, the largest tried, was best on validation.
"""

from math import inf
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from tutelage.errors import NetworkError, SettingError
from tutelage.methods._base import Method, Needs
from tutelage.types import Shapes, Terms, TransferBatch

__all__ = ["KD", "kd_loss"]


def kd_loss(
    student_logits: Float[Tensor, "n k"],
    teacher_logits: Float[Tensor, "n k"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Temperature² × KL(teacher ‖ student), summed over classes, mean over the batch.

    Computed in float32 at least. Nothing is detached: pass the teacher's logits without gradient.

    Args:
        student_logits: before any softmax.
        teacher_logits: over the same classes in the same order.
        temperature: divides both; above 0.

    Example:
        The teacher answers (3/4, 1/4) at this temperature, the student (1/2, 1/2):
        2² × (3/4 log 3/2 + 1/4 log 1/2) = 4 × 0.1308.

        >>> student = torch.tensor([[0.0, 0.0]])
        >>> teacher = torch.tensor([[3.0, 1.0]]).log() * 2
        >>> kd_loss(student, teacher, temperature=2)
        tensor(0.5232)
    """
    wide = torch.promote_types(student_logits.dtype, torch.float32)
    log_q = log_softmax(student_logits.to(wide) / temperature, dim=1)
    log_p = log_softmax(teacher_logits.to(wide) / temperature, dim=1)
    return temperature**2 * kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@final
class KD(Method):
    """Knowledge distillation; the module's docstring is its card.

    Args:
        temperature: softens both answers, above 0; 1 leaves them as they are.

    Raises:
        SettingError: the temperature is not a positive number.
    """

    needs = Needs(outputs=("logits",))

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        if not 0 < temperature < inf:
            raise SettingError(
                f"kd needs a temperature above 0, but it is {temperature}. Try 4, or 1 to leave "
                "the answers as they are."
            )
        self.temperature = temperature

    def build(self, shapes: Shapes) -> None:
        """Checks that both networks answer with logits over the same number of classes."""
        student, teacher = shapes.student.output, shapes.teachers[0].output
        for role, output in (("student", student), ("teacher", teacher)):
            if output is None or len(output) != 1:
                raise NetworkError(
                    f"kd compares logits, one number per class, but the {role}'s output has the "
                    f"shape {output}. Give it a classification head."
                )
        if student != teacher:
            raise NetworkError(
                f"kd compares answers over the same classes, but the student has {student} "
                f"logits and the teacher {teacher}. Give the student the teacher's classes."
            )

    def forward(self, batch: TransferBatch) -> Terms:
        """One term, `kl`."""
        student, teacher = batch.student.output, batch.teachers[0].output
        return {"kl": kd_loss(student, teacher, temperature=self.temperature)}
