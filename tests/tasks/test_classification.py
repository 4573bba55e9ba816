"""Classification: cross-entropy by hand, placeholders that do not count, mixed targets."""

from math import exp, log
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import SettingError
from tutelage.tasks import Classification, Task

TASK = Classification()

# Probabilities 3/4 and 1/4.
LOGITS = torch.tensor([[log(3), 0.0], [log(3), 0.0], [0.0, log(3)]])
ALL = torch.ones(3, dtype=torch.bool)


def loss(targets: torch.Tensor, has_label: torch.Tensor = ALL, num: float = 3.0, **settings: Any):
    task = Classification(**settings)
    return task.supervised_loss(LOGITS, targets, has_label, num).item()


def test_it_is_a_task():
    assert isinstance(TASK, Task)
    assert TASK.kind == "logits"


def test_the_loss_is_the_sum_over_labelled_samples_by_the_guaranteed_number():
    right, wrong = log(4 / 3), log(4)
    assert loss(torch.tensor([0, 1, 1])) == pytest.approx((2 * right + wrong) / 3)
    some = torch.tensor([True, False, True])
    assert loss(torch.tensor([0, 1, 0]), some, 2) == pytest.approx((right + wrong) / 2)
    assert loss(torch.tensor([0, 1, 0]), some, 8) == pytest.approx((right + wrong) / 8)


@pytest.mark.parametrize("placeholder", [0, -1, -100])
def test_what_stands_where_no_label_is_does_not_matter(placeholder: int):
    some = torch.tensor([True, False, True])
    targets = torch.tensor([0, placeholder, 0])
    assert loss(targets, some, 2) == loss(torch.tensor([0, 1, 0]), some, 2)
    assert loss(torch.full((3,), placeholder), ~ALL) == 0


def test_an_unlabelled_sample_gets_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    some = torch.tensor([True, False, True])
    TASK.supervised_loss(logits, torch.tensor([0, -1, 0]), some, 2.0).backward()
    assert logits.grad is not None
    assert logits.grad[1].tolist() == [0, 0]
    # softmax minus one-hot, divided by 2
    assert logits.grad[0].tolist() == pytest.approx([-0.125, 0.125])


def test_shares_are_targets_too():
    shares = torch.tensor([[0.25, 0.75]] * 3)
    expected = 0.25 * log(4 / 3) + 0.75 * log(4)
    assert loss(shares, torch.tensor([True, False, False]), 1) == pytest.approx(expected)


def test_smoothing_spreads_its_share_over_all_classes():
    expected = 0.9 * log(4 / 3) + 0.1 * (log(4 / 3) + log(4)) / 2
    one = torch.tensor([True, False, False])
    assert loss(torch.tensor([0, 0, 0]), one, 1, label_smoothing=0.1) == pytest.approx(expected)


def test_it_counts_what_the_largest_logit_names_rightly():
    some = torch.tensor([True, False, True])
    assert TASK.num_correct(LOGITS, torch.tensor([0, 0, 1]), ALL) == 3
    assert TASK.num_correct(LOGITS, torch.tensor([0, 0, 1]), some) == 2
    assert TASK.num_correct(LOGITS, torch.tensor([1, 0, 1]), some) == 1
    assert TASK.num_correct(LOGITS, torch.tensor([[0.6, 0.4]] * 3), ALL) == 2


def test_mixed_targets_are_shares_of_both():
    first, second = torch.tensor([0, 1]), torch.tensor([2, 1])
    mixed = TASK.mix_targets(first, second, torch.tensor([0.75, 0.5]), 3)
    assert mixed.tolist() == [[0.75, 0, 0.25], [0, 1, 0]]
    again = TASK.mix_targets(mixed, first, torch.tensor([0.5, 1.0]), 3)
    assert again.tolist() == [[0.875, 0, 0.125], [0, 1, 0]]


@given(st.floats(0, 1, width=32), st.integers(0, 3), st.integers(0, 3))
def test_mixing_keeps_the_sum_and_the_loss_linear(share: float, first: int, second: int):
    a, b, part = torch.tensor([first]), torch.tensor([second]), torch.tensor([share])
    mixed = TASK.mix_targets(a, b, part, 4)
    assert mixed.sum().item() == pytest.approx(1)
    logits, one = torch.tensor([[0.3, -1.0, 2.0, 0.5]]), ALL[:1]
    got, of_a, of_b = (TASK.supervised_loss(logits, t, one, 1.0).item() for t in (mixed, a, b))
    assert got == pytest.approx(share * of_a + (1 - share) * of_b, rel=1e-5)


def test_example_targets_can_be_scored():
    targets = TASK.example_targets(3)
    assert targets.tolist() == [0, 0, 0]
    assert exp(-loss(targets[:3], torch.tensor([True, False, False]), 1)) == pytest.approx(0.75)


def test_a_samples_weight_multiplies_its_loss():
    output = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    targets, has_label = torch.tensor([0, 0, -1]), torch.tensor([True, True, False])
    losses = -output.log_softmax(dim=1)[:, 0]
    weight = torch.tensor([0.5, 3.0, 7.0])
    found = TASK.supervised_loss(output, targets, has_label, 2, weight)
    torch.testing.assert_close(found, (0.5 * losses[0] + 3 * losses[1]) / 2)


# Classes of unequal size


def test_balanced_weights_by_hand():
    task = Classification(class_weights="balanced").fit(torch.tensor([0, 0, 0, 1, 2, 2]), 3)
    # 6 samples, 3 classes: 6 / (3 · 3), 6 / (3 · 1), 6 / (3 · 2)
    assert task.class_weights == pytest.approx([2 / 3, 2.0, 1.0])
    output = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    targets, has_label = torch.tensor([0, 1]), torch.tensor([True, True])
    losses = -output.log_softmax(dim=1)[[0, 1], [0, 1]]
    expected = (2 / 3 * losses[0] + 2 * losses[1]) / 2
    torch.testing.assert_close(task.supervised_loss(output, targets, has_label, 2), expected)


def test_weights_of_one_change_nothing_and_mixed_targets_are_weighed_by_class():
    output = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 2, 1, 2])
    has_label = torch.ones(4, dtype=torch.bool)
    plain, same = Classification(), Classification(class_weights=[1.0, 1.0, 1.0]).fit(targets, 3)
    torch.testing.assert_close(
        plain.supervised_loss(output, targets, has_label, 4),
        same.supervised_loss(output, targets, has_label, 4),
    )
    weighed = Classification(class_weights=[0.5, 1.0, 3.0]).fit(targets, 3)
    mixed = plain.mix_targets(targets, targets.flip(0), torch.full((4,), 0.25), 3)
    expected = -(mixed * torch.tensor([0.5, 1.0, 3.0]) * output.log_softmax(dim=1)).sum() / 4
    torch.testing.assert_close(weighed.supervised_loss(output, mixed, has_label, 4), expected)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0, -1.0], "must be 0 or more"),
        ([1.0, 2.0], "has 2 numbers, but there are 3 classes"),
        ("balanced", "of class 1 there is none"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: Any, words: str):
    with pytest.raises(SettingError, match=words):
        Classification(class_weights=weights).fit(torch.tensor([0, 2]), 3)
