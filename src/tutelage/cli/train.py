"""`tutelage train`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli import COMMAND
from tutelage.engine.profiling import Dear
from tutelage.launcher import place
from tutelage.report.page import write_page
from tutelage.report.sources import read_source
from tutelage.report.tables import align, cautions, duration, ratio, run_table
from tutelage.runs import train as train_recipe

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples:\n\n"
    "tutelage train digits-teacher --name digits-teacher\n"
    "tutelage train digits methods.kd.temperature=2 seed=1\n"
    "tutelage train my.yaml --name first --resume\n\n"
    "torchrun --nproc-per-node 4 -m tutelage train my.yaml    # four processes train one run\n\n"
    "`methods: []` in a recipe trains, or from a checkpoint fine-tunes, a network on labels alone: "
    "so one makes one's own teacher."
)
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A YAML file, or the name of a packaged recipe (`tutelage recipes ls`).",
            show_default=False,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="key=value",
            help="Replaces what the recipe says; keys are dotted, values are YAML.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Of the run folder.", show_default="the recipe's, with its seed"),
    ] = None,
    runs: Annotated[Path, typer.Option(help="The folder of run folders.")] = Path("runs"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run from its newest checkpoint.")
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Watch about ten steps with torch's profiler; leaves RUNS/NAME/profile.json.",
        ),
    ] = False,
) -> None:
    """Run a recipe: train, measure, and leave a run folder.

    The folder RUNS/NAME holds the resolved recipe, the trained student, its record (what was run,
    on what, with what result), a page with figures (report.html), one line of metrics per interval,
    and the last two checkpoints.
    It is written only once everything fits together, and a folder that exists is never
    overwritten. Test is read once, at the end.

    Ctrl-C saves and says how to go on; a run that was killed is continued with --resume.
    """
    done = train_recipe(
        recipe,
        overrides=overrides or (),
        name=name,
        runs=runs,
        resume=resume,
        profile=profile,
        command=COMMAND.get(),
    )
    if not place().first:
        return
    write_page(read_source([done.folder]), done.folder / "report.html")
    print(summary(done.folder, done.record))
    if profile:
        print(f"\n{profile_text(done.folder, done.profile)}")


def summary(folder: Path, record: dict[str, Any]) -> str:
    """What a finished run came to."""
    took = f"{record['steps']:,} steps in {duration(record['seconds'])}"
    lines = [f"{record['name']}: {took}", "", align(run_table([record])), ""]
    student, teacher = record["students"]["student"], record["teacher"]
    if teacher is not None:
        lines.append(
            f"The teacher has {ratio(teacher['macs'], student['macs'])} the MACs and "
            f"{ratio(teacher['parameters'], student['parameters'])} the parameters of the student."
        )
    lines += [f"note: {caution}" for caution in cautions([record])]
    lines.append(f"All of it is in {folder}; open {folder / 'report.html'} in a browser.")
    return "\n".join(lines)


def profile_text(folder: Path, dearest: Sequence[Dear]) -> str:
    """Which operations the steps were spent on."""
    if not dearest:
        return "The run had too few steps left for a profile; it takes 2 or more."
    rows = [["operation", "calls a step", "ms a step", "of all"]]
    rows += [
        [one.name, f"{one.calls:g}", f"{one.milliseconds:.3f}", f"{100 * one.share:.1f} %"]
        for one in dearest
    ]
    trace = folder / "profile.json"
    return f"{align(rows)}\nThe trace is {trace}; chrome://tracing and ui.perfetto.dev show it."
