"""`tutelage models`."""

import inspect
import json
from fnmatch import fnmatch
from typing import Annotated, Any

import typer

from tutelage.cli.arguments import AsJson
from tutelage.errors import NetworkError, one_of
from tutelage.models import BY_NAME, SUPPLIED, library, made_for
from tutelage.report.tables import listing

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\ntutelage models\ntutelage models 'mobilenet*'\ntutelage models resnet50"
)
def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A network, for what a recipe may say of it; or a pattern such as 'mobilenet*'.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the networks that a recipe can name, or show one.

    They are ours, timm's and torchvision's. Where timm and torchvision share a name timm's is
    meant; timm/NAME and torchvision/NAME leave no doubt. In a recipe a network may also be weights
    for one of these, FILE:NAME; the student of an earlier run, {run: FOLDER}; or what a function
    makes, {python: FILE.py:FUNCTION}. Nothing is written, and no weights are fetched.
    """
    if name is None or any(letter in name for letter in "*?["):
        names = [known for known in BY_NAME if name is None or fnmatch(known, name)]
        if not names:
            raise NetworkError(f"No network is called like {name!r}. `tutelage models` lists all.")
        print(json.dumps(names) if as_json else "\n".join(names))
        return
    if name not in BY_NAME:
        one_of("network", name, BY_NAME, NetworkError)
    found = about(name)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    settings = [(f"  {key}", str(value)) for key, value in found["settings"].items()]
    shown = "pictures as they are, normalized by the training pictures' mean and std"
    if found["mean"] is not None:
        size = found["size"] and f"{found['size'][0]}×{found['size'][1]}"
        shown = f"{size or 'any size'}; mean {found['mean']}, std {found['std']}"
    print(listing([("library", found["library"]), ("shown", shown), ("settings", ""), *settings]))


def about(name: str) -> dict[str, Any]:
    """Where a network is from, what it is shown unless a recipe says so, and its settings."""
    shown = made_for(name)
    parameters = inspect.signature(BY_NAME[name]).parameters
    return {
        "name": name,
        "library": library(name) or "tutelage",
        "mean": shown and list(shown.mean),
        "std": shown and list(shown.std),
        "size": shown and shown.size and list(shown.size),
        "settings": {key: p.default for key, p in parameters.items() if key not in SUPPLIED},
    }
