"""A student with convolutions learns from a teacher whose modules put out something else."""

from typing import Any

import pytest
import torch
from layouts_in_use import ChannelsLast, Tokens
from torch import nn

from tutelage.distiller import Distiller
from tutelage.methods import AttentionTransfer
from tutelage.models import create
from tutelage.models.network import Network
from tutelage.teachers import LiveTeacher
from tutelage.types import InputSpec, Pair

SPEC = InputSpec(32, 32, 3, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize(
    ("module", "taps", "pairs"),
    [
        (Tokens(1, patch=4), "auto", [("layer3", "blocks")]),
        (Tokens(1, patch=4), [("layer2", "blocks.0")], [("layer2", "blocks.0")]),
        (ChannelsLast(8), "auto", [("layer3", "first")]),
    ],
)
def test_its_maps_are_compared_with_those_of_the_student(
    module: nn.Module, taps: Any, pairs: list[tuple[str, str]], fuse: bool
):
    student = Network(create("resnet8", num_classes=5, in_channels=3, width=2), SPEC)
    teacher = LiveTeacher(Network(module, SPEC), fuse=fuse)
    pupil = Distiller(student, teacher, methods={"at": (AttentionTransfer(), 1.0)}, taps=taps)
    assert pupil.pairs == tuple(Pair(*pair) for pair in pairs)
    images = torch.rand(4, 3, 32, 32)
    out = pupil(images, torch.arange(4))
    assert out.loss.isfinite()
    out.loss.backward()
    seen = pupil.observe(images).teachers[0].features
    assert all(maps.shape[2] == maps.shape[3] in (4, 8) for maps in seen.values())
