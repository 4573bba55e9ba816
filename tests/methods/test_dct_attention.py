"""DCT attention: the formula against the authors' code, and what a transform can and cannot see."""

import cmath
import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tutelage.errors import NetworkError, SettingError
from tutelage.methods.dct_attention import (
    DCTAttention,
    Transform,
    activation_map,
    dct_2d,
    dct_attention_loss,
    frequency_code,
)
from tutelage.ops import teacher_is_right
from tutelage.types import Observation, ObservationShape, Pair, Shapes, TransferBatch

TRANSFORMS: tuple[Transform, ...] = get_args(Transform)
FOURIER: tuple[Transform, ...] = ("abs_real_fft", "real_fft")
Rows = list[list[float]]


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rescaled(rows: Rows, *, by_maximum: bool) -> Rows:
    numbers = [value for row in rows for value in row]
    low, high = min(numbers), max(numbers)
    return [[(value - low) / (high if by_maximum else high - low) for value in row] for row in rows]


def fourier(rows: Rows) -> Rows:
    """The real part of the two-dimensional transform, by its definition."""
    height, width = len(rows), len(rows[0])

    def at(u: int, v: int) -> float:
        return sum(
            (rows[y][x] * cmath.exp(-2j * math.pi * (u * y / height + v * x / width))).real
            for y in range(height)
            for x in range(width)
        )

    return [[at(u, v) for v in range(width)] for u in range(height)]


def cosine(rows: Rows) -> Rows:
    """The DCT-II with orthonormal scaling, by its definition."""
    height, width = len(rows), len(rows[0])

    def scale(u: int, size: int) -> float:
        return math.sqrt((1 if u == 0 else 2) / size)

    def at(u: int, v: int) -> float:
        return (
            scale(u, height)
            * scale(v, width)
            * sum(
                rows[y][x]
                * math.cos(math.pi * (2 * y + 1) * u / (2 * height))
                * math.cos(math.pi * (2 * x + 1) * v / (2 * width))
                for y in range(height)
                for x in range(width)
            )
        )

    return [[at(u, v) for v in range(width)] for u in range(height)]


def code_of(channels: list[Rows], transform: Transform) -> Rows:
    """The code of one picture's map, one operation after the other as in the authors' code."""
    first = transform == "abs_real_fft"
    height, width = len(channels[0]), len(channels[0][0])
    energy = [
        [sum(channel[y][x] ** 2 for channel in channels) / len(channels) for x in range(width)]
        for y in range(height)
    ]
    energy = rescaled(energy, by_maximum=first)
    mean = sum(map(sum, energy)) / (height * width)
    energy = [[value - mean for value in row] for row in energy]
    if transform in FOURIER:
        energy = fourier(energy)
    if first:
        energy = [[abs(value) for value in row] for row in energy]
    if transform == "dct2":
        energy = cosine(energy)
    return rescaled(energy, by_maximum=first)


def written_out(student: Tensor, teacher: Tensor, transform: Transform) -> float:
    lengths = []
    for one, other in zip(student.tolist(), teacher.tolist(), strict=True):
        pairs = zip(code_of(one, transform), code_of(other, transform), strict=True)
        squares = [(a - b) ** 2 for row, line in pairs for a, b in zip(row, line, strict=True)]
        lengths.append(math.sqrt(sum(squares)))
    return sum(lengths) / len(lengths)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_equals_the_authors_code_written_out(transform: Transform) -> None:
    student, teacher = maps(0, 3, 4, 3, 5), maps(1, 3, 6, 3, 5)
    loss = dct_attention_loss(student, teacher, transform=transform)
    assert loss.item() == pytest.approx(written_out(student, teacher, transform))


def test_hand_worked_in_one_dimension() -> None:
    # Squares (4, 1, 0, 1): rescaled (1, ¼, 0, ¼), less the mean (5/8, −1/8, −3/8, −1/8), of which
    # the real transform is (0, 1, ½, 1): rescaled the same. (1, 0, 0, 0) gives (0, 1, 1, 1).
    student = torch.tensor([[[[2.0, 1.0, 0.0, -1.0]]]])
    teacher = torch.tensor([[[[3.0, 0.0, 0.0, 0.0]]]])
    torch.testing.assert_close(
        frequency_code(activation_map(student), transform="abs_real_fft"),
        torch.tensor([[[0.0, 1.0, 0.5, 1.0]]]),
    )
    assert dct_attention_loss(student, teacher).item() == pytest.approx(0.5)


@pytest.mark.parametrize("size", [(1, 7), (8, 8), (5, 3), (7, 1)])
def test_a_cosine_transform_without_rescaling_keeps_lengths(size: tuple[int, int]) -> None:
    # Parseval: then the loss is the distance of the maps themselves.
    student, teacher = maps(2, 3, 4, *size), maps(3, 3, 2, *size)
    by_frequency = dct_attention_loss(student, teacher, transform="dct2", rescale=False)
    by_place = dct_attention_loss(student, teacher, transform="none", rescale=False)
    torch.testing.assert_close(by_frequency, by_place)
    assert dct_attention_loss(student, teacher, transform="dct2") != by_frequency


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_autocast_changes_no_digit(transform: Transform) -> None:
    one, other = torch.rand(2, 3, 4, 8, 8)
    alone = dct_attention_loss(one, other, transform=transform, rescale=False)
    with torch.autocast("cpu", torch.bfloat16):
        found = dct_attention_loss(one, other, transform=transform, rescale=False)
    assert found.dtype == torch.float32
    assert found == alone


def test_the_cosine_transform_is_orthonormal_and_finds_a_cosine() -> None:
    place = torch.arange(8, dtype=torch.float64)
    wave = torch.cos(math.pi * 3 * (place + 0.5) / 8).expand(1, 4, 8)
    found = dct_2d(wave)
    assert found[0, 0, 3].item() == pytest.approx(math.sqrt(4 * 8 / 2))
    assert found.square().sum().item() == pytest.approx(wave.square().sum().item())
    assert found[0, 0, 3].square().item() == pytest.approx(wave.square().sum().item())


@given(st.integers(0, 1000), st.sampled_from(TRANSFORMS), st.floats(1e-2, 1e2))
def test_neither_channels_nor_strength_count(seed: int, transform: Transform, scale: float) -> None:
    student, teacher = maps(seed, 2, 4, 3, 4), maps(seed + 1, 2, 6, 3, 4)
    loss = dct_attention_loss(student, teacher, transform=transform)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0])[:, None, None]
    for same in (student[:, order], student * scale, student * signs, student.repeat(1, 3, 1, 1)):
        torch.testing.assert_close(dct_attention_loss(same, teacher, transform=transform), loss)
    torch.testing.assert_close(
        dct_attention_loss(student, teacher * scale, transform=transform), loss
    )


def reflected(features: Tensor) -> Tensor:
    """Place (y, x) goes to (−y, −x), around the edges."""
    return features.flip((2, 3)).roll((1, 1), dims=(2, 3))


@given(st.integers(0, 1000))
def test_a_fourier_transforms_real_part_is_blind_to_point_reflection(seed: int) -> None:
    student = maps(seed, 2, 4, 5, 4)
    for transform in FOURIER:
        loss = dct_attention_loss(student, reflected(student), transform=transform)
        assert loss.item() == pytest.approx(0, abs=1e-12)
    for transform in ("dct2", "none"):
        assert dct_attention_loss(student, reflected(student), transform=transform) > 0.01


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_higher_resolution_counts_more(transform: Transform) -> None:
    sizes = [8, 16, 32]
    losses = [
        dct_attention_loss(
            maps(4, 8, 1, size, size), maps(5, 8, 1, size, size), transform=transform
        )
        for size in sizes
    ]
    assert losses == sorted(losses)


def test_two_random_maps_are_as_far_apart_as_the_card_says() -> None:
    # As random: uniform activation maps.
    for size, expected in ((56, 13.6), (8, 2.8)):
        generator = torch.Generator().manual_seed(size)
        one, other = torch.rand(2, 64, 1, size, size, generator=generator).sqrt()
        assert dct_attention_loss(one, other).item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("size_s", "size_t"), [((8, 6), (4, 3)), ((4, 3), (8, 6)), ((8, 3), (4, 6))]
)
def test_the_larger_feature_map_is_pooled_first(
    size_s: tuple[int, int], size_t: tuple[int, int]
) -> None:
    def to_4_by_3(features: Tensor) -> Tensor:
        if features.shape[2] == 8:
            features = (features[:, :, 0::2] + features[:, :, 1::2]) / 2
        if features.shape[3] == 6:
            features = (features[..., 0::2] + features[..., 1::2]) / 2
        return features

    student, teacher = maps(6, 2, 3, *size_s), maps(7, 2, 5, *size_t)
    wanted = written_out(to_4_by_3(student), to_4_by_3(teacher), "abs_real_fft")
    assert dct_attention_loss(student, teacher).item() == pytest.approx(wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_gradient_is_finite_and_tame_where_nothing_varies(
    transform: Transform, rescale: bool, dtype: torch.dtype
) -> None:
    teacher = maps(8, 2, 6, 3, 3).to(dtype)
    partly = maps(9, 2, 6, 3, 3).relu()
    partly[0] = 0
    nearly = torch.ones(2, 6, 3, 3, dtype=torch.float64) + 1e-9 * maps(10, 2, 6, 3, 3)
    for student in (torch.zeros(2, 6, 3, 3), torch.ones(2, 6, 3, 3), partly, nearly, teacher):
        leaf = student.to(dtype).clone().requires_grad_()
        loss = dct_attention_loss(leaf, teacher, transform=transform, rescale=rescale)
        loss.backward()
        assert loss.isfinite()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().max() < 1e3
    assert dct_attention_loss(teacher, teacher, transform=transform, rescale=rescale) == 0


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_one_location_has_no_pattern(transform: Transform) -> None:
    loss = dct_attention_loss(maps(11, 2, 4, 1, 1), maps(12, 2, 6, 8, 8), transform=transform)
    assert loss == 0


def test_left_out_pictures_count_as_zero_in_a_mean_over_all() -> None:
    student, teacher = maps(13, 3, 4, 4, 4).requires_grad_(), maps(14, 3, 6, 4, 4)
    counts = torch.tensor([True, False, True])
    loss = dct_attention_loss(student, teacher, counts=counts)
    alone = [dct_attention_loss(student[i : i + 1], teacher[i : i + 1]).item() for i in range(3)]
    assert loss.item() == pytest.approx((alone[0] + alone[2]) / 3)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient[1].eq(0).all()
    assert gradient[0].abs().sum() > 0


SHAPE = ObservationShape((3,), {"stage": (4, 4, 4)})


def batch(teacher_logits: Tensor, targets: list[int], has_label: list[bool]) -> TransferBatch:
    n = len(targets)
    return TransferBatch(
        Observation(maps(15, n, 3), {"stage": maps(16, n, 4, 4, 4)}),
        (Observation(teacher_logits, {"stage": maps(17, n, 4, 4, 4)}),),
        torch.tensor(targets),
        torch.tensor(has_label),
        None,
        None,
        0,
    )


def test_the_guide_leaves_out_what_the_teacher_gets_wrong_but_not_what_nobody_knows() -> None:
    logits = torch.eye(3, dtype=torch.float64)
    guided, plain = DCTAttention(guide=True), DCTAttention()
    for method in (guided, plain):
        method.build(Shapes(SHAPE, (SHAPE,), (Pair("stage", "stage"),)))
    right = batch(logits, [0, 1, 2], [True, True, True])
    wrong = batch(logits, [0, 2, 2], [True, True, True])
    unknown = batch(logits, [0, 2, 2], [True, False, True])
    whole = plain(right)["dct/stage"]
    assert guided(right)["dct/stage"] == whole
    assert guided(unknown)["dct/stage"] == whole
    assert plain(wrong)["dct/stage"] == whole
    counts = teacher_is_right(logits, wrong.targets, wrong.has_label)
    assert counts.tolist() == [True, False, True]
    (teacher,) = wrong.teachers
    maps_s, maps_t = wrong.student.features["stage"], teacher.features["stage"]
    wanted = dct_attention_loss(maps_s, maps_t, counts=counts)
    assert guided(wrong)["dct/stage"] == wanted
    assert wanted < whole


def test_only_the_guide_asks_for_labels_and_logits() -> None:
    assert DCTAttention().needs.labels == "none"
    assert DCTAttention(guide=True).needs.labels == "class"
    assert DCTAttention(guide=True).needs.outputs == ("logits",)
    headless = Shapes(SHAPE, (SHAPE._replace(output=None),), (Pair("stage", "stage"),))
    DCTAttention().build(headless)
    with pytest.raises(NetworkError, match=r"logits, but it puts out None .* Set guide: false"):
        DCTAttention(guide=True).build(headless)


@pytest.mark.usefixtures("unchecked")
def test_refuses_a_transform_that_is_not_there() -> None:
    with pytest.raises(SettingError, match="dct3"):
        DCTAttention(transform="dct3")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("size", [(4, 4), (2, 3), (8, 8)])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_what_is_kept_of_a_map_serves_in_its_place(
    size: tuple[int, int], transform: Transform
) -> None:
    teacher, student = maps(18, 3, 5, 4, 4), maps(19, 3, 2, *size)
    kept = DCTAttention(transform=transform).encode(teacher, size)
    assert kept.shape == (3, 1, min(size[0], 4), min(size[1], 4))
    torch.testing.assert_close(
        dct_attention_loss(student, kept, transform=transform),
        dct_attention_loss(student, teacher, transform=transform),
    )
