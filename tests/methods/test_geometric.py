"""Geometric regularization: the formulas written out, what they may not see, and silent places."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tutelage.errors import NetworkError, SettingError
from tutelage.methods import geometric
from tutelage.methods.geometric import (
    Distance,
    Geometric,
    local_features,
    neighborhood_contrast_loss,
    neighborhood_preservation,
    neighborhood_ratio_loss,
    soft_affinity_loss,
)
from tutelage.types import Observation, ObservationShape, Pair, Shapes, TransferBatch

Formula = Callable[..., Tensor]
LOSSES: dict[str, Formula] = {
    "affinity": soft_affinity_loss,
    "contrast": partial(neighborhood_contrast_loss, temperature=0.1),
    "ratio": neighborhood_ratio_loss,
}
ALL = pytest.mark.parametrize("name", LOSSES)
DISTANCES = pytest.mark.parametrize("distance", ["unit", "mean"])


def points(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# The formulas, one point after the other


def distances(cloud: list[list[float]], kind: str) -> list[list[float]]:
    if kind == "unit":
        cloud = [[x / math.hypot(*point) for x in point] for point in cloud]
    found = [[math.dist(p, q) for q in cloud] for p in cloud]
    if kind == "mean":
        n = len(cloud)
        mean = sum(map(sum, found)) / (n * (n - 1))
        found = [[d / mean for d in row] for row in found]
    return found


def nearest(row: list[float], p: int, k: int) -> list[int]:
    return sorted((q for q in range(len(row)) if q != p), key=lambda q: row[q])[:k]


def shares(row: list[float], p: int, k: int) -> dict[int, float]:
    width = sum(row[q] ** 2 for q in nearest(row, p, k)) / k
    width = max(width, 0.1 * sum(d**2 for d in row) / (len(row) - 1))
    weight = {q: math.exp(-(row[q] ** 2) / width) for q in range(len(row)) if q != p}
    return {q: value / sum(weight.values()) for q, value in weight.items()}


def affinity(own: list[list[float]], other: list[list[float]], p: int, k: int) -> float:
    teacher, student = shares(other[p], p, k), shares(own[p], p, k)
    return sum(teacher[q] * math.log(teacher[q] / student[q]) for q in teacher)


def contrast(own: list[list[float]], other: list[list[float]], p: int, k: int) -> float:
    near = {q: math.exp(-d / 0.1) for q, d in enumerate(own[p]) if q != p}
    return -math.log(sum(near[q] for q in nearest(other[p], p, k)) / sum(near.values()))


def ratio(own: list[list[float]], other: list[list[float]], p: int, k: int) -> float:
    along = sum(own[p][q] for q in nearest(other[p], p, k))
    return along / sum(own[p][q] for q in nearest(own[p], p, k)) - 1


WRITTEN = {"affinity": affinity, "contrast": contrast, "ratio": ratio}


def written_out(name: str, student: Tensor, teacher: Tensor, k: int, kind: str) -> float:
    groups = []
    for one, other in zip(student.tolist(), teacher.tolist(), strict=True):
        own, theirs = distances(one, kind), distances(other, kind)
        each = [WRITTEN[name](own, theirs, p, k) for p in range(len(one))]
        groups.append(sum(each) / len(each))
    return sum(groups) / len(groups)


@DISTANCES
@ALL
def test_equals_the_formula_written_out(name: str, distance: str) -> None:
    student, teacher = points(0, 3, 9, 4), points(1, 3, 9, 6)
    loss = LOSSES[name](student, teacher, neighbors=3, distance=distance)
    wanted = written_out(name, student, teacher, 3, distance)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)


@DISTANCES
def test_preservation_equals_its_definition(distance: Distance) -> None:
    student, teacher = points(2, 2, 9, 4), points(3, 2, 9, 6)
    shared = []
    for one, other in zip(student.tolist(), teacher.tolist(), strict=True):
        own, theirs = distances(one, distance), distances(other, distance)
        for p in range(9):
            shared.append(len({*nearest(own[p], p, 4)} & {*nearest(theirs[p], p, 4)}) / 4)
    found = neighborhood_preservation(student, teacher, neighbors=4, distance=distance)
    assert found.item() == pytest.approx(sum(shared) / len(shared))


# What they may not see


def rotated(cloud: Tensor, seed: int) -> Tensor:
    turn, _ = torch.linalg.qr(points(seed, cloud.shape[2], cloud.shape[2]))
    return cloud @ turn


@DISTANCES
@ALL
@given(seed=st.integers(0, 500), scale=st.floats(1e-2, 1e2))
def test_rotation_order_of_channels_and_scale_change_nothing(
    name: str, distance: str, seed: int, scale: float
) -> None:
    student, teacher = points(seed, 2, 12, 4), points(seed + 1, 2, 12, 6)
    formula = partial(LOSSES[name], neighbors=3, distance=distance)
    loss = formula(student, teacher)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    for same in (rotated(student, seed), student[:, :, order], student * scale):
        torch.testing.assert_close(formula(same, teacher), loss, rtol=1e-5, atol=1e-7)
    for same in (rotated(teacher, seed), teacher.flip(2), teacher * scale):
        torch.testing.assert_close(formula(student, same), loss, rtol=1e-5, atol=1e-7)
    wider = torch.cat([student, torch.zeros(2, 12, 3, dtype=torch.float64)], dim=2)
    torch.testing.assert_close(formula(wider, teacher), loss)
    reordered = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(formula(student[:, reordered], teacher[:, reordered]), loss)
    assert not torch.isclose(formula(student[:, reordered], teacher), loss)


@DISTANCES
@given(seed=st.integers(0, 500))
def test_the_same_geometry_costs_nothing_but_for_contrast(distance: Distance, seed: int) -> None:
    student = points(seed, 2, 12, 4)
    for same in (student, rotated(student, seed), 3 * student):
        for name in ("affinity", "ratio"):
            loss = LOSSES[name](same, student, neighbors=4, distance=distance)
            assert loss.item() == pytest.approx(0, abs=1e-5)
        assert LOSSES["contrast"](same, student, neighbors=4, distance=distance) > 1e-4
        kept = neighborhood_preservation(same, student, neighbors=4, distance=distance)
        assert kept.item() == pytest.approx(1)


@given(st.integers(0, 500))
def test_ratio_is_zero_exactly_where_the_lists_agree(seed: int) -> None:
    student, teacher = points(seed, 1, 8, 3), points(seed + 1, 1, 8, 5)
    loss = neighborhood_ratio_loss(student, teacher, neighbors=3)
    kept = neighborhood_preservation(student, teacher, neighbors=3)
    assert (loss < 1e-9) == (kept == 1)
    # Lists that agree, though no distance does: points of one order on a line.
    line = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])[None, :, None]
    bent = line**2
    assert neighborhood_ratio_loss(bent, line, neighbors=1, distance="mean") == 0


@ALL
def test_descending_brings_the_teachers_neighbors_near(name: str) -> None:
    # The teacher has its points on a ring, in four dimensions; the student anywhere in eight.
    angles = 2 * math.pi * torch.rand(2, 40, 1, generator=torch.Generator().manual_seed(4)).double()
    teacher = torch.cat([angles.cos(), angles.sin(), (2 * angles).cos(), (2 * angles).sin()], 2)
    student = points(5, 2, 40, 8).requires_grad_()
    before = neighborhood_preservation(student.detach(), teacher, neighbors=4)
    optimizer = torch.optim.Adam([student], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        LOSSES[name](student, teacher, neighbors=4).backward()
        optimizer.step()
    after = neighborhood_preservation(student.detach(), teacher, neighbors=4)
    assert before < 0.2
    assert after > 0.4


# Silent places


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@DISTANCES
@ALL
def test_silent_places_are_left_out_in_both(name: str, distance: str, dtype: torch.dtype) -> None:
    student, teacher = points(6, 2, 12, 4), points(7, 2, 12, 6)
    student[0, 3], student[1, 5], teacher[0, 4] = 0, 1e-12, 0
    student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype)
    formula = partial(LOSSES[name], neighbors=3, distance=distance)
    loss = formula(student, teacher)
    kept = [[0, 1, 2, 5, 6, 7, 8, 9, 10, 11], [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]]
    alone = [formula(student[i : i + 1, k], teacher[i : i + 1, k]) for i, k in enumerate(kept)]
    torch.testing.assert_close(loss, torch.stack(alone).mean())
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.isfinite().all()
    for group, place in ((0, 3), (0, 4), (1, 5)):
        assert gradient[group, place].eq(0).all()


@DISTANCES
@ALL
@pytest.mark.parametrize("what", ["silent", "constant", "equal", "nearly constant", "one left"])
def test_gradient_is_finite_and_tame_at_the_edges(name: str, distance: str, what: str) -> None:
    teacher = points(8, 2, 9, 4).float()
    student = {
        "silent": torch.zeros(2, 9, 4),
        "constant": torch.ones(2, 9, 4),
        "equal": teacher.clone(),
        "nearly constant": torch.ones(2, 9, 4) + 1e-6 * points(9, 2, 9, 4).float(),
        "one left": torch.zeros(2, 9, 4).index_fill(1, torch.tensor([2]), 1.0),
    }[what].requires_grad_()
    loss = LOSSES[name](student, teacher, neighbors=3, distance=distance)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    if what in ("silent", "one left"):
        assert loss == 0
        assert student.grad.eq(0).all()


@DISTANCES
@ALL
@pytest.mark.parametrize("apart", [0.0, 1e-6, 1e-3])
def test_points_that_coincide_do_not_make_a_neighborhood_of_no_width(
    name: str, distance: str, apart: float
) -> None:
    # Ten places of about one direction each among two: without a least width in the thousands.
    student = torch.eye(2).repeat_interleave(10, dim=0)[None] + apart * points(11, 1, 20, 2).float()
    student.requires_grad_()
    teacher = points(10, 1, 20, 6).float()
    loss = LOSSES[name](student, teacher, neighbors=8, distance=distance)
    loss.backward()
    most = 10 if name == "affinity" else 20
    assert loss < most
    assert student.grad is not None
    assert student.grad.abs().max() < most


def test_how_wide_the_whole_cloud_is_does_not_move_affinity() -> None:
    # Points about one direction, spread by a factor: it changes all distances alike. Were the width
    # a constant for the gradient, a neighborhood would tighten or widen without end.
    around, teacher = points(11, 1, 20, 6), points(12, 1, 20, 8)
    around[:, :, 0] = 0
    spread = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
    north = torch.eye(6, dtype=torch.float64)[0]
    loss = soft_affinity_loss(north + spread * around, teacher, neighbors=4)
    (slope,) = torch.autograd.grad(loss, spread)
    assert loss > 0.05
    assert abs(slope * spread) < 0.01 * loss


# The method


def observed(n: int, shape: tuple[int, int, int], seed: int) -> Observation:
    return Observation(None, {"stage": points(seed, n, *shape)})


def batch_of(
    n: int = 3,
    own: tuple[int, int, int] = (4, 6, 6),
    other: tuple[int, int, int] = (5, 6, 6),
    *,
    first: int = 0,
    known: bool = True,
) -> TransferBatch:
    index = first + torch.arange(n) if known else None
    view = torch.zeros(n, dtype=torch.int64) if known else None
    label = torch.zeros(n, dtype=torch.bool)
    return TransferBatch(
        observed(n, own, 10), (observed(n, other, 11),), None, label, index, view, 0
    )


def made(own: tuple[int, ...] = (4, 6, 6), other: tuple[int, ...] = (5, 6, 6), **settings: Any):
    method = Geometric(**settings)
    shapes = [ObservationShape(None, {"stage": shape}) for shape in (own, other)]
    method.build(Shapes(shapes[0], (shapes[1],), (Pair("stage", "stage"),)))
    return method


@ALL
def test_each_loss_is_its_formula_over_the_places_of_a_picture(name: str) -> None:
    batch = batch_of()
    (teacher,) = batch.teachers
    found = made(loss=name, neighbors=5)(batch)["geometry/stage"]
    student = batch.student.features["stage"].flatten(2).transpose(1, 2)
    wanted = LOSSES[name](student, teacher.features["stage"].flatten(2).mT, neighbors=5)
    assert found == wanted


def test_over_a_batch_all_places_are_one_cloud() -> None:
    batch = batch_of()
    (teacher,) = batch.teachers
    found = made(pool="batch", locations=36)(batch)["geometry/stage"]
    one, other = (
        seen.features["stage"].permute(0, 2, 3, 1).flatten(0, 2)[None]
        for seen in (batch.student, teacher)
    )
    assert found == soft_affinity_loss(one, other, neighbors=8)
    assert found != made()(batch)["geometry/stage"]


def test_the_choice_of_places_follows_the_sample_not_the_batch() -> None:
    method = made(locations=9)
    terms = [method(batch_of(first=first))["geometry/stage"] for first in (0, 0, 7)]
    assert terms[0] == terms[1] != terms[2]
    whole, seen = batch_of(), method._points
    ((_, points_s, points_t),) = seen(whole)
    assert points_s.shape == (3, 9, 4)
    assert points_t.shape == (3, 9, 5)
    order = torch.tensor([2, 0, 1])
    shuffled = TransferBatch(
        Observation(None, {"stage": whole.student.features["stage"][order]}),
        (Observation(None, {"stage": whole.teachers[0].features["stage"][order]}),),
        None,
        whole.has_label,
        whole.index[order] if whole.index is not None else None,
        whole.view,
        0,
    )
    ((_, moved, _),) = seen(shuffled)
    assert torch.equal(moved, points_s[order])
    # Without repetition, and both networks at the same places.
    marked = torch.arange(36.0).view(1, 1, 6, 6).repeat(3, 1, 1, 1)
    both = (Observation(None, {"stage": 2 * marked}),)
    shown = replace(whole, student=Observation(None, {"stage": marked}), teachers=both)
    ((_, places, doubled),) = seen(shown)
    assert all(len(set(row.flatten().tolist())) == 9 for row in places)
    assert torch.equal(2 * places, doubled)
    assert not torch.equal(places[0], places[1])


def test_a_grid_lies_the_same_in_every_picture_and_asks_for_no_index() -> None:
    with pytest.raises(SettingError, match="index"):
        made(locations=9)(batch_of(known=False))
    marked = torch.arange(36.0).view(1, 1, 6, 6).repeat(2, 1, 1, 1)
    seen = Observation(None, {"stage": marked})
    label = torch.zeros(2, dtype=torch.bool)
    shown = TransferBatch(seen, (seen,), None, label, None, None, 0)
    ((_, places, _),) = made(locations=9, places="grid")._points(shown)
    rows_and_columns = [6 * row + column for row in (1, 3, 5) for column in (1, 3, 5)]
    assert places[:, :, 0].tolist() == 2 * [[float(place) for place in rows_and_columns]]


@pytest.mark.parametrize("size", [(4, 9), (9, 4), (1, 30), (30, 1), (7, 7)])
@pytest.mark.parametrize("most", [4, 5, 16, 25])
def test_a_grid_has_distinct_places_and_not_too_many(size: tuple[int, int], most: int) -> None:
    height, width = size
    marked = torch.arange(float(height * width)).view(1, 1, height, width)
    seen = Observation(None, {"stage": marked})
    label = torch.zeros(1, dtype=torch.bool)
    shown = TransferBatch(seen, (seen,), None, label, None, None, 0)
    method = made((1, *size), (1, *size), locations=most, places="grid")
    ((_, places, _),) = method._points(shown)
    chosen = places.flatten().tolist()
    assert most / 2 <= len(chosen) <= most
    assert len(set(chosen)) == len(chosen)
    assert max(chosen) < height * width


def test_of_two_sizes_the_larger_map_is_pooled() -> None:
    batch = batch_of(own=(4, 6, 6), other=(5, 3, 3))
    (teacher,) = batch.teachers
    pooled = batch.student.features["stage"].unflatten(3, (3, 2)).unflatten(2, (3, 2)).mean((3, 5))
    found = made(other=(5, 3, 3))(batch)["geometry/stage"]
    wanted = soft_affinity_loss(
        local_features(pooled), local_features(teacher.features["stage"]), neighbors=8
    )
    torch.testing.assert_close(found, wanted)


class Held:
    """The end of a phase, with held-out batches of these sizes."""

    number = 0

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes

    def held_out(self) -> Iterator[TransferBatch]:
        yield from map(batch_of, self.sizes)

    def lookahead(self, terms: Any) -> float:
        raise AssertionError("asks for none")


def test_what_is_preserved_is_measured_on_held_out_pictures() -> None:
    found = made().end_phase(Held(3, 1))
    assert found is not None
    assert not found.changed
    parts = []
    for size in (3, 1):
        batch = batch_of(size)
        (teacher,) = batch.teachers
        one, other = (local_features(seen.features["stage"]) for seen in (batch.student, teacher))
        parts.append(size * neighborhood_preservation(one, other, neighbors=8).item())
    assert found.values == {"preservation": {"stage": pytest.approx(sum(parts) / 4)}}


def test_over_a_batch_it_is_measured_in_groups_of_any_held_out_batch() -> None:
    found = made(pool="batch", locations=36).end_phase(Held(150, 2))
    assert found is not None
    assert 0 < found.values["preservation"]["stage"] < 1


@pytest.mark.parametrize(
    "settings",
    [{"neighbors": 0}, {"temperature": 0.0}, {"temperature": math.inf}, {"locations": -1}],
)
def test_refuses_numbers_that_are_none(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="geometric needs at least 1 neighbor"):
        Geometric(**settings)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("setting", ["loss", "pool", "places", "distance"])
def test_refuses_words_that_are_none(setting: str) -> None:
    with pytest.raises(SettingError, match="nowhere"):
        Geometric(**{setting: "nowhere"})  # pyright: ignore[reportArgumentType]


def test_refuses_pictures_without_neighborhoods() -> None:
    with pytest.raises(NetworkError, match=r"at least 4 places .* share 2"):
        made((4, 1, 2), (5, 8, 8))
    with pytest.raises(NetworkError, match=r"at least 4 places .* share 2"):
        made(locations=2)
    method = made((4, 1, 1), (5, 8, 8), pool="batch")
    assert method.needs.compares_samples
    with pytest.raises(NetworkError, match=r"at least 4, but these are 1 of 1 picture\(s\)"):
        method(batch_of(1, (4, 1, 1), (5, 8, 8)))


@pytest.mark.parametrize("pool", ["image", "batch"])
def test_refuses_more_distances_than_there_is_room_for(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometric, "MOST_DISTANCES", 4 * 16**2 if pool == "image" else 64**2)
    method = made(pool=pool, locations=16)
    method(batch_of(4))
    with pytest.raises(NetworkError, match=r"holds at most [\d,]+ distances .* Lower locations or"):
        method(batch_of(5))


MEMORY = """
import torch
from tutelage.methods.geometric import Geometric
from tutelage.types import Observation, ObservationShape, Pair, Shapes, TransferBatch

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

torch.set_num_threads(1)
method = Geometric(loss=LOSS, pool=POOL, locations=512 if POOL == "image" else 64)
shape = ObservationShape(None, {"stage": (64, 56, 56)})
method.build(Shapes(shape, (shape,), (Pair("stage", "stage"),)))
student, teacher = torch.rand(2, 64, 64, 56, 56)
student.requires_grad_()
student.grad = torch.zeros_like(student)
count = torch.arange(64)
batch = TransferBatch(
    Observation(None, {"stage": student}), (Observation(None, {"stage": teacher}),),
    None, count < 0, count, count, 0)
open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
before = peak()
method(batch)["geometry/stage"].backward()
print(peak() - before)
"""


@pytest.mark.slow
@ALL
@pytest.mark.parametrize("pool", ["image", "batch"])
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_stays_below_a_gigabyte_for_a_large_map(name: str, pool: str) -> None:
    said = MEMORY.replace("LOSS", repr(name)).replace("POOL", repr(pool))
    command = [sys.executable, "-c", said]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 50 < float(done.stdout) < 1024  # megabytes
