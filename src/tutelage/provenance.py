"""What a number came from: the code that shaped it, the versions, the machine, the commit."""

import ast
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = [
    "PACKAGE",
    "circumstances",
    "code_digest",
    "digest",
    "git_commit",
    "hardware",
    "versions",
]

PACKAGE = "tutelage"
_ROOT = Path(__file__).parent

# What shapes a number is found by following imports; these are left out, because they only say,
# store or list what others compute. What recipes fill in stands in the resolved recipe.
_SHAPES_NOTHING = {
    "engine.log",
    "engine.memory",
    "engine.profiling",
    "errors",
    "identity",
    "launcher",
    "provenance",
    "recipes",
    "records",
    "stats",
}


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, however its keys are ordered; 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_digest(modules: Iterable[str]) -> str:
    """Digest of these modules and all of ours that they import.

    Comments and docstrings do not count, nor do packages' `__init__` files, which are indexes: name
    the modules that are used through one.

    Args:
        modules: names below the package, such as "engine.loop".
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or _shapes_nothing(name):
            continue
        found[name], imported = _read(name)
        waiting += imported
    return digest(found)


def _shapes_nothing(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in _SHAPES_NOTHING)


@lru_cache
def _read(name: str) -> tuple[str, tuple[str, ...]]:
    """A module's normalized source, and the modules of ours that it names in imports."""
    tree = ast.parse(_file(name).read_text())
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            below = (node.module or "").removeprefix(PACKAGE).removeprefix(".")
            imported |= _modules(below, [alias.name for alias in node.names])
        _drop_texts(node)
    return ast.unparse(tree), tuple(sorted(imported))


def _modules(below: str, names: list[str]) -> set[str]:
    """The module files that an import statement reaches; those behind an index are looked up."""
    if below and not (_ROOT / below.replace(".", "/")).is_dir():
        return {below}
    found = set()
    for name in names:
        inside = f"{below}.{name}".lstrip(".")
        if _file(inside).is_file():
            found.add(inside)
        elif below:
            found |= _defined_behind(below, name)
    return found


def _defined_behind(package: str, name: str) -> set[str]:
    """The module from which a package's index takes a name."""
    for node in ast.walk(
        ast.parse((_ROOT / package.replace(".", "/") / "__init__.py").read_text())
    ):
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return {(node.module or "").removeprefix(PACKAGE + ".")}
    return set()


def _file(name: str) -> Path:
    return _ROOT / f"{name.replace('.', '/')}.py"


def _drop_texts(node: ast.AST) -> None:
    """Drops what stands there to be read only: docstrings, also those of attributes."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    names = ("torch", "torchvision", "timm", "accelerate", "numpy", PACKAGE)
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def hardware() -> dict[str, Any]:
    """The machine, as far as it matters for speed."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def circumstances(command: str) -> dict[str, Any]:
    """When, how, by what and on what something was measured that stands in a record by itself."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "commit": git_commit(),
        "versions": versions(),
        "hardware": hardware(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def git_commit() -> str | None:
    """Commit of the checkout that the package runs from, with "+" if it has changes; else None.

    A package that was installed into somebody else's checkout is not part of it.
    """

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(_ROOT / "provenance.py"))
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--", str(_ROOT)) else "")
    except (OSError, subprocess.CalledProcessError):
        return None
