"""What stored.yaml trains from, and what it is held against: its stores, and the plain loop.

    python benchmarks/stored.py stores --record benchmarks/records/stores.jsonl
    python benchmarks/stored.py stores --spec benchmarks/stored-fp32.yaml --record …
    python benchmarks/stored.py plain --record benchmarks/records/stores.jsonl

A store that is complete is left alone, so the first command goes on where it was stopped. The time
of a store is that of everything between reading the recipe and the complete store; one that was
built in several goes is not recorded. The plain loop takes the step of plain.py on the very batches
that the live row sees, drawn by our loader, which is faster than what one would write first.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from torch.optim.lr_scheduler import OneCycleLR

from timing import circumstances, record
from tutelage.build import Built, build
from tutelage.comparison.spec import Spec, read_spec
from tutelage.engine.host import undisturbed
from tutelage.evaluation.accuracy import accuracy
from tutelage.evaluation.predictions import predict
from tutelage.recipes import Recipe, plain
from tutelage.runs.caching import cache, plan
from tutelage.runs.keeping import Choices
from tutelage.teachers.manifest import Manifest

__all__ = ["CHOICES", "SPEC", "losses", "stored_rows", "train_plainly"]

SPEC = Path(__file__).with_name("stored.yaml")
CHOICES = {
    "views-16-fp32": Choices(logits="fp32"),
    "views-16-fp16": Choices(),
    "views-16-top": Choices(logits="top", share=0.7),
}
"""What the store of a row keeps, where that is not the usual. Of 10 classes top saves bytes only if
it keeps 3 or fewer; at temperature 4 these hold 70 % of the mass, not the usual 99 %."""

app = typer.Typer(add_completion=False, help=__doc__)
Into = Annotated[Path | None, typer.Option("--record", help="Add a line to this file for each.")]
Which = Annotated[Path, typer.Option("--spec", help="The comparison that they are for.")]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="Several; all that are there.")]


def stored_rows(spec: Spec, seeds: list[int] | None = None) -> Iterator[tuple[str, Recipe]]:
    """Rows that train from stores, each with every seed."""
    for row in spec.rows:
        for seed in seeds or spec.seeds:
            recipe = spec.recipe(spec.settings(row, {}), seed)
            if recipe.store is not None:
                yield row, recipe


@app.command()
def stores(seed: Seeds = None, into: Into = None, which: Which = SPEC) -> None:
    """Makes the stores that are not there yet."""
    about = circumstances()
    for row, recipe in stored_rows(read_spec(which), seed):
        folder, choices = recipe.store, CHOICES.get(row, Choices())
        assert folder is not None
        if (folder / "manifest.json").exists() and Manifest.read(folder).checksums is not None:
            continue
        print(f"{row}, seed {recipe.seed}", file=sys.stderr)
        began = time.perf_counter()
        filled, _ = cache(recipe, folder, choices)
        seconds = time.perf_counter() - began
        found = {
            "kind": "store",
            "row": row,
            "seed": recipe.seed,
            "seconds": round(seconds, 3),
            "asking": round(filled.seconds, 3),
            "images": filled.images,
            "plan": plan(recipe, folder, choices),
        }
        whole = sum(part.pictures * part.views for part in Manifest.read(folder).parts.values())
        if into is not None and filled.images == whole:  # else its time is not that of the whole
            record(into, about, found)
        print(f"  {seconds:.1f} s, {found['plan']['bytes']:,} bytes", file=sys.stderr)


@app.command("plain")
def plain_runs(seed: Seeds = None, into: Into = None) -> None:
    """Trains the live row by the plain loop, and reads test once."""
    spec = read_spec(SPEC)
    for one in seed or spec.seeds:
        about, recipe = circumstances(), spec.recipe(spec.settings("live", {}), one)
        found = train_plainly(recipe)
        if into is not None:
            record(into, about, found)
        print({key: found[key] for key in ("seed", "seconds", "test_accuracy")}, file=sys.stderr)


def train_plainly(recipe: Recipe) -> dict[str, Any]:
    """Trains the recipe's student by its KD in float32 and NCHW, and says what came out.

    Returns:
        "seconds" of the loop alone; accuracies on validation and test; the recipe.
    """
    settings = recipe.train
    built = build(recipe)
    began = time.perf_counter()
    with undisturbed(torch.device("cpu")):
        for _ in losses(built):
            pass
    seconds = time.perf_counter() - began
    built.student.eval()
    shares = {
        name: accuracy(predict(built.student, pictures, device=torch.device("cpu")))
        for name, pictures in (("validation", built.validation), ("test", built.test))
        if pictures is not None
    }
    return {
        "kind": "plain",
        "seed": recipe.seed,
        "steps": settings.steps,
        "seconds": round(seconds, 3),
        "validation_accuracy": shares["validation"],
        "test_accuracy": shares["test"],
        "readings": [{"split": "test", "purpose": "at the end of the plain loop"}],
        "threads": torch.get_num_threads(),
        "loop": "float32, NCHW, nothing folded, whatever the recipe says",
        "recipe": plain(recipe),
    }


def losses(built: Built) -> Iterator[float]:
    """The loop: plain.py with a loader and a schedule around it."""
    recipe, student, teacher = built.recipe, built.student, built.teacher
    assert isinstance(teacher, torch.nn.Module)
    (kd,) = recipe.methods.values()
    temperature, weight, steps = kd["temperature"], kd["weight"], recipe.train.steps
    optimizing = {k: v for k, v in recipe.train.optimizer.items() if k != "name"}
    student.train()
    teacher.eval()
    optimizer = torch.optim.SGD(student.parameters(), **optimizing)
    schedule = OneCycleLR(
        optimizer, max_lr=optimizing["lr"], total_steps=steps, cycle_momentum=False
    )
    for step in range(steps):
        batch = built.train.batch(step)
        with torch.no_grad():
            answer = teacher(batch.images)
        logits = student(batch.images)
        soft = kl_div(
            log_softmax(logits / temperature, 1),
            softmax(answer / temperature, 1),
            reduction="batchmean",
        )
        loss = (
            recipe.task_weight * cross_entropy(logits, batch.targets)
            + weight * temperature**2 * soft
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.item()


if __name__ == "__main__":
    app()
