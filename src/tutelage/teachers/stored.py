"""A teacher that has answered before: its answers are read, and no network is loaded."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from tutelage.errors import NetworkError, StoreError, nearest
from tutelage.taps import Stage
from tutelage.teachers.manifest import EVALUATED, MEASURED, TRAIN
from tutelage.teachers.store import Store
from tutelage.types import Batch, Observation

__all__ = ["StoredTeacher"]

_Entries = Callable[[str, Tensor, Tensor], Observation]
"""Part, views and places → answers."""


@final
class StoredTeacher:
    """Answers from a store that `tutelage cache` has made, as the live teacher would.

    A batch must say which samples it holds (`index`) and which view of each (`view`): a sample's
    n-th visit is view n modulo the number of views. Pictures of the store's validation and test
    parts are answered as they are, without augmentation, for view 0.

    Args:
        path: the store's folder, or the store where somebody has opened it.
        with_test: whether test pictures may be asked for; a choice must not see them.

    Attributes:
        store: the files.
        num_views: of each training picture.

    Raises:
        StoreError: it is absent, unfinished or damaged.
    """

    def __init__(self, path: Path | str | Store, *, with_test: bool = True) -> None:
        self.store = path if isinstance(path, Store) else Store(Path(path))
        self._with_test = with_test
        self._parts = (TRAIN, *(part for part in EVALUATED if with_test or part != "test"))
        manifest = self.store.manifest
        self.num_views = manifest.parts[TRAIN].views
        self._answer: Callable[[Batch, tuple[str, ...]], Observation] = self._read

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the same store."""
        return partial(StoredTeacher, with_test=self._with_test), (self.store.folder,)

    def __deepcopy__(self, memo: dict[int, Any]) -> "StoredTeacher":
        """Another teacher on the same open files, which nobody changes."""
        return StoredTeacher(self.store, with_test=self._with_test)

    def without_test(self) -> "StoredTeacher":
        """The same, but for test pictures."""
        return StoredTeacher(self.store, with_test=False)

    @property
    def about(self) -> dict[str, Any]:
        """What was noted of the teacher when it was asked, such as its cost."""
        return dict(self.store.manifest.about)

    @property
    def answers(self) -> bool:
        """Whether its answers say anything of the data's classes, or it has only maps."""
        parts = self.store.manifest.fingerprint.get("class_map")
        return parts is None or any(parts)

    @property
    def takes_pixels(self) -> bool:
        """It looks at no images."""
        return True

    def tap(self, names: Sequence[str], image_size: tuple[int, int, int] | None = None) -> None:
        """Checks that these maps are in the store.

        Raises:
            NetworkError: one is not.
        """
        del image_size
        maps = self.store.manifest.maps
        for name in names:
            if name not in maps:
                held = nearest(name, maps) if maps else "it holds no maps at all"
                raise NetworkError(
                    f"The store in {self.store.folder} has no maps of the teacher's tap {name!r}; "
                    f"{held}. Make one with this recipe: `tutelage cache` keeps the maps that its "
                    "methods look at."
                )

    def stages(self, image_size: tuple[int, int, int] | None = None) -> list[Stage]:
        """The teacher's stages, as they were when it was asked."""
        del image_size
        stages = []
        for stage in self.store.manifest.about["stages"]:
            (channels, height, width), (down, across) = stage["shape"], stage["stride"]
            stages.append(Stage(stage["name"], (channels, height, width), (down, across)))
        return stages

    def dry_run(
        self, taps: Sequence[str], image_size: tuple[int, int, int] | None = None
    ) -> Observation:
        """Zeros in the shapes of two answers."""
        del image_size
        self.tap(taps)
        manifest = self.store.manifest
        codes = {tap: manifest.maps[tap] for tap in taps}
        maps = {tap: torch.zeros(2, *code.shape, dtype=code.type) for tap, code in codes.items()}
        return Observation(torch.zeros(2, manifest.logits.num_classes), maps)

    def observe(self, batch: Batch, taps: Sequence[str] = ()) -> Observation:
        """The stored answers to a batch, on the device of its images.

        An index or view that lies on an accelerator is waited for; our own loop leaves them on the
        CPU.

        Raises:
            StoreError: the batch does not say which samples and views these are, the store does not
                hold one of them, or a shard is damaged.
        """
        return self._answer(batch, tuple(taps))

    def recall(self, batch: Batch) -> Float32[Tensor, "n k"]:
        """The logits by which the teacher is measured: its own, as it was asked, on the CPU.

        In training a folded copy of it may have answered.

        Raises:
            StoreError: the store does not hold one of these pictures as it is.
        """
        return self._gathered(batch, self._measured).output

    def stay_eager(self) -> None:
        """Keeps `torch.compile` out: reading files is no part of a graph."""
        self._answer = torch.compiler.disable(self._read)  # pyright: ignore[reportAttributeAccessIssue]

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Nothing is moved or cast: what is read goes to the device of the batch."""
        del fn

    def _read(self, batch: Batch, taps: tuple[str, ...]) -> Observation:
        return _to(self._gathered(batch, partial(self._entries, taps=taps)), batch.images.device)

    def _gathered(self, batch: Batch, entries: _Entries) -> Observation:
        if batch.index is None or batch.view is None:
            raise StoreError(
                "A stored teacher must know the samples and their views; call the distiller with "
                "index=... and view=... for each batch."
            )
        index, view = batch.index.cpu(), batch.view.cpu()
        pieces: list[tuple[Tensor, Observation]] = []
        left = torch.arange(len(index))
        for part in self._parts:
            places = self.store.locate(part, index[left])
            here = places >= 0
            rows, left = left[here], left[~here]
            if len(rows):
                pieces.append((rows, entries(part, view[rows], places[here])))
            if not len(left):
                break
        if len(left):
            raise StoreError(
                f"The store in {self.store.folder} has no answer for picture "
                f"{int(index[left[0]])} ({len(left)} of {len(index)} in this batch are not in it). "
                "Train on the pictures that it was made of, or make another store."
            )
        return _joined(pieces, len(index))

    def _measured(
        self, part: str, view: Int64[Tensor, " n"], places: Int64[Tensor, " n"]
    ) -> Observation:
        """Logits for pictures of one part, as they are measured."""
        manifest = self.store.manifest
        if not manifest.answers_twice(part):
            return self._entries(part, view, places, ())
        return Observation(self.store.read(part, view, places, [MEASURED])[MEASURED])

    def _entries(
        self, part: str, view: Int64[Tensor, " n"], places: Int64[Tensor, " n"], taps: Sequence[str]
    ) -> Observation:
        """Answers to pictures of one part, as in training."""
        manifest = self.store.manifest
        views = manifest.parts[part].views
        wrong = view[(view < 0) | (view >= views)]
        if len(wrong):
            held = "pictures as they are, view 0," if part != TRAIN else f"views 0 to {views - 1}"
            raise StoreError(
                f"The store in {self.store.folder} has {held} of its {part} pictures, but view "
                f"{int(wrong[0])} was asked for. Set data.num_views to {self.num_views}, or make "
                "a store of more views."
            )
        logits, maps = manifest.logits_of(part), manifest.maps_of(part)
        names = list(logits.layout())
        for tap in taps:
            if tap not in maps:
                raise StoreError(
                    f"The store in {self.store.folder} has no maps of {part} pictures at the "
                    f"teacher's tap {tap!r}. Use the teacher itself: leave teacher.cache out."
                )
            names += maps[tap].layout(tap)
        coded = self.store.read(part, view, places, names)
        features = {tap: maps[tap].decode(tap, coded) for tap in taps}
        return Observation(logits.decode(coded), features)


def _joined(pieces: list[tuple[Tensor, Observation]], count: int) -> Observation:
    """One observation from those of several parts, each with its rows of the batch."""
    if len(pieces) == 1:
        return pieces[0][1]
    order = torch.empty(count, dtype=torch.int64)
    order[torch.cat([rows for rows, _ in pieces])] = torch.arange(count)
    seen = [one for _, one in pieces]
    return Observation(
        torch.cat([one.output for one in seen])[order],
        {tap: torch.cat([one.features[tap] for one in seen])[order] for tap in seen[0].features},
    )


def _to(seen: Observation, device: torch.device) -> Observation:
    maps = {tap: value.to(device, non_blocking=True) for tap, value in seen.features.items()}
    return Observation(seen.output.to(device, non_blocking=True), maps)
