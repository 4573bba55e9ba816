"""A distiller in two processes says what it says in one with the same whole batches."""

import json
from pathlib import Path
from typing import Any

import pytest
from launching import launch

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes wrote; one after the other would be no test."""
    file = tmp_path_factory.mktemp("processes") / "found.json"
    done = launch(str(HERE / "in_processes.py"), str(file))
    assert done.returncode == 0, done.stderr[-3000:]
    read = json.loads(file.read_text())
    assert read["processes"] == 2
    return read


CASES = ["group, ddp", "frozen, ddp", "group, fsdp", "frozen, fsdp"]


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_one_process(found: dict[str, Any], case: str):
    one, both = found[case]["one"], found[case]["all"]
    assert both == pytest.approx(one, abs=1e-5)
    assert min(one) > 0.1
    assert abs(one[0] - one[-1]) > 1e-2
    assert found[case]["apart"] < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_what_methods_learn_is_trained_and_a_teacher_is_left_alone(
    found: dict[str, Any], case: str
):
    assert found[case]["moved"]["methods"] > 1e-3
    assert found[case]["moved"]["student"] > 1e-3
    assert found[case]["teacher_is_plain"]
    assert (found[case]["sharded"] > 0) == ("fsdp" in case)


def test_statistics_of_batch_norms_are_of_a_process(found: dict[str, Any]):
    """As the documents say; the networks are the same, and so is the size of the losses."""
    one, both = found["live, ddp"]["one"], found["live, ddp"]["all"]
    assert abs(one[0] - both[0]) > 1e-3
    assert both == pytest.approx(one, rel=0.06)
