"""`tutelage cache`."""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tutelage.cli.arguments import AsJson, Overrides, RecipeName
from tutelage.errors import SettingError
from tutelage.launcher import place
from tutelage.recipes import Recipe, read_recipe
from tutelage.report.tables import duration, listing
from tutelage.runs.caching import cache as cache_answers
from tutelage.runs.caching import plan as plan_store
from tutelage.runs.keeping import Choices

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\n"
    "tutelage cache my.yaml data.num_views=4 --out stores/my --plan\n"
    "tutelage cache my.yaml data.num_views=4 --out stores/my --verify 100\n"
    "tutelage train my.yaml data.num_views=4 teacher.cache=stores/my\n"
    "tutelage cache my.yaml data.num_views=4 --out stores/my --part 1/4    # the others elsewhere"
)
def cache(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The store's folder.", show_default="the recipe's teacher.cache"),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Say what it would take, in bytes and teacher passes; write nothing."
        ),
    ] = False,
    verify: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Check every file, and ask the teacher N answers again."
        ),
    ] = 0,
    logits: Annotated[
        Literal["fp16", "fp32", "top"],
        typer.Option(
            help="Whole in 2 or 4 bytes each; or only the largest with the mass of the rest."
        ),
    ] = "fp16",
    share: Annotated[
        float,
        typer.Option(help="Of the mass, that top keeps for 99 % of the pictures."),
    ] = 0.99,
    maps: Annotated[
        Literal["whole", "pooled", "encoded"],
        typer.Option(
            help="Of the maps that methods look at: all, at the student's size, or what the one "
            "method needs."
        ),
    ] = "whole",
    shard: Annotated[
        int, typer.Option(metavar="N", help="Answers per file; what a kill can cost.")
    ] = 16_384,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Make the K-th of N parts of the files; the parts can run at once, anywhere.",
            show_default="all, or what a launcher says",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a recipe's teacher once, and store its answers.

    To each of `data.num_views` views of every training picture, and to validation and test pictures
    as they are, with the maps that the recipe's methods look at. A run of the same recipe with
    teacher.cache=FOLDER then needs no teacher and does the same steps. docs/stores.md says what
    fewer views, bytes and classes cost.

    A build that was stopped or killed goes on when it is called again; what is damaged is made
    anew.
    """
    resolved = read_recipe(recipe, overrides or ())
    folder, choices = _folder(resolved, out), Choices(logits, share, maps, shard)
    if plan:
        found = plan_store(resolved, folder, choices)
        print(json.dumps(found, indent=2) if as_json else plan_text(found))
        return
    rank, world_size = _parse_part(part)
    filled, verified = cache_answers(
        resolved, folder, choices, rank=rank, world_size=world_size, verified=verify
    )
    found = {"folder": str(folder), **filled._asdict()}
    if verified is not None:
        found["verified"] = verified._asdict()
    print(json.dumps(found, indent=2) if as_json else text(found))


def _folder(recipe: Recipe, out: Path | None) -> Path:
    folder = out or recipe.store
    if folder is None:
        raise SettingError("Where the store is to lie is not said. Give --out FOLDER.")
    return folder


def _parse_part(text: str | None) -> tuple[int, int]:
    """Rank from 0, and world size."""
    if text is None:
        said = place()
        return said.rank, said.world_size
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise SettingError(f"--part is K/N with K in 1 … N, such as 2/4, not {text!r}.")
    return int(number) - 1, int(count)


def text(found: dict[str, Any]) -> str:
    """What was done, for people."""
    took = f" in {duration(found['seconds'])}" if found["shards"] else ""
    lines = [f"{found['folder']}: {found['images']:,} answers in {found['shards']} files{took}."]
    if not found["complete"]:
        lines.append("Other parts are still missing; the last one to finish completes the store.")
        return "\n".join(lines)
    if "verified" in found:
        again = found["verified"]
        lines.append(
            f"Every file is whole. Asked again for {again['entries']} answers, the teacher gives "
            f"them again: {again['equal']} of the {again['training']} to training pictures to the "
            "last bit, and no logit of any, validation and test pictures among them, by more than "
            f"{100 * again['difference']:.2g} % of the largest."
        )
    lines.append(f"It is complete. Next: tutelage train RECIPE teacher.cache={found['folder']}")
    return "\n".join(lines)


def plan_text(found: dict[str, Any]) -> str:
    """What it would take, for people."""
    pictures, entry = found["pictures"], found["entry_bytes"]
    passes, epochs = found["teacher_passes"], found["epochs"]
    coded = found["logits"]
    kind = f"top {coded['top']} of {coded['num_classes']}" if coded["top"] else coded["kind"]
    kept = [f"{tap} ({code['kept']})" for tap, code in found["maps"].items()]
    pays = f"after epoch {found['break_even_epoch']} of a run"
    if found["break_even_epoch"] > epochs:
        runs = math.ceil(found["break_even_epoch"] / epochs)
        pays = f"with run number {runs} by this recipe, of {epochs:.1f} epochs"
    return listing(
        [
            (
                "pictures",
                f"{pictures['train']:,} to train on × {found['views']} views, "
                f"{pictures['validation']:,} for validation, {pictures['test']:,} for test",
            ),
            ("kept", ", ".join([f"logits ({kind})", *kept])),
            ("bytes", f"{found['bytes']:,} ({entry['train']:,} per view of a training picture)"),
            ("files", f"{found['shards']}, of which {found['there']} are there"),
            (
                "teacher",
                f"{passes:,} passes; without a store {found['passes_per_epoch']:,} an epoch",
            ),
            ("pays", pays),
        ]
    )
