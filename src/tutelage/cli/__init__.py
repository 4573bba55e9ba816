"""The command line: `main` finds the verb, one file per verb does the rest."""

from contextvars import ContextVar

__all__ = ["COMMAND"]

COMMAND: ContextVar[str] = ContextVar("COMMAND", default="tutelage")
"""How the running command was called, for records."""
