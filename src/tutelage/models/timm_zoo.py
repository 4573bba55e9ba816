"""Any classification network of timm or torchvision, by the name that it has there.

Both libraries are imported when the first of these names is asked for. Where they share a name
timm's network is meant; `timm/NAME` and `torchvision/NAME` leave no doubt.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, NamedTuple, cast

from torch import nn

from tutelage.errors import NetworkError, first_line

__all__ = ["Wanted", "library_of", "wanted", "zoo_factory", "zoo_names"]

Library = Literal["timm", "torchvision"]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HEADS_BESIDE = ("googlenet", "inception_v3")
"""Of torchvision; in training mode they would put out several answers."""


class Wanted(NamedTuple):
    """What a network was made to be shown.

    Attributes:
        mean, std: one number per channel of an RGB picture.
        size: height and width, where it takes no others as it is; else None.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None


@cache
def library_of(name: str) -> tuple[Library, str] | None:
    """Which library has a network of this name, and its name there; None if neither has."""
    library, _, own = name.rpartition("/")
    if library in ("", "timm") and _timm().is_model(own):
        return "timm", own
    if library in ("", "torchvision") and own in _torchvision_names():
        return "torchvision", own
    return None


def zoo_names() -> list[str]:
    """All names: timm's, then those that only torchvision has."""
    timm = [name for name in _timm().list_models() if not name.endswith("_cifar")]  # ours
    known = set(timm)
    return [*timm, *(name for name in _torchvision_names() if name not in known)]


@cache
def zoo_factory(name: str) -> Callable[..., nn.Module]:
    """What makes a network of the zoo; its signature is the schema of its settings.

    Raises:
        KeyError: neither library has one of this name.
    """
    found = library_of(name)
    if found is None:
        raise KeyError(name)
    library, own = found
    return partial(_from_timm if library == "timm" else _from_torchvision, own)


def wanted(name: str) -> Wanted | None:
    """What the network of this name was made to be shown; None if it is none of the zoo."""
    found = library_of(name)
    if found is None:
        return None
    library, own = found
    if library == "torchvision":
        fixed = own.startswith("vit_") or own == "maxvit_t"
        return Wanted(*_IMAGENET, (224, 224) if fixed else None)
    config = _timm().models.get_pretrained_cfg(own)
    if config is None:
        return Wanted(*_IMAGENET, None)
    size = tuple(config.input_size[1:]) if config.fixed_input_size else None
    return Wanted(tuple(config.mean), tuple(config.std), size)


def _from_timm(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int] | None = None,
    pretrained: bool = False,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    arguments: dict[str, Any] | None = None,
) -> nn.Module:
    """A network of timm.

    Args:
        image_size: height and width, for a network that takes one size only.
        pretrained: fetches timm's weights for it, or takes them from its cache.
        drop_rate, drop_path_rate: of dropout and of stochastic depth; the network's own if None.
        arguments: others of timm's constructor.

    Raises:
        NetworkError: weights cannot be fetched, or the constructor knows no such argument.
    """
    timm = _timm()
    more = dict(arguments or {})
    known = wanted(f"timm/{name}")
    if known is not None and known.size not in (None, image_size) and image_size is not None:
        more.setdefault("img_size", image_size)
    make = partial(
        timm.create_model,
        name,
        num_classes=num_classes,
        in_chans=in_channels,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
        **more,
    )
    return _made(f"timm's {name}", make, pretrained=pretrained)


def _from_torchvision(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int] | None = None,
    pretrained: bool = False,
    arguments: dict[str, Any] | None = None,
) -> nn.Module:
    """A network of torchvision.

    Args:
        image_size: height and width, for a network that takes one size only.
        pretrained: fetches torchvision's default weights for it; its head begins at random unless
            it has as many classes.
        arguments: others of torchvision's constructor.

    Raises:
        NetworkError: as of timm's; or the pictures are not RGB, which all of these take.
    """
    if in_channels != 3:
        raise NetworkError(
            f"torchvision's {name} takes 3 channels, but the pictures have {in_channels}. Set "
            "channels: 3 in its entry, and it is shown gray pictures three times over."
        )
    more = dict(arguments or {})
    if name in _HEADS_BESIDE:
        more = {"aux_logits": False, "init_weights": True, "transform_input": pretrained} | more
    if name == "maxvit_t" and image_size is not None:
        more.setdefault("input_size", image_size)
    if name.startswith("vit_") and image_size is not None:
        if image_size[0] != image_size[1]:
            raise NetworkError(
                f"torchvision's {name} takes square pictures, not {image_size[0]}×{image_size[1]}. "
                "Set size: to one number."
            )
        more.setdefault("image_size", image_size[0])
    make = partial(_torchvision_network, name, num_classes=num_classes, **more)
    return _made(f"torchvision's {name}", make, pretrained=pretrained)


def _torchvision_network(
    name: str, *, pretrained: bool, num_classes: int, **arguments: Any
) -> nn.Module:
    import torchvision.models as zoo

    network = zoo.get_model(name, weights=None, num_classes=num_classes, **arguments)
    if pretrained:
        weights = cast("Any", zoo.get_model_weights(name)).DEFAULT
        state = weights.get_state_dict(progress=False, check_hash=True)
        own = network.state_dict()
        fits = {key: value for key, value in state.items() if _fits(own.get(key), value)}
        network.load_state_dict(fits, strict=False)
    return network


def _fits(own: Any, value: Any) -> bool:
    return own is not None and own.shape == value.shape


def _made(what: str, make: Callable[..., nn.Module], *, pretrained: bool) -> nn.Module:
    """What the library makes, or why it does not, in one sentence."""
    try:
        return make(pretrained=pretrained)
    except (TypeError, AssertionError) as error:
        raise NetworkError(
            f"{what} cannot be made with these settings ({first_line(error)}). Correct the "
            "arguments, size or number of classes in its entry."
        ) from error
    except Exception as error:  # what libraries and networks raise on the way is documented nowhere
        if not pretrained:
            raise
        raise NetworkError(
            f"The weights of {what} could not be fetched ({first_line(error)}). Connect to the "
            "network, or fetch them elsewhere and name the file: FILE:NAME in the place of NAME."
        ) from error


@cache
def _timm() -> Any:
    import timm

    return timm


@cache
def _torchvision_names() -> tuple[str, ...]:
    import torchvision.models as zoo

    return tuple(cast("list[str]", zoo.list_models(module=zoo)))
