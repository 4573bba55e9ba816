"""How fast a run's student is in every form in which it can be run here, side by side.

In each round everybody answers, in an order drawn anew, so that whatever else the machine does
meets all of them alike. Memory is measured in a process of its own for each.
"""

import multiprocessing
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutelage.build import build
from tutelage.engine import TrainSettings
from tutelage.engine.memory import PeakMemory
from tutelage.errors import NoEffectWarning, SettingError, TutelageError
from tutelage.evaluation.cost import example
from tutelage.evaluation.latency import middle_and_slow
from tutelage.evaluation.memory import file_size
from tutelage.exporting import Form, is_exported, warm_up
from tutelage.models.network import Network
from tutelage.provenance import circumstances
from tutelage.recipes import validate
from tutelage.records import RunFolder
from tutelage.runs.finished import subnets_of, with_its_student
from tutelage.runs.measuring import image_size
from tutelage.runs.opened import open_model
from tutelage.runs.surroundings import surroundings, usual_threads

__all__ = ["bench"]

_WARMUP, _FEWEST = 3, 3
_PAUSE = 0.03
"""Seconds before each turn: threads of a runtime go on spinning for a while, at others' cost."""


class _Candidate(NamedTuple):
    """One form of a model.

    Attributes:
        name: what the table calls it.
        answer: takes images in `size`.
        size: channels, height, width.
        bytes: of its file, or of its weights.
        batch: pictures that it takes; None: any number.
        place: what is opened to have it in another process; None: it is not to be had there.
        subnet: which part of that it is.
        form: of a file.
    """

    name: str
    answer: Callable[[Tensor], Any]
    size: tuple[int, int, int]
    bytes: int
    batch: int | None = None
    place: Path | None = None
    subnet: str | None = None
    form: Form | None = None


def bench(
    models: Sequence[Path],
    *,
    batches: Sequence[int] = (1, 32),
    rounds: int = 30,
    threads: int | None = None,
    teacher: bool = False,
    compiled: bool = False,
    memory: bool = True,
    command: str = "tutelage.bench",
) -> list[dict[str, Any]]:
    """Times models; a run's student together with all files that were exported from it.

    What is measured of a run is entered in its record as "bench", in the place of what stood there.
    All compute on the CPU; PyTorch in float32, channels last.

    Args:
        models: runs' folders, and exported files.
        batches: pictures at a time; a file for exactly N pictures is timed with these N alone.
        rounds: in each of them everybody answers once.
        threads: of each; None: as many as there are cores, but no more than torch takes.
        teacher: whether a run's teacher is timed, too.
        compiled: whether students are also timed as `torch.compile` makes them.
        memory: whether to measure memory, for which a process is started for each.

    Returns:
        Of each candidate and batch "model", "name", "batch", "median_ms" and "p95_ms" of a batch,
        "images_per_second", "rounds", "threads", "bytes", "target" and "precision" of a file, and
        "memory_bytes": what a process that opens the model and answers needs at most beyond what it
        had before; None if not measured.

    Raises:
        SettingError: nothing would be timed, or a runtime is not installed.
        TutelageError: a model is not there, or cannot be opened.
    """
    threads = usual_threads() if threads is None else threads
    if rounds < _FEWEST or not batches or min(batches) < 1 or threads < 1:
        raise SettingError(
            f"A benchmark needs {_FEWEST} rounds, 1 picture and 1 thread at least, but got "
            f"rounds={rounds}, batches={list(batches)}, threads={threads}. Raise what is too small."
        )
    with surroundings(TrainSettings(steps=1, precision="fp32", device="cpu", threads=threads)):
        found = [
            (model, one)
            for model in models
            for one in _candidates(model, teacher=teacher, compiled=compiled)
        ]
        lines = [
            (model, place, _line(one, batch, seconds))
            for batch in sorted({*batches, *(one.batch for _, one in found if one.batch)})
            for (place, (model, one)), seconds in _timed(found, batch, rounds, batches)
        ]
        lines.sort(key=lambda line: (line[1], line[2]["batch"]))
        if memory:
            for number, (_, one) in enumerate(found):
                _measure_memory(one, [line for _, place, line in lines if place == number])
    for model in dict.fromkeys(models):
        _enter(model, [line for whose, _, line in lines if whose == model], command)
    return [{"model": str(model)} | line for model, _, line in lines]


# What is timed


def _candidates(model: Path, *, teacher: bool, compiled: bool) -> list[_Candidate]:
    place = RunFolder(model)
    if not (model.is_dir() and place.recipe.exists()):
        return [_of_file(model, model.stem if model.suffix else model.name)]
    record = place.read_record()
    found = []
    if teacher:
        found += [_of_network("teacher, PyTorch", one) for one in _teachers(place, record)]
    if teacher and not found:
        warnings.warn(
            f"There is no teacher to time in {model}: the run had none, or only its answers.",
            NoEffectWarning,
            stacklevel=4,
        )
    for subnet in subnets_of(record):
        title = "PyTorch" if subnet is None else f"{subnet}, PyTorch"
        network = open_model(model, subnet=subnet).network
        one = _of_network(title, network)._replace(place=model, subnet=subnet)
        found.append(one)
        if compiled:
            answer = torch.compile(network)
            found.append(one._replace(name=f"{title} compiled", answer=answer, place=None))
    for entry in record.get("exports", []):
        file = place.path / entry["file"]
        if is_exported(file) and file.is_file():
            try:
                found.append(_of_file(file, entry["name"]))
            except TutelageError as error:
                warnings.warn(f"Not timed: {error}", stacklevel=4)
    return found


def _teachers(place: RunFolder, record: Mapping[str, Any]) -> Iterator[Network]:
    """The run's teacher, if it is a network that can be made again."""
    if record["teacher"] is None:
        return
    recipe = validate(record["recipe"], str(place.recipe))
    recipe = with_its_student(recipe, place.path, teacher=True)
    with surroundings(replace(recipe.train, device="cpu")):
        built = build(recipe, with_test=False)
    if isinstance(built.teacher, Network):
        yield built.teacher


def _of_network(name: str, network: Network) -> _Candidate:
    network.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return _Candidate(name, network, image_size(network), file_size(network))


def _of_file(file: Path, name: str) -> _Candidate:
    """Of a file, or of the folder of one."""
    opened = open_model(file)
    if opened.file is None:  # a student's own
        return _of_network(name, opened.network)._replace(place=file)
    assert opened.form is not None
    return _Candidate(
        name,
        opened.network,
        image_size(opened.network),
        opened.file.stat().st_size,
        opened.form.batch,
        opened.file,
        form=opened.form,
    )


# Timing


def _timed(
    found: Sequence[tuple[Path, _Candidate]], batch: int, rounds: int, batches: Sequence[int]
) -> Iterator[tuple[tuple[int, tuple[Path, _Candidate]], list[float]]]:
    """Of each that takes such a batch its place, itself, and its seconds in each round."""
    ready = [
        (place, (model, one))
        for place, (model, one) in enumerate(found)
        if (batch in batches if one.batch is None else batch == one.batch)
    ]
    shown = {place: _images(one, batch) for place, (_, one) in ready}
    seconds: dict[int, list[float]] = {place: [] for place, _ in ready}
    order = list(ready)
    drawn = random.Random(0)
    with torch.no_grad():
        for number in range(_WARMUP + rounds):
            drawn.shuffle(order)
            for place, (_, one) in order:
                sleep(_PAUSE)
                one.answer(shown[place])  # after somebody else; not timed
                began = perf_counter()
                one.answer(shown[place])
                took = perf_counter() - began
                if number >= _WARMUP:
                    seconds[place].append(took)
    for place, pair in ready:
        yield (place, pair), seconds[place]


def _images(one: _Candidate, batch: int) -> Tensor:
    images = example(torch.nn.Identity(), one.size, batch)
    if one.form is not None:
        return images
    return images.contiguous(memory_format=torch.channels_last)


def _line(one: _Candidate, batch: int, seconds: Sequence[float]) -> dict[str, Any]:
    median, p95 = middle_and_slow(seconds)
    return {
        "name": one.name,
        "batch": batch,
        "median_ms": 1000 * median,
        "p95_ms": 1000 * p95,
        "images_per_second": batch / median,
        "rounds": len(seconds),
        "threads": torch.get_num_threads(),
        "bytes": one.bytes,
        "memory_bytes": None,
        "target": "torch" if one.form is None else one.form.target,
        "precision": "fp32" if one.form is None else one.form.precision,
    }


# Memory


def _measure_memory(one: _Candidate, lines: Sequence[dict[str, Any]]) -> None:
    """Enters what a new process needs for it, where that can be measured.

    Args:
        lines: by number of pictures, which the process answers in this order.
    """
    if one.place is None or not lines:
        return
    batches = [line["batch"] for line in lines]
    job = (one.place, one.subnet, one.size, batches, torch.get_num_threads())
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
        try:
            used = alone.submit(_memory_here, *job).result()
        except BrokenProcessPool:
            warnings.warn(
                f"The process that measured the memory of {one.name} was ended from outside, "
                "perhaps for want of memory; it counts as not measured.",
                stacklevel=3,
            )
            return
    for line, number in zip(lines, used, strict=True):
        line["memory_bytes"] = number


def _memory_here(
    place: Path,
    subnet: str | None,
    size: tuple[int, int, int],
    batches: Sequence[int],
    threads: int,
) -> list[int | None]:
    """In the new process: its peak after each of these."""
    torch.set_num_threads(threads)
    warm_up(place)
    watch = PeakMemory(torch.device("cpu"))
    before = watch.read()["resident_bytes"]
    network = open_model(place, subnet=subnet).network
    found = []
    for batch in batches:
        with torch.no_grad():
            for _ in range(_WARMUP):
                network(example(torch.nn.Identity(), size, batch))
        after = watch.read()["resident_bytes"]
        found.append(None if before is None or after is None else after - before)
    return found


# The record


def _enter(model: Path, lines: Sequence[dict[str, Any]], command: str) -> None:
    """Into the run's record, if it is of a run."""
    place = RunFolder(model)
    if not (model.is_dir() and place.recipe.exists()):
        return
    with place.changing() as record:
        record["bench"] = {**circumstances(command), "lines": list(lines)}
