"""What lies under benchmarks/ can be read, and the README names it."""

from pathlib import Path
from typing import Any

import pytest

from tutelage.comparison.spec import read_spec
from tutelage.recipes import read_mapping, read_recipe
from tutelage.records import read_lines

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


def chosen_in(name: str, row: str) -> dict[str, Any]:
    """Methods and learning rate of a row's first trial in a file of records."""
    lines = read_lines(ROOT / "benchmarks" / "records" / f"{name}.jsonl")
    line = next(one for one in lines if one["kind"] == "trial" and one["row"] == row)
    recipe = line["record"]["recipe"]
    return recipe["methods"] | {"lr": recipe["train"]["optimizer"]["lr"]}


@pytest.mark.parametrize(
    ("later", "row", "earlier", "chooser", "keys"),
    [
        ("limited", "geometric", "geometric", "geometric", ("loss", "pool")),
        ("limited", "geometric-kd", "geometric", "geometric", ("loss", "pool")),
        (
            "geometric-one",
            "resnet8-by-cifar100",
            "geometric",
            "geometric",
            ("loss", "pool", "weight"),
        ),
        (
            "geometric-one",
            "mobilenet-by-resnet56",
            "geometric",
            "geometric",
            ("loss", "pool", "weight"),
        ),
        ("scene-transforms", "none", "scene-folds", "dct", ("lr",)),
    ],
)
def test_what_one_comparison_chose_another_was_run_with(
    later: str, row: str, earlier: str, chooser: str, keys: tuple[str, ...]
):
    if not (ROOT / "benchmarks" / "records" / f"{later}.jsonl").is_file():
        pytest.skip(f"{later} is not measured yet")
    own, chosen = chosen_in(later, row), chosen_in(earlier, chooser)
    for key in keys:
        found = [one["lr"] if key == "lr" else one["geometric"].get(key) for one in (own, chosen)]
        assert found[0] == found[1], key
