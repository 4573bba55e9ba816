"""Packages that only some need."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from tutelage.errors import SettingError

__all__ = ["needed", "quiet", "versions_of"]

_EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx"}
_EXTRAS |= {"executorch": "executorch", "torchao": "executorch"}
_EXTRAS |= {"ray": "ray", "optuna": "tune"}


def needed(*names: str) -> ModuleType:
    """The last of these modules.

    Raises:
        SettingError: the extra that brings one of them is not installed.
    """
    module = None
    for name in names:
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            package = name.partition(".")[0]
            if error.name is None or error.name.partition(".")[0] != package:
                raise
            raise SettingError(
                f"This needs {package}, which is not installed. Install it: "
                f"pip install 'tutelage[{_EXTRAS[package]}]'"
            ) from None
    assert module is not None
    return module


def versions_of(extra: str) -> dict[str, str]:
    """Package → version, of those that an extra brings; none for what is no extra."""
    found = {}
    for name in (name for name, brings in _EXTRAS.items() if brings == extra):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # another build of it, such as onnxruntime-gpu
            continue
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is written to stderr: these packages warn of their own parts, some past Python.

    What goes wrong is raised all the same.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    before = logging.root.manager.disable
    try:
        os.dup2(nowhere, 2)
        logging.disable(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
