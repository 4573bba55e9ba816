"""`tutelage methods`."""

import inspect
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from tutelage.errors import RecipeError, one_of
from tutelage.methods import METHODS
from tutelage.report.tables import listing

app = typer.Typer(add_completion=False)


@app.command(epilog="Examples:\n\ntutelage methods\ntutelage methods attention_transfer")
def methods(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A method, for its card.", show_default=False),
    ] = None,
) -> None:
    """List the transfer methods, or show the card of one.

    A card tells the idea, the formula, what the method needs, how to choose its settings, what it
    costs, when to use it and when not, and its source; below stand the settings that a recipe may
    give, with their defaults. Nothing is written.
    """
    if name is None:
        print(listing([(known, card(known).partition("\n")[0]) for known in METHODS]))
        return
    one_of("method", name, METHODS, RecipeError)
    text = f"# {name}\n\n{card(name)}\n\n## In a recipe\n\n{_indented(in_recipe(name))}"
    if sys.stdout.isatty():
        Console(width=min(Console().width, 100)).print(Markdown(text))
    else:
        print(text)


def card(name: str) -> str:
    """The docstring of a method's file."""
    module = inspect.getmodule(METHODS[name])
    assert module is not None
    return inspect.getdoc(module) or ""


def in_recipe(name: str) -> str:
    """What a recipe says of a method, every default filled in."""
    lines = ["methods:", f"  {name}:"]
    for setting, parameter in inspect.signature(METHODS[name]).parameters.items():
        lines.append(f"    {setting}: {parameter.default}")
    lines.append("    weight: 1.0  # required; see Settings")
    return "\n".join(lines)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
