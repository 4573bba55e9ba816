"""The stages of known networks, with timm's own list of their features as the key.

Networks live on the meta device, where a pass computes shapes alone.
"""

from typing import Any, NamedTuple

import pytest
import timm
import torch
import torchvision

from tutelage.stages import Stage
from tutelage.taps import find_stages


class Case(NamedTuple):
    """A network, the side of its pictures, and whether it is asked each time."""

    name: str
    side: int = 64
    quick: bool = False


ZOO = [
    Case("resnet18", quick=True),
    Case("resnet50"),
    Case("resnetv2_50"),
    Case("regnetx_002"),
    Case("regnety_002"),
    Case("efficientnet_b0", quick=True),
    Case("efficientnetv2_rw_t", 96),
    Case("mobilenetv2_100"),
    Case("mobilenetv3_small_050"),
    Case("mobilenetv3_large_100"),
    Case("mobilenetv4_conv_small"),
    Case("convnext_atto", quick=True),
    Case("convnextv2_atto"),
    Case("densenet121"),
    Case("vgg11"),
    Case("vgg11_bn"),
    Case("repvgg_a0"),
    Case("mobilevit_xxs"),
    Case("mobilevitv2_050"),
    Case("coatnet_pico_rw_224", 224),
    Case("maxvit_pico_rw_256", 256),
    Case("efficientformer_l1", 224),
    Case("levit_128s", 224),
    Case("swin_tiny_patch4_window7_224", 224, quick=True),
    Case("hrnet_w18_small"),
    Case("selecsls42", 96, quick=True),
    Case("inception_v3", 299),
    Case("inception_v4", 299),
    Case("vit_tiny_patch16_224", 224, quick=True),
    Case("deit_tiny_distilled_patch16_224", 224),
]

DIFFER = {
    # The 1×1 convolution before pooling widens 80 channels to 320. timm counts it here, and not in
    # EfficientNet; it is no stage for us.
    "mobilevit_xxs": {32: (80, 320)},
    # timm stops before a block that cuts 73 places to 71, still at stride 4.
    "inception_v4": {4: (192, 160)},
}
"""Network → stride → channels: ours, timm's."""


def stages_of(case: Case) -> tuple[Any, list[Stage]]:
    with torch.device("meta"):
        network = timm.create_model(case.name, pretrained=False).eval()
        return network, find_stages(network, torch.zeros(2, 3, case.side, case.side))


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c.name, marks=() if c.quick else pytest.mark.slow) for c in ZOO],
)
def test_stages_have_the_strides_and_channels_that_timm_knows(case: Case):
    network, stages = stages_of(case)
    ours = {stage.stride: stage.shape[0] for stage in stages}
    info = network.feature_info
    known = {one["reduction"]: one["num_chs"] for one in getattr(info, "info", info)}
    assert len(ours) == len(stages)
    assert known
    differ = {
        stride: (ours.get((stride, stride)), channels)
        for stride, channels in known.items()
        if ours.get((stride, stride)) != channels
    }
    assert differ == DIFFER.get(case.name, {})
    assert not ours.keys() - {(2**n, 2**n) for n in range(7)}


def test_thirty_are_asked_and_two_may_differ():
    assert len(ZOO) == 30
    assert len(DIFFER) <= 2
    assert sum(case.quick for case in ZOO) == 6


def test_blocks_of_tokens_are_one_stage():
    _, stages = stages_of(Case("deit_tiny_patch16_224", 224))
    assert stages == [Stage("blocks", (192, 14, 14), (16, 16), "tokens")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("swin_tiny_patch4_window7_224", [f"layers.{n}" for n in range(4)]),
        ("vit_small_patch16_dinov3", ["blocks.11"]),
        ("levit_128s", ["stem.act1", "stem.act2", "stem.act3"] + [f"stages.{n}" for n in range(3)]),
        ("tresnet_m", [f"body.layer{n}" for n in range(1, 5)]),  # timm names the first ''
    ],
)
def test_stages_have_the_names_of_whole_blocks(name: str, names: list[str]):
    _, stages = stages_of(Case(name, 256 if "dino" in name else 224))
    assert [stage.name for stage in stages] == names


def test_shuffle_net_has_a_stage_per_stride():
    with torch.device("meta"):
        network = torchvision.models.shufflenet_v2_x0_5()
        stages = find_stages(network, torch.zeros(2, 3, 64, 64))
    assert [(stage.name, stage.shape[0], stage.stride[0]) for stage in stages] == [
        ("conv1", 24, 2),
        ("maxpool", 24, 4),
        ("stage2", 48, 8),
        ("stage3", 96, 16),
        ("stage4", 192, 32),
    ]
