"""What is said where a runtime cannot do what is asked: the same words for all of them."""

import re
from pathlib import Path

from torch.export import ExportedProgram

from tutelage.errors import CheckpointError, ExportError, first_line

__all__ = ["cannot_ask", "cannot_quantize", "cannot_run", "damaged", "no_operator"]


def no_operator(program: ExportedProgram, target: str, operator: str, bare: str) -> str:
    """That a target lacks an operator, and which sub-module calls it, as far as can be told.

    Args:
        operator: its name, as the target has it.
        bare: the same without anything before or behind.
    """
    where = _module_path(program, bare)
    place = f", which its sub-module {where!r} uses" if where else ""
    return (
        f"{target} has no operator for {operator}{place}. Replace it by others, or export to "
        "another target."
    )


def _module_path(program: ExportedProgram, operator: str) -> str:
    """The sub-module that calls an operator; empty if that cannot be told."""
    for node in program.graph.nodes:
        if node.op == "call_function" and operator in str(node.target):
            places = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
            place = next((path for path in reversed(places) if path), "")
            return re.sub(r"^(module(\.|$))+", "", place)  # our own wrappers
    return ""


def cannot_quantize(who: str, error: Exception) -> ExportError:
    """That a package failed at it."""
    return ExportError(
        f"{who} could not quantize the network ({type(error).__name__}: {first_line(error)}). Take "
        "fp32 or fp16."
    )


def damaged(path: Path, kind: str, error: Exception) -> CheckpointError:
    """That a file cannot be read."""
    return CheckpointError(
        f"{path} is no {kind} file, or damaged ({first_line(error)}). Export it anew."
    )


def cannot_run(who: str, path: Path, error: Exception) -> CheckpointError:
    """That a runtime does not take a file that can be read."""
    return CheckpointError(f"{who} cannot run {path} ({first_line(error)}). Export it anew.")


def cannot_ask(who: str, path: Path, shape: tuple[int, ...], error: Exception) -> CheckpointError:
    """That a file's graph is not what the file says of itself."""
    return CheckpointError(
        f"{who} cannot ask {path} about {shape} numbers ({first_line(error)}). Export it anew."
    )
