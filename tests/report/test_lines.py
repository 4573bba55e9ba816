"""What the lines of a comparison are, by hand."""

import pytest

from tutelage.report.lines import combinations, lineage, require_same_test, works


def test_combinations_vary_the_last_axis_first():
    found = combinations({"a": [1, 2], "b": ["x", "y"]})
    assert found == [{"a": one, "b": other} for one in (1, 2) for other in ("x", "y")]
    assert combinations({}) == [{}]


def test_a_row_comes_after_all_that_it_is_like():
    rows = {"c": {"like": "b"}, "b": {"like": "a"}, "a": {"like": None}}
    assert lineage(rows, "c") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("line", "does"),
    [
        ({"record": {"collapsed": False}}, True),
        ({"record": {"collapsed": True}}, False),
        ({"failed": "kl became NaN", "record": {}}, False),
    ],
)
def test_what_works_has_neither_failed_nor_collapsed(line: dict, does: bool):
    assert works(line) == does


def test_what_is_not_known_of_test_contradicts_nothing():
    known = {"content": {"test": "aa"}, "students": {"student": {}}}
    unknown = {"students": {"student": {"test": None}}}
    lines = [{"row": "a", "seed": 0, "record": one} for one in (known, unknown)]
    require_same_test("a", [*lines, {"failed": "NaN", "record": {}}])
