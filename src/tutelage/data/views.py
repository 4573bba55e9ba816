"""Augmentation that can be replayed: a view is a pure function of (seed, index, view number).

Random numbers come from a hash, not from a stream, so a picture's view has the same pixels, bit for
bit, in any batch order and size, on any number of processes. To keep that true, nothing here may
round differently for a neighbor in the batch: bytes are moved whole, and the few float operations
are single ones that IEEE 754 defines exactly (no `lerp`, whose vector form may fuse, and no
logarithms or powers, whose vector form differs in the last bit).

Mixup: Zhang, Cisse, Dauphin, Lopez-Paz, 2018 (arXiv 1710.09412). CutMix: Yun et al., 2019
(arXiv 1905.04899). Cutout: DeVries and Taylor, 2017 (arXiv 1708.04552).
**Differences**: λ is drawn per picture, not per batch, from 4,096 quantiles of its Beta
distribution; the partner is any picture of the pool, not one of the batch; cut-outs are black like
the padding, where the paper fills with the mean; odd sides are not rounded down to even ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from scipy.special import betaincinv
from torch import Tensor

from tutelage import rng
from tutelage.data.looks import DRAWS, MOST_OPERATIONS, Looks
from tutelage.data.pictures import Pictures
from tutelage.errors import SettingError

__all__ = ["DRAWING", "Mix", "Prepared", "Views"]

DRAWING = 1
"""Raised with any change after which the same settings, seed, index and view give other pixels."""

Mix = Callable[[Int64[Tensor, " n"], Int64[Tensor, " n"], Float[Tensor, " n"]], Any]
"""(labels, partners' labels, share of the first in the picture) → targets of the mixed pictures."""

_QUANTILES = 4096


@dataclass(frozen=True, eq=False)
class Prepared:
    """Pictures that some views are drawn from; `Views.prepare` makes it.

    Attributes:
        pictures: all of them.
        rows: their positions, labelled ones first, so that partners can be drawn by kind.
        num_labelled: how many of `rows` have a label.
    """

    pictures: Pictures
    rows: Int64[Tensor, " n"]
    num_labelled: int


@dataclass(frozen=True)
class Views:
    """What may happen to a picture. The default is nothing.

    Attributes:
        crop_padding: pixels of black around the picture, from which a window of its own size is
            cut; 4 is usual at 32×32.
        flip: mirrored left to right, half of the time.
        cutout: side of a black square around a random pixel, cut off at the border; 0 for none.
        mixup: α of Beta(α, α), the share of the picture in its mean with a partner; 0 for none.
        cutmix: α of Beta(α, α), the share of the picture that is not replaced by a partner's; 0 for
            none. With mixup and cutmix a coin decides.
        crop_area: a random window of this share of the whole picture, brought to the size that is
            shown (RandomResizedCrop); [0.08, 1] is usual for photographs, [0.35, 1] gentler. None:
            the middle.
        crop_ratio: of such a window, width to height.
        color_jitter: how far brightness, contrast, saturation and hue may change;
            [0.4, 0.4, 0.4, 0] is usual.
        rand_augment: so many of RandAugment's operations, one after the other; 2 is usual.
        magnitude: of these, 0 to 30.
        trivial_augment: one operation of random magnitude.
        erasing: probability of a gray rectangle.

    Raises:
        SettingError: a number is outside its range, or two settings exclude each other.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    crop_area: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    rand_augment: int = 0
    magnitude: int = 9
    trivial_augment: bool = False
    erasing: float = 0.0

    def __post_init__(self) -> None:
        _check_looks(self)
        for name in ("crop_padding", "cutout", "mixup", "cutmix"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise SettingError(f"{name} must be 0 (off) or more, but is {value}; leave it out.")

    @property
    def mixes(self) -> bool:
        """Whether targets become shares of two pictures."""
        return self.mixup > 0 or self.cutmix > 0

    def prepare(self, pictures: Pictures) -> Prepared:
        """What `render` draws from.

        Raises:
            SettingError: the pictures are too small for these settings.
        """
        side = min(pictures.shape[:2])
        for name, value in (("crop_padding", self.crop_padding), ("cutout", self.cutout)):
            if value >= side:
                raise SettingError(
                    f"{name} must be smaller than the pictures, which have {side} pixels, but is "
                    f"{value}; {side // 8} to {side // 2} is usual."
                )
        rows = torch.argsort((~pictures.has_label).byte(), stable=True)
        return Prepared(pictures, rows, int(pictures.has_label.sum()))

    def render(
        self,
        pool: Prepared,
        rows: Int64[Tensor, " n"],
        *,
        seed: int,
        view: Int64[Tensor, " n"],
        mix: Mix | None = None,
    ) -> tuple[Float32[Tensor, "n c h w"], Any]:
        """The views of some pictures.

        Args:
            rows: positions in the pool.
            view: number of the view of each.
            mix: makes the targets if these views mix pictures; labels are the targets otherwise.

        Returns:
            Pixels in [0, 1], in channels_last memory, and targets. If views mix, they depend on the
            pool too, which the partner is drawn from: a labelled picture's from the labelled ones,
            any other's from the others.
        """
        images = _to_float(self._augment(pool.pictures, rows, seed, view))
        labels = pool.pictures.labels[rows]
        if not self.mixes:
            return images, labels
        assert mix is not None

        keys = rng.keys(seed, "view/mix", pool.pictures.index[rows], view)
        draws = rng.uniforms(keys, (5,)).unbind(dim=1)
        partners = _partners(pool, rows, draws[0])
        others = _to_float(self._augment(pool.pictures, partners, seed, view))
        keep, share = self._shares(draws[1:], images.shape[2], images.shape[3])
        images = images * keep[:, None] + others * (1 - keep)[:, None]
        return images, mix(labels, pool.pictures.labels[partners], share)

    def _looked_at(
        self, pictures: Pictures, rows: Int64[Tensor, " n"], seed: int, view: Int64[Tensor, " n"]
    ) -> UInt8[Tensor, "n h w c"]:
        """What happens to pictures one by one."""
        looks = Looks(
            pictures.shape[:2],
            self.crop_area,
            self.crop_ratio,
            self.color_jitter,
            self.rand_augment,
            self.magnitude,
            self.trivial_augment,
            self.erasing,
        )
        if not looks.any:
            return pictures.shown(rows)
        draws = rng.uniforms(rng.keys(seed, "view/look", pictures.index[rows], view), (DRAWS,))
        return pictures.looks(
            rows,
            lambda pixels, place: looks.look(pixels, draws[place]),
            whole=self.crop_area is not None,
        )

    def _augment(
        self, pictures: Pictures, rows: Int64[Tensor, " n"], seed: int, view: Int64[Tensor, " n"]
    ) -> UInt8[Tensor, "n h w c"]:
        """Everything that happens to a picture alone."""
        images, index = self._looked_at(pictures, rows, seed, view), pictures.index[rows]
        height, width = images.shape[1:3]
        if self.crop_padding:
            draws = rng.uniforms(rng.keys(seed, "view/crop", index, view), (2,))
            images = _crop(images, self.crop_padding, _below(draws, 2 * self.crop_padding + 1))
        if self.flip:
            mirrored = rng.uniforms(rng.keys(seed, "view/flip", index, view)) < 0.5
            mirrored = mirrored.nonzero()[:, 0]
            images[mirrored] = images[mirrored].flip(2)
        if self.cutout:
            draws = rng.uniforms(rng.keys(seed, "view/cutout", index, view), (2,))
            side = torch.full_like(index, self.cutout)
            inside = _box(draws[:, 0], draws[:, 1], side, side, height, width)
            images.masked_fill_(inside[..., None], 0)
        return images

    def _shares(
        self, draws: tuple[Tensor, ...], height: int, width: int
    ) -> tuple[Float32[Tensor, "n h w"], Float32[Tensor, " n"]]:
        """How much of the picture stays at each pixel, and in all."""
        coin, quantile, center_y, center_x = draws
        cuts = coin < 0.5 if self.mixup and self.cutmix else torch.full_like(coin, self.cutmix) > 0
        place = _below(quantile, _QUANTILES)
        mean = torch.zeros_like(coin)
        keep = torch.ones(len(coin), height, width, device=coin.device)
        if self.mixup:
            mean = _beta_quantiles(self.mixup)[place].float()
        if self.cutmix:
            side = (1 - _beta_quantiles(self.cutmix)[place]).sqrt()
            high, wide = (side * height).long(), (side * width).long()
            inside = _box(center_y, center_x, high, wide, height, width)
            keep.masked_fill_(inside, 0)
            outside = height * width - inside.sum(dim=(1, 2))
            mean = torch.where(cuts, outside.float() / (height * width), mean)
        return torch.where(cuts[:, None, None], keep, mean[:, None, None]), mean


def _check_looks(views: Views) -> None:
    """What `crop_area` and its neighbors may be."""
    if views.crop_area is not None and not 0 < views.crop_area[0] <= views.crop_area[1] <= 1:
        raise SettingError(
            f"crop_area is the smallest and largest share of the picture, between 0 and 1, but is "
            f"{list(views.crop_area)}; [0.08, 1] is usual."
        )
    if not 0 < views.crop_ratio[0] <= views.crop_ratio[1]:
        raise SettingError(
            "crop_ratio is the smallest and largest width to height, above 0, but is "
            f"{list(views.crop_ratio)}; leave it out."
        )
    jitter = views.color_jitter
    if not all(0 <= amount < float("inf") for amount in jitter) or jitter[3] > 0.5:
        raise SettingError(
            "color_jitter says how far brightness, contrast, saturation and hue may change: 0 "
            f"(off) or more, hue at most 0.5, but is {list(jitter)}; [0.4, 0.4, 0.4, 0] is usual."
        )
    bounds = {"rand_augment": MOST_OPERATIONS, "magnitude": 30, "erasing": 1}
    for name, most in bounds.items():
        if not 0 <= getattr(views, name) <= most:
            raise SettingError(
                f"{name} must lie in 0 … {most}, but is {getattr(views, name)}; leave it out."
            )
    if views.rand_augment and views.trivial_augment:
        raise SettingError(
            "rand_augment and trivial_augment exclude each other, but both are set; leave one out."
        )


def _crop(
    images: UInt8[Tensor, "n h w c"], padding: int, corners: Int64[Tensor, "n 2"]
) -> UInt8[Tensor, "n h w c"]:
    """Windows of the pictures' own size in their padded form; corners are (top, left)."""
    count, height, width, channels = images.shape
    framed = images.new_zeros(count, height + 2 * padding, width + 2 * padding, channels)
    framed[:, padding : padding + height, padding : padding + width] = images
    # All windows there are, overlapping in memory; a row of one is consecutive bytes.
    picture, line, pixel, _ = framed.stride()
    windows = framed.as_strided(
        (count, 2 * padding + 1, 2 * padding + 1, height, width * channels),
        (picture, line, pixel, line, 1),
    )
    picked = windows[torch.arange(count), corners[:, 0], corners[:, 1]]
    return picked.reshape(count, height, width, channels)


def _box(
    center_y: Float[Tensor, " n"],
    center_x: Float[Tensor, " n"],
    high: Int64[Tensor, " n"],
    wide: Int64[Tensor, " n"],
    height: int,
    width: int,
) -> Bool[Tensor, "n {height} {width}"]:
    """Rectangles around random pixels, cut off at the border; centers are uniform in [0, 1)."""

    def covered(center: Tensor, side: Tensor, length: int) -> Tensor:
        start = (_below(center, length) - side // 2)[:, None]
        place = torch.arange(length, device=start.device)
        return (place >= start) & (place < start + side[:, None])

    return covered(center_y, high, height)[:, :, None] & covered(center_x, wide, width)[:, None, :]


def _partners(
    pool: Prepared, rows: Int64[Tensor, " n"], draws: Float[Tensor, " n"]
) -> Int64[Tensor, " n"]:
    """A picture of the same kind for each."""
    has_label = pool.pictures.has_label[rows]
    among_labelled = _below(draws, pool.num_labelled)
    among_others = _below(draws, len(pool.rows) - pool.num_labelled) + pool.num_labelled
    return pool.rows[torch.where(has_label, among_labelled, among_others)]


def _below(draws: Float[Tensor, "*n"], bound: int) -> Int64[Tensor, "*n"]:
    """Uniform numbers in [0, 1) → uniform integers in 0 … bound − 1."""
    return (draws.double() * bound).long()  # in double, the product stays below the bound


def _to_float(images: UInt8[Tensor, "n h w c"]) -> Float32[Tensor, "n c h w"]:
    return images.permute(0, 3, 1, 2).float().div_(255)


@lru_cache(maxsize=16)
def _beta_quantiles(alpha: float) -> Tensor:
    """The quantile function of Beta(α, α) in the middle of 4,096 equal steps, float64."""
    middles = (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES
    return torch.from_numpy(betaincinv(alpha, alpha, middles.numpy()))
