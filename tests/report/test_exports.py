from copy import deepcopy
from typing import Any

import pytest

from tutelage.report.blocks import Grid, Text
from tutelage.report.exports import bench_notes, bench_rows, exports, parity_rows

ENTRY: dict[str, Any] = {
    "name": "onnx-fp32",
    "subnet": None,
    "file": "exports/onnx-fp32/model.onnx",
    "weights": "abc",
    "threads": 2,
    "time": "2026-01-01",
    "versions": {"torch": "2.15"},
    "bytes": {"network": 2_000_000, "exported": 1_500_000},
    "latency_ms": {"network": 1.0, "exported": 0.5},
    "parity": {
        "pictures": 500,
        "largest_difference": 1e-5,
        "relative": 1e-6,
        "same_answer": 1.0,
        "accuracy": {"network": 0.94, "exported": 0.94},
        "teacher_agreement": None,
    },
}
INT8 = ENTRY | {"name": "onnx-int8", "latency_ms": {"network": 3.0, "exported": 0.25}}
LINE: dict[str, Any] = {
    "name": "onnx-fp32",
    "batch": 1,
    "median_ms": 2.0,
    "p95_ms": 3.0,
    "images_per_second": 500.0,
    "bytes": 1_500_000,
    "memory_bytes": None,
    "rounds": 30,
    "threads": 2,
    "target": "onnx",
    "precision": "fp32",
}


def record(**more: Any) -> dict[str, Any]:
    return {"name": "mine", **more}


def test_a_network_stands_once_above_its_files():
    assert parity_rows([ENTRY, INT8]) == [
        ["", "test", "same answer", "largest difference", "size", "latency"],
        ["PyTorch, fp32", "94.0 %", "", "", "2.00 MB", "2.00 ms"],
        ["onnx-fp32", "94.0 %", "100.0 %", "1e-05", "1.50 MB", "0.50 ms"],
        ["onnx-int8", "94.0 %", "100.0 %", "1e-05", "1.50 MB", "0.25 ms"],
    ]


def test_other_weights_are_another_network():
    rows = parity_rows([ENTRY, INT8 | {"weights": "other", "subnet": "8"}])
    assert [row[0] for row in rows[1:]] == [
        "PyTorch, fp32",
        "onnx-fp32",
        "8, PyTorch, fp32",
        "onnx-int8",
    ]


def test_agreement_with_the_teacher_has_a_column_where_it_was_measured():
    guided = deepcopy(ENTRY)
    guided["parity"]["teacher_agreement"] = {"network": 0.9, "exported": 0.8}
    head, network, file = parity_rows([guided])
    place = head.index("as its teacher")
    assert (network[place], file[place]) == ("90.0 %", "80.0 %")


def test_a_row_per_batch():
    rows = bench_rows([LINE, LINE | {"batch": 32, "memory_bytes": 12_300_000}])
    assert rows[1] == ["onnx-fp32", "1", "2.00 ms", "3.00 ms", "500", "1.50 MB", "–"]
    assert rows[2][-1] == "12 MB"


def test_int8_that_is_slower_is_said():
    slow = LINE | {"name": "onnx-int8-batch1", "precision": "int8", "median_ms": 2.5}
    fast = LINE | {"name": "onnx-int8", "precision": "int8", "batch": 2, "median_ms": 1.5}
    other = LINE | {"target": "executorch", "median_ms": 1.0}
    assert bench_notes([LINE, other, slow, LINE | {"batch": 2}, fast]) == [
        "onnx-int8-batch1 is slower than in fp32 here at batch 1: 2.50 against 2.00 ms."
    ]


def test_a_page_without_exports_has_no_section():
    assert exports([record()]) == []
    assert exports([record(exports=[], bench={"lines": []})]) == []


def test_the_section_has_both_tables():
    bench = {"lines": [LINE], "hardware": {"processor": "Some CPU"}, "time": "2026-01-01"}
    (section,) = exports([record(exports=[ENTRY], bench=bench)])
    grids = [block for block in section.blocks if isinstance(block, Grid)]
    assert [len(grid.rows) for grid in grids] == [2, 1]
    texts = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    assert "Some CPU, 2 thread(s), median and 95th percentile of 30 rounds" in texts


@pytest.mark.parametrize("key", [*ENTRY])
def test_what_is_damaged_is_left_out_and_said(key: str):
    damaged = ENTRY | {key: 7 if isinstance(ENTRY[key], dict) else None}
    sections = exports([record(exports=[INT8, damaged])])
    (section,) = sections
    assert any(isinstance(block, Grid) for block in section.blocks)
    texts = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    needed = key in ("name", "parity", "bytes", "latency_ms")
    assert ("left out: 1." in texts) == needed


def test_a_damaged_bench_is_said():
    (section,) = exports([record(exports="x", bench={"lines": [LINE, {}], "hardware": 3})])
    texts = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    assert "Damaged in the record, and left out: 2." in texts
    assert exports([record(bench=7)])[0].blocks == [Text("Damaged in the record, and left out: 1.")]
