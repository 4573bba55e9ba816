"""The table that grows: a line for each row and combination, and no number that will not stand."""

from io import StringIO
from typing import Any

from made_records import line
from rich.console import Console

from tutelage.comparison.board import Board

CAPTION = "line(s) of the file are not asked for so far, and count for nothing"


def shown(board: Board) -> list[str]:
    """What is on the terminal, line by line, without the heading."""
    console = Console(file=StringIO(), width=200)
    console.print(board.table())
    assert isinstance(console.file, StringIO)
    _, *rows = console.file.getvalue().splitlines()
    return [" ".join(row.split()) for row in rows]


def finished(board: Board, *lines: dict[str, Any]) -> Board:
    for one in lines:
        board.notice(one["row"], one["seed"], one)
    return board


def at(labels: int, seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return line("kd", seed, accuracy, settings={"data.labelled": labels, "row": "kd"}, **more)


def test_a_row_that_runs_is_named_until_it_has_finished():
    board = Board({"kd": None, "hints": None}, 2)
    board.notice("kd", 0, None)
    board.notice("kd", 1, None)
    assert shown(board) == ["kd 0/2 seed 0, seed 1", "hints 0/2"]
    finished(board, line("kd", 0, 0.7), line("kd", 0, 0.6, kind="try"))
    assert shown(board) == ["kd 1/2 70.0 61.0 seed 1", "hints 0/2"]


def test_combinations_of_the_axes_are_not_averaged():
    board = Board({"kd": None}, 2, {"data.labelled": [5000, 500]})
    finished(board, at(5000, 0, 0.90), at(500, 0, 0.50), at(5000, 1, 0.91), at(500, 1, 0.51))
    assert shown(board) == [
        "kd, data.labelled 5000 2/2 90.5 ± 0.7",
        "kd, data.labelled 500 2/2 50.5 ± 0.7",
    ]


def test_what_begins_does_so_at_its_combination():
    board = Board({"kd": None}, 1, {"data.labelled": [5000, 500]})
    board.notice("kd", 0, None, {"data.labelled": 500, "row": "kd"})
    assert shown(board) == ["kd, data.labelled 5000 0/1", "kd, data.labelled 500 0/1 seed 0"]
    finished(board, at(500, 0, 0.5))
    assert shown(board)[1] == "kd, data.labelled 500 1/1 50.0"


def test_a_trial_that_collapsed_is_in_no_mean():
    board = finished(
        Board({"kd": None}, 3), line("kd", 0, 0.7), line("kd", 1, 0.1, record={"collapsed": True})
    )
    assert shown(board) == ["kd 2/3 1 failed"]


def test_a_try_that_collapsed_is_not_the_best():
    low = line("kd", 0, 0.99, kind="try", record={"collapsed": True}, settings={"lr": 9})
    board = finished(
        Board({"kd": None}, 3), low, line("kd", 0, 0.6, kind="try", settings={"lr": 1})
    )
    assert shown(board) == ["kd 0/3 61.0"]


def test_lines_that_nothing_asks_for_are_counted_below():
    have = [line("kd", 0, 0.7), line("kd", 1, 0.7), line("gone", 0, 0.7)]
    board = Board({"kd": None}, 2)
    board.note_file(have)
    assert " ".join(shown(board)) == f"kd 0/2 3 {CAPTION}"
    finished(board, *have[:2])
    assert " ".join(shown(board)) == f"kd 2/2 70.0 ± 0.0 1 {CAPTION}"
