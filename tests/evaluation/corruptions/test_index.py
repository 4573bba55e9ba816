"""What holds for every corruption: range, replay, growing distortion, a line in the table."""

import hashlib
import inspect
import os
import re
import subprocess
import sys
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import pictures
from torch import Tensor

from tutelage.errors import SettingError
from tutelage.evaluation.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    blur,
    corrupt,
    corruptions_for,
    digital,
    index,
    noise,
    photometric,
)

SIZES = [(1, 8, 8), (3, 32, 32), (3, 64, 48)]
GROUPS = {"noise": noise, "blur": blur, "photometric": photometric, "digital": digital}

every_corruption = pytest.mark.parametrize("name", CORRUPTIONS)
every_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))


def some_pictures(channels: int, height: int, width: int) -> dict[str, Any]:
    """Some real pictures of this size."""
    return {"images": pictures(12, channels, height, width), "index": torch.arange(12) * 7 + 3}


# --------------------------------------------------------------------------------- the index


@pytest.mark.parametrize("group", GROUPS)
def test_every_function_of_a_group_is_in_the_index(group: str):
    public = {name: getattr(GROUPS[group], name) for name in GROUPS[group].__all__}
    indexed = {name: each for name, each in CORRUPTIONS.items() if each.group == group}
    assert len(indexed) == 4
    assert {name: each.function for name, each in indexed.items()} == public


@every_corruption
def test_the_index_says_which_of_them_draw(name: str):
    corruption = CORRUPTIONS[name]
    assert ("keys" in inspect.signature(corruption.function).parameters) == corruption.random
    assert len(corruption.strengths) == len(SEVERITIES)


def test_the_table_names_each_of_them_in_its_order():
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \|", index.__doc__ or "", re.MULTILINE)
    assert rows == [(each.group, name) for name, each in CORRUPTIONS.items()]


def test_an_unknown_name_is_refused_and_the_nearest_is_named():
    images, index = torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(SettingError, match="no corruption 'gaussian_nose'; did you mean gaussian_"):
        corrupt(images, "gaussian_nose", 1, index=index)


@pytest.mark.parametrize("severity", [-1, 6])
def test_a_severity_out_of_range_is_refused(severity: int):
    images, index = torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(SettingError, match=rf"from 0 .* to 5, but is {severity}"):
        corrupt(images, "fog", severity, index=index)


def test_only_what_needs_color_leaves_gray_pictures_as_they_are():
    gray = some_pictures(1, 8, 8)
    for name in CORRUPTIONS:
        same = torch.equal(corrupt(**gray, name=name, severity=5), gray["images"])
        assert same == (name not in corruptions_for(1))


# ------------------------------------------------------------------------------ what comes out


@every_corruption
@every_size
def test_severity_0_is_the_identity(name: str, size: tuple[int, int, int]):
    some = some_pictures(*size)
    assert torch.equal(corrupt(**some, name=name, severity=0), some["images"])


@every_corruption
@every_size
def test_what_comes_out_are_pixels_of_the_same_shape(name: str, size: tuple[int, int, int]):
    some = some_pictures(*size)
    before = some["images"].clone()
    for severity in SEVERITIES:
        spoiled = corrupt(**some, name=name, severity=severity)
        assert spoiled.shape == before.shape
        assert spoiled.dtype == torch.float32
        assert 0 <= spoiled.min() <= spoiled.max() <= 1
    assert torch.equal(some["images"], before), "its input was changed"


@settings(max_examples=30)
@given(
    name=st.sampled_from(sorted(CORRUPTIONS)),
    severity=st.sampled_from(SEVERITIES),
    count=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    fill=st.sampled_from([0.0, 0.5, 1.0, None]),
)
def test_any_picture_can_be_spoiled(
    name: str,
    severity: int,
    count: int,
    channels: int,
    height: int,
    width: int,
    fill: float | None,
):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, height, width, generator=generator)
    images = images if fill is None else torch.full_like(images, fill)
    spoiled = corrupt(images, name, severity, index=torch.arange(count))
    assert spoiled.shape == images.shape
    assert ((spoiled >= 0) & (spoiled <= 1)).all()  # so there is no NaN


@every_corruption
@pytest.mark.parametrize(
    "shape", [(300, 1, 8, 8), (40, 3, 32, 32), (8, 3, 64, 48), (6, 3, 96, 96)], ids=str
)
def test_distortion_grows_with_severity(name: str, shape: tuple[int, int, int, int]):
    images, index = pictures(*shape), torch.arange(shape[0])
    if name not in corruptions_for(shape[1]):
        pytest.skip("gray pictures stay as they are")
    distortions = [
        float((corrupt(images, name, severity, index=index) - images).double().square().mean())
        for severity in (0, *SEVERITIES)
    ]
    steps = [later - earlier for earlier, later in pairwise(distortions)]
    assert all(step > 1e-6 for step in steps), distortions


# ------------------------------------------------------------------------------------- replay


@every_corruption
@every_size
@settings(max_examples=3)
@given(order=st.permutations(range(12)), cut=st.integers(1, 11))
def test_the_same_bits_in_any_order_and_batch(
    name: str, size: tuple[int, int, int], order: list[int], cut: int
):
    some = some_pictures(*size)
    whole = corrupt(**some, name=name, severity=4)
    mixed = torch.tensor(order)
    for part in (mixed[:cut], mixed[cut:], mixed[:1]):
        chosen = {key: value[part] for key, value in some.items()}
        assert torch.equal(corrupt(**chosen, name=name, severity=4), whole[part])


@every_corruption
def test_the_same_bits_in_any_layout_of_memory(name: str):
    some = some_pictures(3, 32, 32)
    other = some | {"images": some["images"].contiguous(memory_format=torch.channels_last)}
    for severity in (1, 5):
        expected = corrupt(**some, name=name, severity=severity)
        assert torch.equal(corrupt(**other, name=name, severity=severity), expected)


def digest(order: Tensor) -> str:
    """Of all corruptions of the same pictures, drawn up in this order."""
    parts = []
    for channels, height, width in SIZES:
        generator = torch.Generator().manual_seed(0)
        shape = (len(order), channels, height, width)
        images = torch.randint(0, 256, shape, generator=generator).float() / 255
        for name in CORRUPTIONS:
            spoiled = corrupt(images[order], name, 5, index=order, seed=3)
            parts.append(spoiled[order.argsort()].numpy().tobytes())
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.slow
def test_the_same_bits_in_another_process():
    # The other process has one thread, another order, and has drawn other numbers before.
    script = f"""
import runpy, torch
torch.set_num_threads(1)
torch.rand(100)
here = runpy.run_path({__file__!r})
print(here["digest"](torch.arange(16, -1, -1)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.stdout.strip() == digest(torch.arange(17))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_same_bits_on_an_accelerator():
    for size, name, severity in product(SIZES, CORRUPTIONS, SEVERITIES):
        some = some_pictures(*size)
        spoiled = corrupt(some["images"].cuda(), name, severity, index=some["index"])
        assert spoiled.is_cuda
        expected = corrupt(**some, name=name, severity=severity)
        assert torch.equal(spoiled.cpu(), expected), (size, name, severity)


@every_corruption
def test_another_seed_or_index_is_another_picture_if_it_is_random(name: str):
    image = pictures(2, 3, 32, 32)[1:]
    same = image.expand(30, -1, -1, -1).contiguous()
    index = torch.arange(30)
    base = corrupt(same, name, 3, index=index)
    reseeded = corrupt(same, name, 3, index=index, seed=1)
    for other in (reseeded, base.roll(1, 0)):
        differ = (base != other).flatten(1).any(dim=1)
        assert int(differ.sum()) == (30 if CORRUPTIONS[name].random else 0)


def test_each_corruption_draws_its_own_numbers():
    gray, index = torch.full((1, 1, 64, 64), 0.5), torch.tensor([5])
    first = corrupt(gray, "gaussian_noise", 5, index=index) - 0.5
    second = corrupt(gray, "speckle_noise", 5, index=index) - 0.5
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert correlation.abs() < 4 / 64


@every_corruption
def test_no_generator_is_touched(name: str):
    before = torch.get_rng_state()
    corrupt(**some_pictures(3, 32, 32), name=name, severity=3)
    assert torch.equal(torch.get_rng_state(), before)
