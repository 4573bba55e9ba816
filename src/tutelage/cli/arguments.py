"""What several verbs are asked with the same words."""

from typing import Annotated

import typer

__all__ = ["AsJson", "Overrides", "RecipeName"]

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a packaged recipe.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="key=value", help="Replaces what the recipe says.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
