"""Which pictures train, which validate, and which keep their label.

All choices are pure functions of their arguments. A picture's place in the drawing is a hash of the
split seed and its index, so it does not depend on the order of the pictures or on what was drawn
before.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from tutelage import rng
from tutelage.data.pictures import Pictures, Source
from tutelage.errors import NoEffectWarning, SettingError

__all__ = ["Split", "divide", "draw_stratified"]


@dataclass(frozen=True, eq=False)
class Split:
    """What a run may see; no picture is in two parts.

    Attributes:
        train: labelled pictures, then those without a label, if any.
        validation: for every choice; all labelled.
        test: as the source has it.
    """

    train: Pictures
    validation: Pictures
    test: Pictures


def divide(
    source: Source,
    *,
    limit: int | None = None,
    validation: int | None = None,
    labelled: int | None = None,
    unlabelled: bool = False,
    more: Pictures | None = None,
    split_seed: int = 0,
) -> Split:
    """Carves validation out of the training pictures and limits the labels of the rest.

    Args:
        limit: only the source's first training pictures are used; all if None.
        validation: this many of them validate, stratified; at least 1. Of a source that sets some
            apart, this many of those, or all if None.
        labelled: this many of the rest keep their label, stratified; all if None.
        unlabelled: whether the others are trained on without their label, or left out.
        more: pictures without labels from elsewhere, that are trained on as well.
        split_seed: another number draws other pictures.

    Raises:
        SettingError: a number is out of range, or validation is missing.
    """
    total = _size("limit", limit, len(source.train), "training pictures")
    train = source.train if total == len(source.train) else source.train.take(torch.arange(total))
    rest, apart = _apart(train, source.validation, validation, split_seed)
    known = int(rest.has_label.sum())
    count = _size("labelled", labelled, known, "labelled pictures beside validation")
    keep = _mask(rest, draw_stratified(rest, count, split_seed, "labelled"))
    kept = rest.take(_positions(keep))
    if unlabelled and not (~keep).any():
        warnings.warn(
            "unlabelled: true changes nothing, because every training picture keeps its label; "
            f"say labelled: N with N < {count} to hide some.",
            NoEffectWarning,
            stacklevel=2,
        )
    elif unlabelled:
        kept = kept.join(rest.take(_positions(~keep)).without_labels())
    if more is not None:
        kept = kept.join(more)
    return Split(kept, apart, source.test)


def _apart(
    train: Pictures, given: Pictures | None, validation: int | None, split_seed: int
) -> tuple[Pictures, Pictures]:
    """What may be trained on, and what validates."""
    if given is not None:
        count = _size("validation", validation, len(given), "pictures that are set apart for it")
        if count == len(given):
            return train, given
        return train, given.take(draw_stratified(given, count, split_seed, "validation"))
    if validation is None:
        raise SettingError(
            "validation is missing: this source sets no pictures apart for choices. Say how many "
            "training pictures are to, such as a tenth of them."
        )
    known = int(train.has_label.sum())
    _size("validation", validation, known - 1, "labelled pictures, of which one at least must stay")
    chosen = _mask(train, draw_stratified(train, validation, split_seed, "validation"))
    return train.take(_positions(~chosen)), train.take(_positions(chosen))


def draw_stratified(
    pictures: Pictures, count: int, split_seed: int, name: str
) -> Int64[Tensor, " {count}"]:
    """Positions of `count` labelled pictures, ascending, each class in its share to within one.

    Args:
        count: at most the number of labelled pictures.
        name: of the drawing; drawings of other names are independent.
    """
    known = _positions(pictures.has_label)
    assert 0 <= count <= len(known)
    index = pictures.index[known]
    hashed = rng.keys(split_seed, f"split/{name}", index, torch.zeros_like(index))
    known = known[torch.argsort(hashed, stable=True)]
    known = known[torch.argsort(pictures.labels[known], stable=True)]

    labels = pictures.labels[known]
    sizes = torch.bincount(labels)
    place = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels]
    return known[place < _shares(sizes, count)[labels]].sort().values


def _shares(sizes: Int64[Tensor, " k"], count: int) -> Int64[Tensor, " k"]:
    """`count` divided in proportion to `sizes`: rounded down, then up for the largest remainders.

    >>> _shares(torch.tensor([50, 30, 20]), 5).tolist()  # exactly 2.5, 1.5 and 1
    [3, 1, 1]
    """
    total = max(int(sizes.sum()), 1)
    shares = sizes * count // total
    missing = count - int(shares.sum())
    shares[torch.argsort(sizes * count % total, descending=True, stable=True)[:missing]] += 1
    return shares


def _mask(pictures: Pictures, positions: Int64[Tensor, " m"]) -> Bool[Tensor, " n"]:
    mask = torch.zeros(len(pictures), dtype=torch.bool)
    mask[positions] = True
    return mask


def _positions(mask: Bool[Tensor, " n"]) -> Int64[Tensor, " m"]:
    return mask.nonzero()[:, 0]


def _size(name: str, asked: int | None, available: int, of_what: str) -> int:
    """`asked`, or all that is available."""
    if asked is None:
        return available
    if not 1 <= asked <= available:
        raise SettingError(
            f"{name} must lie in 1 … {available} ({of_what}), but is {asked}; "
            f"choose a number in that range{'' if name == 'validation' else ' or leave it out'}."
        )
    return asked
