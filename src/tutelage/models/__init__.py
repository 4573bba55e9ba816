"""The index of networks that are known by name.

A factory takes `num_classes`, `in_channels` and the settings that its signature shows; it draws
weights from the global generator.
"""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

from torch import nn

from tutelage.errors import NetworkError, one_of
from tutelage.models.cifar_resnet import cifar_resnet

__all__ = ["NETWORKS", "create"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet8": partial(cifar_resnet, 8),
    "resnet14": partial(cifar_resnet, 14),
    "resnet20": partial(cifar_resnet, 20),
    "resnet32": partial(cifar_resnet, 32),
    "resnet44": partial(cifar_resnet, 44),
    "resnet56": partial(cifar_resnet, 56),
    "resnet110": partial(cifar_resnet, 110),
}
"""Name in recipes → factory."""


def create(name: str, *, num_classes: int, in_channels: int, **settings: Any) -> nn.Module:
    """Makes a network by name.

    Args:
        name: a key of `NETWORKS`.
        num_classes: length of the output.
        in_channels: 1 for gray pictures, 3 for RGB.
        settings: the factory's own, such as `width`.

    Raises:
        NetworkError: the network has another name, or knows no such setting.
        SettingError: a setting is outside its range.
    """
    one_of("network", name, NETWORKS, NetworkError)
    factory = NETWORKS[name]
    own = signature(factory).parameters.keys() - {"num_classes", "in_channels"}
    for setting in settings:
        one_of(f"setting of {name}", setting, own, NetworkError)
    return factory(num_classes=num_classes, in_channels=in_channels, **settings)
