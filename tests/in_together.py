"""What two processes do together, started by torchrun; each writes what it found as JSON.

python -m torch.distributed.run --standalone --nproc-per-node 2 in_together.py FOLDER
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import torch
from small_run import held_out, loader, metrics, pictures, tiny, train_tiny

from tutelage.data import TrainLoader
from tutelage.distiller import Distiller
from tutelage.engine import EarlyStopping, Processes, launched
from tutelage.errors import Interrupted, NonFiniteError
from tutelage.evaluation.predictions import gathered, predict
from tutelage.methods import KD, FitNetHints, KnowledgeProjection
from tutelage.types import Batch

CPU = torch.device("cpu")

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"evaluate_every": 4, "average": 0.9, "clip": 1.0},
    "accumulated": {"accumulate": 2},
    "bf16": {"precision": "bf16"},
    "unused": {},
    "norms": {"sync_norms": True, "evaluate_every": 4},
    "norms, bf16": {"sync_norms": True, "precision": "bf16"},
}
PHASES = {"phases": 4, "steps": 12}


def new_pupil(case: str) -> Distiller:
    """Without dropout, and with norms that do not depend on who shares a batch."""
    own: dict[str, Any] = {"norm": "batch" if "norms" in case else "group", "dropout": 0.0}
    methods: dict[str, Any] = {"kd": (KD(temperature=2), 0.5)}
    if "phases" in case:
        methods = {"projection": (KnowledgeProjection(mask=True), 0.5)}
    elif case != "unused":
        methods["hints"] = (FitNetHints(), 1.0)
    weight = 0.0 if case == "unused" else 1.0
    student = tiny(0, **own)
    if case == "unused":
        student.module.register_parameter("spare", torch.nn.Parameter(torch.ones(2)))
    return Distiller(student, tiny(1, width=6, **own), methods=methods, task_weight=weight)


def data(together: Processes) -> TrainLoader:
    shares = {"rank": together.rank, "world_size": together.count}
    return loader(pictures(60, labelled=33), batch_size=12, **shares)


def look(pupil: Distiller, together: Processes) -> Any:
    """The student's answers to all held-out pictures, each looked at by one process."""
    share = held_out(together.rank, together.count)
    return gathered(predict(pupil.student, share, device=CPU), together.collect)


def weights(pupil: Distiller) -> dict[str, list[float]]:
    """And statistics."""
    return {
        name: value.detach().flatten().double().tolist()
        for name, value in pupil.state_dict().items()
    }


def trained(folder: Path, case: str, together: Processes) -> dict[str, Any]:
    """A training from beginning to end."""
    pupil = new_pupil(case)

    def validate() -> float:
        seen = look(pupil, together)
        return float((seen.outputs.argmax(1) == seen.targets).double().mean())

    changes = SETTINGS.get(case, {})
    if "phases" in case:
        changes = PHASES | ({"sync_norms": True} if "norms" in case else {})
    done = train_tiny(
        folder, pupil, data=data(together), validate=validate, together=together, **changes
    )
    return {"weights": weights(pupil), "phases": done.phases, "processes": done.processes}


def disturbed(batches: TrainLoader, at: int, happens: Callable[[Batch], None]) -> TrainLoader:
    """Batches, with one of which something happens first."""
    changed = copy(batches)

    def batch(step: int) -> Batch:
        found = batches.batch(step)
        if step == at:
            happens(found)
        return found

    changed.batch = batch
    return changed


def stopped(folder: Path, together: Processes) -> dict[str, Any]:
    """One process is told to stop, and both go on later; with dropout."""

    def tell(batch: Batch) -> None:
        del batch
        if together.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    changes: Any = {"checkpoint_every": 3, "data": data(together), "together": together}
    straight = Distiller(tiny(0, norm="group"))
    train_tiny(folder / "straight", straight, **changes)
    pupil, words = Distiller(tiny(0, norm="group")), ""
    told: Any = {**changes, "data": disturbed(data(together), 4, tell)}
    try:
        train_tiny(folder / "stopped", pupil, **told)
    except Interrupted as error:
        words = str(error)
    resumed = Distiller(tiny(5, norm="group"))
    train_tiny(folder / "stopped", resumed, **changes)
    together.wait()
    return {
        "words": words,
        "straight": weights(straight),
        "resumed": weights(resumed),
        "metrics": metrics(folder / "stopped") == metrics(folder / "straight"),
    }


def ended(folder: Path, together: Processes) -> dict[str, Any]:
    """Early stopping on a number that all agree about, and a time that is over for one alone."""
    rule = EarlyStopping(patience=2)
    changes: Any = {"data": data(together), "together": together}
    early = train_tiny(
        folder / "early", tiny_pupil(), evaluate_every=1, early_stopping=rule, **changes
    )
    minutes = 1e-9 if together.rank == 1 else 1e9
    late = train_tiny(folder / "late", tiny_pupil(), max_minutes=minutes, **changes)
    return {"early": [early.ended, early.steps], "late": [late.ended, late.steps]}


def tiny_pupil() -> Distiller:
    return Distiller(tiny(0, norm="group", dropout=0.0))


class Cut(Exception):
    """Stands for a kill: nothing is saved for it."""


def cut(batch: Batch) -> None:
    """Ends a training."""
    del batch
    raise Cut


def half(folder: Path, together: Processes) -> None:
    """A training whose last checkpoint is of step 4 of 8."""
    batches = disturbed(data(together), 6, cut)
    try:
        train_tiny(folder, new_pupil("half"), data=batches, together=together, checkpoint_every=4)
    except Cut:
        return
    raise AssertionError


def not_finite(folder: Path, together: Processes) -> str:
    """The pictures of the second process alone are broken."""
    pupil = Distiller(tiny(0, norm="group", dropout=0.0), input_normalized=((0.0,), (1.0,)))

    def tear(batch: Batch) -> None:
        if together.rank == 1:
            batch.images.fill_(float("nan"))

    broken = disturbed(data(together), 1, tear)
    try:
        train_tiny(folder, pupil, data=broken, together=together)
    except NonFiniteError as error:
        return str(error)
    return ""


def main() -> None:
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    found: dict[str, Any] = {}
    with launched(CPU) as together:
        found["processes"], found["rank"] = together.count, together.rank
        for case in [*SETTINGS, "phases", "norms, phases"]:
            found[case] = trained(place / case, case, together)
        found["stopped"] = stopped(place, together)
        found["ended"] = ended(place, together)
        half(place / "half of two", together)
        found["went on"] = trained(place / "half of one", "half", together)["weights"]
        found["not finite"] = not_finite(place / "broken", together)
        pupil = new_pupil("plain")
        seen = look(pupil, together)
        found["seen"] = {"index": seen.index.tolist(), "outputs": seen.outputs.tolist()}
        found["told"] = together.tell({"by": together.rank, "text": "ü" * 3})
        found["sums"] = together.sums(torch.tensor([1.0, together.rank])).tolist()
        found["largest"] = together.largest(together.rank, -together.rank, 7)
        rows = [one.tolist() for one in together.collect(torch.ones(2 - together.rank, 2))]
        found["rows"] = rows
    with launched(CPU) as again:  # they may meet more than once
        found["again"] = again.sums(torch.ones(1)).tolist()
    (place / f"found-{found['rank']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
