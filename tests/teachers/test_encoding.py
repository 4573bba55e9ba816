"""Few bytes for an answer, and what they change of a loss."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import kl_div, softmax

from tutelage.errors import StoreError
from tutelage.methods.kd import kd_loss
from tutelage.teachers.encoding import (
    LogitsCode,
    MapCode,
    change_of_kd,
    fewest_classes,
    keep_top,
    spread_rest,
)


def logits(n: int = 6, k: int = 9, seed: int = 0, scale: float = 4.0) -> torch.Tensor:
    return scale * torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


# Whole logits


def test_float32_is_exact():
    code, values = LogitsCode("fp32", 9), logits()
    assert torch.equal(code.decode(code.encode(values)), values)


def test_float16_holds_a_bfloat16_teachers_logits_exactly():
    code, values = LogitsCode("fp16", 9), logits(2000).bfloat16().float()
    values = values[(values.abs() >= 2**-14).all(dim=1)]  # below, float16 has fewer bits
    assert len(values) > 1000
    assert torch.equal(code.decode(code.encode(values)), values)
    assert not torch.equal(code.decode(code.encode(logits())), logits())


@pytest.mark.parametrize("bad", [70_000.0, math.nan, -math.inf])
def test_what_float16_cannot_hold_is_refused(bad: float):
    values = logits()
    values[3, 3] = bad
    with pytest.raises(StoreError, match=r"below 65,504 for float16.*--logits fp32"):
        LogitsCode("fp16", 9).encode(values)


# The largest, and what is left


def test_the_largest_come_back_and_the_others_share_the_rest():
    values = torch.tensor([[2.0, -1.0, 5.0, 0.0]])
    top, classes, rest = keep_top(values, count=2, temperature=1.0)
    assert top.tolist() == [[5.0, 2.0]]
    assert classes.tolist() == [[2, 0]]
    # e⁻¹ + e⁰ = 1.3679, so each of the two stands for log 0.68394
    assert rest.item() == pytest.approx(math.log((math.exp(-1) + 1) / 2), abs=1e-6)
    whole = spread_rest(top, classes, rest, num_classes=4)
    assert whole[0, [2, 0]].tolist() == [5.0, 2.0]
    assert whole[0, 1] == whole[0, 3] == rest


@given(
    seed=st.integers(0, 2**16),
    k=st.integers(3, 40),
    temperature=st.floats(0.5, 8),
    scale=st.floats(0.1, 10),
    data=st.data(),
)
def test_the_softened_mass_is_exact_and_the_loss_within_its_bound(
    seed: int, k: int, temperature: float, scale: float, data: st.DataObject
):
    count = data.draw(st.integers(1, k - 1))
    teacher, student = logits(1, k, seed, scale), logits(1, k, seed + 1, scale)
    top, classes, rest = keep_top(teacher, count=count, temperature=temperature)
    again = spread_rest(top, classes, rest, num_classes=k)

    p, p_again = (softmax(each.double() / temperature, dim=1) for each in (teacher, again))
    assert torch.allclose(p.gather(1, classes), p_again.gather(1, classes), atol=1e-4)

    out = torch.ones(k, dtype=torch.bool)
    out[classes[0]] = False
    mass = float(p[0, out].sum())
    spread = float(student[0, out].max() - student[0, out].min())
    bound = change_of_kd(mass, spread, temperature=temperature, num_rest=k - count)
    one, other = (
        float(kd_loss(student.double(), each.double(), temperature=temperature))
        for each in (teacher, again)
    )
    rounding = 1e-4 * temperature**2 * (1 + scale)
    assert abs(one - other) <= bound + rounding

    moved = student.double().requires_grad_()
    slopes = [
        torch.autograd.grad(kd_loss(moved, each.double(), temperature=temperature), moved)[0]
        for each in (teacher, again)
    ]
    assert float((slopes[0] - slopes[1]).abs().sum()) <= 2 * temperature * mass + rounding


def test_the_bound_is_nearly_reached():
    # The teacher gives the rest to one class, where the student gives none.
    teacher = torch.tensor([[10.0, 4.0, -30.0]], dtype=torch.float64)
    student = torch.tensor([[0.0, -9.0, 9.0]], dtype=torch.float64)
    again = spread_rest(*keep_top(teacher, count=1, temperature=1.0), num_classes=3)
    mass = float(softmax(teacher, dim=1)[0, 1:].sum())
    change = float(
        kd_loss(student, teacher, temperature=1) - kd_loss(student, again, temperature=1)
    )
    assert change == pytest.approx(mass * (math.log(2) + 9), rel=1e-3)  # a spread of 18, halved
    assert change <= change_of_kd(mass, 18.0, temperature=1.0, num_rest=2)


def test_what_is_left_out_loses_only_its_shape():
    teacher = logits(50, 20)
    again = spread_rest(*keep_top(teacher, count=5, temperature=2.0), num_classes=20)
    p, q = (softmax(each / 2.0, dim=1) for each in (teacher, again))
    assert kl_div(q.log(), p, reduction="batchmean") > 0
    assert torch.equal(teacher.argmax(1), again.argmax(1))


@pytest.mark.parametrize(
    ("share", "of", "wanted"), [(0.5, 1.0, 1), (0.7, 1.0, 2), (0.7, 0.5, 1), (0.95, 1.0, 3)]
)
def test_the_fewest_classes_are_those_of_nearly_all_samples(share: float, of: float, wanted: int):
    shares = torch.tensor([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]])
    assert fewest_classes(shares.log(), share=share, of=of) == wanted


def test_a_higher_temperature_takes_more_classes():
    counts = [fewest_classes(logits(500, 50), share=0.9, temperature=t) for t in (1.0, 2.0, 4.0)]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize(("num_classes", "kind"), [(100, torch.int16), (40_000, torch.int32)])
def test_top_takes_four_or_six_bytes_a_class(num_classes: int, kind: torch.dtype):
    code = LogitsCode("top", num_classes, top=3, temperature=2.0)
    coded = code.encode(logits(4, num_classes))
    assert coded["top/classes"].dtype == kind
    assert {name: value.shape[1:] for name, value in coded.items()} == {
        name: shape for name, (_, shape) in code.layout().items()
    }
    assert code.decode(coded).shape == (4, num_classes)


# Maps


@pytest.mark.parametrize("channels_last", [False, True])
def test_maps_come_back_in_their_memory_format(channels_last: bool):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    maps = torch.randn(5, 3, 4, 2).bfloat16().contiguous(memory_format=layout)
    code = MapCode((3, 4, 2), channels_last)
    again = code.decode("tap", code.encode("tap", maps))
    assert torch.equal(again, maps)
    assert again.is_contiguous(memory_format=layout)
    wide = MapCode((3, 4, 2), channels_last, "float32")
    assert wide.decode("tap", wide.encode("tap", maps.float())).dtype == torch.float32


def test_the_gap_of_maps_is_a_share_of_their_largest_value():
    maps = torch.tensor([[[[2.0, -4.0]]], [[[1.0, 1.0]]]])
    code = MapCode((1, 1, 2), False, "float32")
    coded = code.encode("tap", maps + torch.tensor([[[[0.0, 1.0]]], [[[0.0, 0.0]]]]))
    assert code.gap("tap", maps, coded).tolist() == [0.25, 0.0]


# Asking again


def test_the_gap_of_whole_logits_is_a_share_of_the_largest():
    code = LogitsCode("fp32", 3)
    stored = code.encode(torch.tensor([[8.0, 0.0, 0.0], [1.0, 0.0, -1.0]]))
    now = torch.tensor([[8.0, 2.0, 0.0], [1.0, 0.0, -1.0]])
    assert code.gap(now, stored).tolist() == [0.25, 0.0]


def test_near_ties_that_change_places_are_no_gap_of_the_top():
    """The class that left the top is compared with what it is now, not with the others' mean."""
    code = LogitsCode("top", 4, top=2, temperature=1.0)
    then = code.encode(torch.tensor([[9.0, 3.001, 3.0, -9.0]]))
    now = torch.tensor([[9.0, 3.0, 3.001, -9.0]])
    assert float(code.gap(now, then)) < 1e-3
    assert not torch.equal(code.encode(now)["top/classes"], then["top/classes"])


def test_top_classes_that_were_never_the_largest_are_a_gap():
    code = LogitsCode("top", 4, top=2, temperature=1.0)
    now = torch.tensor([[9.0, 3.0, 1.0, -9.0]])
    false = code.encode(torch.tensor([[-9.0, 3.0, 1.0, -9.0]]))  # right values, but not the largest
    assert float(code.gap(now, false)) > 0.5
