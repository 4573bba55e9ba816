"""`tutelage taps`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import PydanticCustomError

from tutelage import rng
from tutelage.cli.arguments import AsJson
from tutelage.errors import CheckpointError, NetworkError, RecipeError, SettingError
from tutelage.models import NETWORKS
from tutelage.models.network import Network
from tutelage.models.saved import Description
from tutelage.networks import open_student
from tutelage.recipes.networks import NETWORK_KEYS, network_entry
from tutelage.report.tables import align
from tutelage.taps import Stage, pair_stages
from tutelage.types import InputSpec

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\n"
    "tutelage taps resnet56 resnet8 --size 32 --classes 10\n"
    "tutelage taps runs/teacher resnet20 --size 32"
)
def taps(
    teacher: Annotated[
        str, typer.Argument(metavar="TEACHER", help="NAME, FILE:NAME, or a run's folder.")
    ],
    student: Annotated[
        str, typer.Argument(metavar="STUDENT", help="NAME, FILE:NAME, or a run's folder.")
    ],
    size: Annotated[
        str, typer.Option(metavar="SIDE", help="Pixels of a picture: 224, or 160x240 (high, wide).")
    ] = "224",
    classes: Annotated[int, typer.Option(min=1, help="Length of the output.")] = 1000,
    channels: Annotated[int, typer.Option(min=1, help="1 for gray pictures, 3 for RGB.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Explain which maps `taps: auto` would pair, and which not.

    Runs both networks once and shows the stages of both by stride: the module that ends the stage,
    its channels, height and width, and how the module puts them out (map: channels first; nhwc:
    channels last; tokens). Stages of equal stride are pairs. Weights do not matter, so none are
    read, but for a run's, which also has a size, channels and classes of its own.
    """
    height, width = _sides(size)
    spec = InputSpec(height, width, channels, (), ()).plain()
    stages = {
        what: _stages(_network(said, what, spec, classes), said, what)
        for what, said in (("teacher", teacher), ("student", student))
    }
    rows = _rows(stages["student"], stages["teacher"])
    if as_json:
        found = {
            what: {"network": said, "stages": [stage._asdict() for stage in stages[what]]}
            for what, said in (("student", student), ("teacher", teacher))
        }
        print(json.dumps(found | {"strides": rows}, indent=2))
    else:
        print(text(stages["student"], stages["teacher"], rows))


def text(student: Sequence[Stage], teacher: Sequence[Stage], rows: Sequence[dict[str, Any]]) -> str:
    """The same for people."""
    known = {("student", one.name): one for one in student}
    known |= {("teacher", one.name): one for one in teacher}
    head = ["channels", "height×width", "layout"]
    table = [["stride", "teacher", *head, "student", *head, "paired"]]
    for row in rows:
        cells = [_stride(row["stride"])]
        for what in ("teacher", "student"):
            cells += _cells(known.get((what, row[what])))
        table.append([*cells, "yes" if row["why_not"] is None else f"no: {row['why_not']}"])
    pairs = [f"[{row['student']}, {row['teacher']}]" for row in rows if row["why_not"] is None]
    means = f"means taps: [{', '.join(pairs)}]" if pairs else "finds nothing to pair; name pairs"
    return f"{align(table)}\n\ntaps: auto {means}"


# The networks


def _sides(size: str) -> tuple[int, int]:
    """Height and width.

    Raises:
        SettingError: it has another form.
    """
    sides = re.fullmatch(r"([1-9][0-9]{0,4})(?:[x×]([1-9][0-9]{0,4}))?", size.strip().lower())
    if sides is None:
        raise SettingError(
            f"--size is one side in pixels, or HEIGHTxWIDTH, not {size!r}. Write, for example, "
            "224 or 160x240."
        )
    return int(sides[1]), int(sides[2] or sides[1])


def _network(said: str, what: str, spec: InputSpec, classes: int) -> Network:
    """The network that an argument names, with fresh weights unless it is a run's.

    Raises:
        TutelageError: there is none.
    """
    if said not in NETWORKS and Path(said).is_dir():
        return open_student(Path(said), what)[0]
    try:
        entry = network_entry(said)
    except PydanticCustomError as error:
        raise RecipeError(
            f"The {what} is NAME, FILE:NAME or a run's folder, and {error.message()}."
        ) from None
    if "checkpoint" in entry and not Path(entry["checkpoint"]).is_file():
        raise CheckpointError(
            f"There is no file {entry['checkpoint']} with weights of the {what}. Correct the path, "
            f"or write {entry['name']} alone."
        )
    settings = {key: value for key, value in entry.items() if key not in ("name", *NETWORK_KEYS)}
    with rng.part(0, what):
        return Description(entry["name"], settings, classes, spec).make()


def _stages(network: Network, said: str, what: str) -> list[Stage]:
    """Its stages.

    Raises:
        NetworkError: it does not take such pictures.
    """
    try:
        return network.stages()
    except Exception as error:  # whatever somebody's network says to a size that it does not take
        spec = network.spec
        assert spec is not None
        why = str(error).strip().partition("\n")[0].rstrip(".")
        raise NetworkError(
            f"The {what} {said} does not take pictures of {spec.channels} channel(s), "
            f"{spec.height}×{spec.width} ({type(error).__name__}: {why}). Give its own --size "
            "and --channels."
        ) from error


# What is paired


def _rows(student: Sequence[Stage], teacher: Sequence[Stage]) -> list[dict[str, Any]]:
    """One row per stride, from the finest to the coarsest."""
    paired = {pair.student for pair in pair_stages(student, teacher)}
    names = {
        what: {stage.stride: stage.name for stage in stages}
        for what, stages in (("student", student), ("teacher", teacher))
    }
    rows = []
    for stride in sorted(names["student"].keys() | names["teacher"].keys()):
        mine, theirs = names["student"].get(stride), names["teacher"].get(stride)
        missing = "teacher" if theirs is None else "student"
        why = f"no stage of stride {_stride(stride)} in the {missing}"
        rows.append(
            {
                "stride": stride,
                "student": mine,
                "teacher": theirs,
                "why_not": None if mine in paired else why,
            }
        )
    return rows


def _stride(stride: tuple[int, int]) -> str:
    down, across = stride
    return str(down) if down == across else f"{down}×{across}"


def _cells(stage: Stage | None) -> list[str]:
    if stage is None:
        return ["–", "", "", ""]
    channels, height, width = stage.shape
    return [stage.name, str(channels), f"{height}×{width}", stage.layout]
