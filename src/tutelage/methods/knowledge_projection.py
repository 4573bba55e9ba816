"""The student's layers and the teacher's are tied by learned projections, of which the best stays.

## Idea

A middle layer of the teacher and an injection layer of the student see the same picture in
different coordinates. A learned 1×1 projection, thrown away after training, takes the one's
channels to the other's, and what it cannot explain is the loss. Nobody knows beforehand which two
layers belong together, so all pairs of stages start as routes, and the worse half is dropped again
and again until one is left.

## Formula

    teacher_to_student:  d(b) = mean over channels and places of ( Y · n(t) − n(s) )²
    student_to_teacher:  d(b) = mean over channels and places of ( Y · n(s) − n(t) )²
    term of a route:     1/|R| · mean over the batch of g(b) d(b)
    l1:                  |…| in the place of (…)²; with a mask, each channel times its m_c

s, t: maps of student and teacher, `source` and `target` or the other way round. Y → `project`, a
1×1 convolution without bias; its result is brought to the target's size, averaged over fewer places
or interpolated between more. n → `standardize`: each channel with mean 0 and variance 1 over batch
and places; or, by `normalize: variance`, → `to_unit_variance`: each channel with mean 0, and the
map with variance 1. g → `gate_of`: 1, and `gate` where the teacher's answer is wrong. m = ½ +
½ softplus(w) over its mean, so that no channel can be left out. R: the routes left.

After a phase each route has a score, lower is better. `joint`: supervised loss + |R| · term without
mask, both on held-out pictures; since the first is the same for all, the second ranks. `lookahead`:
the supervised loss on held-out pictures after one virtual step on that term. Of n routes the best
⌈n/2⌉ stay, at least `keep`.

## Needs

At least one stage of maps in both networks; channels and sizes may differ. Logits; over the same
classes, unless `gate` is 1. Class labels, of some of the pictures. Two samples in a batch at least:
they share statistics.

## Settings

- `direction`, teacher_to_student: the abstract's. Try student_to_teacher too: the student must then
  *carry* what the teacher has; the other way round it need only be *predictable from* it.
- `routes`, adaptive: all pairs, halved after each phase (`train.phases: 5` takes nine to one, while
  the weight is still above 0). As controls: random, one pair, drawn by the seed; same, all pairs of
  maps of one size, of which none is dropped. `keep`, 1: routes that stay to the end.
- `score`, joint; lookahead asks what a route does for the labels, at one forward and backward pass
  and one pass over validation for each route. It says nothing where weight or learning rate are 0.
- `residual`, l2, or l1. `normalize`, standardize, or variance. `mask`, False. `gate`, 0.25; 1
  turns it off. All are reconstructed (Source).
- Weight: by a schedule that falls to 0, as `{kind: linear, from: 10, to: 0}`. Try two decades, 1 to
  100, on validation: it decides more than all else here.

## Cost

Per route c_s · c_t parameters (and with a mask the target's channels) and MACs per place of the
smaller map in training: for ResNet-8 from ResNet-56 nine routes of 12,544 parameters in all. The
first phase is the dearest. Between phases one pass over validation, and one for its supervised
loss. Nothing at inference.

## When to use it, when not

With few labels and a teacher of the same kind of pictures. Not in batches of one; and not for its
choice of layers alone where you know which belong together: `fitnet_hints` costs less. Mind that
the validation pictures that choose routes have been used for a choice, and that a channel of the
target that is silent throughout is explained for nothing: with teacher_to_student a student may
gain by silencing some.

## With other methods

With `kd`, at its usual weights. With `fitnet_hints` it says the same twice.

## Source

Z. Zhang, G. Ning, Z. He: Knowledge Projection for Deep Neural Networks, 2017, arXiv:1710.09505, of
which only the abstract could be read: a learned projection from a middle layer of the teacher to
one of the student, both "adaptively selected during training by evaluating a joint loss function
in an iterative manner". **Differences**: everything else is reconstructed. *Formula*: a linear
projection and squared residual as in FitNets; l1, mask and gate as remembered, unconfirmed.
*Normalization*: with a free projection on the teacher's side the plain residual is lowest where the
student's features vanish; dividing by a detached variance leaves that gradient, so here it flows
through. *Iteration*: successive halving of all pairs in one run, by the loss on held-out pictures
with weight 1. *direction*: student_to_teacher is FitNets', not the paper's.

## Evidence

The paper claims up to 4 points at 4 to 10 times less complexity. With this package, CIFAR-10 with
2,500 labels, ResNet-56 → ResNet-8, a tenth of the MACs, five seeds (`benchmarks/kpn.yaml`):
label-only 67.5 ± 0.9 %, three times as long 69.7 ± 0.5; student_to_teacher 71.6 ± 0.5, 2.0 points
(0.4 to 3.5) over the better of these, **shown**; teacher_to_student, the paper's words, 65.1 ± 0.5,
a loss of 4.6 (**contradicted**). More than routes by joint gave routes by lookahead, 74.5 ± 1.4,
and routes: same, 76.3 ± 0.4 (that joint is better is contradicted); `kd` 74.6 ± 0.6; and
`fitnet_hints` with a weight that falls alike 78.2 ± 0.3 (contradicted, too). A random pair gave
68.3 to 75.2, and nothing at one seed of five. With `kd`, at what the first seed chose (learning
rate 1), 61.5 ± 24.0: it is unstable there. **The selection does no work here**: joint kept the
first stages' route at every seed, in both directions, since its residual is the lowest however maps
are normalized; lookahead kept one into the last stage, from the teacher's third or second. To be
tried first: lookahead with a learning rate that two seeds have chosen, and `keep: 3`. It does
reduce over-fitting, the paper's motive: accuracy on training pictures over that on test, label-only
31.7 points, kpn 23.4, lookahead 19.8, hints 17.7. Not measured: a thin student
(`benchmarks/kpn-thin.yaml`), 10,000 labels, and `kd` for three times as long.
"""

from math import ceil, inf, isfinite
from typing import Any, Literal, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, conv2d, interpolate, softplus

from tutelage.errors import NetworkError, SettingError
from tutelage.methods._base import Method, Needs
from tutelage.ops import teacher_is_right
from tutelage.types import Findings, Phase, Shapes, Terms, TransferBatch

__all__ = [
    "KnowledgeProjection",
    "gate_of",
    "projection_loss",
    "standardize",
    "to_unit_variance",
]

Direction = Literal["teacher_to_student", "student_to_teacher"]
Residual = Literal["l2", "l1"]
Norm = Literal["standardize", "variance"]
EPSILON = 1e-5


def standardize(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each channel with mean 0 and variance 1 over batch and places, gradient and all.

    Example:
        >>> standardize(torch.tensor([[[[2.0, 6.0]]]]))
        tensor([[[[-1.0000,  1.0000]]]])
    """
    return batch_norm(maps, None, None, training=True, eps=EPSILON)


def gate_of(
    teacher_logits: Float[Tensor, "n k"],
    targets: Int64[Tensor, " n"],
    has_label: Bool[Tensor, " n"],
    *,
    gate: float,
) -> Float[Tensor, " n"]:
    """1 for each sample that the teacher gets right or that has no label; `gate` for the others.

    Example:
        Right, wrong, and wrong about a placeholder:

        >>> logits = torch.tensor([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
        >>> labelled = torch.tensor([True, True, False])
        >>> gate_of(logits, torch.tensor([0, 1, 1]), labelled, gate=0.25)
        tensor([1.0000, 0.2500, 1.0000])
    """
    return torch.where(teacher_is_right(teacher_logits, targets, has_label), 1.0, gate)


def to_unit_variance(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each channel with mean 0, and all of the map with variance 1, gradient and all.

    Example:
        Channels of (−1, 1) and (−3, 3) about their means: the variance is (1 + 9) / 2 = 5.

        >>> to_unit_variance(torch.tensor([[[[2.0, 4.0]], [[0.0, 6.0]]]]))
        tensor([[[[-0.4472,  0.4472]],
        <BLANKLINE>
                 [[-1.3416,  1.3416]]]])
    """
    wide = torch.promote_types(maps.dtype, torch.float32)
    centered = maps.to(wide) - maps.mean(dim=(0, 2, 3), keepdim=True, dtype=wide)
    return (centered * (centered.square().mean() + EPSILON).rsqrt()).to(maps.dtype)


def projection_loss(
    source: Float[Tensor, "n c_1 h_1 w_1"],
    target: Float[Tensor, "n c_2 h_2 w_2"],
    *,
    project: Float[Tensor, "c_2 c_1"],
    residual: Residual = "l2",
    gates: Float[Tensor, " n"] | None = None,
    mask: Float[Tensor, " c_2"] | None = None,
) -> Float[Tensor, ""]:
    """What a projection of one map leaves unexplained of another: g(b) d(b), mean over the batch.

    Both maps are to be normalized before. Nothing is detached: pass the teacher's without gradient.

    Args:
        gates: one factor per sample; 1 unless given.
        mask: one factor per channel of the target, 0 or more, of mean 1; 1 unless given.

    Example:
        Projected by ½, (−1, 1) leaves (−1½, 1½) of (1, −1), of which the squares are 2¼.

        >>> source, target = torch.tensor([[[[-1.0, 1.0]]]]), torch.tensor([[[[1.0, -1.0]]]])
        >>> projection_loss(source, target, project=torch.tensor([[0.5]]))
        tensor(2.2500)
    """
    (height, width), (tall, broad) = source.shape[2:], target.shape[2:]
    # Averages and interpolation are linear: they may stand on either side of the projection, which
    # has less to do at the smaller size.
    if height > tall or width > broad:
        source = adaptive_avg_pool2d(source, (min(height, tall), min(width, broad)))
    # Between phases no autocast is at hand to bring both to one type.
    guess = conv2d(source, project.to(source.dtype)[:, :, None, None])
    if height < tall or width < broad:
        guess = interpolate(guess, (tall, broad), mode="bilinear", align_corners=False)
    difference = guess - target
    wide = torch.promote_types(difference.dtype, torch.float32)
    # As a norm: reads bfloat16 and adds in float32 without a float32 copy of the map.
    order = 2 if residual == "l2" else 1
    channels = torch.linalg.vector_norm(difference, order, dim=(2, 3), dtype=wide) ** order
    each = (channels if mask is None else channels * mask).mean(dim=1) / (tall * broad)
    return each.mean() if gates is None else (gates * each).mean()


class _Route(NamedTuple):
    """A student's tap, and the teacher's that it is tied to."""

    student: str
    teacher: str

    @property
    def term(self) -> str:
        """What its term is called."""
        return f"projection/{self.student}<-{self.teacher}"


@final
class KnowledgeProjection(Method):
    """Projections along routes that are halved after each phase; see the module's docstring.

    Raises:
        SettingError: `keep` is below 1, or `gate` is not in [0, 1].
    """

    needs = Needs(outputs=("logits",), taps="all", labels="class", compares_samples=True)

    def __init__(
        self,
        *,
        direction: Direction = "teacher_to_student",
        routes: Literal["adaptive", "random", "same"] = "adaptive",
        keep: int = 1,
        score: Literal["joint", "lookahead"] = "joint",
        residual: Residual = "l2",
        normalize: Norm = "standardize",
        mask: bool = False,
        gate: float = 0.25,
    ) -> None:
        super().__init__()
        if keep < 1:
            raise SettingError(f"knowledge_projection keeps at least 1 route, not {keep}.")
        if not 0 <= gate <= 1:
            raise SettingError(
                f"knowledge_projection needs a gate in [0, 1], but it is {gate}: it is the share "
                "that a sample keeps where the teacher is wrong. 1 turns it off."
            )
        self.direction: Direction = direction
        self.residual: Residual = residual
        self.normalize: Norm = normalize
        self.start, self.keep, self.score, self.masked, self.gate = routes, keep, score, mask, gate
        self.routes: tuple[_Route, ...] = ()
        self.projections, self.masks = nn.ParameterList(), nn.ParameterList()

    def build(self, shapes: Shapes) -> None:
        """Makes a projection for each pair of a student's and a teacher's map."""
        student, teacher = shapes.student, shapes.teachers[0]
        _check_outputs(student.output, teacher.output, self.gate)
        own, others = _maps(student.features, "student"), _maps(teacher.features, "teacher")
        self.routes = tuple(
            _Route(one, other)
            for one in own
            for other in others
            if self.start != "same" or student.features[one][1:] == teacher.features[other][1:]
        )
        if not self.routes:
            raise NetworkError(
                "knowledge_projection is to tie maps of one size, but no stage of the student has "
                "the size of a stage of the teacher. Set routes: adaptive."
            )
        for route in self.routes:
            ends = (others[route.teacher], own[route.student])
            c_in, c_out = ends if self.direction == "teacher_to_student" else ends[::-1]
            weight = torch.empty(c_out, c_in)
            nn.init.normal_(weight, std=c_in**-0.5)
            self.projections.append(nn.Parameter(weight))
            if self.masked:
                self.masks.append(nn.Parameter(torch.zeros(c_out)))
        if self.start == "random":
            self._keep_only([int(torch.randint(len(self.routes), ()))])

    def forward(self, batch: TransferBatch) -> Terms:
        """One term per route that is left, `projection/<student tap><-<teacher tap>`."""
        return self._terms(batch, masked=self.masked)

    def _terms(self, batch: TransferBatch, *, masked: bool) -> Terms:
        student, (teacher,) = batch.student, batch.teachers
        if len(batch.has_label) < 2:
            raise NetworkError(
                "knowledge_projection shares statistics between samples, and a batch of one has "
                "none to share. Take a batch of at least 2."
            )
        gates = None
        if self.gate < 1:
            gates = gate_of(teacher.output, batch.targets, batch.has_label, gate=self.gate)
        normal = standardize if self.normalize == "standardize" else to_unit_variance
        taps_s = dict.fromkeys(route.student for route in self.routes)
        taps_t = dict.fromkeys(route.teacher for route in self.routes)
        own = {tap: normal(student.features[tap]) for tap in taps_s}
        others = {tap: normal(teacher.features[tap]) for tap in taps_t}
        terms = {}
        for number, route in enumerate(self.routes):
            ends = (others[route.teacher], own[route.student])
            source, target = ends if self.direction == "teacher_to_student" else ends[::-1]
            loss = projection_loss(
                source,
                target,
                project=self.projections[number],
                residual=self.residual,
                gates=gates,
                mask=_mask(self.masks[number]) if masked else None,
            )
            terms[route.term] = loss / len(self.routes)
        return terms

    def end_phase(self, phase: Phase) -> Findings | None:
        """Drops the worse half of the routes."""
        names = [route.term.split("/", 1)[1] for route in self.routes]
        if self.start != "adaptive" or len(names) <= self.keep:
            first = phase.number == 0  # what was never chosen is told once
            return Findings({"scores": {}, "kept": names}) if first else None
        found = self._lookahead(phase) if self.score == "lookahead" else self._joint(phase)
        scores = [score if isfinite(score) else inf for score in found]
        order = sorted(range(len(scores)), key=lambda number: (scores[number], number))
        kept = sorted(order[: max(self.keep, ceil(len(order) / 2))])
        self._keep_only(kept)
        values = {
            "score": self.score,
            "scores": {
                name: score if isfinite(score) else None
                for name, score in zip(names, found, strict=True)
            },
            "kept": [names[number] for number in kept],
        }
        return Findings(values, changed=True)

    def _joint(self, phase: Phase) -> list[float]:
        """Supervised loss + residual of each route, on held-out pictures."""
        total, count = torch.zeros(len(self.routes), dtype=torch.float64), 0
        for batch in phase.held_out():
            size = len(batch.has_label)
            if size > 1:
                with torch.no_grad():
                    terms = torch.stack(list(self._terms(batch, masked=False).values()))
                total, count = total + size * terms.double().cpu(), count + size
        assert count, "at least two pictures validate"
        task = phase.lookahead(())  # after no step, but for the running statistics of norms
        return (task + total * len(self.routes) / count).tolist()

    def _lookahead(self, phase: Phase) -> list[float]:
        """Supervised loss on held-out pictures after a step on each route."""
        return [phase.lookahead([route.term]) for route in self.routes]

    def _keep_only(self, numbers: list[int]) -> None:
        """Drops the other routes and their learned parts."""
        self.routes = tuple(self.routes[number] for number in numbers)
        self.projections = nn.ParameterList([self.projections[number] for number in numbers])
        if self.masked:
            self.masks = nn.ParameterList([self.masks[number] for number in numbers])

    def structure(self) -> Any:
        """The routes that are left, `[student tap, teacher tap]` each."""
        return [list(route) for route in self.routes]

    def restore_structure(self, structure: Any) -> None:
        """Drops the routes that are not in `structure`."""
        left = {tuple(route) for route in structure}
        self._keep_only([i for i, route in enumerate(self.routes) if tuple(route) in left])


def _mask(weights: Tensor) -> Tensor:
    """Of mean 1 and nowhere below ½."""
    free = softplus(weights)
    return (1 + free / free.mean()) / 2


def _maps(features: dict[str, tuple[int, ...]], role: str) -> dict[str, int]:
    """Tap → channels, of the taps that are maps."""
    found = {tap: shape[0] for tap, shape in features.items() if len(shape) == 3}
    if not found:
        raise NetworkError(
            f"knowledge_projection needs a stage of channels, height and width, but none was found "
            f"in the {role}. Take networks with convolutional stages."
        )
    return found


def _check_outputs(
    student: tuple[int, ...] | None, teacher: tuple[int, ...] | None, gate: float
) -> None:
    if gate < 1 and (student is None or student != teacher or len(student) != 1):
        raise NetworkError(
            "knowledge_projection asks whether the teacher is right, which needs logits of both "
            f"networks over the same classes, but the student puts out {student} and the teacher "
            f"{teacher} per sample. Set gate: 1, or take a teacher of the same classes."
        )
