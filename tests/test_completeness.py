"""Nothing is missing: every method file has its index line, card, tests, golden curve and recipe.

What is found missing is named. The second half proves that the search finds what is missing.
"""

import ast
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import tutelage
from tutelage.methods import METHODS

HEADINGS = [
    "Idea",
    "Formula",
    "Needs",
    "Settings",
    "Cost",
    "When to use it, when not",
    "With other methods",
    "Source",
    "Evidence",
]


@dataclass(frozen=True)
class Places:
    """Where the parts of a method lie, and what the index names."""

    methods: Path
    tests: Path
    golden: Path
    recipes: Path
    index: Collection[str]


PACKAGE = Path(tutelage.__file__).parent
TESTS = Path(__file__).parent
OURS = Places(
    PACKAGE / "methods", TESTS / "methods", TESTS / "golden", PACKAGE / "recipe_files", METHODS
)


def method_files(places: Places) -> list[Path]:
    """A method is a file of the package without a leading underscore."""
    return sorted(file for file in places.methods.glob("*.py") if not file.name.startswith("_"))


def card_gaps(docstring: str) -> list[str]:
    """What a card lacks: a first sentence, headings in order, text under each."""
    first, *rest = docstring.splitlines() or [""]
    gaps = [] if first.endswith(".") else ["its card does not begin with one plain sentence"]
    parts = re.split(r"^## (.+)$", "\n".join(rest), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    gaps += [f"its card lacks the heading {name!r}" for name in HEADINGS if name not in sections]
    if not gaps and list(sections) != HEADINGS:
        gaps.append(f"its card's headings are not {HEADINGS} in this order")
    gaps += [
        f"its card says nothing under {name!r}"
        for name, text in sections.items()
        if not text.strip()
    ]
    if "**Differences**" not in sections.get("Source", "**Differences**"):
        gaps.append("its card names no **Differences** under 'Source'")
    return gaps


def code_gaps(tree: ast.Module) -> list[str]:
    """What a method file's code lacks: public functions with a doctest, one public class."""
    nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    public = [node for node in nodes if not node.name.startswith("_")]
    functions = [node for node in public if isinstance(node, ast.FunctionDef)]
    gaps = [] if functions else ["it has no public function that is its formula"]
    gaps += [
        f"its function {node.name} has no doctest"
        for node in functions
        if ">>>" not in (ast.get_docstring(node) or "")
    ]
    if len(public) - len(functions) != 1:
        gaps.append(f"it has {len(public) - len(functions)} public classes instead of one")
    return gaps


def strings(value: Any) -> set[str]:
    """Every string in a tree of YAML values, keys included."""
    if isinstance(value, dict):
        return set().union(*(strings(part) for pair in value.items() for part in pair))
    if isinstance(value, list):
        return set().union(*(strings(part) for part in value))
    return {value} if isinstance(value, str) else set()


def methods_in(recipe: Path) -> set[str]:
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    return strings(content.get("methods")) if isinstance(content, dict) else set()


def gaps(places: Places) -> list[str]:
    """Everything that is missing, each as "method: what"."""
    recipes = {file: methods_in(file) for file in sorted(places.recipes.glob("*.yaml"))}
    files = method_files(places)
    found = []
    for file in files:
        name = file.stem
        tree = ast.parse(file.read_text(encoding="utf-8"))
        missing = card_gaps(ast.get_docstring(tree) or "") + code_gaps(tree)
        if name not in places.index:
            missing.append("it is not in the index METHODS of methods/__init__.py")
        if not (places.tests / f"test_{name}.py").is_file():
            missing.append(f"there is no test file test_{name}.py")
        if not (places.golden / f"{name}.txt").is_file():
            missing.append(f"there is no golden curve {name}.txt")
        if not any(name in named for named in recipes.values()):
            missing.append("no recipe in recipe_files names it")
        found += [f"{name}: {what}" for what in missing]
    stems = {file.stem for file in files}
    return found + [
        f"{name}: it is in the index, but has no file" for name in set(places.index) - stems
    ]


def test_nothing_is_missing() -> None:
    found = gaps(OURS)
    assert not found, "\n".join(found)


def test_the_search_found_our_methods() -> None:
    found = {file.stem for file in method_files(OURS)}
    assert {"kd", "fitnet_hints", "attention_transfer"} <= found


@pytest.mark.parametrize("name", sorted(METHODS))
def test_index_names_the_class_of_that_file(name: str) -> None:
    assert METHODS[name].__module__ == f"tutelage.methods.{name}"


@pytest.mark.parametrize("curve", sorted(OURS.golden.glob("*.txt")), ids=lambda file: file.stem)
def test_no_golden_curve_is_left_over(curve: Path) -> None:
    assert curve.stem in METHODS


# The search itself, on a house of one method

CARD = "The student waves back.\n\n" + "\n".join(
    f"## {heading}\n\n{'**Differences**: none.' if heading == 'Source' else 'Said.'}\n"
    for heading in HEADINGS
)
CODE = '''
def wave_loss(student):
    """Waves.

    >>> 1
    1
    """

class Wave:
    """Waves."""
'''


@pytest.fixture
def house(tmp_path: Path) -> Places:
    places = Places(
        tmp_path / "methods",
        tmp_path / "tests",
        tmp_path / "golden",
        tmp_path / "recipes",
        ["wave"],
    )
    for folder in (places.methods, places.tests, places.golden, places.recipes):
        folder.mkdir()
    (places.methods / "__init__.py").write_text("")
    (places.methods / "_base.py").write_text("")
    (places.methods / "wave.py").write_text(f'"""{CARD}"""\n{CODE}')
    (places.tests / "test_wave.py").write_text("")
    (places.golden / "wave.txt").write_text("")
    (places.recipes / "sea.yaml").write_text("methods: {wave: {weight: 1.0}}\n")
    return places


def test_a_complete_house_has_no_gaps(house: Places) -> None:
    assert gaps(house) == []


def edit(before: str, after: str) -> Callable[[Places], None]:
    def change(places: Places) -> None:
        file = places.methods / "wave.py"
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after))

    return change


DAMAGES: Mapping[str, Callable[[Places], object]] = {
    "no recipe in recipe_files names it": lambda places: (places.recipes / "sea.yaml").unlink(),
    "there is no test file test_wave.py": lambda places: (places.tests / "test_wave.py").unlink(),
    "there is no golden curve wave.txt": lambda places: (places.golden / "wave.txt").unlink(),
    "its card does not begin with one plain sentence": edit("waves back.", "waves back"),
    "its card names no **Differences** under 'Source'": edit("**Differences**: ", ""),
    "it has no public function that is its formula": edit("def wave_loss", "def _wave_loss"),
    "its function wave_loss has no doctest": edit(">>> ", ""),
    "it has 2 public classes instead of one": edit("class Wave:", "class Sea: ...\nclass Wave:"),
    "its card says nothing under 'Idea'": edit("## Idea\n\nSaid.", "## Idea\n\n"),
    f"its card's headings are not {HEADINGS} in this order": edit(
        "## Idea\n\nSaid.\n\n## Formula", "## Formula\n\nSaid.\n\n## Idea"
    ),
} | {f"its card lacks the heading {name!r}": edit(f"## {name}\n", "") for name in HEADINGS}


@pytest.mark.parametrize("what", DAMAGES)
def test_names_what_is_missing(house: Places, what: str) -> None:
    DAMAGES[what](house)
    assert gaps(house) == [f"wave: {what}"]


def test_names_a_method_that_is_not_in_the_index(house: Places) -> None:
    (house.methods / "swell.py").write_text((house.methods / "wave.py").read_text())
    assert "swell: it is not in the index METHODS of methods/__init__.py" in gaps(house)


def test_names_an_index_line_without_a_file(house: Places) -> None:
    (house.methods / "wave.py").unlink()
    assert gaps(house) == ["wave: it is in the index, but has no file"]


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        ("methods: {wave: 1.0}", True),
        ("methods: [{name: wave, weight: 1.0}]", True),
        ("methods: []\nname: wave", False),
        ("methods: {waves: 1.0}", False),
        ("- wave", False),
    ],
)
def test_a_recipe_names_a_method_under_methods_only(
    house: Places, recipe: str, named: bool
) -> None:
    (house.recipes / "sea.yaml").write_text(recipe)
    assert ("wave: no recipe in recipe_files names it" not in gaps(house)) == named
