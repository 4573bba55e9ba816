"""Asking a teacher once: its answers to every view of every picture go into a store.

A store is built shard by shard; a shard is on the disk as a whole or not at all, so whatever ends
the process, only the shards it was working on are lost. Several processes write different shards of
one store, and never talk: the one that finds all of them there finishes the manifest.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Int64
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from tutelage import rng
from tutelage.engine.asking import LOGITS, Question
from tutelage.engine.host import keep_freed_memory, memory_in_words, stopping
from tutelage.engine.log import CONSOLE
from tutelage.engine.loop import resolve_device
from tutelage.errors import Interrupted, StoreError
from tutelage.teachers.encoding import ROUNDED
from tutelage.teachers.manifest import TRAIN, Manifest, Shard, require_same
from tutelage.teachers.store import INDEX, Store, complete, existing, is_whole, sweep, write_shard

__all__ = ["Filled", "Verified", "begin", "fill", "verify"]


def begin(folder: Path, manifest: Manifest, question: Question) -> Manifest:
    """Begins a store, or goes on with one that was begun.

    Returns:
        Its manifest, with what was noted when it was begun.

    Raises:
        StoreError: the folder holds something else.
        RunError: no space is left on the device.
    """
    # In this order: another process may begin it at the same time, and writes the manifest first.
    there = _names(folder)
    if (folder / "manifest.json").exists():
        known = Manifest.read(folder)
        require_same(folder, known.fingerprint, manifest.fingerprint)
        require_same(folder, _shape(known), _shape(manifest), "the store that was asked for")
        manifest = known
    elif there:
        raise StoreError(
            f"{folder} is there already and is no store. Name another folder with --out."
        )
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:  # of no right, or a file among its parents
            raise StoreError(
                f"The folder {folder} cannot be made: {error.strerror}. Name another with --out."
            ) from None
        manifest.write(folder)
    tables = {name: asked.index for name, asked in question.parts.items()}
    if not _keep(existing(folder).get(INDEX)):
        write_shard(folder, INDEX, tables)
    return manifest


def _names(folder: Path) -> list[str]:
    """Of what lies there, hidden files aside."""
    if folder.is_dir():
        return [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    return [folder.name] if folder.exists() else []


def _shape(manifest: Manifest) -> dict[str, Any]:
    """What of a store is not in its fingerprint, but must be the same to go on."""
    return {
        "logits": asdict(manifest.logits),
        "maps": {tap: asdict(code) for tap, code in manifest.maps.items()},
        "parts": {name: part._asdict() for name, part in manifest.parts.items()},
    }


def _keep(path: Path | None) -> bool:
    """Whether a file is there and as it was written; one that is damaged is removed."""
    if path is None:
        return False
    if path.is_dir():
        raise StoreError(f"{path} is a folder where a file of the store belongs. Remove it.")
    if is_whole(path):
        return True
    path.unlink(missing_ok=True)  # of several processes that find it, one is the first
    return False


class Filled(NamedTuple):
    """How building went, in this process.

    Attributes:
        shards, images: made now; views of one picture are several images.
        seconds: spent.
        complete: whether nothing is missing any more.
    """

    shards: int
    images: int
    seconds: float
    complete: bool


def fill(
    folder: Path,
    manifest: Manifest,
    question: Question,
    *,
    rank: int = 0,
    world_size: int = 1,
    shown: bool = True,
) -> Filled:
    """Makes the shards that are missing or damaged, of those that are this process's.

    Args:
        manifest: as `begin` gave it.
        rank, world_size: this process makes every `world_size`-th shard.

    Raises:
        Interrupted: SIGINT or SIGTERM; finished shards stay.
        OutOfMemoryError: with the remedies.
        RunError: no space is left on the device.
        StoreError: an answer cannot be stored.
    """
    mine = list(manifest.shards())[rank::world_size]
    # Nobody else's: another process may be writing it.
    sweep(folder, None if world_size == 1 else [shard.name for shard in mine])
    there = existing(folder)
    todo = [shard for shard in mine if not _keep(there.get(shard.name))]
    began, images = time.perf_counter(), 0
    if question.settings.keep_memory:
        keep_freed_memory()
    bar = _Bar(sum(shard.stop - shard.start for shard in todo), shown=shown)
    device = resolve_device(question.settings.device)
    with memory_in_words(device, question.settings), stopping() as stop, bar:
        question.place()
        for number, shard in enumerate(todo):
            pieces: list[dict[str, Tensor]] = []
            for places in _batches(shard, question.parts[shard.part].batch_size):
                view = torch.full_like(places, shard.view)
                answers = question.answered(manifest, shard.part, places, view)
                pieces.append(answers.coded(manifest, shard.part))
                images += len(places)
                bar.advance(images, time.perf_counter() - began)
                if stop.signal:
                    done = len(mine) - len(todo) + number
                    raise Interrupted(
                        f"Stopped; {done} of {len(mine)} shards are in {folder}.", stop.signal
                    )
            write_shard(folder, shard.name, _stacked(pieces))
    seconds = time.perf_counter() - began
    return Filled(len(todo), images, seconds, complete(folder, manifest))


def _batches(shard: Shard, size: int) -> Iterator[Int64[Tensor, " m"]]:
    for start in range(shard.start, shard.stop, size):
        yield torch.arange(start, min(start + size, shard.stop))


def _stacked(pieces: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


# Checking


class Verified(NamedTuple):
    """What came of asking again.

    Attributes:
        entries: were asked for again.
        training: of them are of training pictures. Others were shown in batches of another size,
            so of their answers the last bits may differ.
        equal: of those of training pictures are the same to the last bit.
        difference: largest of a logit, as a share of the largest logit.
    """

    entries: int
    training: int
    equal: int
    difference: float


_ROUNDING = {"fp32": 1e-3, "bf16": 0.05}
"""Share of an answer's largest value by which machines may differ, by precision."""


def verify(folder: Path, question: Question, number: int, *, seed: int) -> Verified:
    """Reads every file, and asks the teacher again for some entries, drawn from all parts alike.

    Args:
        number: of entries, drawn by `seed`.

    Raises:
        StoreError: a file is damaged, or an answer is another.
    """
    store = Store(folder)
    damaged = store.damaged()
    if damaged:
        raise StoreError(
            f"{len(damaged)} file(s) of the store in {folder} are damaged or absent, "
            f"{damaged[0]} first. Run the `tutelage cache` that made it again, without --verify."
        )
    question.place()
    training, equal, difference = 0, 0, 0.0
    for part, places, view in _some_entries(store.manifest, question, number, seed):
        answers = question.answered(store.manifest, part, places, view)
        now = answers.coded(store.manifest, part)
        then = store.read(part, view, places, now)
        if part == TRAIN:
            training, equal = training + len(places), equal + int(_equal(now, then).sum())
        for what, gap in answers.gaps(store.manifest, part, then).items():
            worst = int(gap.argmax())
            bound = _ROUNDING[question.settings.precision] + (0 if what == LOGITS else ROUNDED)
            if not float(gap[worst]) <= bound:
                picture = int(question.parts[part].index[places[worst]])
                raise StoreError(
                    f"The store in {folder} is wrong: for view {int(view[worst])} of {part} "
                    f"picture {picture} the teacher now gives {what} that differ by "
                    f"{100 * float(gap[worst]):.1f} % of the largest. Make another store, in "
                    "another folder."
                )
            if what == LOGITS:
                difference = max(difference, float(gap[worst]))
    return Verified(number, training, equal, difference)


def _some_entries(
    manifest: Manifest, question: Question, number: int, seed: int
) -> Iterator[tuple[str, Int64[Tensor, " m"], Int64[Tensor, " m"]]]:
    """Parts, places in them and views; as many at a time as the teacher was shown."""
    counts = {name: part.pictures * part.views for name, part in manifest.parts.items()}
    drawn = rng.uniforms(torch.tensor([rng.key(seed, "verify")]), (number,))[0].double()
    entries = (drawn * sum(counts.values())).long()
    for name, count in counts.items():
        mine = entries[(entries >= 0) & (entries < count)]
        entries = entries - count
        size = question.parts[name].batch_size
        for some in mine.split(size) if len(mine) else ():
            yield name, some % manifest.parts[name].pictures, some // manifest.parts[name].pictures


def _equal(now: Mapping[str, Tensor], then: Mapping[str, Tensor]) -> Bool[Tensor, " m"]:
    same = [(now[name] == then[name]).reshape(len(now[name]), -1).all(dim=1) for name in now]
    return torch.stack(same).all(dim=0)


# Progress


@final
class _Bar:
    """A progress bar on a terminal, a plain line every ten seconds elsewhere, or nothing."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self._total, self._said = total, 0.0
        self._plain = shown and not CONSOLE.is_terminal
        self._bar = Progress(
            TextColumn("teacher's answers"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}  {task.fields[speed]:.0f} images/s"),
            TimeRemainingColumn(),
            console=CONSOLE,
            transient=True,
            disable=not shown or self._plain,
        )
        self._task = self._bar.add_task("", total=total, speed=0.0)

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.stop()

    def advance(self, images: int, seconds: float) -> None:
        """Moves it to so many images after so many seconds."""
        speed = images / max(seconds, 1e-9)
        self._bar.update(self._task, completed=images, speed=speed)
        if self._plain and seconds - self._said >= 10:
            self._said = seconds
            left = (self._total - images) / speed / 60
            text = f"{images}/{self._total}  {speed:.0f} images/s  {left:.1f} min left"
            print(f"teacher's answers  {text}", file=sys.stderr)
