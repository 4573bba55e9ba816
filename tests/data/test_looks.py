"""Views of photographs: torchvision's operations, drawn from a hash."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from photos import album, picture
from torch import Tensor
from torchvision.transforms import v2

from tutelage.data.folder import folder
from tutelage.data.loader import TrainLoader
from tutelage.data.looks import _TRIVIAL, DRAWS, Looks, _apply, _rand_space, _window
from tutelage.data.pictures import Pictures
from tutelage.data.views import Views
from tutelage.errors import SettingError

SIZE = (24, 24)
PIXELS = torch.from_numpy(np.array(picture(5, 40, 30)))
ALL: dict[str, Any] = {
    "crop_area": (0.2, 1.0),
    "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "rand_augment": 2,
    "erasing": 0.5,
    "flip": True,
}


def draws(seed: int = 0) -> Tensor:
    return torch.rand(DRAWS, generator=torch.Generator().manual_seed(seed))


_NAMES = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
}


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("wide", [False, True])
def test_each_operation_is_torchvisions_at_every_magnitude(name: str, wide: bool):
    theirs = v2.TrivialAugmentWide() if wide else v2.RandAugment()
    planes = PIXELS.permute(2, 0, 1)
    height, width = planes.shape[-2:]
    span = (_TRIVIAL if wide else _rand_space(height, width))[name]
    values, signed = theirs._AUGMENTATION_SPACE[_NAMES[name]]
    magnitudes = values(31, height, width)
    for place in (0, 9, 15, 30):
        for sign in (False, True):
            value = 0.0 if magnitudes is None else float(magnitudes[place])
            expected: Any = theirs._apply_image_or_video_transform(
                planes,
                _NAMES[name],
                -value if signed and sign else value,
                interpolation=v2.InterpolationMode.NEAREST,
                fill=theirs._fill,
            )
            assert torch.equal(_apply(planes, name, span, place, sign=sign), expected)


def test_the_spaces_have_torchvisions_operations_in_its_order():
    for ours, theirs in (
        (_TRIVIAL, v2.TrivialAugmentWide()),
        (_rand_space(9, 9), v2.RandAugment()),
    ):
        assert [_NAMES[name] for name in ours] == list(theirs._AUGMENTATION_SPACE)


@limits(max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60), st.floats(0.05, 1.0))
def test_windows_lie_inside_and_have_the_shape_that_was_asked_for(
    seed: int, height: int, width: int, least: float
):
    planes = torch.zeros(3, height, width, dtype=torch.uint8)
    top, left, high, wide = _window(planes, (least, 1.0), (3 / 4, 4 / 3), draws(seed)[:40])
    assert 0 <= top <= top + high <= height
    assert 0 <= left <= left + wide <= width
    if min(height, width) > 30:
        assert 0.6 <= wide / high <= 1.6


def test_where_no_window_fits_the_largest_in_the_middle_is_taken():
    planes = torch.zeros(3, 10, 100, dtype=torch.uint8)
    assert _window(planes, (1.0, 1.0), (3 / 4, 4 / 3), draws()[:40]) == (0, 43, 10, 13)


def test_areas_are_uniform_between_the_ends():
    planes = torch.zeros(3, 200, 200, dtype=torch.uint8)
    shares = []
    for seed in range(400):
        _, _, high, wide = _window(planes, (0.1, 0.5), (1.0, 1.0), draws(seed)[:40])
        shares.append(high * wide / 40_000)
    found = torch.tensor(shares).sort().values
    expected = torch.linspace(0.1, 0.5, 400)
    assert (found - expected).abs().max() < 0.035  # Kolmogorov's distance for p = 0.005: 0.087·0.4


def test_a_look_has_the_size_that_is_asked_for_and_the_same_draws_give_the_same():
    looks = Looks(SIZE, (0.1, 1.0), jitter=(0.4, 0.4, 0.4, 0.2), rand_augment=2, erase=1.0)
    first = looks.look(PIXELS, draws(3))
    assert first.shape == (24, 24, 3)
    assert torch.equal(first, looks.look(PIXELS, draws(3)))
    assert not torch.equal(first, looks.look(PIXELS, draws(4)))
    assert not Looks(SIZE).any


def test_erasing_leaves_one_gray_rectangle_of_the_stated_share():
    black = torch.zeros(60, 60, 3, dtype=torch.uint8)
    for seed in range(20):
        gray = Looks((60, 60), erase=1.0).look(black, draws(seed))[..., 0] == 127
        rows, columns = gray.any(dim=1).sum(), gray.any(dim=0).sum()
        assert gray.sum() == rows * columns
        assert 0.015 < gray.float().mean() < 0.36


def test_gray_pictures_take_part():
    looks = Looks(SIZE, (0.1, 1.0), jitter=(0.4, 0.4, 0.4, 0.2), trivial_augment=True)
    for seed in range(30):
        assert looks.look(PIXELS[..., :1], draws(seed)).shape == (24, 24, 1)


# Replay


@pytest.fixture
def photographs(tmp_path: Path) -> Pictures:
    return folder(root=str(album(tmp_path, {"a": 12, "b": 12})), size=24, test=0.25).train


def test_a_view_is_the_same_in_any_batch_and_with_any_number_of_threads(photographs: Pictures):
    views = Views(**ALL)
    pool = views.prepare(photographs)
    rows, view = torch.arange(18), torch.arange(18) % 3
    whole, _ = views.render(pool, rows, seed=1, view=view)
    for number in (1, 7):
        parts = [
            views.render(pool, some, seed=1, view=when)[0]
            for some, when in zip(rows.split(number), view.split(number), strict=True)
        ]
        assert torch.equal(torch.cat(parts), whole)
    other, _ = views.render(pool, rows, seed=1, view=view + 1)
    assert not torch.equal(other, whole)


def test_large_pictures_are_the_same_with_any_number_of_threads(tmp_path: Path):
    for number in range(2):
        (tmp_path / "ab"[number]).mkdir()
        for one in range(5):
            picture(one, 320, 260, tint=number).save(tmp_path / "ab"[number] / f"{one}.jpg")
    pictures = folder(root=str(tmp_path), size=224, test=0.2).train
    settings: dict[str, Any] = ALL | {"rand_augment": 8}
    views = Views(**settings)
    pool, rows = views.prepare(pictures), torch.arange(8)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(views.render(pool, rows, seed=0, view=rows)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_pictures_of_one_size_take_the_same_looks(photographs: Pictures):
    views = Views(color_jitter=(0.4, 0.4, 0.4, 0.1), trivial_augment=True)
    rows = torch.arange(6)
    files, _ = views.render(views.prepare(photographs), rows, seed=0, view=rows)
    stacked, _ = views.render(views.prepare(photographs.decoded()), rows, seed=0, view=rows)
    assert torch.equal(files, stacked)


def test_batches_of_photographs_have_one_size(photographs: Pictures):
    batch = TrainLoader(photographs, Views(**ALL), batch_size=5, seed=0).batch(3)
    assert batch.images.shape == (5, 3, 24, 24)
    assert 0 <= batch.images.min() < batch.images.max() <= 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"crop_area": (0.5, 0.2)}, "crop_area is the smallest and largest share"),
        ({"crop_area": (0.0, 1.0)}, "crop_area is"),
        ({"crop_ratio": (0.0, 1.0)}, "crop_ratio is"),
        ({"color_jitter": (0.1, 0.1, 0.1, 0.6)}, "hue at most 0.5"),
        ({"color_jitter": (-0.1, 0.1, 0.1, 0.0)}, "color_jitter says how far"),
        ({"rand_augment": 9}, "rand_augment must lie in 0 … 8"),
        ({"magnitude": 31}, "magnitude must lie in 0 … 30"),
        ({"erasing": 1.5}, "erasing must lie in 0 … 1"),
        ({"rand_augment": 2, "trivial_augment": True}, "exclude each other"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict, words: str):
    with pytest.raises(SettingError, match=words):
        Views(**wrong)
