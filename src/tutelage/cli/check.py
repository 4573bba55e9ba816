"""`tutelage check`."""

import json
from typing import Any

import typer

from tutelage.cli.arguments import AsJson, Overrides, RecipeName
from tutelage.engine.choosing import Chosen
from tutelage.recipes import read_recipe
from tutelage.report.tables import align, count, listing, percent, ratio
from tutelage.runs import check as check_recipe

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\n"
    "tutelage check digits\n"
    "tutelage check my.yaml student.width=8 train.batch_size=64"
)
def check(
    recipe: RecipeName,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Build a recipe and take one step, without writing anything.

    Reads the data, makes the networks, measures the teacher on validation, and takes one step
    forward and back. Shows what both networks cost, their stages (the names that `taps` can
    pair), the pairs that were found, and the terms of the loss. What does not fit is said here as
    in `train`.
    """
    found = check_recipe(read_recipe(recipe, overrides or ()))
    print(json.dumps(found, indent=2) if as_json else text(recipe, found))


def text(recipe: str, found: dict[str, Any]) -> str:
    """The same for people."""
    parts = [f"{recipe} builds, and a step works.", align(_costs(found))]
    for what in ("student", "teacher"):
        if found[what] is not None:
            parts.append(f"Stages of the {what}\n{align(_stages(found[what]['stages']))}")
    parts.append(listing(_facts(found)))
    return "\n\n".join(parts)


def _costs(found: dict[str, Any]) -> list[list[str]]:
    student, teacher = found["student"], found["teacher"]
    rows = [["", "parameters", "MACs", "validation"]]
    rows.append(["student", count(student["parameters"]), count(student["macs"]), ""])
    if teacher is not None:
        rows.append(
            [
                "teacher",
                count(teacher["parameters"]),
                count(teacher["macs"]),
                percent(teacher["validation_accuracy"]),
            ]
        )
        ratios = [ratio(teacher[key], student[key]) for key in ("parameters", "macs")]
        rows.append(["ratio", *ratios, ""])
    return rows


def _stages(stages: list[dict[str, Any]]) -> list[list[str]]:
    rows = [["name", "channels", "height×width", "stride"]]
    for stage in stages:
        channels, height, width = stage["shape"]
        down, across = stage["stride"]
        stride = str(down) if down == across else f"{down}×{across}"
        rows.append([stage["name"], str(channels), f"{height}×{width}", stride])
    return rows


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    data = found["data"]
    pairs = [f"{pair['student']} → {pair['teacher']}" for pair in found["pairs"]]
    terms = [f"{name} {value:.4g}" for name, value in found["terms"].items()]
    chosen = [] if found["chosen"] is None else [("chosen", str(Chosen(**found["chosen"])))]
    return [
        *chosen,
        (
            "data",
            f"{data['train']:,} pictures to train on, {data['labelled']:,} with label "
            f"({data['labelled_per_batch']} in every batch); {data['validation']:,} for "
            f"validation, {data['test']:,} for test",
        ),
        ("pairs", ", ".join(pairs) or "none, because no method asks for them"),
        ("loss", f"{found['loss']:.4g}, the weighted sum of {', '.join(terms)}"),
        ("first step", f"{found['first_step_seconds']:.2f} s, slower than those that follow"),
    ]
