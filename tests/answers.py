"""A store that is built in a moment: a tiny network asked about pictures made of noise.

It is a module of its own so that other processes can import it.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from small_run import NUM_CLASSES, pictures, settings, tiny

from tutelage.data import Pictures, Views
from tutelage.engine.asking import Asked, Question
from tutelage.engine.storing import Filled, begin, fill
from tutelage.teachers import LiveTeacher
from tutelage.teachers.encoding import LogitsCode, MapCode
from tutelage.teachers.manifest import Manifest, Part

VIEWS = Views(crop_padding=1, flip=True)
NUM_VIEWS = 3
BATCH = 12
COUNTS = {"train": 31, "validation": 25, "test": 20}  # 31 = 2 · 12 + 7: the last batch is short
EXACT = LogitsCode("fp32", NUM_CLASSES)
MAPS = {"layer1": MapCode((4, 4, 4), channels_last=True, dtype="float32")}
FIRST = {"train": 0, "validation": 1000, "test": 2000}


def part_of(name: str) -> Pictures:
    """The pictures of a part, in another order than that of their index."""
    found = pictures(COUNTS[name], seed=len(name))
    found = replace(found, index=found.index + FIRST[name])
    return found.take(torch.arange(len(found)).flip(0)) if name == "train" else found


def question(*, taps: tuple[str, ...] = (), delay: float = 0.0, **changes: Any) -> Question:
    """What is asked; `changes` are of the settings of training."""
    network = tiny(7)
    if delay:  # takes its time, so that it can be interrupted
        network.module.register_forward_pre_hook(lambda *_: time.sleep(delay))
    teacher = LiveTeacher(network)
    teacher.tap(taps)
    train = Asked(part_of("train"), VIEWS, batch_size=BATCH, full=True, seed=5)
    others = {
        name: Asked(part_of(name), Views(), batch_size=20, full=False)
        for name in ("validation", "test")
    }
    return Question(teacher, {"train": train} | others, settings(**changes))


def manifest(
    *,
    logits: LogitsCode = EXACT,
    maps: dict[str, MapCode] | None = None,
    views: int = NUM_VIEWS,
    shard_size: int = BATCH,
    **fingerprint: Any,
) -> Manifest:
    parts = {
        name: Part(count, views if name == "train" else 1, shard_size if name == "train" else 20)
        for name, count in COUNTS.items()
    }
    usual = {"seed": 5, "precision": "fp32"}
    about = {"stages": [{"name": "layer1", "shape": [4, 4, 4], "stride": [2, 2]}]}
    return Manifest(usual | fingerprint, logits, maps or {}, parts, about)


def make_store(
    folder: Path,
    *,
    asked: Question | None = None,
    rank: int = 0,
    world_size: int = 1,
    delay: float = 0.0,
    **changes: Any,
) -> Filled:
    """Builds a store, or goes on with it, in one thread."""
    torch.set_num_threads(1)
    what = manifest(**changes)
    asked = asked or question(taps=tuple(what.maps), delay=delay)
    begun = begin(folder, what, asked)
    return fill(folder, begun, asked, rank=rank, world_size=world_size, shown=False)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
