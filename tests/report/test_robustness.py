"""Mean corruption errors, by hand from ImageNet-C's definition."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.report.robustness import corruption_errors, mean_corruption_error

SHARES = st.floats(0, 0.99)


def measured(clean: float, **corruptions: list[float]) -> dict[str, Any]:
    return {"pictures": 100, "seed": 0, "clean": clean, "corruptions": corruptions}


STUDENT = measured(0.9, fog=[0.8, 0.6], jpeg=[0.9, 0.7])
TEACHER = measured(0.95, fog=[0.9, 0.7], jpeg=[0.9, 0.9])


def test_by_hand():
    assert corruption_errors(STUDENT, TEACHER) == {
        "fog": pytest.approx(0.6 / 0.4),
        "jpeg": pytest.approx(0.4 / 0.2),
    }
    assert mean_corruption_error(STUDENT, TEACHER) == pytest.approx(1.75)


def test_relative_by_hand():
    """Clean errors are 0.1 and 0.05, at each of two severities."""
    assert corruption_errors(STUDENT, TEACHER, relative=True) == {
        "fog": pytest.approx((0.6 - 0.2) / (0.4 - 0.1)),
        "jpeg": pytest.approx((0.4 - 0.2) / (0.2 - 0.1)),
    }
    relative = mean_corruption_error(STUDENT, TEACHER, relative=True)
    assert relative == pytest.approx((4 / 3 + 2) / 2)


@given(st.lists(SHARES, min_size=1, max_size=5))
def test_against_itself_a_network_has_1(shares: list[float]):
    network = measured(1.0, fog=shares, jpeg=shares)
    assert mean_corruption_error(network, network) == pytest.approx(1)
    assert mean_corruption_error(network, network, relative=True) == pytest.approx(1)


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=5))
def test_exchanged_the_ratio_of_one_corruption_is_turned_over(pairs: list[tuple[float, float]]):
    one = measured(1.0, fog=[first for first, _ in pairs])
    other = measured(1.0, fog=[second for _, second in pairs])
    there, back = mean_corruption_error(one, other), mean_corruption_error(other, one)
    assert there is not None
    assert back is not None
    assert there * back == pytest.approx(1)


def test_a_reference_that_is_never_wrong_gives_no_ratio():
    perfect = measured(1.0, fog=[1.0, 1.0], jpeg=[0.9, 0.9])
    assert corruption_errors(STUDENT, perfect) == {"fog": None, "jpeg": pytest.approx(2)}
    assert mean_corruption_error(STUDENT, perfect) is None


def test_a_reference_that_no_corruption_harms_gives_no_relative_ratio():
    """0.1 + 0.2 and 0.3 differ in the last bit; that is no harm."""
    unharmed = measured(1 - 0.15, fog=[0.9, 0.8], jpeg=[0.9, 0.9])
    found = corruption_errors(STUDENT, unharmed, relative=True)
    assert found == {"fog": None, "jpeg": None}
    assert mean_corruption_error(STUDENT, unharmed, relative=True) is None


def test_without_corruptions_there_is_no_mean():
    assert mean_corruption_error(measured(0.9), measured(0.8)) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pictures": 50}, "one 100 pictures; the other 50 pictures"),
        ({"seed": 1}, "one seed 0; the other seed 1"),
        (
            {"corruptions": {"fog": [0.9, 0.7], "jpeg": [0.9]}},
            "one jpeg at 2 severities; the other jpeg at 1 severities",
        ),
        (
            {"corruptions": {"fog": [0.9, 0.7]}},
            "one jpeg at 2 severities; the other nothing else",
        ),
    ],
)
def test_other_pictures_are_refused(change: dict[str, Any], sentence: str):
    with pytest.raises(DataError, match=sentence):
        mean_corruption_error(STUDENT, TEACHER | change)
