"""Importing this makes our networks known to timm, under names that end in `_cifar`.

    import timm, tutelage.models.with_timm
    timm.create_model("resnet8_cifar", num_classes=10, checkpoint_path="…/student.safetensors")

The file is what a run leaves. timm's networks take normalized pictures: a run's record says by
which mean and standard deviation.
"""

import sys
from collections.abc import Callable
from typing import Any

import timm
from torch import nn

from tutelage.errors import NetworkError
from tutelage.models import NETWORKS, create

__all__: list[str] = []


def _entry(name: str) -> Callable[..., nn.Module]:
    def make(
        pretrained: bool = False, *, num_classes: int = 10, in_chans: int = 3, **settings: Any
    ) -> nn.Module:
        if pretrained:
            raise NetworkError(
                f"There are no weights of {name} to fetch. Give checkpoint_path=, such as a run's "
                "student.safetensors."
            )
        own = {key: value for key, value in settings.items() if key not in _TIMMS}
        return create(name, num_classes=num_classes, in_channels=in_chans, **own)

    make.__name__ = make.__qualname__ = f"{name}_cifar"
    make.__module__ = __name__
    return make


_TIMMS = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""What timm hands to every entry point."""

for _name in NETWORKS:
    _made = _entry(_name)
    setattr(sys.modules[__name__], _made.__name__, _made)
    timm.models.register_model(_made)
