import math

import pytest
import torch

from tutelage.errors import ExportError
from tutelage.evaluation.predictions import Predictions
from tutelage.exporting import Tolerance, compare, require_parity, usual


def said(*rows: list[float], targets: list[int]) -> Predictions:
    outputs = torch.tensor(rows)
    count = len(targets)
    return Predictions(
        outputs, torch.tensor(targets), torch.ones(count, dtype=torch.bool), torch.arange(count)
    )


NETWORK = said([4.0, 0.0], [0.0, 1.0], [0.0, 2.0], [3.0, 0.0], targets=[0, 1, 1, 0])
# The second picture's answer turns over; the largest difference is half of 4.
FILE = said([4.0, 0.0], [1.0, 0.5], [0.0, 2.0], [3.0, 2.0], targets=[0, 1, 1, 0])
TEACHER = said([1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], targets=[0, 1, 1, 0])


def test_by_hand():
    assert compare(FILE, NETWORK, TEACHER) == {
        "pictures": 4,
        "largest_difference": 2.0,
        "relative": 0.5,
        "same_answer": 0.75,
        "accuracy": {"network": 1.0, "exported": 0.75},
        "teacher_agreement": {"network": 0.75, "exported": 1.0},
    }
    assert compare(FILE, NETWORK)["teacher_agreement"] is None


def test_the_same_is_the_same():
    found = compare(NETWORK, NETWORK)
    assert (found["largest_difference"], found["same_answer"]) == (0.0, 1.0)
    require_parity(found, Tolerance(0.0, 0.0), "onnx-fp32")


def test_a_difference_beyond_the_tolerance_is_refused_with_the_number():
    found = compare(FILE, NETWORK)
    require_parity(found, Tolerance(0.5, 25.0), "onnx-fp32")
    with pytest.raises(ExportError, match=r"2 off, 0\.5 of the largest, and 0\.4 is allowed"):
        require_parity(found, Tolerance(0.4, 100.0), "onnx-fp32")


def test_a_drop_beyond_the_tolerance_is_refused_with_the_number():
    found = compare(FILE, NETWORK)
    require_parity(found, Tolerance(None, 25.0), "onnx-int8")
    with pytest.raises(
        ExportError, match=r"75\.0 % of 4 .* 100\.0 %, a drop of 25\.0 points where 24"
    ):
        require_parity(found, Tolerance(None, 24.0), "onnx-int8")
    with pytest.raises(ExportError, match="Take another precision, or allow more"):
        require_parity(found, Tolerance(None, 24.0), "onnx-int8")
    with pytest.raises(ExportError, match="Take another precision, pray, or allow more"):
        require_parity(found, Tolerance(None, 24.0), "onnx-int8", remedy="pray")


@pytest.mark.parametrize("part", ["relative", "exported"])
def test_what_is_no_number_is_refused(part: str):
    found = compare(NETWORK, NETWORK)
    if part == "relative":
        found["relative"] = math.nan
    else:
        found["accuracy"]["exported"] = math.nan
    with pytest.raises(ExportError):
        require_parity(found, Tolerance(1.0, 100.0), "onnx-fp32")


def test_a_better_file_is_no_drop():
    require_parity(compare(NETWORK, FILE), Tolerance(None, 0.0), "onnx-int8")


def test_what_is_usual_grows_with_coarseness():
    fp32, fp16, int8 = (usual(precision) for precision in ("fp32", "fp16", "int8"))
    assert fp32.drop < fp16.drop < int8.drop
    assert fp32.difference is not None
    assert fp16.difference is not None
    assert fp32.difference < fp16.difference
    assert int8.difference is None


def test_other_pictures_are_a_mistake_of_ours():
    other = said([1.0, 0.0], targets=[0])
    with pytest.raises(AssertionError):
        compare(other, said([1.0, 0.0], [1.0, 0.0], targets=[0, 0]))
