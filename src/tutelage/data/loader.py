"""Batches as a pure function of the step: resuming needs no state of a loader."""

import math
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Generic, TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor

from tutelage import rng
from tutelage.data.photographs import Photographs
from tutelage.data.pictures import Pictures
from tutelage.data.views import Mix, Views
from tutelage.errors import NoEffectWarning, SettingError
from tutelage.types import Batch

__all__ = ["EvalLoader", "TrainLoader"]

_T = TypeVar("_T")


class TrainLoader:
    """Batches to train on: always full, running on across the ends of epochs.

    Pictures with and without labels are two streams, each with an order of its own, new in every
    epoch. A batch holds a fixed number of labelled pictures, which stand first. Within a stream
    every picture is visited equally often, to within one visit; with `balanced` every class.

    Args:
        pictures: at least one.
        views: what happens to them.
        batch_size: of all processes together.
        labelled_per_batch: of `batch_size`, if there are pictures with and without labels; their
            proportion if None, and at least 1.
        seed: of order and views.
        num_views: a picture's visits cycle through so many views; a new one each visit if None.
        balanced: labelled pictures of all classes are visited equally often, to within one visit;
            else all pictures are.
        rank, world_size: this process gets every `world_size`-th picture of the batch.
        mix: makes the targets, if the views mix pictures.

    Raises:
        SettingError: settings out of range, or that contradict each other or the pictures.
    """

    def __init__(
        self,
        pictures: Pictures,
        views: Views,
        *,
        batch_size: int,
        labelled_per_batch: int | None = None,
        seed: int,
        num_views: int | None = None,
        balanced: bool = False,
        rank: int = 0,
        world_size: int = 1,
        mix: Mix | None = None,
    ) -> None:
        assert 0 <= rank < world_size
        if not len(pictures):
            raise SettingError("Training needs pictures, but there are none; give it at least one.")
        if batch_size < 1 or batch_size % world_size:
            raise SettingError(
                f"batch_size is that of all processes together, so it must be a positive multiple "
                f"of their number, {world_size}, but is {batch_size}; "
                f"{max(round(batch_size / world_size), 1) * world_size} would do."
            )
        if num_views is not None and num_views < 1:
            raise SettingError(
                f"num_views must be 1 or more, but is {num_views}; leave it out for a new view "
                "each visit."
            )
        if views.mixes and mix is None:
            raise SettingError(
                "mixup and cutmix need to know how targets are mixed; give mix=, or turn them off."
            )
        if views.mixes and pictures.weight is not None:
            raise SettingError(
                "mixup and cutmix make one picture of two, and these have weights of their own. "
                "Turn mixing off, or leave the weights out."
            )
        self._views, self._seed, self._num_views, self._mix = views, seed, num_views, mix
        self._rank, self._world_size = rank, world_size
        self._pool = views.prepare(pictures)
        labelled = self._pool.rows[: self._pool.num_labelled]
        others = self._pool.rows[self._pool.num_labelled :]
        self._num_labelled = _count_labelled(
            batch_size, labelled_per_batch, len(labelled), len(others)
        )
        others_stream = _Stream(others, batch_size - self._num_labelled, seed, "order/unlabelled")
        first = _Stream(labelled, self._num_labelled, seed, "order/labelled")
        if balanced and len(labelled):
            first = _Balanced(labelled, pictures.labels[labelled], self._num_labelled, seed)
        self._streams = [stream for stream in (first, others_stream) if stream.per_batch]
        photographs = isinstance(pictures.pixels, Photographs)
        self._batch = _Ahead(self._make) if photographs else self._make

    @property
    def num_labelled(self) -> int:
        """Labelled pictures in every batch, of all processes together."""
        return self._num_labelled

    def batch(self, step: int) -> Batch:
        """This process's part of the batch of a step; steps count from 0.

        Of photographs the next ones are made meanwhile: they are the same as if they were not.
        """
        return self._batch(step)

    def _make(self, step: int) -> Batch:
        visits = [stream.visit(step) for stream in self._streams]
        mine = slice(self._rank, None, self._world_size)
        rows = torch.cat([rows for rows, _ in visits])[mine]
        view = torch.cat([earlier for _, earlier in visits])[mine]
        if self._num_views is not None:
            view = view % self._num_views
        images, targets = self._views.render(
            self._pool, rows, seed=self._seed, view=view, mix=self._mix
        )
        pictures = self._pool.pictures
        weight = None if pictures.weight is None else pictures.weight[rows]
        return Batch(images, targets, pictures.has_label[rows], pictures.index[rows], view, weight)


class EvalLoader:
    """Pictures as they are, once, in order; the last batch may be short.

    Args:
        pictures: may be none.
        batch_size: of this process.
        rank, world_size: this process gets every `world_size`-th picture; none is padded or
            repeated, so a process may get one fewer than another.

    Raises:
        SettingError: `batch_size` is not positive.
    """

    def __init__(
        self, pictures: Pictures, *, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        assert 0 <= rank < world_size
        if batch_size < 1:
            raise SettingError(f"batch_size must be 1 or more, but is {batch_size}; 128 is usual.")
        self._views = Views()
        self._pool = self._views.prepare(pictures)
        self._rows = torch.arange(len(pictures))[rank::world_size]
        self._batch_size = batch_size

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self._rows) / self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        pictures = self._pool.pictures
        for number in range(len(self)):
            rows = self._rows[number * self._batch_size : (number + 1) * self._batch_size]
            view = torch.zeros_like(rows)
            images, targets = self._views.render(self._pool, rows, seed=0, view=view)
            yield Batch(images, targets, pictures.has_label[rows], pictures.index[rows], view)


class _Stream:
    """Pictures of one kind, visited in a new order each epoch."""

    def __init__(self, rows: Int64[Tensor, " n"], per_batch: int, seed: int, name: str) -> None:
        def order(epoch: int) -> Tensor:
            return rows[rng.permutation(seed, name, epoch, len(rows))]

        self.per_batch = per_batch
        self._size = len(rows)
        self._order = lru_cache(maxsize=2)(order)  # a batch may end one epoch and begin the next

    def visit(self, step: int) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
        """Rows of this step, and how often each was visited before."""
        start, stop = step * self.per_batch, (step + 1) * self.per_batch
        rows, earlier = [], []
        for epoch in range(start // self._size, (stop - 1) // self._size + 1):
            begin = epoch * self._size
            part = self._order(epoch)[max(start - begin, 0) : stop - begin]
            rows.append(part)
            earlier.append(torch.full_like(part, epoch))
        return torch.cat(rows), torch.cat(earlier)


class _Balanced:
    """Labelled pictures, visited so that classes take turns, in a new order each round.

    Each class's pictures are a stream of their own.
    """

    def __init__(
        self, rows: Int64[Tensor, " n"], labels: Int64[Tensor, " n"], per_batch: int, seed: int
    ) -> None:
        self.per_batch = per_batch
        self._classes = [
            _Stream(rows[labels == label], 1, seed, f"order/class/{label}")
            for label in labels.unique().tolist()
        ]

        def order(turn: int) -> list[int]:
            return rng.permutation(seed, "order/classes", turn, len(self._classes)).tolist()

        self._order = lru_cache(maxsize=2)(order)

    def visit(self, step: int) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
        """As `_Stream.visit`."""
        count = len(self._classes)
        found = []
        for place in range(step * self.per_batch, (step + 1) * self.per_batch):
            turn, slot = divmod(place, count)
            found.append(self._classes[self._order(turn)[slot]].visit(turn))
        rows, earlier = zip(*found, strict=True)
        return torch.cat(rows), torch.cat(earlier)


class _Ahead(Generic[_T]):
    """Makes the next batches in a thread while one is trained on.

    Args:
        make: a pure function of the step.
    """

    def __init__(self, make: Callable[[int], _T]) -> None:
        self._make = make
        self._coming: dict[int, Future[_T]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def __call__(self, step: int) -> _T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        ready = self._coming.pop(step, None)
        wanted = range(step + 1, step + 1 + _DEPTH)
        for other in [other for other in self._coming if other not in wanted]:
            self._coming.pop(other).cancel()
        batch = self._make(step) if ready is None else ready.result()
        for later in wanted:
            if later not in self._coming:
                self._coming[later] = self._thread.submit(self._make, later)
        return batch


_DEPTH = 2


def _count_labelled(batch_size: int, asked: int | None, labelled: int, others: int) -> int:
    """How many of a batch have a label."""
    if not labelled or not others:
        only = batch_size if labelled else 0
        if asked is not None and asked != only:
            warnings.warn(
                f"labelled_per_batch: {asked} changes nothing, because "
                f"{'all' if labelled else 'none'} of the pictures have a label; leave it out.",
                NoEffectWarning,
                stacklevel=3,
            )
        return only
    if batch_size < 2:
        raise SettingError(
            "A batch of pictures with and without labels needs at least one of each, but "
            f"batch_size is {batch_size}; choose 2 or more."
        )
    if asked is None:
        return min(max(round(batch_size * labelled / (labelled + others)), 1), batch_size - 1)
    if not 1 <= asked < batch_size:
        raise SettingError(
            f"labelled_per_batch must lie in 1 … {batch_size - 1} for batch_size {batch_size}, so "
            f"that each kind has a place, but is {asked}; leave it out for their proportion."
        )
    return asked
