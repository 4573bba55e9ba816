"""What step.py and peers.py are asked alike, and what they refuse."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from timing import ENOUGH
from workloads import WORKLOADS

__all__ = ["AsJson", "CompileTeacher", "Device", "Into", "Rounds", "Threads", "require"]

Rounds = Annotated[int, typer.Option(min=2, help="Alternating rounds.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Into = Annotated[
    Path | None, typer.Option("--record", help="Add a line to this file; 30 rounds at least.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Of the CPU; as torch has it.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
CompileTeacher = Annotated[
    bool, typer.Option(help="Our teacher is compiled, as by train.compile_teacher.")
]


def require(workloads: Iterable[str], rounds: int, into: Path | None) -> None:
    """Refuses workloads that there are not, and a record of too few rounds."""
    if into and rounds < ENOUGH:
        raise typer.BadParameter(f"A record needs at least {ENOUGH} rounds, not {rounds}.")
    for name in workloads:
        if name not in WORKLOADS:
            raise typer.BadParameter(f"There is no workload {name!r}: {', '.join(WORKLOADS)}.")
