"""The wheel, installed away from the source tree, is the whole package."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]

TESTS = ("methods", "models", "data", "test_errors.py", "test_ops.py", "test_rng.py")
"""Quick tests that need nothing of the repository but themselves."""


class Installed(NamedTuple):
    """A wheel, the folder that it was installed into, and an empty one to run things in."""

    wheel: Path
    packages: Path
    elsewhere: Path

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Python elsewhere; the installed package comes before any other of its name."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.elsewhere,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(self.packages)},
        )


def pip(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    # Built from a copy: a build leaves folders behind, and takes in what earlier ones left.
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "dist", source)
    (wheel,) = (folder / "dist").glob("*.whl")
    pip("install", "--no-deps", "--target", folder / "packages", wheel)
    (folder / "elsewhere").mkdir()
    return Installed(wheel, folder / "packages", folder / "elsewhere")


def test_it_holds_every_module_recipe_and_the_typing_marker(installed: Installed):
    package = ROOT / "src" / "tutelage"
    wanted = {
        path.relative_to(ROOT / "src").as_posix()
        for pattern in ("**/*.py", "recipe_files/*.yaml", "report/templates/*", "py.typed")
        for path in package.glob(pattern)
    }
    assert {"tutelage/__init__.py", "tutelage/py.typed"} <= wanted
    assert any(name.endswith(".yaml") for name in wanted)
    assert any(name.endswith("page.html") for name in wanted)
    with zipfile.ZipFile(installed.wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert held == wanted


def test_the_installed_package_is_the_one_that_is_found(installed: Installed):
    done = installed.python("-c", "import tutelage; print(tutelage.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(installed.packages), done.stderr


def test_the_command_answers(installed: Installed):
    done = installed.python("-m", "tutelage.cli.main", "--help")
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_the_tests_pass_against_it(installed: Installed):
    shutil.copytree(ROOT / "tests", installed.elsewhere / "tests")
    shutil.copy(ROOT / "pyproject.toml", installed.elsewhere)
    origin = installed.elsewhere / "tests" / "test_origin.py"
    origin.write_text(
        "import tutelage\n\ndef test_origin():\n"
        f"    assert tutelage.__file__.startswith({str(installed.packages)!r})\n"
    )
    chosen = [name for name in TESTS if (installed.elsewhere / "tests" / name).exists()]
    assert chosen
    targets = [f"tests/{name}" for name in (*chosen, origin.name)]
    done = installed.python("-m", "pytest", "-q", "-m", "not slow", *targets)
    assert done.returncode == 0, done.stdout + done.stderr
