"""What may happen to a photograph on its way to training: torchvision's operations, replayable.

Which operation with which numbers is drawn from a hash of (seed, index, view), so a picture's view
is the same in any thread and any batch. RandomResizedCrop: Szegedy et al., 2015 (arXiv 1409.4842),
in torchvision's form: ten attempts, then the middle. RandAugment: Cubuk et al., 2019 (arXiv
1909.13719); TrivialAugment: Müller and Hutter, 2021 (arXiv 2103.10158); both with the operations
and ranges of torchvision's classes. Random erasing: Zhong et al., 2017 (arXiv 1708.04896), with
gray 127 in the place of the picture's mean.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as act

__all__ = ["DRAWS", "MOST_OPERATIONS", "Looks"]

MOST_OPERATIONS = 8
"""Of RandAugment, on one picture."""

_ATTEMPTS, _BINS = 10, 31
_ERASED_AREA, _ERASED_RATIO = (0.02, 1 / 3), (0.3, 10 / 3)
_CROP, _JITTER, _AUGMENT, _ERASE = 4 * _ATTEMPTS, 8, 2 * MOST_OPERATIONS, 5
DRAWS = _CROP + _JITTER + _AUGMENT + _ERASE
"""How many uniform numbers one view of a picture takes."""


class Looks(NamedTuple):
    """Settings; see `Views`.

    Attributes:
        size: height and width of what is shown.
    """

    size: tuple[int, int]
    area: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    rand_augment: int = 0
    magnitude: int = 9
    trivial_augment: bool = False
    erase: float = 0.0

    @property
    def any(self) -> bool:
        """Whether anything happens at all."""
        return bool(
            self.area or any(self.jitter) or self.rand_augment or self.trivial_augment or self.erase
        )

    def look(
        self, pixels: UInt8[Tensor, "h w c"], draws: Float32[Tensor, " d"]
    ) -> UInt8[Tensor, "h2 w2 c"]:
        """One view of one picture, in its size or, with `area`, in `size`.

        Args:
            draws: `DRAWS` uniform numbers in [0, 1).
        """
        crop, jitter, augment, erase = draws.split([_CROP, _JITTER, _AUGMENT, _ERASE])
        planes = pixels.permute(2, 0, 1)
        if self.area is not None:
            top, left, height, width = _window(planes, self.area, self.ratio, crop)
            planes = act.resized_crop(
                planes, top, left, height, width, list(self.size), antialias=True
            )
        planes = self._augmented(planes, augment)
        if any(self.jitter):
            planes = _jittered(planes, self.jitter, jitter)
        if self.erase:
            planes = _erased(planes, self.erase, erase)
        return planes.permute(1, 2, 0)

    def _augmented(self, planes: Tensor, draws: Tensor) -> Tensor:
        numbers = draws.tolist()
        if self.trivial_augment:
            names = tuple(_TRIVIAL)
            name = names[int(numbers[0] * len(names))]
            place = int(numbers[1] * _BINS)
            return _apply(planes, name, _TRIVIAL[name], place, sign=numbers[2] < 0.5)
        space = _rand_space(planes.shape[-2], planes.shape[-1])
        names = tuple(space)
        for number in range(self.rand_augment):
            which, sign = numbers[2 * number : 2 * number + 2]
            name = names[int(which * len(names))]
            planes = _apply(planes, name, space[name], self.magnitude, sign=sign < 0.5)
        return planes


def _window(
    planes: Tensor, area: tuple[float, float], ratio: tuple[float, float], draws: Tensor
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random window; of the middle if no attempt fits."""
    height, width = planes.shape[-2:]
    logs = [math.log(end) for end in ratio]
    for share, shape, down, right in draws.double().view(_ATTEMPTS, 4).tolist():
        wanted = height * width * (area[0] + share * (area[1] - area[0]))
        aspect = math.exp(logs[0] + shape * (logs[1] - logs[0]))
        wide, high = round(math.sqrt(wanted * aspect)), round(math.sqrt(wanted / aspect))
        if 0 < wide <= width and 0 < high <= height:
            top, left = int(down * (height - high + 1)), int(right * (width - wide + 1))
            return top, left, high, wide
    bounded = min(max(width / height, ratio[0]), ratio[1])
    if width / height < bounded:
        high, wide = round(width / bounded), width
    else:
        high, wide = height, round(height * bounded)
    high, wide = min(high, height), min(wide, width)
    return (height - high) // 2, (width - wide) // 2, high, wide


def _jittered(planes: Tensor, strength: tuple[float, ...], draws: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in a random order."""
    numbers = draws.tolist()
    order = sorted(range(4), key=lambda place: numbers[4 + place])
    for place in order:
        amount, draw = strength[place], 2 * numbers[place] - 1
        if not amount or (place >= 2 and planes.shape[0] == 1):
            continue
        if place == 3:
            planes = act.adjust_hue(planes, amount * draw)
        else:
            change = (act.adjust_brightness, act.adjust_contrast, act.adjust_saturation)[place]
            planes = change(planes, max(1 + amount * draw, 0.0))
    return planes


def _erased(planes: Tensor, probability: float, draws: Tensor) -> Tensor:
    """A gray rectangle, with this probability."""
    coin, share, shape, down, right = draws.double().tolist()
    if coin >= probability:
        return planes
    height, width = planes.shape[-2:]
    wanted = height * width * (_ERASED_AREA[0] + share * (_ERASED_AREA[1] - _ERASED_AREA[0]))
    logs = [math.log(end) for end in _ERASED_RATIO]
    aspect = math.exp(logs[0] + shape * (logs[1] - logs[0]))
    high = min(max(round(math.sqrt(wanted * aspect)), 1), height)
    wide = min(max(round(math.sqrt(wanted / aspect)), 1), width)
    top, left = int(down * (height - high + 1)), int(right * (width - wide + 1))
    planes = planes.clone()
    planes[:, top : top + high, left : left + wide] = 127
    return planes


# RandAugment and TrivialAugment


class _Range(NamedTuple):
    """Magnitudes of an operation in 31 bins, the last the strongest; whether it has a sign."""

    last: float
    signed: bool
    first: float = 0.0
    bits: bool = False

    def at(self, place: int) -> float:
        if self.bits:  # how many bits stay
            return round(8 - place * self.last / (_BINS - 1))
        return float(_bins(self.first, self.last)[place])


@lru_cache(maxsize=64)
def _bins(first: float, last: float) -> Tensor:
    return torch.linspace(first, last, _BINS)  # rounded as torchvision's


def _space(
    shear: float, shifts: tuple[float, float], turn: float, change: float, bits: float
) -> dict[str, _Range | None]:
    """The operations, in torchvision's order.

    Args:
        shear, shifts, turn, change, bits: the strongest shear; shift in pixels, across and down;
            degrees; relative change of color; bits that posterizing takes.
    """
    return {
        "identity": None,
        "shear_x": _Range(shear, True),
        "shear_y": _Range(shear, True),
        "translate_x": _Range(shifts[0], True),
        "translate_y": _Range(shifts[1], True),
        "rotate": _Range(turn, True),
        **{name: _Range(change, True) for name in ("brightness", "color", "contrast", "sharpness")},
        "posterize": _Range(bits, False, bits=True),
        "solarize": _Range(0.0, False, first=1.0),
        "autocontrast": None,
        "equalize": None,
    }


def _rand_space(height: int, width: int) -> dict[str, _Range | None]:
    return _space(0.3, (150.0 / 331.0 * width, 150.0 / 331.0 * height), 30.0, 0.9, 4)


_TRIVIAL = _space(0.99, (32.0, 32.0), 135.0, 0.99, 6)


def _apply(planes: Tensor, name: str, span: _Range | None, place: int, *, sign: bool) -> Tensor:
    """An operation at a bin of its magnitudes."""
    if name == "identity" or (name == "color" and planes.shape[0] == 1):
        return planes
    value = 0.0 if span is None else span.at(place)
    if span is not None and span.signed and sign:
        value = -value
    return _OPERATIONS[name](planes, value)


def _moved(planes: Tensor, **how: Any) -> Tensor:
    still: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    return act.affine(planes, **still | how, interpolation=InterpolationMode.NEAREST)


def _sheared(planes: Tensor, degrees: list[float]) -> Tensor:
    return _moved(planes, shear=degrees, center=[0.0, 0.0])


_OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "shear_x": lambda planes, v: _sheared(planes, [math.degrees(math.atan(v)), 0.0]),
    "shear_y": lambda planes, v: _sheared(planes, [0.0, math.degrees(math.atan(v))]),
    "translate_x": lambda planes, v: _moved(planes, translate=[int(v), 0]),
    "translate_y": lambda planes, v: _moved(planes, translate=[0, int(v)]),
    "rotate": lambda planes, v: act.rotate(planes, v, interpolation=InterpolationMode.NEAREST),
    "brightness": lambda planes, v: act.adjust_brightness(planes, 1 + v),
    "color": lambda planes, v: act.adjust_saturation(planes, 1 + v),
    "contrast": lambda planes, v: act.adjust_contrast(planes, 1 + v),
    "sharpness": lambda planes, v: act.adjust_sharpness(planes, 1 + v),
    "posterize": lambda planes, v: act.posterize(planes, int(v)),
    "solarize": lambda planes, v: act.solarize(planes, 255 * v),
    "autocontrast": lambda planes, _: act.autocontrast(planes),
    "equalize": lambda planes, _: act.equalize(planes),
}
