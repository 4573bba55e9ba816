"""`tutelage recipes`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tutelage.errors import RecipeError, one_of
from tutelage.recipes import json_schema, packaged
from tutelage.records import write_atomic
from tutelage.report.tables import listing

app = typer.Typer(add_completion=False, epilog="Example: tutelage recipes cp digits my.yaml")

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `ls` lists it.", show_default=False)]


@app.callback()
def recipes() -> None:
    """List, show or copy the recipes in the package; print the schema.

    A recipe is YAML: the data, the student, the teacher, the methods with their weights, and how
    to train. To write one's own, copy the nearest and change it.
    """


@app.command("ls")
def list_() -> None:
    """List what is packaged: recipes for `train`, comparisons for `compare`, with their claims."""
    print(listing([(name, f"{_verb(text)}  {_claim(text)}") for name, text in packaged().items()]))


@app.command("cat")
def show(name: Name) -> None:
    """Print a packaged recipe."""
    print(_find(name), end="")


@app.command("cp")
def copy(
    name: Name,
    destination: Annotated[
        Path | None,
        typer.Argument(
            metavar="DEST",
            help="A file, or a folder that exists; nothing is overwritten.",
            show_default="NAME.yaml",
        ),
    ] = None,
) -> None:
    """Copy a packaged recipe, to change it."""
    text = _find(name)
    path = destination or Path(f"{name}.yaml")
    path = path / f"{name}.yaml" if path.is_dir() else path
    if path.exists():
        raise RecipeError(f"{path} exists already and is not overwritten. Name another file.")
    if not path.parent.is_dir():
        raise RecipeError(f"There is no folder {path.parent}. Make it, or name another place.")
    write_atomic(path, text)
    print(f"{path} is yours to change. Next: tutelage check {path}")


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of recipes, which editors use to complete and to check.

    The YAML extensions of most editors take it from a first line such as:

    # yaml-language-server: $schema=recipe.schema.json
    """
    print(json.dumps(json_schema(), indent=2))


def _find(name: str) -> str:
    known = packaged()
    one_of("packaged recipe", name, known, RecipeError)
    return known[name]


def _verb(text: str) -> str:
    """The verb that runs it."""
    return "compare" if "\nrows:" in text else "train  "


def _claim(text: str) -> str:
    """The first line of the comment that opens a recipe."""
    first = text.partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
