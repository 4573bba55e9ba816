"""What lies under benchmarks/ can be read, and the README names it."""

from pathlib import Path

import pytest

from tutelage.comparison.spec import read_spec
from tutelage.recipes import read_mapping, read_recipe

ROOT = Path(__file__).parent.parent
FILES = sorted(ROOT.glob("benchmarks/*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_is_a_specification_or_a_recipe(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    if "rows" not in read_mapping(str(path))[0]:
        read_recipe(str(path))
        return
    spec = read_spec(str(path))
    assert spec.name == path.stem
    assert f"`{path.name}`" in (ROOT / "benchmarks" / "README.md").read_text()
