"""Views are replayed bit for bit, and do what their papers say."""

import hashlib
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from tutelage.data.pictures import Pictures
from tutelage.data.views import DRAWING, Views
from tutelage.errors import SettingError

EVERYTHING = Views(crop_padding=2, flip=True, cutout=3, mixup=0.4, cutmix=1.0)


def noise(count: int, height: int = 8, width: int = 6, channels: int = 3) -> Pictures:
    """The same pictures in every process; every third has no label."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        1, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator
    )
    whole = Pictures.with_labels(images, torch.arange(count) % 2)
    return replace(whole, has_label=torch.arange(count) % 3 > 0)


def shares_of_one(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Targets in two classes, as a task would mix them."""
    classes = torch.eye(2)
    return share[:, None] * classes[first] + (1 - share)[:, None] * classes[second]


def render(
    views: Views, pictures: Pictures, rows: Tensor, seed: int = 0, view: int | Tensor = 0
) -> tuple[Tensor, Any]:
    numbers = torch.as_tensor(view).expand(len(rows)).clone()
    pool = views.prepare(pictures)
    return views.render(pool, rows, seed=seed, view=numbers, mix=shares_of_one)


def many(views: Views, picture: Tensor, count: int) -> Tensor:
    """`count` views of one picture (h, w, c)."""
    pictures = Pictures.with_labels(picture[None], torch.tensor([0]))
    rows = torch.zeros(count, dtype=torch.int64)
    return render(views, pictures, rows, view=torch.arange(count))[0]


# ------------------------------------------------------------------------------------- replay


@settings(max_examples=15)
@given(order=st.permutations(range(30)), cut=st.integers(1, 29), seed=st.integers(0, 3))
def test_a_view_is_the_same_in_any_order_and_batch(order: list[int], cut: int, seed: int) -> None:
    pictures, rows, view = noise(30), torch.arange(30), torch.arange(30) % 4
    images, targets = render(EVERYTHING, pictures, rows, seed, view)
    mixed = torch.tensor(order)
    for part in (mixed[:cut], mixed[cut:]):
        found, shares = render(EVERYTHING, pictures, part, seed, view[part])
        assert torch.equal(found, images[part])
        assert torch.equal(shares, targets[part])


def test_a_view_alone_is_the_view_in_a_batch() -> None:
    pictures, rows = noise(130), torch.arange(130)
    images, targets = render(EVERYTHING, pictures, rows)
    for row in rows:
        image, target = render(EVERYTHING, pictures, row[None])
        assert torch.equal(image[0], images[row])
        assert torch.equal(target[0], targets[row])


def digest(rows: Tensor) -> str:
    images, targets = render(EVERYTHING, noise(50, 32, 32), rows, seed=5, view=rows % 7)
    order = rows.argsort()
    packed = images[order].numpy().tobytes() + targets[order].numpy().tobytes()
    return hashlib.sha256(packed).hexdigest()


def test_a_view_is_the_same_in_another_process() -> None:
    # The other process has one thread, another order, and has drawn other numbers before.
    script = f"""
import runpy, torch
torch.set_num_threads(1)
torch.rand(100)
here = runpy.run_path({__file__!r})
print(here["digest"](torch.arange(49, -1, -1)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest(torch.arange(50))


def test_another_seed_index_or_view_is_another_picture() -> None:
    # All rows hold the same pixels: what differs, differs by its draws.
    same = noise(1).take(torch.zeros(40, dtype=torch.int64))
    pictures = replace(same, index=torch.arange(40))
    for views in (Views(crop_padding=5, flip=True), Views(cutout=3), Views(crop_padding=5)):
        rows = torch.arange(40)
        base, _ = render(views, pictures, rows)
        reseeded, _ = render(views, pictures, rows, seed=1)
        later, _ = render(views, pictures, rows, view=1)
        for first, second in ((base, reseeded), (base, later), (base, base.roll(1, 0))):
            assert (first != second).flatten(1).any(dim=1).sum() >= 30


def test_a_view_follows_the_index_not_the_place() -> None:
    pictures = noise(10)
    moved = pictures.take(torch.arange(9, -1, -1))
    views = Views(crop_padding=2, flip=True, cutout=3)
    first, _ = render(views, pictures, torch.arange(10))
    second, _ = render(views, moved, torch.arange(9, -1, -1))
    assert torch.equal(first, second)


# -------------------------------------------------------------------------------- each of them


@pytest.mark.parametrize("channels", [1, 3])
def test_by_default_a_view_is_the_picture(channels: int) -> None:
    pictures = noise(5, channels=channels)
    rows = torch.tensor([3, 0, 3])
    images, labels = render(Views(), pictures, rows, seed=9, view=4)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, (pictures.images[rows].double() / 255).permute(0, 3, 1, 2).float())
    assert labels.tolist() == [1, 0, 1]


def test_a_crop_is_a_window_of_the_picture_in_black() -> None:
    picture, padding = noise(1).images[0], 2
    images = many(Views(crop_padding=padding, flip=True), picture, 3_000)
    framed = np.pad(picture.numpy(), ((2, 2), (2, 2), (0, 0)))
    windows = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            window = framed[top : top + 8, left : left + 6]
            windows[window.tobytes()] = top, left, False
            windows[window[:, ::-1].tobytes()] = top, left, True
    seen = [
        windows[image.tobytes()]
        for image in (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    ]
    # 25 corners, mirrored or not: 50 equally likely outcomes, 60 times each.
    counts = np.unique(seen, axis=0, return_counts=True)[1]
    assert len(counts) == 50
    assert stats.chisquare(counts).pvalue > 0.001


def test_half_of_the_pictures_are_mirrored() -> None:
    picture = noise(1).images[0]
    images = many(Views(flip=True), picture, 4_000)
    plain = (picture / 255).permute(2, 0, 1)
    mirrored = (images == plain.flip(2)).flatten(1).all(dim=1)
    assert ((images == plain).flatten(1).all(dim=1) ^ mirrored).all()
    assert abs(int(mirrored.sum()) - 2_000) < 130  # 4 standard deviations


def test_cutout_is_a_black_square_cut_off_at_the_border() -> None:
    height, width, side = 8, 10, 3
    white = torch.full((height, width, 1), 255, dtype=torch.uint8)
    black = many(Views(cutout=side), white, 8_000)[:, 0] == 0
    rows, columns = black.any(dim=2).sum(dim=1), black.any(dim=1).sum(dim=1)
    assert (black.sum(dim=(1, 2)) == rows * columns).all()
    # The center is any pixel; only on the border's two lines does the square lose one.
    for sides, length in ((rows, height), (columns, width)):
        assert set(sides.tolist()) == {side - 1, side}
        whole = (sides == side).float().mean()
        assert whole == pytest.approx((length - 2) / length, abs=0.02)
    # Every pixel is cut about as often as its neighbors allow: 9 centers inside, 4 in a corner.
    often = black.float().mean(dim=0) * height * width
    assert often[4, 5] == pytest.approx(9, abs=1)
    assert often[0, 0] == pytest.approx(4, abs=1)


def black_and_white(count: int, side: int = 8) -> Pictures:
    """Class 0 is black, class 1 white."""
    labels = torch.arange(count) % 2
    images = (labels * 255).byte().reshape(-1, 1, 1, 1).expand(-1, side, side, 1)
    return Pictures.with_labels(images, labels)


MIXED = {
    "mixup": Views(mixup=0.4),
    "cutmix": Views(cutmix=1.0),
    "both": Views(mixup=0.4, cutmix=1.0),
}


@pytest.mark.parametrize("views", MIXED.values(), ids=MIXED.keys())
def test_a_mixed_target_says_what_the_picture_holds(views: Views) -> None:
    images, targets = render(views, black_and_white(500), torch.arange(500))
    assert torch.allclose(targets.sum(dim=1), torch.ones(500))
    assert torch.allclose(images.mean(dim=(1, 2, 3)), targets[:, 1], atol=1e-6)
    assert images.min() >= 0
    assert images.max() <= 1
    assert 100 < ((targets[:, 1] > 0.01) & (targets[:, 1] < 0.99)).sum() < 400


@pytest.mark.parametrize("views", MIXED.values(), ids=MIXED.keys())
def test_another_seed_index_or_view_is_another_mixture(views: Views) -> None:
    pool, rows = views.prepare(black_and_white(200)), torch.arange(200)

    def shares(seed: int, view: int) -> Tensor:
        numbers = torch.full_like(rows, view)
        return views.render(pool, rows, seed=seed, view=numbers, mix=lambda *told: told)[1][2]

    base = shares(0, 0)
    for other in (shares(1, 0), shares(0, 1), base.roll(1)):
        assert (base != other).sum() > 180


def test_with_mixup_and_cutmix_a_coin_decides() -> None:
    images, targets = render(MIXED["both"], black_and_white(4_000), torch.arange(4_000))
    mixed = (targets.max(dim=1).values < 1).nonzero()[:, 0]
    pasted = ((images[mixed] == 0) | (images[mixed] == 1)).flatten(1).all(dim=1)
    # Of Beta(0.4, 0.4) and of a pasted box, about as many lie strictly between the pictures.
    assert 0.35 < pasted.float().mean() < 0.65


@pytest.mark.parametrize("views", MIXED.values(), ids=MIXED.keys())
def test_labelled_pictures_mix_with_labelled_ones_only(views: Views) -> None:
    # Here white pictures are the labelled ones: no gray may come of it.
    whole = black_and_white(200)
    pictures = replace(whole, has_label=whole.labels == 1)
    images, _ = render(views, pictures, torch.arange(200))
    # λ + (1 − λ) is 1 only to the last bit.
    assert torch.allclose(images, (pictures.images / 255).permute(0, 3, 1, 2), atol=1e-6)


def test_every_picture_becomes_a_partner() -> None:
    partners: list[int] = []

    def keep_partner(_: Tensor, second: Tensor, share: Tensor) -> Tensor:
        partners.extend(second.tolist())
        return share

    pictures = Pictures.with_labels(torch.zeros(10, 4, 4, 1).byte(), torch.arange(10))
    views = Views(mixup=1.0)
    rows = torch.zeros(5_000, dtype=torch.int64)
    views.render(views.prepare(pictures), rows, seed=0, view=torch.arange(5_000), mix=keep_partner)
    assert stats.chisquare(np.bincount(partners, minlength=10)).pvalue > 0.001


def test_a_partner_comes_in_a_view_of_its_own() -> None:
    # Two pictures, one of them black: half of the rest is then half of a view of the other.
    pictures = black_and_white(2)
    striped = pictures.images.clone()
    striped[1, :, :4] = 100
    pictures = replace(pictures, pixels=striped)
    alone = Views(crop_padding=2, flip=True)
    number = torch.arange(200)
    images, shares = render(
        replace(alone, mixup=1.0), pictures, torch.zeros(200, dtype=torch.int64), view=number
    )
    views, _ = render(alone, pictures, torch.ones(200, dtype=torch.int64), view=number)
    assert torch.allclose(images, views * shares[:, 1, None, None, None], atol=1e-6)
    assert 60 < (shares[:, 1] > 0).sum() < 140


def shares_drawn(views: Views, count: int, side: int) -> np.ndarray:
    """Shares of the first picture, as the caller's mix is told them."""
    pictures = Pictures.with_labels(torch.zeros(1, side, side, 1).byte(), torch.tensor([0]))
    rows = torch.zeros(count, dtype=torch.int64)
    _, (_, _, share) = views.render(
        views.prepare(pictures),
        rows,
        seed=0,
        view=torch.arange(count),
        mix=lambda *told: told,
    )
    return share.numpy()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixups_share_is_beta_distributed(alpha: float) -> None:
    shares = shares_drawn(Views(mixup=alpha), 5_000, side=4)
    # float32 rounds shares within 3e-8 of 1 to it, which the test would take for a jump.
    distribution = stats.beta(alpha, alpha).cdf
    assert stats.kstest(np.minimum(shares, 1 - 1e-7), distribution).statistic < 0.03


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_cutmixs_share_is_that_of_the_papers_box(alpha: float) -> None:
    side, generator = 32, np.random.default_rng(0)

    def papers_share() -> float:
        """The box of the paper's Appendix A, one picture at a time."""
        cut = math.sqrt(1 - generator.beta(alpha, alpha))
        size = int(side * cut)
        x, y = generator.integers(side), generator.integers(side)
        x_1, x_2 = np.clip([x - size // 2, x - size // 2 + size], 0, side)
        y_1, y_2 = np.clip([y - size // 2, y - size // 2 + size], 0, side)
        return 1 - (x_2 - x_1) * (y_2 - y_1) / side**2

    ours = shares_drawn(Views(cutmix=alpha), 5_000, side)
    theirs = np.array([papers_share() for _ in range(5_000)])
    gap: Any = stats.ks_2samp(ours, theirs)
    assert gap.statistic < 0.04


# ------------------------------------------------------------------------------------- refusal


@pytest.mark.parametrize(
    "said", [{"crop_padding": -1}, {"cutout": -2}, {"mixup": -0.1}, {"cutmix": float("nan")}]
)
def test_a_negative_number_is_refused(said: dict[str, Any]) -> None:
    (name,) = said
    with pytest.raises(SettingError, match=f"{name} must be 0"):
        Views(**said)


@pytest.mark.parametrize("name", ["crop_padding", "cutout"])
def test_what_could_leave_nothing_of_a_picture_is_refused(name: str) -> None:
    pictures = noise(2, height=8, width=6)
    said: dict[str, Any] = {name: 6}
    with pytest.raises(SettingError, match=f"{name} must be smaller .* have 6 pixels, but is 6"):
        Views(**said).prepare(pictures)
    said[name] = 5
    Views(**said).prepare(pictures)


# ---------------------------------------------------------------------------- what stores rely on


def test_views_are_drawn_as_the_number_of_their_drawing_says() -> None:
    """Whoever changes these pixels raises DRAWING: stored answers are to the old ones."""
    number = torch.arange(16)
    images, _ = render(EVERYTHING, noise(16), number, seed=7, view=number % 3)
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    drawn = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()[:16]
    assert (DRAWING, drawn) == (1, "0a1b096341c7d84a")
