"""`tutelage distill`."""

import re
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from tutelage.cli import COMMAND
from tutelage.cli.train import summary
from tutelage.errors import SettingError
from tutelage.records import RunFolder
from tutelage.report.page import write_page
from tutelage.report.sources import read_source
from tutelage.runs import train
from tutelage.runs.distilling import LEARNING_WEIGHTS, Wish, methods_of, propose, within_budget

app = typer.Typer(add_completion=False)

_UNITS = {"s": 1 / 60, "sec": 1 / 60, "min": 1.0, "m": 1.0, "h": 60.0}


@app.command(
    epilog="Examples:\n\n"
    "tutelage distill --data photos --student resnet18 --name teacher\n\n"
    "tutelage distill --data photos --teacher runs/teacher --student mobilenetv3_small_100\n\n"
    "tutelage distill --data photos --teacher my.safetensors:resnet50 --student resnet18 "
    "--unlabelled more --method kd+fitnet_hints --budget 1h --control"
)
def distill(
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="A folder of photographs with a sub-folder per class, a .csv or .npz file, or a "
            "source such as digits or cifar10:FOLDER.",
            show_default=False,
        ),
    ],
    student: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The small network; `tutelage models` lists names. FILE:NAME begins with weights.",
            show_default=False,
        ),
    ],
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="TEACHER",
            help="FILE:NAME, or the folder of a run. Without one the student learns from labels "
            "alone, and may be the next one's teacher.",
            show_default=False,
        ),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="More pictures, without labels.", show_default=False),
    ] = None,
    method: Annotated[
        str,
        typer.Option(help=f"One or more, joined by +: {', '.join(LEARNING_WEIGHTS)}."),
    ] = "kd",
    budget: Annotated[
        str, typer.Option(help="How long training may take: 90s, 10min, 2h.")
    ] = "10min",
    size: Annotated[
        int | None,
        typer.Option(help="Side of the photographs that are shown, in pixels.", show_default="224"),
    ] = None,
    control: Annotated[
        bool,
        typer.Option(
            "--control", help="Also train the student on labels alone, for as many steps."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of initial weights, order and views.")] = 0,
    name: Annotated[
        str | None, typer.Option(help="Of the run folder.", show_default="the student's")
    ] = None,
    runs: Annotated[Path, typer.Option(help="The folder of run folders.")] = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the recipe, and train nothing.")
    ] = False,
) -> None:
    """Make a small network of a large one and a folder of pictures.

    Settings are usual ones. It says what it settles: how many pictures validate, and how many steps
    there is time for, from a step that it times. The recipe is in the run folder as recipe.yaml, to
    be changed and run by `tutelage train`. With --control the same student also learns from labels
    alone, in RUNS/NAME-control, and the report shows both; one run of each proves no gain:
    `tutelage compare` can.
    """
    called = name or re.sub(r"[^A-Za-z0-9._-]+", "-", Path(student).name)
    folders = [RunFolder(runs / called), *([RunFolder(runs / f"{called}-control")] * control)]
    if not dry_run:
        for folder in folders:
            folder.require_free()
    if control and teacher is None:
        raise SettingError(
            "Without a teacher the run is its own control: it learns from labels alone. Leave "
            "--control out."
        )
    wish = Wish(teacher, student, data, methods_of(method), unlabelled, size)
    value, said = within_budget(propose(wish, seed=seed), minutes(budget), "The recipe")
    for sentence in said:
        print(sentence)
    if dry_run:
        print(yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=100), end="")
        return
    values = [value, *([_alone(value)] * control)]
    for folder, one in zip(folders, values, strict=True):
        done = train(one, name=folder.path.name, runs=runs, command=COMMAND.get())
        print(summary(done.folder, done.record))
    write_page(read_source([folder.path for folder in folders]), folders[0].path / "report.html")
    if teacher is not None:
        words = ["tutelage", "export", str(folders[0].path), "--to", "onnx"]
        print(f"Out to the device: {shlex.join(words)}")


def minutes(text: str) -> float:
    """`90s`, `10min`, `2h`; a number alone is of minutes.

    >>> minutes("90s"), minutes("2h"), minutes("10")
    (1.5, 120.0, 10.0)

    Raises:
        SettingError: it is none of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    unit = found and (found[2] or "min")
    if not found or unit not in _UNITS:
        raise SettingError(f"A budget is a time such as 90s, 10min or 2h, not {text!r}.")
    return float(found[1]) * _UNITS[unit]


def _alone(value: dict[str, Any]) -> dict[str, Any]:
    """The same student from labels alone."""
    kept = {key: entry for key, entry in value.items() if key != "teacher"}
    data = {key: entry for key, entry in value["data"].items() if key != "unlabelled"}
    return kept | {"data": data, "methods": {}, "task_weight": 1.0}
