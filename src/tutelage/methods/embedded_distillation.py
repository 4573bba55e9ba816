"""The whole network teaches its own shallower sub-nets, in the step in which it learns itself.

## Idea

A network that runs at several depths has its best teacher inside: the whole. In each step it
answers first, and every sub-net, which shares its weights, is shown what it answered and where it
looked. No second network, no second run.

## Formula

    kl/<sub-net>         τ² / n · mean over the batch of KL( q_full ‖ q_sub )
    attention/<sub-net>  1 / n · mean over stages of mean over batch and places of (A_sub − A_full)²
    q = softmax(z / τ) ,  S = Σ_c F_c ,  A = (S − mean of S) / std of S      over a picture's places

z → logits; τ → `temperature`; F, the map at a stage's end → `features`; n, the number of sub-nets.
The std divides by places − 1, as the authors' code does.

## Needs

A student with sub-nets, which put out logits. No teacher, no labels.

## Settings

- `temperature`, 3 (authors' sister code).
- `stages`, all; last: the last stage alone, as in the sister code.
- `detach`, True: the whole is not moved by what it teaches. The sister code lets the gradient
  through on both sides; False does so.
- Weights: `{kl: 1.5, attention: 1}` (CIFAR-10, sister code; 0.6 on CIFAR-100. Its 15 and 60 are for
  a mean over classes, too, so they are divided by their number).

## Cost

No parameters of its own; sub-nets hold norms (by default of their own: 1,344 numbers in a ResNet-20
with 14 and 8, which record and page name). The maps are there already; per sub-net one pass over
each. What costs is that all depths are run: ResNet-20 alone takes 40.5 MMACs a picture; with 14 and
8, where only the stem is common, 78.3, and with `subnet_norms: shared`, where the first stage is
too, 64.1. Shared norms have no statistics of a sub-net's own; nothing recalibrates them afterwards
(`models/depth_dynamic.py` says why). Nothing at inference.

## When to use it, when not

Where one file must serve devices of different speed, or one device under changing load. For a
single small student an ordinary teacher is the plain way.

## With other methods

With `kd` from a larger teacher, which then teaches the whole.

## Source

Q. Zhao, S. Lyu, Z. Zhang, T. Xu, G. Cheng: Embedded Knowledge Distillation in Depth-Level Dynamic
Neural Network, 2021, arXiv:2103.00793, of which the abstract could be read: KL divergence between
the posteriors of whole and sub-net, and self-attention on features of one resolution. Both
operators, τ and weights are those of the authors' sister code (cv516Buaa/EKD-FWSNet), where the
mean of branches teaches. **Differences**: all stages' ends, not the last alone; detached; summed
over classes; each sub-net's terms divided by their number n; a map whose std is below a
hundred-thousandth of its maximum has no attention. Which blocks a sub-net keeps:
`models/depth_dynamic.py`.

## Evidence

The abstract says that sub-nets gain over individually trained ones while "preserving the original
performance of full-nets", and that all of this is "without extra computation cost". With this
package (benchmarks/README.md, "One network of three depths"; ResNet-20, 14 and 8, CIFAR-10 with
2,500 labels, three seeds): not shown. Sub-nets were 1.2 and 3.6 points above the same networks
trained alone and the whole 0.3, with intervals that hold 0; one run of all depths took the time of
the three runs. Each term alone is not measured.
"""

from math import inf
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import log_softmax

from tutelage.errors import NetworkError, SettingError, one_of
from tutelage.methods._base import Method, Needs
from tutelage.types import Shapes, Terms, TransferBatch

__all__ = [
    "EmbeddedDistillation",
    "attention_map",
    "embedded_attention_loss",
    "embedded_kl_loss",
]

FLOOR = 1e-5
"""Share of a map's maximum below which its standard deviation is rounding."""


def attention_map(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Channel sum, standardized over the places of each picture; zero where it does not vary.

    Example:
        Sums 1, 3 and 5 have mean 3 and standard deviation 2.

        >>> attention_map(torch.tensor([[[[1.0, 2.0, 5.0]], [[0.0, 1.0, 0.0]]]]))
        tensor([[[-1.,  0.,  1.]]])
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    sums = features.sum(dim=1, dtype=wide)
    centered = sums - sums.mean(dim=(1, 2), keepdim=True)
    places = sums[0].numel()
    variance = centered.square().sum(dim=(1, 2), keepdim=True) / max(places - 1, 1)
    # Relative: the mean of a constant map is off by its last digits.
    least = (FLOOR * sums.detach().abs().amax(dim=(1, 2), keepdim=True)).square()
    varies = variance > least
    return torch.where(varies, centered * torch.where(varies, variance, 1.0).rsqrt(), 0.0)


def embedded_attention_loss(
    subnet: Float[Tensor, "n c h w"], full: Float[Tensor, "n c h w"]
) -> Float[Tensor, ""]:
    """Mean over batch and places of the squared difference of two attention maps.

    Nothing is detached: pass the whole's map without gradient, unless it shall move, too.

    Example:
        (−1, 0, 1) against (1, 0, −1): (4 + 0 + 4) / 3.

        >>> subnet = torch.tensor([[[[1.0, 3.0, 5.0]]]])
        >>> embedded_attention_loss(subnet, -subnet)
        tensor(2.6667)
    """
    return (attention_map(subnet) - attention_map(full)).square().mean()


def embedded_kl_loss(
    subnet: Float[Tensor, "n k"], full: Float[Tensor, "n k"], *, temperature: float
) -> Float[Tensor, ""]:
    """τ² times the divergence of a sub-net's softened answer from the whole's, mean over the batch.

    Args:
        subnet, full: logits. Nothing is detached.
        temperature: above 0.

    Example:
        Shares (¾, ¼) against (½, ½), at temperature 1: ¾ ln 1.5 + ¼ ln 0.5.

        >>> full = torch.tensor([[3.0, 1.0]]).log()
        >>> embedded_kl_loss(torch.zeros(1, 2), full, temperature=1)
        tensor(0.1308)
    """
    own, wanted = log_softmax(subnet / temperature, 1), log_softmax(full / temperature, 1)
    return temperature**2 * (wanted.exp() * (wanted - own)).sum(dim=1).mean()


@final
class EmbeddedDistillation(Method):
    """The whole teaches every sub-net; the module's docstring is its card.

    Args:
        temperature: above 0.
        stages: at whose ends attention is compared.
        detach: whether the whole is left alone.

    Raises:
        SettingError: the temperature is not positive, or there are no such stages.
    """

    needs = Needs(outputs=("logits",), taps="all", teachers=0, subnets=True)

    def __init__(
        self,
        *,
        temperature: float = 3.0,
        stages: Literal["all", "last"] = "all",
        detach: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < temperature < inf:
            raise SettingError(
                f"embedded_distillation needs a temperature above 0, but it is {temperature}. "
                "Try 3."
            )
        one_of("stages", stages, ("all", "last"), SettingError)
        self.temperature, self.stages, self.detach = temperature, stages, detach
        self.taps: tuple[str, ...] = ()

    def build(self, shapes: Shapes) -> None:
        """Finds the stages that the whole and all sub-nets have."""
        student = shapes.student
        if not student.subnets:
            raise NetworkError(
                "embedded_distillation teaches the sub-nets of a student, and this one has none. "
                "Give it some."
            )
        outputs = [student.output, *(subnet.output for subnet in student.subnets.values())]
        if len(set(outputs)) > 1 or outputs[0] is None or len(outputs[0]) != 1:
            raise NetworkError(
                "embedded_distillation compares logits of one length, but the whole and its "
                f"sub-nets put out {', '.join(map(str, outputs))} per sample. Give them one head."
            )
        taps = [
            tap
            for tap, shape in student.features.items()
            if len(shape) == 3
            and all(subnet.features.get(tap) == shape for subnet in student.subnets.values())
        ]
        if not taps:
            raise NetworkError(
                "embedded_distillation compares the ends of stages, but the whole and its sub-nets "
                "have none in common. Take a network whose stages put out maps."
            )
        self.taps = tuple(taps if self.stages == "all" else taps[-1:])

    def forward(self, batch: TransferBatch) -> Terms:
        """For each sub-net `kl/<name>` and `attention/<name>`."""
        full, subnets = batch.student, batch.student.subnets
        answer = full.output.detach() if self.detach else full.output
        maps = [full.features[tap] for tap in self.taps]
        maps = [one.detach() for one in maps] if self.detach else maps
        terms = {}
        for name, seen in subnets.items():
            loss = embedded_kl_loss(seen.output, answer, temperature=self.temperature)
            terms[f"kl/{name}"] = loss / len(subnets)
        for name, seen in subnets.items():
            pairs = zip(self.taps, maps, strict=True)
            losses = [embedded_attention_loss(seen.features[tap], one) for tap, one in pairs]
            terms[f"attention/{name}"] = torch.stack(losses).mean() / len(subnets)
        return terms
