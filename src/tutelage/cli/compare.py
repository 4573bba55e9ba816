"""`tutelage compare`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tutelage import comparison
from tutelage.cli import COMMAND
from tutelage.cli.arguments import AsJson
from tutelage.errors import SettingError
from tutelage.report.page import write_page
from tutelage.report.sources import read_source

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\n"
    "tutelage compare digits-demo\n"
    "tutelage compare spec.yaml --records benchmarks/spec.jsonl --json\n"
    "tutelage compare spec.yaml --executor ray --cpus 4 --gpus 1 --address auto"
)
def compare(
    spec: Annotated[
        str,
        typer.Argument(metavar="SPEC", help="A YAML file, or the name of a packaged comparison."),
    ],
    runs: Annotated[Path, typer.Option(help="The folder of run folders.")] = Path("runs"),
    records: Annotated[
        Path | None,
        typer.Option(
            help="The JSON-lines file with one line per finished trial.",
            show_default="RUNS/NAME/trials.jsonl",
        ),
    ] = None,
    restamp: Annotated[
        bool,
        typer.Option(
            "--restamp",
            help="Take over lines that only a change of code, or a setting that is new, has made "
            "stale: one trial of each row is run anew, and must end in the same weights, bit for "
            "bit.",
        ),
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Run N trials at once, each with its share of the threads; a share of its own "
            "makes it another trial.",
        ),
    ] = 1,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="First search what rows leave to `tune`, on validation; the control gets as many "
            "tries.",
        ),
    ] = False,
    executor: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Where trials run: here, or as tasks of a Ray cluster."),
    ] = "local",
    cpus: Annotated[
        int, typer.Option(metavar="N", help="With ray: of a machine, for each trial.")
    ] = 1,
    gpus: Annotated[
        float, typer.Option(metavar="N", help="With ray: the same; 0.5 lets two share one.")
    ] = 0.0,
    address: Annotated[
        str | None,
        typer.Option(
            help="With ray: of the cluster.", show_default="RAY_ADDRESS, or a Ray started here"
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run every setting with every seed, and put them into one table.

    Each trial is a run of its own in RUNS/NAME, the name being the comparison's; once finished it
    is one line in RECORDS, and its folder may be thrown away. Called again, the same command goes
    on where it stopped: a trial whose line agrees with its recipe, code, versions and machine is
    not run again; a line that no longer agrees is shown as stale and enters no mean. What a row
    chooses, it chooses on validation, without access to test. The table shows mean ± standard
    deviation over the seeds; RUNS/NAME/report.html is a page with figures.
    """
    if markdown and as_json:
        raise SettingError("--markdown and --json exclude each other. Leave one out.")
    share = comparison.Share(cpus, gpus, address)
    if executor == "local" and share != comparison.Share():
        raise SettingError("--cpus, --gpus and --address are for --executor ray. Leave them out.")
    done = comparison.compare(
        spec,
        runs=runs,
        records=records,
        restamp=restamp,
        jobs=jobs,
        tune=tune,
        cluster=share if executor == "ray" else None,
        command=COMMAND.get(),
    )
    page = done.folder / "report.html"
    done.folder.mkdir(parents=True, exist_ok=True)
    write_page(read_source([done.records], runs=runs), page)
    if as_json:
        claims = [finding._asdict() for finding in done.findings()]
        tables = [{"at": table.title, "rows": table.rows} for table in done.tables]
        print(json.dumps({"spec": spec, "claims": claims, "tables": tables}, indent=2))
    else:
        print(done.markdown() if markdown else done.text())
        print(f"\nThe same with figures: {page}", file=sys.stderr)
