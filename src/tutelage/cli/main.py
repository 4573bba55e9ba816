"""The command `tutelage`: finds the verb, and says in one sentence what went wrong.

Exit codes: 0; 1 and 3 for the answers no and undecided to `evaluate --accept`; 2 for anything that
is the input's fault; 128 + signal if the run was told to stop. A fault of ours ends in a traceback,
to which Python gives exit code 1, too.
"""

import errno
import importlib
import os
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from tutelage import __version__
from tutelage.cli import COMMAND
from tutelage.errors import Interrupted, RecipeError, TutelageError, one_of
from tutelage.launcher import require_one_process

__all__ = ["VERBS", "main"]

VERBS = {
    "distill": ("distill", "Make a small network of a large one and a folder of pictures."),
    "train": ("train", "Run a recipe: train, measure, and leave a run folder."),
    "evaluate": ("evaluate", "Show what a run's record says, and check it against its student."),
    "export": ("export", "Write a student for another runtime, and compare both."),
    "bench": ("bench", "Time a run's student and its exported files, side by side."),
    "predict": ("predict", "Say what is in pictures, by a run's student or an exported file."),
    "cache": ("cache", "Ask a recipe's teacher once, and store its answers."),
    "check": ("check", "Build a recipe and take one step, without writing anything."),
    "compare": ("compare", "Run every setting with every seed, and put them into one table."),
    "report": (
        "report",
        "Put records of runs, or of a comparison, into tables and a page.",
    ),
    "taps": ("taps", "Explain which maps `taps: auto` would pair, and which not."),
    "methods": ("methods", "List the transfer methods, or show the card of one."),
    "models": ("models", "List the networks that a recipe can name, or show one."),
    "recipes": ("recipes", "List, show or copy the recipes in the package; print the schema."),
}
"""Verb → its module in this package, and one line of help."""

_BAD_INPUT, _INTERRUPTED = 2, 130
_RESUMABLE = {"train": "--resume", "compare": None, "cache": None}
"""Verbs that can go on where they stopped, and what the second call needs."""
_SHARED = ("train", "cache")
"""Verbs whose work several processes share."""


class Verbs(TyperGroup):
    """Knows the verbs by name, and imports the one that was asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """A verb's name and one line of help."""
        return TyperCommand(cmd_name, help=VERBS[cmd_name][1]) if cmd_name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str, Any, list[str]]:
        """The verb itself."""
        one_of("command", args[0], VERBS, RecipeError)
        module = importlib.import_module(f"tutelage.cli.{VERBS[args[0]][0]}")
        command = get_command(module.app)
        return args[0], _flowing(command), args[1:]


def _flowing(command: Any) -> Any:
    """The command, whose help is of paragraphs; lines of the source are none of a terminal."""
    if command.help:
        command.help = re.sub(r"(?<=\S)\n(?=\S)", " ", command.help)
    return command


app = typer.Typer(
    cls=Verbs, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]}
)


def _version(wanted: bool) -> bool:
    if wanted:
        print(f"tutelage {__version__}")
        raise typer.Exit
    return wanted


@app.callback(
    epilog="A first run, on scans that are in the package:\n\n"
    "tutelage train digits-teacher --name digits-teacher\n"
    "tutelage train digits",
)
def tutelage(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Make a small, fast vision network do a large one's job, and show what that gained.

    A recipe says what to train on what; a run of it leaves a folder with the trained student and a
    record of how it was made and what it measured. `tutelage COMMAND --help` says more.
    """
    del version


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: without the program's name; those of the process unless given.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    COMMAND.set(shlex.join(["tutelage", *arguments]))
    if "WORLD_SIZE" in os.environ:  # torch would warn of how the engine calls it, in each process
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _show_warning(warnings.showwarning)
        try:
            if arguments[0] in VERBS and arguments[0] not in _SHARED:
                require_one_process(f"calls of tutelage {arguments[0]}")
            result = _flowing(get_command(app)).main(
                arguments, prog_name="tutelage", standalone_mode=False
            )
        except Interrupted as error:
            code = 128 + error.signal
            if error.finished and arguments[0] == "train":
                return _say(str(error), code)
            return _interrupted(str(error), arguments, code)
        except TutelageError as error:
            return _refuse(str(error))
        except typer.TyperException as error:
            verb = f"{arguments[0]} " if arguments and arguments[0] in VERBS else ""
            return _refuse(
                f"{error.format_message().rstrip('.')}. `tutelage {verb}--help` shows the usage."
            )
        except KeyboardInterrupt:
            result = _INTERRUPTED
        except OSError as error:
            return _refuse(_os_sentence(error))
    if result == _INTERRUPTED:
        return _interrupted("Stopped.", arguments, _INTERRUPTED)
    return result if isinstance(result, int) else 0


def _refuse(sentence: str) -> int:
    return _say(f"error: {sentence}", _BAD_INPUT)


def _say(sentence: str, code: int) -> int:
    print(sentence if _rank() == "0" else f"[{_rank()}] {sentence}", file=sys.stderr)
    return code


def _rank() -> str:
    """Which of several processes this is, as it stands in the environment, be it nonsense."""
    return os.environ.get("RANK", "0")


def _interrupted(sentence: str, arguments: list[str], code: int) -> int:
    """Says how to go on, with the very command."""
    if arguments and arguments[0] in _RESUMABLE:
        needed = _RESUMABLE[arguments[0]]
        more = [needed] if needed and needed not in arguments else []
        sentence += f" Go on with: {shlex.join(['tutelage', *arguments, *more])}"
    return _say(sentence, code)


def _os_sentence(error: OSError) -> str:
    """What the system refused, where the place is the user's choice.

    Raises:
        OSError: the same; it is not the input's fault.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" for {error.filename}" if error.filename else ""
        return f"No space is left on the device{place}. Free some, or choose another folder."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
        return (
            f"{error.filename} may not be read or written ({error.strerror}). Choose another "
            "place, or ask for the right."
        )
    raise error


def _show_warning(otherwise: Any) -> Any:
    """Prints what is meant for the user as one plain line; others go the usual way."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UserWarning):
            if _rank() == "0":  # the others find the same
                print(f"note: {message}", file=sys.stderr)
        else:
            otherwise(message, category, filename, lineno, file, line)

    return show


if __name__ == "__main__":
    sys.exit(main())
