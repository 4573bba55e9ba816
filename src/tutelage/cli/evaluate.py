"""`tutelage evaluate`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli import COMMAND
from tutelage.report.tables import align, listing, percent, ratio, run_table
from tutelage.runs import evaluate as evaluate_run

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\n"
    "tutelage evaluate runs/digits-seed0\n"
    "tutelage evaluate runs/digits-seed0 --json | jq .record.students"
)
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    test: Annotated[
        bool,
        typer.Option("--test", help="Read test too, and enter that in the run's record."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Show what a run's record says, and check it against its student.

    The saved student is measured again on validation, and compared with the record. Numbers on
    test come from the record: test is not read again unless --test is given, and every reading is
    entered in the record with its time, command and purpose. Nothing else is written.
    """
    found = evaluate_run(run, with_test=test, command=COMMAND.get())
    print(json.dumps({"run": str(run), **found}, indent=2) if as_json else text(found))


def text(found: dict[str, Any]) -> str:
    """The same for people."""
    record, again = found["record"], found["again"]
    student, teacher = record["students"]["student"], record["teacher"]
    lines = [record["name"], "", align(run_table([record])), ""]
    facts = []
    if teacher is not None:
        costs = ratio(teacher["macs"], student["macs"])
        facts.append(("cost", f"the teacher has {costs} the MACs of the student"))
    facts += [
        ("test read", f"{reading['time']} by `{reading['command']}`: {reading['purpose']}")
        for reading in record["readings"]
    ] or [("test read", "never")]
    for what, value in again.items():
        name, recorded = what.replace("_", " "), student[what]
        verdict = "as recorded" if value == recorded else f"but the record says {recorded:.4f}"
        facts.append(("measured again", f"{name} {percent(value)} ({value:.4f}), {verdict}"))
    return "\n".join([*lines, listing(facts)])
