"""The index of networks that are known by name: ours, and those of timm and torchvision.

A factory takes `num_classes`, `in_channels`, perhaps `image_size`, and the settings that its
signature shows; it draws weights from the global generator.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import signature
from typing import Any

from torch import nn

from tutelage.errors import NetworkError, one_of
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.timm_zoo import Wanted, library_of, wanted, zoo_factory, zoo_names

__all__ = ["BY_NAME", "NETWORKS", "SUPPLIED", "create", "library", "made_for"]

SUPPLIED = frozenset({"num_classes", "in_channels", "image_size"})
"""Arguments of a factory that the data give, not a recipe."""

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet8": partial(cifar_resnet, 8),
    "resnet14": partial(cifar_resnet, 14),
    "resnet20": partial(cifar_resnet, 20),
    "resnet32": partial(cifar_resnet, 32),
    "resnet44": partial(cifar_resnet, 44),
    "resnet56": partial(cifar_resnet, 56),
    "resnet110": partial(cifar_resnet, 110),
    "resnet": partial(cifar_resnet, depth=20),  # of any `depth` 6n + 2
}
"""Ours: name in recipes → factory."""


class _ByName(Mapping[str, Callable[..., nn.Module]]):
    """Ours first; the zoo is looked into only for other names, since that takes seconds."""

    def __getitem__(self, name: str) -> Callable[..., nn.Module]:
        return NETWORKS[name] if name in NETWORKS else zoo_factory(name)

    def __contains__(self, name: object) -> bool:
        return name in NETWORKS or (isinstance(name, str) and library_of(name) is not None)

    def __iter__(self) -> Iterator[str]:
        return iter([*NETWORKS, *zoo_names()])

    def __len__(self) -> int:
        return sum(1 for _ in self)


BY_NAME: Mapping[str, Callable[..., nn.Module]] = _ByName()
"""Every name that a recipe may give a network → factory."""


def library(name: str) -> str | None:
    """From which library a network is: "timm" or "torchvision"; None if it is ours, or unknown."""
    found = None if name in NETWORKS else library_of(name)
    return found and found[0]


def made_for(name: str) -> Wanted | None:
    """What a network of the zoo was made to be shown; None of ours, which take anything."""
    return None if name in NETWORKS else wanted(name)


def create(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int] | None = None,
    **settings: Any,
) -> nn.Module:
    """Makes a network by name.

    Args:
        name: in `BY_NAME`.
        num_classes: length of the output.
        in_channels: 1 for gray pictures, 3 for RGB.
        image_size: height and width of what it will be shown, which some must know.
        settings: the factory's own, such as `width`.

    Raises:
        NetworkError: the network has another name, or knows no such setting.
        SettingError: a setting is outside its range.
    """
    if name not in BY_NAME:
        one_of("network", name, BY_NAME, NetworkError)
    factory = BY_NAME[name]
    known = signature(factory).parameters.keys()
    for setting in settings:
        one_of(f"setting of {name}", setting, known - SUPPLIED, NetworkError)
    if "image_size" in known:
        settings["image_size"] = image_size
    return factory(num_classes=num_classes, in_channels=in_channels, **settings)
