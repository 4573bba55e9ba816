"""What int8 costs a student, and what a last run that knows of the rounding gives back.

    python benchmarks/int8.py --record benchmarks/records/int8.jsonl

Each student is trained once, and then goes on in three ways of equal length, from the same weights,
in fp32: without rounding, and with that of each runtime. All are exported; every file is compared
with its network on test, which its run's record enters. What is there already is not made again.

Decided beforehand: by the three seeds of ResNet-8, for each runtime, the accuracy of the int8 file
after the run that rounded minus those after the two that did not, the first run and its equally
long continuation; shown if the 95 % intervals of both paired differences lie above 0. The others
are one run each, and show nothing. Lengths and rates were not tried at other values.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from timing import circumstances, record
from tutelage.exporting import Form, Tolerance
from tutelage.records import RunFolder, read_lines
from tutelage.runs import export, train

__all__ = ["FORMS", "NETWORKS", "STAGES", "Wanted", "measure"]


class Wanted(NamedTuple):
    """A student.

    Attributes:
        recipe: a file, or the name of a packaged one.
        overrides: to that.
        seeds: one run each.
        going_on: what the later runs change in the recipe of the first.
    """

    recipe: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    going_on: tuple[str, ...] = ("train.steps=600", "train.optimizer.lr=0.02")


_ALONE = ("teacher=null", "methods=[]", "task_weight=1.0")

NETWORKS = {
    "resnet8": Wanted("cifar10-small", ("train.optimizer.lr=1.0",), (0, 1, 2)),
    "resnet20": Wanted("cifar10-small", ("student=resnet20", "train.optimizer.lr=0.3"), (0,)),
    "mobilenetv3 on scenes": Wanted(
        str(Path(__file__).with_name("scenes-recipe.yaml")),
        (
            *("student=mobilenetv3_small_050", *_ALONE, "data.labelled=null"),
            *("data.source.size=96", "data.num_views=null", "train.steps=1200"),
        ),
        (0,),
        ("train.steps=300", "train.optimizer.lr=0.01"),
    ),
}

STAGES: dict[str, tuple[str, ...]] = {
    "first": (),
    "goes on": ("train.precision=fp32",),
    "rounds as onnx": ("train.precision=fp32", "train.quantization=onnx"),
    "rounds as executorch": ("train.precision=fp32", "train.quantization=executorch"),
}

_INT8 = (Form("onnx", "int8"), Form("executorch", "int8"))
FORMS = {
    "first": (Form("onnx"), Form("onnx", "fp16"), Form("executorch"), *_INT8),
    "goes on": _INT8,
    "rounds as onnx": _INT8[:1],
    "rounds as executorch": _INT8[1:],
}
"""Stage → what is made of its student."""

_ANY = Tolerance(None, 100.0)
"""Whatever comes out is written: it is what is asked about."""


def measure(name: str, wanted: Wanted, seed: int, runs: Path, into: Path | None) -> None:
    """Trains and exports what is not there yet.

    Args:
        name: of the student.
        runs: folder of the run folders.
        into: file of lines, one for each exported file; None: nothing is entered.
    """
    known = [line["result"] for line in read_lines(into)] if into and into.exists() else []
    there = {(one["network"], one["seed"], one["stage"], one["form"]) for one in known}
    first = runs / f"{name.replace(' ', '-')}-seed{seed}"
    for stage, changes in STAGES.items():
        folder = first if stage == "first" else Path(f"{first}-{stage.replace(' ', '-')}")
        if not RunFolder(folder).record.exists():
            overrides = [*wanted.overrides, f"seed={seed}"]
            if stage != "first":
                overrides += [*wanted.going_on, *changes, f"student={{run: {first}}}"]
            train(wanted.recipe, overrides=overrides, name=folder.name, runs=runs, resume=True)
        for form in FORMS[stage]:
            if (name, seed, stage, form.check().name) in there:
                continue
            about = circumstances()
            found = _exported(folder, form.check())
            found = {"kind": "int8", "network": name, "seed": seed, "stage": stage, **found}
            if into is not None:
                record(into, about, found)
            print(_said(found), file=sys.stderr)


def _exported(folder: Path, form: Form) -> dict[str, Any]:
    """What a file says and costs beside its network; an export that is there is not made again."""
    entries = RunFolder(folder).read_record().get("exports", ())
    entry = next((one for one in entries if one["name"] == form.name), None)
    if entry is None:
        entry = export(folder, form, tolerance=_ANY, command="benchmarks/int8.py").entry
    run = RunFolder(folder).read_record()
    return {
        "form": entry["name"],
        **{key: entry[key] for key in ("parity", "bytes", "latency_ms", "latency_p95_ms")},
        "threads": entry["threads"],
        "run": {key: run[key] for key in ("name", "commit", "code", "recipe", "readings")},
    }


def _said(found: dict[str, Any]) -> str:
    accuracy = found["parity"]["accuracy"]
    return (
        f"{found['network']}, seed {found['seed']}, {found['stage']}, {found['form']}: "
        f"{100 * accuracy['network']:.1f} % → {100 * accuracy['exported']:.1f} %"
    )


def main(
    into: Annotated[Path | None, typer.Option("--record", help="Add a line for each file.")] = None,
    network: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    runs: Annotated[Path, typer.Option(help="Where run folders lie.")] = Path("runs/int8"),
) -> None:
    """Trains, exports and compares."""
    if network is not None and network not in NETWORKS:
        raise typer.BadParameter(f"There is no {network!r}: {', '.join(NETWORKS)}.")
    for name, wanted in NETWORKS.items():
        for seed in wanted.seeds if network in (None, name) else ():
            measure(name, wanted, seed, runs, into)


if __name__ == "__main__":
    typer.run(main)
