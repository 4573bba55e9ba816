"""Two processes that train one run do what one does with the same whole batches."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from in_together import SETTINGS, half, look, new_pupil, trained, weights
from launching import launch
from small_run import held_out, metrics
from torch import Tensor

from tutelage.engine import ALONE
from tutelage.evaluation.predictions import Predictions, gathered

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "in_together.py"
Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    half(folder / "half of one", ALONE)
    done = launch(str(SCRIPT), str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def found(place: Path) -> Found:
    """What each process wrote; one after the other would be no test."""
    read = [json.loads((place / f"found-{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["processes"] for one in read] == [2, 2]
    return read


def apart(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    assert one.keys() == other.keys()
    return max(abs(a - b) for name in one for a, b in zip(one[name], other[name], strict=True))


# What is trained


@pytest.mark.parametrize("case", SETTINGS)
def test_weights_and_numbers_are_those_of_one_process(
    place: Path, found: Found, tmp_path: Path, case: str
):
    alone = trained(tmp_path / case, case, ALONE)
    close = 2e-2 if "bf16" in case else 1e-5
    first, second = (one[case] for one in found)
    assert first["weights"] == second["weights"]
    began = weights(new_pupil(case))
    assert apart(alone["weights"], began) > 3 * close
    assert apart(first["weights"], alone["weights"]) < close
    assert [first["processes"], alone["processes"]] == [2, 1]
    both, one = metrics(place / case), metrics(tmp_path / case)
    assert len(both) == len(one) > 2
    for line, other in zip(both, one, strict=True):
        assert line == pytest.approx(other, abs=close)


def test_all_drop_what_the_first_one_drops(found: Found):
    """Projections compare the samples of a batch, so one process may keep others."""
    began = [name for name, _ in new_pupil("phases").named_parameters() if "methods" in name]
    first, second = (one["phases"] for one in found)
    kept = [name for name in first["weights"] if "methods" in name]
    assert 0 < len(kept) < len(began)
    assert first["weights"] == second["weights"]
    assert first["phases"] == second["phases"]
    assert len(first["phases"]) == 4


def test_phases_do_not_wait_for_others_who_do_not_look(found: Found):
    """What the first one looks at alone, with norms that else would ask the others."""
    first, second = (one["norms, phases"] for one in found)
    assert first["weights"] == second["weights"]
    assert len(first["phases"]) == 4


def test_a_parameter_that_nothing_asks_stays(found: Found):
    assert found[0]["unused"]["weights"]["student.module.spare"] == [1.0, 1.0]


# Going on


def test_all_stop_if_one_is_told_to_and_go_on_in_the_same_bits(found: Found):
    for one in found:
        assert one["stopped"]["words"] == "Stopped at step 5 of 8; all is saved."
        assert one["stopped"]["resumed"] == one["stopped"]["straight"]
        assert one["stopped"]["metrics"]
    assert found[0]["stopped"]["resumed"] == found[1]["stopped"]["resumed"]


def test_one_goes_on_where_two_were_with_the_same_pictures(place: Path, tmp_path: Path):
    whole = trained(tmp_path / "whole", "half", ALONE)["weights"]
    with pytest.warns(UserWarning, match="processes 2 → 1"):
        later = trained(place / "half of two", "half", ALONE)["weights"]
    assert apart(later, whole) < 1e-5
    assert [line["step"] for line in metrics(place / "half of two")] == [3, 6, 8]


def test_two_go_on_where_one_was_with_the_same_pictures(found: Found, tmp_path: Path):
    whole = trained(tmp_path / "whole", "half", ALONE)["weights"]
    for one in found:
        assert apart(one["went on"], whole) < 1e-5


def test_all_end_when_one_has_reason_to(found: Found):
    for one in found:
        assert one["ended"]["early"] == ["early_stopping", 3]
        assert one["ended"]["late"] == ["max_minutes", 1]


# What they say to each other


def test_they_may_meet_more_than_once(found: Found):
    assert [one["again"] for one in found] == [[2.0], [2.0]]


def test_what_is_not_finite_in_one_process_ends_all_in_the_same_words(found: Found):
    assert "NaN at step 2" in found[0]["not finite"]
    assert found[0]["not finite"] == found[1]["not finite"]


def test_every_picture_is_looked_at_once(found: Found):
    pupil = new_pupil("plain")
    alone = look(pupil, ALONE)
    for one in found:
        assert one["seen"]["index"] == alone.index.tolist()
        assert torch.allclose(torch.tensor(one["seen"]["outputs"]), alone.outputs, atol=1e-6)


def test_words_sums_and_rows(found: Found):
    for one in found:
        assert one["told"] == {"by": 0, "text": "üüü"}
        assert one["sums"] == [2.0, 1.0]
        assert one["largest"] == [1, 0, 7]
        assert one["rows"] == [[[1, 1], [1, 1]], [[1, 1]]]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_join_in_the_order_of_the_pictures(count: int):
    def of(rank: int) -> Predictions:
        index = torch.cat([one for b in held_out(rank, count) if (one := b.index) is not None])
        return Predictions(index.float().view(-1, 1), index, index >= 0, index)

    parts = [of(rank) for rank in range(count)]
    for part in parts:
        columns = zip(*[vars(one).values() for one in parts], strict=True)

        def collect(rows: Tensor, columns: Any = columns) -> list[Tensor]:
            of_all = next(columns)
            assert any(one is rows for one in of_all)
            return list(of_all)

        seen = gathered(part, collect)
        assert seen.index.tolist() == list(range(30))
        assert seen.outputs[:, 0].tolist() == list(range(30))
