"""What counts as the code that shaped a number, and what a number says of its origin."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tutelage import provenance
from tutelage.provenance import code_digest, digest, git_commit, hardware, versions

STARTS = ["engine.loop", "evaluation.accuracy", "data.subsets", "methods.kd"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package that can be edited; its code is only read."""
    copy = tmp_path / "checkout" / "tutelage"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(provenance.__file__).parent, copy, ignore=ignored)
    monkeypatch.setattr(provenance, "_ROOT", copy)
    provenance._read.cache_clear()
    yield copy
    provenance._read.cache_clear()


def code() -> str:
    provenance._read.cache_clear()
    return code_digest(STARTS)


def append(file: Path, text: str = "ADDED = 1\n") -> None:
    file.write_text(file.read_text() + "\n" + text)


SHAPING = [
    "engine/loop.py",
    "engine/processes.py",
    "engine/session.py",
    "engine/optim.py",
    "engine/settings.py",
    "distiller/distiller.py",
    "distiller/objective.py",
    "tasks/classification.py",
    "data/loader.py",
    "data/views.py",
    "data/subsets.py",
    "data/pictures.py",
    "models/network.py",
    "evaluation/accuracy.py",
    "teachers/live.py",
    "methods/kd.py",
    "methods/_base.py",
    "ops.py",
    "rng.py",
    "types.py",
    "taps.py",
]


@pytest.mark.slow
def test_code_that_shapes_numbers_counts(package: Path):
    starts = [*STARTS, "methods.attention_transfer"]
    seen = {code_digest(starts): "nothing"}
    for file in SHAPING:
        append(package / file)
        provenance._read.cache_clear()
        seen.setdefault(code_digest(starts), file)
    assert list(seen.values()) == ["nothing", *SHAPING]


MODULE = '''"""What it is."""

LIMIT = 3
"""Why three."""


class Thing:
    """A thing."""

    size: int = LIMIT
    """Of the thing."""

    def grow(self, by: int = 1) -> str:
        """Grows."""
        self.size += by
        return "text that is no docstring"
'''


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ("What it is.", "What it was.", False),
        ("Why three.", "Why not.", False),
        ("A thing.", "One thing.", False),
        ("Of the thing.", "How large.", False),
        ('        """Grows."""\n', "", False),
        ("LIMIT = 3", "LIMIT = (\n    3  # not four\n)\n\n", False),
        ("LIMIT = 3", "LIMIT = 4", True),
        ("by: int = 1", "by: int = 2", True),
        ("self.size += by", "self.size -= by", True),
        ("text that is no docstring", "other text", True),
    ],
)
def test_code_counts_but_comments_docstrings_and_layout_do_not(
    package: Path, before: str, after: str, counts: bool
):
    file = package / "engine" / "thing.py"
    file.write_text(MODULE)
    first = code_digest(["engine.thing"])
    assert before in MODULE
    file.write_text(MODULE.replace(before, after, 1))
    provenance._read.cache_clear()
    assert (code_digest(["engine.thing"]) != first) == counts


OTHER = [
    "errors.py",
    "records.py",
    "stats.py",
    "recipes/recipe.py",
    "runs/run.py",
    "cli/main.py",
    "report/tables.py",
    "comparison/compare.py",
    "methods/__init__.py",
    "models/__init__.py",
    "methods/fitnet_hints.py",
    "data/cifar.py",
]


def test_what_shapes_nothing_here_does_not_count(package: Path):
    first = code()
    for file in OTHER:
        append(package / file)
    assert code() == first


def test_a_new_module_that_nothing_here_imports_does_not_count(package: Path):
    first = code()
    (package / "methods" / "new.py").write_text("X = 1\n")
    append(package / "methods" / "__init__.py", "from tutelage.methods.new import X\n")
    assert code() == first


def test_a_new_module_counts_once_it_is_imported(package: Path):
    first = code()
    (package / "engine" / "new.py").write_text("X = 1\n")
    append(package / "engine" / "loop.py", "from tutelage.engine import new\n")
    imported = code()
    (package / "engine" / "new.py").write_text("X = 2\n")
    assert len({first, imported, code()}) == 3


def test_names_behind_an_index_are_looked_up(package: Path):
    found = provenance._modules("data", ["digits", "Views", "DATASETS"])
    assert found == {"data.digits", "data.views"}


def test_the_order_of_modules_does_not_count():
    assert code_digest(STARTS) == code_digest([*reversed(STARTS), STARTS[0]])


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])
    assert len(digest(None)) == 16


def test_a_digest_takes_no_number_that_json_has_not():
    with pytest.raises(ValueError, match="JSON"):
        digest(float("nan"))


# The commit


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_says_if_it_was_changed(package: Path):
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "first")
    commit = git(package.parent, "rev-parse", "--short=12", "HEAD")
    assert git_commit() == commit
    (package.parent / "notes.txt").write_text("beside the package\n")
    assert git_commit() == commit
    append(package / "rng.py")
    assert git_commit() == commit + "+"


def test_no_checkout_has_no_commit(package: Path):
    assert git_commit() is None


def test_a_package_installed_into_another_checkout_has_no_commit(package: Path):
    git(package.parent, "init", "-q")
    (package.parent / ".gitignore").write_text("tutelage/\n")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "somebody else's")
    assert git_commit() is None


def test_versions_and_hardware_are_said():
    assert {"python", "torch", "torchvision", "tutelage"} <= versions().keys()
    machine = hardware()
    assert machine["cores"] >= 1
    assert machine["processor"]
    assert machine["system"]
