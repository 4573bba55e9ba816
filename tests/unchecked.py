"""Python in a process of its own, without the check of shapes, which compiling cannot take."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def run(code: str, *, beside: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs code that must end well: no conftest is loaded, so nothing hooks into imports.

    Args:
        beside: a test file, `__file__`, whose name and whose neighbors' can be imported.

    Returns:
        What it wrote.
    """
    places = [TESTS, *([Path(beside).parent] if beside else [])]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=places[-1],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def call(file: str, function: str) -> "subprocess.CompletedProcess[str]":
    """Calls a function of a test file, such as `call(__file__, "check(3)")`."""
    return run(f"import {Path(file).stem} as tests; tests.{function}", beside=file)
