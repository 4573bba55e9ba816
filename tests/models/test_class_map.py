"""Other classes of a network's own: order, subsets and unions, worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import NetworkError
from tutelage.models import create
from tutelage.models.class_map import ClassMap
from tutelage.models.network import Network
from tutelage.types import InputSpec

LOGITS = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, -1.0, 5.0, 2.0]])


def test_another_order_moves_logits():
    assert torch.equal(ClassMap([[3], [2], [1], [0]], 4)(LOGITS), LOGITS.flip(1))


def test_a_subset_keeps_the_ratios_of_probabilities():
    probabilities = LOGITS.softmax(dim=1)[:, [2, 0]]
    expected = probabilities / probabilities.sum(dim=1, keepdim=True)
    torch.testing.assert_close(ClassMap([[2], [0]], 4)(LOGITS).softmax(dim=1), expected)


def test_a_union_has_the_sum_of_probabilities():
    probabilities = LOGITS.softmax(dim=1)
    expected = torch.stack([probabilities[:, [0, 3]].sum(dim=1), probabilities[:, 1]], dim=1)
    expected = expected / expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(ClassMap([[0, 3], [1]], 4)(LOGITS).softmax(dim=1), expected)


@given(st.lists(st.integers(0, 4), min_size=6, max_size=6))
def test_where_every_class_belongs_somewhere_probabilities_add_up_exactly(places: list[int]):
    parts = [own for to in range(5) if (own := [n for n in range(6) if places[n] == to])]
    logits = torch.linspace(-3, 3, 12).view(2, 6)
    mapped = ClassMap(parts, 6)(logits).softmax(dim=1)
    sums = torch.stack([logits.softmax(dim=1)[:, own].sum(dim=1) for own in parts], dim=1)
    torch.testing.assert_close(mapped, sums)


def test_gradients_are_finite_though_classes_have_unequal_numbers_of_parts():
    logits = LOGITS.clone().requires_grad_()
    ClassMap([[0, 1, 2], [3]], 4)(logits).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    torch.testing.assert_close(logits.grad.sum(dim=1), torch.tensor([2.0, 2.0]))


@pytest.mark.parametrize(
    ("parts", "said"),
    [([[0], [4]], "class 4, but the network has the classes 0 … 3"), ([[0, 1], [1]], "1 .*twice")],
)
def test_parts_that_cannot_be_are_refused(parts: list[list[int]], said: str):
    with pytest.raises(NetworkError, match=said):
        ClassMap(parts, 4)


def test_a_network_answers_and_is_observed_with_the_new_classes_and_its_own_taps():
    spec = InputSpec(8, 8, 1, (0.5,), (0.5,))
    plain = Network(create("resnet8", num_classes=4, in_channels=1, width=2), spec).eval()
    mapped = plain.with_class_map(ClassMap([[1], [0, 2]], 4))
    mapped.tap(["layer2"])
    images = torch.rand(3, 1, 8, 8)
    seen = mapped.eval().observe(images, ["layer2"])
    assert torch.equal(seen.output, mapped(images))
    torch.testing.assert_close(seen.output, ClassMap([[1], [0, 2]], 4)(plain(images)))
    assert seen.features["layer2"].shape == (3, 4, 4, 4)
    assert plain(images).shape == (3, 4)


def test_an_rgb_picture_is_shown_to_a_gray_network_as_luma():
    network = Network(torch.nn.Identity(), InputSpec(1, 1, 1, (0.0,), (1.0,)))
    pixel = torch.tensor([1.0, 0.5, 0.25]).view(1, 3, 1, 1)
    # 0.299 + 0.587 / 2 + 0.114 / 4
    assert network(pixel).item() == pytest.approx(0.621)
