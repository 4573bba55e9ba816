import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.recipes import packaged


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_all_are_listed_with_their_verb_and_claim(call: Any):
    code, out, _ = call("recipes", "ls")
    assert code == 0
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines()}
    assert rows.keys() == packaged().keys()
    assert rows["digits"][0] == "train"
    assert rows["digits-demo"][0] == "compare"
    assert all(len(claim) > 20 for _, claim in rows.values())


def test_cat_prints_the_file(call: Any):
    assert call("recipes", "cat", "digits") == (0, packaged()["digits"], "")


@pytest.mark.parametrize(
    ("words", "place"),
    [([], "digits.yaml"), (["mine.yaml"], "mine.yaml"), (["."], "digits.yaml")],
)
def test_cp_copies_and_never_overwrites(words: list[str], place: str, call: Any):
    assert call("recipes", "cp", "digits", *words).code == 0
    assert Path(place).read_text() == packaged()["digits"]
    Path(place).write_text("mine")
    code, _, err = call("recipes", "cp", "digits", *words)
    assert code == 2
    assert "not overwritten" in err
    assert Path(place).read_text() == "mine"


def test_the_schema_knows_methods_and_their_settings(call: Any):
    schema = json.loads(call("recipes", "schema").out)
    assert "temperature" in schema["properties"]["methods"]["properties"]["kd"]["properties"]


@pytest.mark.parametrize("verb", ["cat", "cp"])
def test_an_unknown_recipe_is_answered_with_the_nearest(verb: str, call: Any):
    code, out, err = call("recipes", verb, "digit")
    assert (code, out) == (2, "")
    assert "did you mean digits?" in err
    assert not list(Path.cwd().iterdir())
