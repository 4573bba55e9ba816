import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tutelage import comparison
from tutelage.cli import compare as module
from tutelage.errors import SettingError
from tutelage.report.layout import Table

SPEC = """
schema: 1
name: tiny
base:
  schema: 1
  data: {source: digits, validation: 100, labelled: 200}
  student: {name: resnet8, width: 4}
  train: {steps: 2, batch_size: 50, precision: fp32, threads: 1, keep_memory: false}
seeds: [0, 1]
controls: none
rows:
  wide: {set: {student.width: 6}}
  narrow: {}
"""


class Answer(NamedTuple):
    folder: Path
    records: Path = Path("x.jsonl")
    tables: tuple[Table, ...] = (Table([{"row": "kd", "mean": 0.5}], [], []),)

    def findings(self) -> list[Any]:
        return []

    def markdown(self) -> str:
        return "| kd | 50.0 % |"

    def text(self) -> str:
        return "kd  50.0 %"


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """What a comparison comes to; its page names what it was made from."""
    monkeypatch.setattr(module, "read_source", lambda paths, runs: f"{paths[0]} in {runs}")
    monkeypatch.setattr(module, "write_page", lambda source, path: path.write_text(source))
    return Answer(tmp_path / "r" / "tiny")


def test_a_cluster_is_asked_for_with_what_a_trial_takes(call: Any, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def compare(spec: str, *, cluster: Any, **more: Any) -> Any:
        asked.append(cluster)
        raise SettingError("Enough.")

    monkeypatch.setattr(comparison, "compare", compare)
    words = ["--executor", "ray", "--cpus", "4", "--gpus", "0.5", "--address", "there:1"]
    assert call("compare", "spec.yaml", *words)[0] == 2
    assert call("compare", "spec.yaml", "--executor", "ray")[0] == 2
    assert asked == [comparison.Share(4, 0.5, "there:1"), comparison.Share()]


@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_asked_is_handed_on_and_the_answer_printed(
    as_json: bool, answer: Answer, monkeypatch: pytest.MonkeyPatch, call: Any
):
    asked = {}

    def compare(spec: str, **more: Any) -> Answer:
        asked.update(spec=spec, **more)
        return answer

    monkeypatch.setattr(comparison, "compare", compare)
    words = [
        "spec.yaml",
        "--runs",
        "r",
        "--records",
        "b/x.jsonl",
        *["--restamp", "--json", "--jobs", "3", "--tune"] * as_json,
    ]
    code, out, err = call("compare", *words)
    assert code == 0
    assert asked == {
        "spec": "spec.yaml",
        "runs": Path("r"),
        "records": Path("b/x.jsonl"),
        "restamp": as_json,
        "jobs": 3 if as_json else 1,
        "tune": as_json,
        "cluster": None,
        "command": " ".join(["tutelage compare", *words]),
    }
    if as_json:
        assert json.loads(out) == {
            "spec": "spec.yaml",
            "claims": [],
            "tables": [{"at": "", "rows": [{"row": "kd", "mean": 0.5}]}],
        }
    else:
        assert out == "kd  50.0 %\n"
    page = answer.folder / "report.html"
    assert page.read_text() == "x.jsonl in r"
    assert as_json or str(page) in err


def test_the_table_may_be_markdown(answer: Answer, monkeypatch: pytest.MonkeyPatch, call: Any):
    monkeypatch.setattr(comparison, "compare", lambda *_, **__: answer)
    assert call("compare", "spec.yaml", "--markdown").out == "| kd | 50.0 % |\n"
    refused = call("compare", "spec.yaml", "--markdown", "--json")
    assert (refused.code, refused.out) == (2, "")
    assert "--markdown and --json exclude each other" in refused.err


def test_a_finished_comparison_is_only_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any
):
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(SPEC)
    first = call("compare", "spec.yaml", "--records", "lines.jsonl", "--json")
    assert first.code == 0
    assert {"wide", "narrow"} <= {
        str(v) for row in json.loads(first.out)["tables"][0]["rows"] for v in row.values()
    }
    assert "<title>tiny" in Path("runs/tiny/report.html").read_text()
    lines = Path("lines.jsonl").read_text()
    second = call("compare", "spec.yaml", "--records", "lines.jsonl", "--json")
    assert second.out == first.out
    assert Path("lines.jsonl").read_text() == lines
