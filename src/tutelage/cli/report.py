"""`tutelage report`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tutelage.errors import SettingError
from tutelage.report.formats import Format, written
from tutelage.report.page import write_page
from tutelage.report.sources import read_source

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\n"
    "tutelage report runs/digits-seed0 runs/digits-teacher\n\n"
    "tutelage report runs/digits-demo --html digits-demo.html --pictures\n\n"
    "tutelage report benchmarks/records/baselines.jsonl --format md"
)
def report(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|COMPARISON",
            help="Folders of finished runs; or one comparison: its JSON-lines file, or its folder.",
        ),
    ],
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with figures, too: one file, for offline."),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="How the tables are printed.")
    ] = Format.TEXT,
    runs: Annotated[
        Path,
        typer.Option(help="The folder of run folders, for a comparison's curves and pictures."),
    ] = Path("runs"),
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures",
            help="Let the page show pictures of the data: where networks look, and where student "
            "and teacher differ most. Without it no picture of the data is in the page.",
        ),
    ] = False,
) -> None:
    """Put records of runs, or of a comparison, into tables and a page.

    Reads records and what runs have logged: no network is loaded, no picture is read unless
    --pictures is given, and nothing but FILE is written. Of a single run it also tells how the
    numbers came about. Of a comparison the newest line of each trial counts; those that are no
    longer asked for are stale, and enter no mean. Whether the code has changed since is for
    `tutelage compare` to say.
    """
    if pictures and html is None:
        raise SettingError("--pictures goes with a page. Add --html FILE.")
    source = read_source(sources, runs=runs)
    text, notes = written(source, form)
    if html is not None:
        write_page(source, html, pictures=pictures)
        notes = [*notes, f"The page is {html}."]
    print(text)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
