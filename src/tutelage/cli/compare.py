"""`tutelage compare`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tutelage import comparison

app = typer.Typer()


@app.command(
    epilog="Examples:\n\n"
    "tutelage compare digits-demo\n"
    "tutelage compare spec.yaml --records benchmarks/spec.jsonl --json"
)
def compare(
    context: typer.Context,
    spec: Annotated[
        str,
        typer.Argument(metavar="SPEC", help="A YAML file, or the name of a packaged comparison."),
    ],
    runs: Annotated[Path, typer.Option(help="The folder of run folders.")] = Path("runs"),
    records: Annotated[
        Path | None,
        typer.Option(
            help="The JSON-lines file with one line per finished trial.",
            show_default="beside the runs",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Run every setting with every seed, and put them into one table.

    Each trial is a run of its own under RUNS; once finished it is one line in RECORDS. Called
    again, the same command goes on where it stopped: trials whose line agrees with their recipe,
    code, versions and machine are not run again; a line that no longer agrees is shown as stale
    and enters no mean. The table shows mean ± standard deviation over the seeds.
    """
    done = comparison.compare(spec, runs=runs, records=records, command=context.obj)
    print(json.dumps({"spec": spec, "rows": done.table()}, indent=2) if as_json else done.text())
