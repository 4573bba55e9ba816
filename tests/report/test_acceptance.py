"""Yes, no or undecided: from the interval and the latency, by hand."""

import base64
from typing import Any

import numpy as np
import pytest

from tutelage.errors import RunError, SettingError
from tutelage.report.acceptance import EXIT_CODES, Limits, accept, parse_limits


def entry(right: int, of: int = 1000) -> dict[str, Any]:
    bits = np.arange(of) < right
    return {"correct": base64.b64encode(np.packbits(bits).tobytes()).decode(), "pictures": of}


def record(student: int, teacher: int, latency: float = 5.0) -> dict[str, Any]:
    return {
        "name": "x",
        "students": {
            "student": {"test": entry(student), "latency_ms": latency, "latency_batch": 1}
        },
        "teacher": {"test": entry(teacher)},
        "hardware": {"threads": 2, "processor": "a machine"},
    }


@pytest.mark.parametrize(
    ("student", "teacher", "answer"),
    [
        (900, 900, "yes"),
        (950, 900, "yes"),  # better than the teacher
        (899, 900, "yes"),
        (890, 900, "undecided"),  # a drop of 1.0 ± 0.6
        (880, 900, "no"),  # 2.0 ± 0.9
    ],
)
def test_the_whole_interval_decides(student: int, teacher: int, answer: str):
    found = accept(record(student, teacher), Limits(max_drop=1.0))
    assert found.answer == answer
    assert found.reasons[0].startswith(f"{answer}: {(teacher - student) / 10:.1f} points below")


def test_latency_is_a_plain_limit():
    assert accept(record(1, 1, latency=9.9), Limits(latency_ms=10)).answer == "yes"
    found = accept(record(1, 1, latency=10.1), Limits(latency_ms=10))
    assert found.answer == "no"
    assert "10.10 ms at batch 1 on 2 threads of a machine" in found.reasons[0]


def test_one_no_is_enough_and_doubt_comes_next():
    doubtful = record(890, 900)
    assert accept(doubtful, Limits(1.0, 10)).answer == "undecided"
    assert accept(doubtful, Limits(1.0, 1)).answer == "no"
    assert EXIT_CODES == {"yes": 0, "no": 1, "undecided": 3}


def test_without_a_reading_there_is_no_answer():
    unread = record(1, 1)
    del unread["students"]["student"]["test"]
    alone = record(1, 1) | {"teacher": None}
    for value in (unread, alone):
        with pytest.raises(RunError, match="--test"):
            accept(value, Limits(max_drop=1.0))
        assert accept(value, Limits(latency_ms=10)).answer == "yes"


def test_limits_are_read():
    assert parse_limits("max_drop=1.0,latency_ms=10") == Limits(1.0, 10.0)
    assert parse_limits(" latency_ms=3.5") == Limits(None, 3.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "limit"),
        ("max_dorp=1", "did you mean max_drop"),
        ("max_drop", "max_drop must be a number of at least 0, not ''"),
        ("max_drop=one", "not 'one'"),
        ("max_drop=-1", "not '-1'"),
        ("max_drop=nan", "not 'nan'"),
        ("latency_ms=inf", "not 'inf'"),
        ("max_drop=1,max_drop=2", "twice"),
    ],
)
def test_what_is_no_limit_is_refused(text: str, words: str):
    with pytest.raises(SettingError, match=words):
        parse_limits(text)
