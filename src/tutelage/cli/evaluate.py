"""`tutelage evaluate`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli import COMMAND
from tutelage.cli.arguments import AsJson
from tutelage.errors import SettingError
from tutelage.report.acceptance import EXIT_CODES, parse_limits
from tutelage.report.measures import measures
from tutelage.report.tables import align, listing, percent, ratio, run_table
from tutelage.runs import Extras, evaluate_model, named_source
from tutelage.runs import evaluate as evaluate_run

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\n"
    "tutelage evaluate runs/digits-seed0\n"
    "tutelage evaluate runs/digits-seed0 --json | jq .record.students\n"
    "tutelage evaluate runs/digits-seed0 --test --corruptions 2000\n"
    "tutelage evaluate runs/digits-seed0 --accept max_drop=1.0,latency_ms=10\n"
    "tutelage evaluate weights/resnet56.th:resnet56 --data cifar10:data"
)
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="The folder of a finished run; with --data also a student's file, or FILE:NAME.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Measure on the test pictures of another source: digits, "
            "cifar10:FOLDER, pictures.npz, or {name: …, …} as in a recipe.",
        ),
    ] = None,
    test: Annotated[
        bool,
        typer.Option("--test", help="Read test too, and enter that in the run's record."),
    ] = False,
    corruptions: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Show N test pictures under every corruption. Reads test."
        ),
    ] = 0,
    similarity: Annotated[
        bool,
        typer.Option(
            "--similarity", help="Linear CKA of student's and teacher's maps. Reads test."
        ),
    ] = False,
    soft_labels: Annotated[
        Path | None,
        typer.Option(
            help="An .npy or .npz file of how often people named each class of each test picture. "
            "Reads test."
        ),
    ] = None,
    limits: Annotated[
        str | None,
        typer.Option(
            "--accept",
            metavar="LIMITS",
            help="Ask whether the student keeps them, such as max_drop=1.0,latency_ms=10 (points "
            "below the teacher on test; milliseconds at batch 1). Exit code 0: yes, 1: no, 3: "
            "undecided.",
        ),
    ] = None,
    subnet: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of a student with sub-nets, measure this one, and ask of it."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run's record says, and check it against its student.

    The saved student is measured again on validation, and compared with the record. Numbers on
    test come from the record: test is not read again unless --test is given, and every reading is
    entered in the record with its time, command and purpose. The answer to --accept is
    entered, too. Nothing else is written. With --data any model is measured on the test pictures
    of any source.
    """
    extras = Extras(corruptions, similarity, soft_labels)
    asked = parse_limits(limits) if limits is not None else None
    if data is not None:
        if test or asked or subnet:
            raise SettingError(
                "--data goes with a model alone. Leave --test, --accept and --subnet out."
            )
        source = named_source(data)
        entry = evaluate_model(model, source, extras=extras, command=COMMAND.get())
        found = {"model": model, "data": data, "measured": entry}
        print(json.dumps(found, indent=2) if as_json else listing(measures(entry)))
        return
    found = evaluate_run(
        model,
        with_test=test,
        extras=extras,
        limits=asked,
        subnet=subnet,
        command=COMMAND.get(),
    )
    decided = found.get("accepted")
    if as_json:
        print(json.dumps({"run": model, **found}, indent=2))
    else:
        print(text(found, "student" if subnet in (None, "full") else subnet))
        if decided:
            print("\n".join(["", f"accepted: {decided['answer']}", *decided["reasons"]]))
    if decided:
        raise typer.Exit(EXIT_CODES[decided["answer"]])


def text(found: Mapping[str, Any], name: str = "student") -> str:
    """The same for people; facts are of one student."""
    record, again = found["record"], found["again"]
    student, teacher = record["students"][name], record["teacher"]
    lines = [record["name"], "", align(run_table([record])), ""]
    facts = [("sub-net", name)] if name != "student" else []
    if teacher is not None:
        costs = ratio(teacher["macs"], student["macs"])
        facts.append(("cost", f"the teacher has {costs} the MACs of the student"))
    facts += measures(student, teacher)
    facts += [
        ("test read", f"{reading['time']} by `{reading['command']}`: {reading['purpose']}")
        for reading in record["readings"]
    ] or [("test read", "never")]
    for what, value in again.items():
        name, recorded = what.replace("_", " "), student[what]
        verdict = "as recorded" if value == recorded else f"but the record says {recorded:.4f}"
        facts.append(("measured again", f"{name} {percent(value)} ({value:.4f}), {verdict}"))
    return "\n".join([*lines, listing(facts)])
