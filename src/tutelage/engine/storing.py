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
from tutelage.engine.asking import Question
from tutelage.engine.host import keep_freed_memory, memory_in_words, stopping
from tutelage.engine.log import CONSOLE
from tutelage.engine.loop import resolve_device
from tutelage.errors import Interrupted, StoreError
from tutelage.teachers.manifest import Manifest, Shard, require_same
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
        folder.mkdir(parents=True, exist_ok=True)
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
    if is_whole(path):
        return True
    path.unlink()
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
                pieces.append(question.coded(manifest, shard.part, places, view))
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
        equal: of them are the same to the last bit.
        difference: largest of a logit, as a share of the largest logit.
    """

    entries: int
    equal: int
    difference: float


_ROUNDING = {"fp32": 1e-3, "bf16": 0.05}
"""Share of the largest logit by which answers may differ between machines, by precision."""


def verify(folder: Path, question: Question, number: int, *, seed: int) -> Verified:
    """Reads every file, and asks the teacher again for some entries of training pictures.

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
    part, asked = "train", question.parts["train"]
    draws = rng.uniforms(torch.tensor([rng.key(seed, "verify")]), (2, number))[0].double()
    places = (draws[0] * len(asked)).long()
    views = (draws[1] * store.manifest.parts[part].views).long()
    code = store.manifest.logits_of(part)
    bound, equal, difference = _ROUNDING[question.settings.precision], 0, 0.0
    for start in range(0, number, asked.batch_size):
        place, view = (one[start : start + asked.batch_size] for one in (places, views))
        now = question.coded(store.manifest, part, place, view)
        then = store.read(part, view, place, now)
        equal += int(_equal(now, then).sum())
        ours, theirs = code.decode(now), code.decode(then)
        gap = (ours - theirs).abs().amax(dim=1) / ours.abs().amax(dim=1).clamp(min=1e-6)
        worst = int(gap.argmax())
        difference = max(difference, float(gap[worst]))
        if not float(gap[worst]) <= bound:
            raise StoreError(
                f"The store in {folder} is wrong: for view {int(view[worst])} of picture "
                f"{int(asked.index[place[worst]])} the teacher now gives logits that differ by "
                f"{100 * float(gap[worst]):.1f} % of the largest. Make another store, in another "
                "folder."
            )
    return Verified(number, equal, difference)


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
