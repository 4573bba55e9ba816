"""`tutelage export`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli import COMMAND
from tutelage.cli.arguments import AsJson
from tutelage.exporting import Form, Precision, Target, usual
from tutelage.report.exports import parity_rows
from tutelage.report.tables import align
from tutelage.runs import export as export_run
from tutelage.runs import named_source

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\n"
    "tutelage export runs/mine --to onnx\n\n"
    "tutelage export runs/mine --to onnx --precision int8 --batch 1\n\n"
    "tutelage export runs/mine --to executorch --precision int8 --out for-the-phone"
)
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    target: Annotated[Target, typer.Option("--to", help="The runtime.")] = "onnx",
    precision: Annotated[
        Precision, typer.Option(help="Of weights and of what is computed.")
    ] = "fp32",
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Exactly so many pictures at a time.",
            show_default="any number; executorch 1",
        ),
    ] = None,
    normalized: Annotated[
        bool,
        typer.Option(
            "--normalized", help="The file takes normalized pictures, not pixels in 0 to 1."
        ),
    ] = False,
    subnet: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a student with sub-nets, this one.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A new folder.",
            show_default="exports/… in the run's",
        ),
    ] = None,
    calibrate: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Training pictures that int8 takes its ranges from.",
            show_default="256, or all",
        ),
    ] = None,
    calibrate_on: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="… of another source, named as by `evaluate --data`."),
    ] = None,
    max_difference: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            help="How far a logit may be off, as a share of the largest.",
            show_default="fp32 1e-4, fp16 2e-2, int8 any",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            min=0,
            help="How many points of accuracy may be lost.",
            show_default="fp32 0.1, fp16 0.5, int8 2",
        ),
    ] = None,
    teacher: Annotated[
        bool,
        typer.Option("--teacher/--no-teacher", help="Whether to measure agreement with it, too."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Write a student for another runtime, and compare both.

    The student alone is written, without what it was trained by. The file is opened by its runtime
    and shown the test pictures beside the network in PyTorch; if it says something else, beyond
    what is allowed, nothing is written. Test is read, which is entered in the run's record.
    A README lies beside the file. Needs one of the extras onnx and executorch.
    """
    form = Form(target, precision, batch, normalized)
    allowed = usual(precision)
    if max_difference is not None:
        allowed = allowed._replace(difference=max_difference)
    if max_drop is not None:
        allowed = allowed._replace(drop=max_drop)
    made = export_run(
        run,
        form,
        subnet=subnet,
        out=out,
        calibration=calibrate,
        calibrate_on=None if calibrate_on is None else named_source(calibrate_on),
        tolerance=allowed,
        teacher=teacher,
        command=COMMAND.get(),
    )
    if as_json:
        print(
            json.dumps({"folder": str(made.folder), "file": str(made.file), **made.entry}, indent=2)
        )
    else:
        print(text(made.entry))
        print(f"\nwritten: {made.file}")


def text(entry: Mapping[str, Any]) -> str:
    """The parity table, and what it means."""
    parity = entry["parity"]
    said = (
        f"Both were shown {parity['pictures']:,} test pictures; the largest difference of a logit "
        f"is {parity['relative']:.2g} of the largest logit."
    )
    return f"{align(parity_rows([entry]))}\n\n{said}"
