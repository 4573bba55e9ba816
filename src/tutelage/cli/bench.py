"""`tutelage bench`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli import COMMAND
from tutelage.cli.arguments import AsJson
from tutelage.errors import SettingError
from tutelage.report.exports import bench_notes, bench_rows
from tutelage.report.tables import align
from tutelage.runs import bench as bench_models

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\n"
    "tutelage bench runs/mine\n\n"
    "tutelage bench runs/mine --teacher --compile --batch 1,64 --threads 1\n\n"
    "tutelage bench for-the-phone/model.pte runs/other/exports/onnx-fp32/model.onnx"
)
def bench(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL…", help="Runs' folders, and files that were exported."),
    ],
    batch: Annotated[str, typer.Option(metavar="N,N,…", help="Pictures at a time.")] = "1,32",
    rounds: Annotated[int, typer.Option(min=3, metavar="N", help="How often each is timed.")] = 30,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of each.", show_default="as many as there are cores"),
    ] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Time the teachers of runs, too.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Time students as torch.compile makes them, too.")
    ] = False,
    memory: Annotated[
        bool,
        typer.Option("--memory/--no-memory", help="Whether to measure memory, in processes."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Time a run's student and its exported files, side by side.

    A run stands for its student and for every file that was exported from it. All take turns, in an
    order drawn anew in each round. Latency is of a batch; memory is what a process needs to open
    the model and answer, beyond what it had before. What is measured of a run goes into its record,
    and so into its report.
    """
    lines = bench_models(
        models,
        batches=_numbers(batch),
        rounds=rounds,
        threads=threads,
        teacher=teacher,
        compiled=compiled,
        memory=memory,
        command=COMMAND.get(),
    )
    print(json.dumps({"lines": lines}, indent=2) if as_json else text(lines))


def _numbers(said: str) -> list[int]:
    try:
        return [int(part) for part in said.split(",")]
    except ValueError:
        raise SettingError(
            f"--batch is numbers of pictures with commas between, not {said!r}: 1,32"
        ) from None


def text(lines: Sequence[Mapping[str, Any]]) -> str:
    """The table, and what is to be noticed."""
    several = len({line["model"] for line in lines}) > 1
    named = [
        {**line, "name": f"{line['model']}: {line['name']}"} if several else line for line in lines
    ]
    first = lines[0]
    notes = [f"CPU, {first['threads']} thread(s), {first['rounds']} rounds.", *bench_notes(named)]
    return "\n".join([align(bench_rows(named)), "", *notes])
