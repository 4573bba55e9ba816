import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.report.tables import align, count, duration, listing, percent, run_table

WORDS = st.text("abc §", max_size=9)


@given(st.integers(1, 10**12 - 10**10))
def test_a_count_keeps_its_first_three_digits(number: int):
    size = {"k": 1e3, "M": 1e6, "G": 1e9}
    value, _, unit = count(number).partition(" ")
    assert float(value) * size.get(unit, 1) == pytest.approx(number, rel=6e-3)
    assert len(value) <= 4


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (999_999, "1.00 M"), (999_500_000, "1.00 G")],
)
def test_counts_at_the_borders(number: int, text: str):
    assert count(number) == text


def test_shares_and_times():
    assert [percent(share) for share in (0, 1, 0.99949, None)] == [
        "0.0 %",
        "100.0 %",
        "99.9 %",
        "–",
    ]
    assert [duration(s) for s in (0, 119.94, 120, 7199, 7200)] == [
        "0.0 s",
        "119.9 s",
        "2.0 min",
        "120.0 min",
        "2.0 h",
    ]


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(WORDS, min_size=n, max_size=n), min_size=1)
    )
)
def test_columns_stand_below_each_other(rows: list[list[str]]):
    lines = align(rows).split("\n")
    assert len(lines) == len(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for line, row in zip(lines, rows, strict=True):
        end = -2
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            start, end = end + 2, end + 2 + width
            found = line.ljust(sum(widths) + 2 * len(widths))[start:end]
            assert found == (cell.ljust(width) if place == 0 else cell.rjust(width))


def test_a_list_of_nothing_is_empty():
    assert listing([]) == ""


COSTS = {"parameters": 1000, "macs": 20_000, "latency_ms": 0.5}


def test_each_student_and_each_teacher_has_a_row():
    small = COSTS | {"validation_accuracy": 0.5}
    alone = {"name": "a", "students": {"student": small}, "teacher": None, "seconds": 3}
    taught = alone | {
        "name": "b",
        "students": {"student": small | {"test_accuracy": 0.25, "agreement": 0.75}, "wide": small},
        "teacher": small,
    }
    rows = run_table([alone, taught])
    assert [row[0] for row in rows] == ["", "a", "b", "b, wide", "  its teacher"]
    assert rows[1][1:4] == ["50.0 %", "–", "–"]
    assert rows[2][1:] == ["50.0 %", "25.0 %", "75.0 %", "1.00 k", "20.0 k", "0.50 ms", "3.0 s"]
    assert rows[4][3] == rows[4][-1] == ""
    assert [row[0] for row in run_table([taught])] == ["", "student", "wide", "  its teacher"]
