"""Files become bytes by stated rules, whatever they are and however many threads there are."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photos import picture
from PIL import Image

from tutelage.data import photographs
from tutelage.data.photographs import Photograph, Photographs, Rule, decode, middle
from tutelage.errors import DataError

RGB, GRAY = Rule(16, 20, 3), Rule(16, 20, 1)
SMALL = Rule(4, 4, 3)


def saved(folder: Path, image: Image.Image, name: str = "a.png", **how: Any) -> Path:
    image.save(folder / name, **how)
    return folder / name


def flat(folder: Path, mode: str, color: Any, name: str = "a.png", **how: Any) -> list[int]:
    """The one color of a decoded picture that had one color."""
    pixels = decode(saved(folder, Image.new(mode, (4, 4), color), name, **how), SMALL)
    assert (pixels == pixels[0, 0]).all()
    return pixels[0, 0].tolist()


def test_colors_become_rgb_by_the_stated_rules(tmp_path: Path):
    assert flat(tmp_path, "RGB", (10, 20, 30)) == [10, 20, 30]
    assert flat(tmp_path, "L", 77) == [77, 77, 77]
    assert flat(tmp_path, "1", 1) == [255, 255, 255]
    assert flat(tmp_path, "RGBA", (10, 20, 30, 0)) == [255, 255, 255]  # on white
    assert flat(tmp_path, "RGBA", (0, 0, 0, 51)) == [204, 204, 204]  # a fifth of black
    assert flat(tmp_path, "LA", (100, 255)) == [100, 100, 100]
    assert flat(tmp_path, "I;16", 257 * 200) == [200, 200, 200]
    assert flat(tmp_path, "CMYK", (0, 0, 0, 0), "a.tif") == [255, 255, 255]
    assert flat(tmp_path, "CMYK", (255, 0, 0, 0), "a.tif") == [0, 255, 255]


def test_palettes_are_looked_up_and_their_holes_are_white(tmp_path: Path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    path = saved(tmp_path, image)
    assert decode(path, SMALL)[0, 0].tolist() == [10, 20, 30]
    path = saved(tmp_path, image, transparency=1)
    assert decode(path, SMALL)[0, 0].tolist() == [255, 255, 255]


def test_one_channel_is_luma(tmp_path: Path):
    path = saved(tmp_path, Image.new("RGB", (30, 20), (100, 50, 200)))
    # 0.299 · 100 + 0.587 · 50 + 0.114 · 200 = 82.05
    assert decode(path, GRAY).shape == (20, 30, 1)
    assert decode(path, GRAY).unique().tolist() == [82]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_as_its_camera_was_held(orientation: int, tmp_path: Path):
    upright = np.zeros((6, 9, 3), np.uint8)
    upright[0, 0] = 255
    lying = Image.fromarray(_as_stored(upright, orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, lying, exif=exif)
    assert np.array_equal(decode(path, Rule(6, 6, 3)).numpy(), upright)


def _as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores, by EXIF's own table: which edge its first row and column are."""
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }
    return np.ascontiguousarray(turns[orientation](upright))


def test_large_pictures_are_shrunk_and_small_ones_stay(tmp_path: Path):
    assert decode(saved(tmp_path, picture(0, 80, 60)), RGB).shape == (20, 27, 3)
    assert decode(saved(tmp_path, picture(0, 60, 80)), RGB).shape == (27, 20, 3)
    assert decode(saved(tmp_path, picture(0, 12, 10)), RGB).shape == (10, 12, 3)
    plain = decode(saved(tmp_path, Image.new("RGB", (400, 300), (9, 8, 7)), "a.jpg"), RGB)
    assert plain.shape == (20, 27, 3)


def test_what_is_shown_is_the_square_in_the_middle():
    pixels = torch.arange(20 * 30 * 3).remainder(251).byte().view(20, 30, 3)
    assert torch.equal(middle(pixels, RGB), pixels[2:18, 7:23])
    assert middle(pixels[:5, :7], RGB).shape == (16, 16, 3)  # enlarged first


def test_what_is_kept_is_what_would_be_decoded(tmp_path: Path):
    files = [Photograph(saved(tmp_path, picture(n), f"{n}.jpg"), RGB) for n in range(5)]
    rows = torch.tensor([3, 0, 3])
    fresh = Photographs(files, RGB).middle(rows)
    assert files[2].keep() == 20 * 27 * 3
    for file in files:
        file.keep()
        file.path.unlink()
    assert torch.equal(Photographs(files, RGB).middle(rows), fresh)
    assert torch.equal(fresh[0], fresh[2])


def test_the_number_of_threads_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = [Photograph(saved(tmp_path, picture(n), f"{n}.jpg"), RGB) for n in range(9)]
    found = []
    for cores in (1, 3, 8):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        photographs._threads.cache_clear()
        found.append(Photographs(files, RGB).middle(torch.arange(9)))
    photographs._threads.cache_clear()
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_taking_and_joining_keep_the_order_and_another_rule_is_refused(tmp_path: Path):
    files = [Photograph(saved(tmp_path, picture(n), f"{n}.png"), RGB) for n in range(4)]
    all_of_them = Photographs(files, RGB)
    some = all_of_them.take(torch.tensor([2, 1])).join(all_of_them.take(torch.tensor([0])))
    assert [file.path.stem for file in some.files] == ["2", "1", "0"]
    with pytest.raises(DataError, match="must be read alike"):
        all_of_them.join(Photographs([], GRAY))


def test_damage_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = saved(tmp_path, picture(0, 300, 200), "a.jpg").read_bytes()
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole[: len(whole) // 2])
    text = tmp_path / "text.jpg"
    text.write_text("no picture at all")
    for path in (cut, text, tmp_path / "absent.jpg"):
        with pytest.raises(DataError, match=rf"{path.name} cannot be read as a picture \("):
            decode(path, RGB)
    monkeypatch.setattr(photographs, "MOST_PIXELS", 1000)
    with pytest.raises(DataError, match="300×200 pixels, more than the 1,000"):
        decode(tmp_path / "a.jpg", RGB)
    deep = Image.new("F", (4, 4), 0.5)
    with pytest.raises(DataError, match="fractions for pixels"):
        decode(saved(tmp_path, deep, "f.tif"), SMALL)
