"""A network that a function in somebody's own file makes. The file is code, and is run."""

import importlib.util
import inspect
import sys
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.errors import NetworkError, first_line, nearest

__all__ = ["file_of", "make_from_file"]


def file_of(place: str) -> Path:
    """The file in FILE.py:FUNCTION."""
    return Path(place.rpartition(":")[0])


def make_from_file(
    place: str, *, num_classes: int, in_channels: int, arguments: dict[str, Any], what: str
) -> nn.Module:
    """Calls the function, and says that it does.

    Args:
        place: FILE.py:FUNCTION.
        num_classes, in_channels: are handed over if the function takes them.
        arguments: of the function, by name.
        what: how the network is called, such as "student".

    Raises:
        NetworkError: there is no such file or function, or it fails, or makes no module.
    """
    file, name = file_of(place), place.rpartition(":")[2]
    if not file.is_file():
        raise NetworkError(f"There is no file {file}, which is to make the {what}. Check the path.")
    warnings.warn(
        f"The {what} is made by {name}() of {file}: this file is code, and runs now.", stacklevel=2
    )
    module = _run(file)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise NetworkError(f"{file} has no function {name!r}; {nearest(name, known)}.")
    given: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
    taken = inspect.signature(function).parameters
    try:
        made = function(**{k: v for k, v in given.items() if k in taken}, **arguments)
    except Exception as error:  # somebody's code may raise anything
        raise NetworkError(f"{name}() of {file} fails: {_said(error)}. Correct it.") from error
    if not isinstance(made, nn.Module):
        raise NetworkError(
            f"{name}() of {file} returns {type(made).__name__}, and not a torch.nn.Module. Return "
            "the network."
        )
    return made


def _run(file: Path) -> Any:
    """The file as a module, under a name that its content gives."""
    name = f"_from_file_{sha256(file.read_bytes()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise NetworkError(f"{file} fails when it is run: {_said(error)}. Correct it.") from error
    return module


def _said(error: Exception) -> str:
    kind, said = type(error).__name__, first_line(error)
    return kind if said == kind else f"{kind}: {said}"
