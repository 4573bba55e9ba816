"""The rules of the house that a tool can check: who imports whom, and what stays out."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tutelage
from tutelage.ops import pool_to_smaller

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
MODULES = sorted(SOURCE.rglob("*.py"))

FACE_NEEDS = {"torch", "numpy", "safetensors", "jaxtyping"}
"""All that somebody's own training loop has to install."""

TORCH_FREE = ("errors", "records", "report", "stats")
"""Rows that judge records; they must serve where there is no torch."""

LAZY_IMPORTS = {Path("tutelage/__init__.py"), Path("tutelage/cli/main.py")}
"""The two files that may import the own package inside a function."""


def python(code: str) -> str:
    """Runs code in a fresh process and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def blocking(names: set[str]) -> str:
    """Code after which these top-level modules are absent, also for who looks before importing."""
    return f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        blocked = name.partition(".")[0] in {sorted(names)!r}
        return None if blocked else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


def optional_modules() -> set[str]:
    """Top-level modules of every dependency, extras included, that the library face can miss."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {canonicalize_name(Requirement(entry).name) for entry in stated}
    needless = (names | {"plotly"}) - FACE_NEEDS - {"setuptools"}  # torch itself asks for that
    found = packages_distributions()
    return {
        module
        for module, distributions in found.items()
        if {canonicalize_name(name) for name in distributions} & needless
    }


def violations(code: str) -> list[str]:
    """What a module does that the house does not do, as "line: what"."""
    found = []
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "hasattr":
            found.append(f"{node.lineno}: hasattr")
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        for inner in ast.walk(node):
            names = [alias.name for alias in inner.names] if isinstance(inner, ast.Import) else []
            if isinstance(inner, ast.ImportFrom):
                names = [inner.module or ""] if inner.level == 0 else ["tutelage"]
            line = getattr(inner, "lineno", 0)
            if any(name.partition(".")[0] == "tutelage" for name in names):
                found.append(f"{line}: own package imported inside a function")
    return sorted(set(found))


def files_of_the_project() -> list[Path]:
    """Every file that is, or would be, in the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_imports_keep_to_their_rows():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_loads_none_of_its_dependencies():
    heavy = FACE_NEEDS | optional_modules()
    assert {"accelerate", "rich", "sklearn", "timm", "yaml"} <= heavy
    loaded = python("import sys, tutelage; print(*{m.partition('.')[0] for m in sys.modules})")
    assert not heavy & set(loaded.split())


@pytest.mark.parametrize("module", TORCH_FREE)
def test_judging_records_needs_no_torch(module: str):
    place = SOURCE / "tutelage" / module
    if not place.is_dir() and not place.with_suffix(".py").exists():
        pytest.skip(f"there is no {module} yet")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    checked = next(c for c in contracts["contracts"] if c["id"] == "no-torch")["source_modules"]
    assert f"tutelage.{module}" in checked, "pyproject.toml: add it to the contract no-torch"
    python(blocking({"torch", "jaxtyping", "safetensors"}) + f"import tutelage.{module}")


@pytest.mark.skipif(not getattr(tutelage, "__all__", None), reason="no public names yet")
@pytest.mark.parametrize("use", ["tutelage.Distiller", "tutelage.load", "tutelage.methods"])
def test_the_library_face_needs_torch_numpy_safetensors_and_jaxtyping_alone(use: str):
    optional = optional_modules()
    asked = {"accelerate", "plotly", "pydantic", "rich", "sklearn", "typer"}
    assert asked <= optional | {"plotly"}  # not installed everywhere
    code = blocking(optional | asked) + f"import importlib, tutelage\n{use}\n"
    assert python(code) == ""


def test_blocking_blocks():
    code = """
from importlib.util import find_spec
print(find_spec("rich"), find_spec("json") is not None)
try:
    import rich.table
except ImportError as error:
    print(error)
"""
    assert python(blocking({"rich"}) + code).splitlines() == ["None True", "No module named 'rich'"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_hasattr_and_no_own_imports_inside_functions(path: Path):
    found = violations(path.read_text())
    if path.relative_to(SOURCE) in LAZY_IMPORTS:
        found = [each for each in found if "imported" not in each]
    assert not found


def test_the_check_of_sources_finds_what_it_looks_for():
    assert len(MODULES) > 4
    code = """
import tutelage.ops

def f(x):
    import torch
    from tutelage import rng
    from .data import views
    import os, tutelage.types
    return hasattr(x, "shape")
"""
    inside = "own package imported inside a function"
    assert violations(code) == [f"{n}: {inside}" for n in (6, 7, 8)] + ["9: hasattr"]


ADDRESSES = re.compile(
    r"(?<![\w.~-])/(?:work|opt|root|home|Users)/\w"
    r"|file://+\w"
    r"|\b(?:pypi|pythonhosted|npmjs|anaconda)\.(?:org|com)\b"
    r"|download\.pytorch\.org"
    r"|--(?:extra-)?index-url[ =]"
)


def test_no_machine_path_and_no_registry_address_is_in_the_project():
    files = files_of_the_project()
    assert ROOT / "pyproject.toml" in files
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in files
        for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1)
        if ADDRESSES.search(line)
    ]
    assert not found


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("see /" + "opt/venv/bin/python", True),
        ('"/' + 'home/somebody/data"', True),
        ("https://files.pythonhosted" + ".org/packages/x.whl", True),
        ("pip install --index-url" + " X", True),
        ("#!/usr/bin/env bash", False),
        ("../shared/data, docs/work/x, $(HOME)/x", False),
        ("https://arxiv.org/abs/1503.02531", False),
    ],
)
def test_the_check_of_addresses_finds_what_it_looks_for(line: str, wrong: bool):
    assert bool(ADDRESSES.search(line)) == wrong


@pytest.mark.skipif(
    os.environ.get("TUTELAGE_NO_SHAPE_HOOK") == "1", reason="shapes are not checked in this run"
)
def test_shapes_in_signatures_are_checked_while_tests_run():
    maps = torch.zeros(2, 3, 4, 4)
    pool_to_smaller(maps, maps)
    with pytest.raises(TypeCheckError):
        pool_to_smaller(maps, torch.zeros(3, 3, 4, 4))
