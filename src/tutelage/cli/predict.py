"""`tutelage predict`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tutelage.errors import DataError
from tutelage.report.tables import percent
from tutelage.runs import Answer, answers, files_of, open_model

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\n"
    "tutelage predict runs/mine photograph.jpg\n\n"
    "tutelage predict runs/mine/exports/onnx-int8/model.onnx photographs --top 1\n\n"
    "tutelage predict runs/mine photographs --json | jq -r .classes[0].name"
)
def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A run's folder or student.safetensors, or a file that was exported.",
        ),
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES…", help="Files, or folders of them.")
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes of each picture.")] = 3,
    subnet: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a student with sub-nets, this one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per picture.")] = False,
) -> None:
    """Say what is in pictures, by a run's student or an exported file.

    They are read, shrunk and cut as those were that the model was measured with. Probabilities are
    the network's softmax, which may be surer than right: a run's record says how much. A file that
    cannot be read gets a line that says why; the others are answered, and the exit code is 2.
    """
    opened = open_model(model, subnet=subnet)
    unread = 0
    for one in answers(opened, files_of(images), top=top):
        print(_json(one) if as_json else _line(one), flush=True)
        unread += one.error is not None
    if unread:
        raise DataError(f"{unread} of the pictures could not be read, as said above.")


def _json(one: Answer) -> str:
    if one.error is not None:
        return json.dumps({"path": str(one.path), "error": one.error})
    return json.dumps({"path": str(one.path), "classes": one.classes})


def _line(one: Answer) -> str:
    if one.error is not None:
        return _on_one_line(one.error)
    said = ", ".join(f"{found['name']} {percent(found['probability'])}" for found in one.classes)
    return _on_one_line(f"{one.path}  {said}")


def _on_one_line(text: str) -> str:
    """Names come from files, and may hold what a terminal would obey."""
    return "".join(mark if mark.isprintable() else "\ufffd" for mark in text)
