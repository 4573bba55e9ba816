"""What lies close together for the teacher lies close together for the student.

## Idea

Every place of a feature map is a point: the vector of its channels. The points of some pictures
form a cloud, and what a layer has understood is which of them it puts near each other. The student
is asked for the teacher's neighborhoods, not for the teacher's points, so the two clouds may live
in spaces of different dimension, be turned or be scaled.

## Formula

With d_pq the distance of two points after each was brought to length 1, N_k(p) the k points nearest
to p, s_p the mean of d² over them, p ≠ q, means over all p:

    affinity   P_q|p = softmax over q of −d_pq² / s_p      mean of KL( P of teacher ‖ of student )
    contrast   − log [ Σ q in N_k of teacher exp(−d_pq / τ) / Σ q exp(−d_pq / τ) ]   d of student
    ratio      Σ q in N_k of teacher d_pq / Σ q in N_k of student d_pq  − 1          d of student

k → `neighbors`, τ → `temperature`. s_p is at least a tenth of the mean of d² over all q, and what
ratio divides its excess by at least a tenth of k times the mean of d. Lists of neighbors are
constants for the gradient; it flows through s_p (Source). One term per pair of taps,
`geometry/<student tap>`: its mean over the points of a picture, and over pictures. A point that is
zero in either network has no direction and is left out.

## Needs

At least one pair of taps that are maps; of two sizes the larger is average-pooled to the smaller.
Channels may differ. No labels, no classes in common. Index and view of each sample, where
`places: draw` has to choose.

## Settings

- `loss`, affinity; contrast; ratio. contrast is above 0 even for equal networks.
- `pool`, image: neighbors are sought inside each picture; batch: among all points of a batch.
  Inside a picture the nearest are mostly those beside it, which any network has.
- `neighbors`, 8. `temperature`, 0.1, of contrast alone.
- `locations`: at most so many points of a picture, by default 64 with image and 8 with batch. They
  are drawn anew for every view, or with `places: grid` lie on a fixed grid.
- `distance`, unit; mean: plain distances over their mean, so that lengths count.
- Weight: one at which the term is a tenth to a third of the supervised one after some epochs. Try
  two decades around 1.

## Cost

No parameters. Per pair the distances between `locations` points, squared, for each picture (batch:
for all of them together): 256 points at batch 64 are 4.2 million numbers, of which about ten copies
are held between forward and backward. More than 16.8 million are refused, which is 512 points at
batch 64, or 4,096 of a batch together (tests keep all losses below a gigabyte there, for maps of
56×56). Nothing at inference.

## When to use it, when not

With few labels, between networks of different families, and from teachers of other classes. Not at
taps of few places: of 2 · k places half are neighbors, and of fewer k is lowered to that. With
`pool: batch` the value depends on which samples share a batch.

## With other methods

With `kd` (the paper's combined scheme). Beside `attention_transfer` or `fitnet_hints` it constrains
the same maps once more.

## Source

I. Theodorakopoulos, F. Fotopoulou, G. Economou: Geometric Regularization of Local Activations for
Knowledge Transfer in Convolutional Neural Networks, Information 12(8):333, 2021,
doi:10.3390/info12080333, of which only the abstract could be read: local activations, losses
inspired by manifold-to-manifold distances, neighborhoods without a constraint on dimension, at
corresponding layers, alone and with KD. **Differences**: every formula is reconstructed. affinity
is t-SNE's, with a width of its own for each point; near it lies PKT (Passalis and Tefas, 2018).
contrast is near Contrastive Neighborhood Alignment (arXiv:2201.01922). ratio is the
manifold-to-manifold reading: how much longer the student's way along the teacher's neighbors is
than along its own. k, τ, the least widths, locations and layers are ours. Where s_p is a constant
for the gradient, as it may be read, neighborhoods can tighten until they coincide; so the gradient
flows through it.

## Evidence

The paper: "a combined regularization scheme can achieve the same generalization as a
non-regularized training with 50% of the data in the CIFAR-10 classification task". The 50 % may
belong to the combined scheme, which then does with half the data what plain training does with all
of it, or to the plain training beside it. The first is the likelier reading, and the one that
benchmarks/limited.yaml tests. With this package: not yet measured.
"""

from collections.abc import Iterable, Iterator
from math import inf
from typing import Any, Literal, NamedTuple, final, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils import _pytree as pytree

from tutelage.errors import NetworkError, SettingError, one_of
from tutelage.methods._base import Method, Needs
from tutelage.methods._pairs import paired_maps
from tutelage.ops import pool_to_smaller
from tutelage.types import Findings, Pair, Phase, Shapes, Terms, TransferBatch

__all__ = [
    "Distance",
    "Geometric",
    "local_features",
    "neighborhood_contrast_loss",
    "neighborhood_preservation",
    "neighborhood_ratio_loss",
    "soft_affinity_loss",
]

Loss = Literal["affinity", "contrast", "ratio"]
Pool = Literal["image", "batch"]
Places = Literal["draw", "grid"]
Distance = Literal["unit", "mean"]

SILENT = 1e-8
"""Length below which a point has no direction."""

TINY = 1e-6
"""Below all distances that matter."""

FAR = 1e9
"""Stands for the squared distance to what is no neighbor: beyond all others, and still a number."""

NARROWEST = 0.1
"""Of the mean distance to all (affinity: squared): no neighborhood counts as narrower, however near
the nearest are. Else losses are in the thousands wherever some points coincide."""

MEASURED = 64
"""Pictures whose points are compared with each other where preservation is measured."""

MOST_DISTANCES = 2**24
"""Of a pair of taps: a network's fill 67 megabytes, and about ten copies are held."""


def local_features(
    maps: Float[Tensor, "n c h w"], places: Int64[Tensor, "n l"] | None = None
) -> Float[Tensor, "n l c"]:
    """The vectors of channels at some places of each map.

    Args:
        places: row · w + column, of each; all places unless given.

    Example:
        >>> local_features(torch.arange(6.0).view(1, 2, 1, 3), torch.tensor([[2, 0]]))
        tensor([[[2., 5.],
                 [0., 3.]]])
    """
    points = maps.flatten(2).transpose(1, 2)
    if places is None:
        return points
    return points.gather(1, places[:, :, None].expand(-1, -1, points.shape[2]))


class _Cloud(NamedTuple):
    """Distances between the points of each group, as one network has them.

    Attributes:
        squared: from p to q; `FAR` where q may be no neighbor of p.
        nearest: the nearest k of p, nearest first.
        found: which of these may be neighbors at all.
    """

    squared: Float[Tensor, "g p p"]
    nearest: Int64[Tensor, "g p k"]
    found: Bool[Tensor, "g p k"]


def _clouds(student: Tensor, teacher: Tensor, neighbors: int, distance: Distance) -> list[_Cloud]:
    """Of student and teacher; a point that is silent in one of them is no neighbor in either."""
    wide = torch.promote_types(student.dtype, torch.float32)
    sides = [student.to(wide), teacher.to(wide)]
    lengths = [points.square().sum(dim=2) for points in sides]
    alive = torch.stack([length > SILENT**2 for length in lengths]).all(dim=0)
    others = ~torch.eye(alive.shape[1], dtype=torch.bool, device=alive.device)
    allowed = alive[:, :, None] & alive[:, None, :] & others
    k = max(1, min(neighbors, alive.shape[1] // 2))
    clouds = []
    for points, length in zip(sides, lengths, strict=True):
        squared = _squared(points, length, allowed, distance)
        squared = torch.where(allowed, squared, FAR)
        nearest = squared.detach().topk(k, dim=2, largest=False).indices
        clouds.append(_Cloud(squared, nearest, allowed.gather(2, nearest)))
    return clouds


def _squared(points: Tensor, length: Tensor, allowed: Tensor, distance: Distance) -> Tensor:
    if distance == "unit":
        points = points * length.clamp_min(SILENT**2).rsqrt()[:, :, None]
        return (2 - 2 * _products(points)).clamp_min(0)
    squared = (length[:, :, None] + length[:, None, :] - 2 * _products(points)).clamp_min(0)
    total = (squared.clamp_min(SILENT**2).sqrt() * allowed).sum(dim=(1, 2), keepdim=True)
    mean = total / allowed.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    return squared / mean.square().clamp_min(SILENT**2)


def _products(points: Float[Tensor, "g p c"]) -> Float[Tensor, "g p p"]:
    # Close neighbors differ in digits that bfloat16 does not have.
    with torch.autocast(points.device.type, enabled=False):
        return points @ points.transpose(1, 2)


def _lengths(squared: Tensor) -> Tensor:
    return squared.clamp_min(TINY**2).sqrt()


def _mean(each: Float[Tensor, "g p"], counts: Bool[Tensor, "g p"]) -> Float[Tensor, ""]:
    """Over the points that count, then over groups."""
    kept = torch.where(counts, each, 0.0)
    return (kept.sum(dim=1) / counts.sum(dim=1).clamp(min=1)).mean()


def soft_affinity_loss(
    student: Float[Tensor, "g p c_s"],
    teacher: Float[Tensor, "g p c_t"],
    *,
    neighbors: int,
    distance: Distance = "unit",
) -> Float[Tensor, ""]:
    """Divergence of the student's soft neighborhoods from the teacher's.

    Nothing is detached: pass the teacher's points without gradient.

    Args:
        student: groups of points, of which those of one group may be neighbors.
        teacher: the same points, as the teacher has them.
        neighbors: k, for the width of each point; at most as many as half of the points.
        distance: "unit", of directions; "mean", plain, over the mean of the group.

    Example:
        At 45° to each other, three directions have the squared distances 0.586, 0.586 and 2. For
        the middle one both others are as near; for the others the shares are as 1 to
        exp(1 − 2/0.586). A teacher of three equal distances has 1 to 1, always.

        >>> student = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
        >>> soft_affinity_loss(student, student, neighbors=1)
        tensor(0.)
        >>> soft_affinity_loss(student, torch.eye(3)[None], neighbors=1)
        tensor(0.3997)
    """
    logs, clouds = [], _clouds(student, teacher, neighbors, distance)
    for squared, nearest, found in clouds:
        logs.append((-squared / _width(squared, nearest, found)).log_softmax(dim=2))
    own, wanted = logs
    divergence = (wanted.exp() * (wanted - own)).sum(dim=2)
    return _mean(divergence, clouds[0].found[:, :, 0])


def _width(squared: Tensor, nearest: Tensor, found: Tensor) -> Float[Tensor, "g p 1"]:
    """Mean squared distance to the nearest points, for each point."""
    near = (squared.gather(2, nearest) * found).sum(dim=2) / found.sum(dim=2).clamp(min=1)
    spread = _over_allowed(squared, squared)
    return torch.maximum(near, NARROWEST * spread).clamp_min(TINY)[:, :, None]


def _over_allowed(each: Tensor, squared: Tensor) -> Float[Tensor, "g p"]:
    """Mean over all that may be neighbors, for each point."""
    allowed = squared < FAR
    return (each * allowed).sum(dim=2) / allowed.sum(dim=2).clamp(min=1)


def neighborhood_contrast_loss(
    student: Float[Tensor, "g p c_s"],
    teacher: Float[Tensor, "g p c_t"],
    *,
    neighbors: int,
    temperature: float,
    distance: Distance = "unit",
) -> Float[Tensor, ""]:
    """How little of the student's nearness goes to the teacher's neighbors; above 0 always.

    Nothing is detached: pass the teacher's points without gradient.

    Args:
        student, teacher, neighbors, distance: as in `soft_affinity_loss`.
        temperature: of nearness, above 0; distances are at most 2.

    Example:
        Three points, all equally far: one of the two others is the teacher's neighbor, ln 2.

        >>> student, teacher = torch.eye(3)[None], torch.tensor([[[1.0, 0], [1, 0], [0, 1]]])
        >>> neighborhood_contrast_loss(student, teacher, neighbors=1, temperature=0.1)
        tensor(0.6931)
    """
    own, others = _clouds(student, teacher, neighbors, distance)
    nearness = -_lengths(own.squared) / temperature
    positive = nearness.gather(2, others.nearest).masked_fill(~others.found, -FAR)
    each = nearness.logsumexp(dim=2) - positive.logsumexp(dim=2)
    return _mean(each, others.found[:, :, 0])


def neighborhood_ratio_loss(
    student: Float[Tensor, "g p c_s"],
    teacher: Float[Tensor, "g p c_t"],
    *,
    neighbors: int,
    distance: Distance = "unit",
) -> Float[Tensor, ""]:
    """How much longer the way to the teacher's neighbors is than to the student's own, less 1.

    Nothing is detached: pass the teacher's points without gradient.

    Args:
        student, teacher, neighbors, distance: as in `soft_affinity_loss`.

    Example:
        On a line the student has them at 1, 2 and 4, the teacher at 1, 3.1 and 2. Along the
        teacher's neighbors the student's ways are 3, 2 and 3, along its own 1, 1 and 2: the mean of
        3, 2 and 1½, less 1.

        >>> student = torch.tensor([[[1.0], [2.0], [4.0]]])
        >>> teacher = torch.tensor([[[1.0], [3.1], [2.0]]])
        >>> neighborhood_ratio_loss(student, teacher, neighbors=1, distance="mean")
        tensor(1.1667)
    """
    own, others = _clouds(student, teacher, neighbors, distance)
    lengths, count = _lengths(own.squared), own.found.sum(dim=2)
    along = (lengths.gather(2, others.nearest) * others.found).sum(dim=2)
    least = (lengths.gather(2, own.nearest) * own.found).sum(dim=2)
    narrow = NARROWEST * count * _over_allowed(lengths, own.squared)
    each = (along - least) / torch.maximum(least, narrow).clamp_min(TINY)
    return _mean(each, others.found[:, :, 0])


def neighborhood_preservation(
    student: Float[Tensor, "g p c_s"],
    teacher: Float[Tensor, "g p c_t"],
    *,
    neighbors: int,
    distance: Distance = "unit",
) -> Float[Tensor, ""]:
    """Share of the teacher's neighbors that are the student's, too, in [0, 1].

    Args:
        student, teacher, neighbors, distance: as in `soft_affinity_loss`.

    Example:
        >>> student = torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]])
        >>> neighborhood_preservation(student, student.flip(2), neighbors=1)
        tensor(1.)
    """
    own, others = _clouds(student, teacher, neighbors, distance)
    same = others.nearest[:, :, :, None] == own.nearest[:, :, None, :]
    shared = (same & own.found[:, :, None, :]).any(dim=3) & others.found
    share = shared.sum(dim=2) / others.found.sum(dim=2).clamp(min=1)
    return _mean(share, others.found[:, :, 0])


@final
class Geometric(Method):
    """Neighborhoods of local features for every pair of taps; the module's docstring is its card.

    Args:
        loss, pool, neighbors, temperature, places, distance: see the card.
        locations: at most so many points of a picture; 0 for 64 with image, and 8 with batch.

    Raises:
        SettingError: a setting is unknown, or a number is not positive.
    """

    needs = Needs(taps="pairs")

    def __init__(
        self,
        *,
        loss: Loss = "affinity",
        pool: Pool = "image",
        neighbors: int = 8,
        temperature: float = 0.1,
        locations: int = 0,
        places: Places = "draw",
        distance: Distance = "unit",
    ) -> None:
        super().__init__()
        one_of("loss", loss, get_args(Loss), SettingError)
        one_of("pool", pool, get_args(Pool), SettingError)
        one_of("places", places, get_args(Places), SettingError)
        one_of("distance", distance, get_args(Distance), SettingError)
        if neighbors < 1 or not 0 < temperature < inf or locations < 0:
            raise SettingError(
                "geometric needs at least 1 neighbor, a temperature above 0 and locations of 0 or "
                f"more, but has {neighbors}, {temperature:g} and {locations}. Leave them out for "
                "8, 0.1 and as many as fit."
            )
        self.loss: Loss = loss
        self.distance: Distance = distance
        self.pool: Pool = pool
        self.neighbors, self.temperature = neighbors, temperature
        self.locations = locations or (64 if pool == "image" else 8)
        self.places = places
        self.pairs: tuple[Pair, ...] = ()
        if pool == "batch":
            self.needs = Needs(taps="pairs", compares_samples=True)

    def build(self, shapes: Shapes) -> None:
        """Checks that every pair of taps is one of maps with enough places."""
        self.pairs = shapes.pairs
        for pair, (own, other) in zip(shapes.pairs, paired_maps("geometric", shapes), strict=True):
            places = min(own[1], other[1]) * min(own[2], other[2])
            if self.pool == "image" and min(places, self.locations) < 4:
                raise NetworkError(
                    f"geometric compares at least 4 places of a picture, but {pair.student!r} and "
                    f"{pair.teacher!r} share {min(places, self.locations)}. Raise locations, set "
                    "pool: batch, or name other taps."
                )

    def forward(self, batch: TransferBatch) -> Terms:
        """One term per pair, `geometry/<student tap>`."""
        terms = {}
        for pair, points_s, points_t in self._points(batch):
            _require_room(points_s, self.pool)
            near: dict[str, Any] = {"neighbors": self.neighbors, "distance": self.distance}
            if self.loss == "affinity":
                term = soft_affinity_loss(points_s, points_t, **near)
            elif self.loss == "ratio":
                term = neighborhood_ratio_loss(points_s, points_t, **near)
            else:
                near["temperature"] = self.temperature
                term = neighborhood_contrast_loss(points_s, points_t, **near)
            terms[f"geometry/{pair.student}"] = term
        return terms

    def end_phase(self, phase: Phase) -> Findings | None:
        """Measures which neighborhoods are preserved, on held-out pictures."""
        total, count = dict.fromkeys((pair.student for pair in self.pairs), 0.0), 0
        for batch in self._groups(phase.held_out()):
            size = len(batch.has_label)
            for pair, points_s, points_t in self._points(batch):
                with torch.no_grad():
                    kept = neighborhood_preservation(
                        points_s, points_t, neighbors=self.neighbors, distance=self.distance
                    )
                total[pair.student] += size * float(kept)
            count += size
        if not count:
            return None
        return Findings({"preservation": {tap: value / count for tap, value in total.items()}})

    def _groups(self, batches: Iterable[TransferBatch]) -> Iterator[TransferBatch]:
        """The batches in parts, with `pool: batch` of equal size and at least 4 pictures."""
        for batch in batches:
            size = len(batch.has_label)
            step = min(size, MEASURED)
            if self.pool == "batch" and step < 4:
                continue
            last = size - step if self.pool == "batch" else size - 1
            for first in range(0, last + 1, step):
                part = slice(first, first + step)
                yield pytree.tree_map(
                    lambda leaf, part=part: leaf[part] if isinstance(leaf, Tensor) else leaf, batch
                )

    def _points(self, batch: TransferBatch) -> Iterator[tuple[Pair, Tensor, Tensor]]:
        """For each pair, groups of the student's and of the teacher's points."""
        student, teacher = batch.student.features, batch.teachers[0].features
        for pair in self.pairs:
            maps_s, maps_t = pool_to_smaller(student[pair.student], teacher[pair.teacher])
            places = self._chosen(batch, pair, maps_s)
            points_s, points_t = local_features(maps_s, places), local_features(maps_t, places)
            if self.pool == "batch":
                _require_group(maps_s, points_s)
                points_s, points_t = points_s.flatten(0, 1)[None], points_t.flatten(0, 1)[None]
            yield pair, points_s, points_t

    def _chosen(
        self, batch: TransferBatch, pair: Pair, maps: Float[Tensor, "n c h w"]
    ) -> Int64[Tensor, "n l"] | None:
        """The places that are looked at; None for all."""
        height, width = maps.shape[2:]
        if height * width <= self.locations:
            return None
        if self.places == "draw":
            drawn = batch.draw(f"geometric/{pair.student}", (height * width,))
            return drawn.topk(self.locations, dim=1).indices
        grid = _grid(height, width, self.locations, maps.device)
        return grid.expand(len(maps), -1)


def _grid(height: int, width: int, most: int, device: torch.device) -> Int64[Tensor, " l"]:
    """Places in evenly spread rows and columns."""
    num_rows = min(height, most, max(1, round((most * height / width) ** 0.5)))
    num_columns = max(1, min(width, most // num_rows))
    rows = (torch.arange(num_rows, device=device) * height + height // 2) // num_rows
    columns = (torch.arange(num_columns, device=device) * width + width // 2) // num_columns
    return (rows[:, None] * width + columns).flatten()


def _require_group(maps: Float[Tensor, "n c h w"], points: Float[Tensor, "n l c"]) -> None:
    num_pictures, num_points = len(maps), points[:, :, 0].numel()
    if num_pictures < 2 or num_points < 4:
        raise NetworkError(
            "geometric with pool: batch compares points of several pictures with each other, at "
            f"least 4, but these are {num_points} of {num_pictures} picture(s). Change the batch "
            "size or locations, or set pool: image."
        )


def _require_room(points: Float[Tensor, "g p c"], pool: Pool) -> None:
    groups, num_points = points.shape[:2]
    num_distances = groups * num_points**2
    if num_distances > MOST_DISTANCES:
        whose = f"each of {groups} pictures" if pool == "image" else "a batch"
        raise NetworkError(
            f"geometric holds at most {MOST_DISTANCES:,} distances at a time, but {num_points} "
            f"points of {whose} have {num_distances:,}. Lower locations or the batch size."
        )
