"""`tutelage report`."""

from pathlib import Path
from typing import Annotated

import typer

from tutelage.records import RunFolder
from tutelage.report.tables import align, cautions, facts, listing, run_table

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: tutelage report runs/digits-seed0 runs/digits-teacher")
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of finished runs.")],
) -> None:
    """Put the records of runs into one table.

    Reads record.json of each run and nothing else: no network is loaded, no picture is read, and
    nothing is written. Of a single run it also tells how the numbers came about.
    """
    records = [RunFolder(run).read_record() for run in runs]
    parts = [align(run_table(records))]
    if len(records) == 1:
        parts.append(listing(facts(records[0])))
    notes = "\n".join(f"note: {caution}" for caution in cautions(records))
    print("\n\n".join([*parts, notes] if notes else parts))
