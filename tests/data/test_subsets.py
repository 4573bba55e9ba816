"""Subsets: stratified to within one, disjoint, and functions of their arguments alone."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.pictures import Pictures, Source
from tutelage.data.subsets import Split, divide, draw_stratified
from tutelage.errors import NoEffectWarning, SettingError

NUM_CLASSES = 4
LABELS = st.lists(st.integers(0, NUM_CLASSES - 1), min_size=12, max_size=80)


def pictures(labels: list[int], first: int = 0) -> Pictures:
    images = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    return Pictures.with_labels(images, torch.tensor(labels), first=first)


def source(labels: list[int]) -> Source:
    test = pictures([0, 1, 2, 3], first=len(labels))
    return Source(pictures(labels), test, tuple("abcd"), (0.5,), (0.5,))


BALANCED = [i % NUM_CLASSES for i in range(400)]


def assert_stratified(chosen: Pictures, whole: Pictures) -> None:
    labelled = whole.labels[whole.has_label]
    exact = torch.bincount(labelled, minlength=NUM_CLASSES) * len(chosen) / len(labelled)
    counts = torch.bincount(chosen.labels, minlength=NUM_CLASSES)
    assert ((counts - exact).abs() < 1).all()


@given(labels=LABELS, count=st.integers(0, 12), seed=st.integers(0, 5))
def test_a_drawing_is_stratified_and_ascending(labels: list[int], count: int, seed: int) -> None:
    whole = pictures(labels)
    drawn = draw_stratified(whole, count, seed, "name")
    assert len(drawn) == count
    assert (drawn.diff() > 0).all()
    assert_stratified(whole.take(drawn), whole)


@given(labels=LABELS, count=st.integers(0, 12), data=st.data())
def test_a_drawing_chooses_pictures_not_places(
    labels: list[int], count: int, data: st.DataObject
) -> None:
    whole = pictures(labels)
    shuffled = whole.take(torch.tensor(data.draw(st.permutations(range(len(labels))))))
    first = whole.index[draw_stratified(whole, count, 0, "name")]
    second = shuffled.index[draw_stratified(shuffled, count, 0, "name")]
    assert set(first.tolist()) == set(second.tolist())


def test_a_drawing_passes_over_pictures_without_label() -> None:
    whole = pictures(BALANCED[:40]).join(pictures(BALANCED[:40], first=40).without_labels())
    drawn = draw_stratified(whole, 20, 0, "name")
    assert drawn.max() < 40
    assert_stratified(whole.take(drawn), whole)


def test_every_picture_can_be_drawn() -> None:
    whole = pictures([0, 0, 0, 1])
    counts = torch.zeros(4, dtype=torch.int64)
    for seed in range(300):
        counts[draw_stratified(whole, 2, seed, "name")] += 1
    # Shares of 1.5 and 0.5 leave a tie, which the lower class wins: two of three, each 200 times.
    assert counts[3] == 0
    assert ((counts[:3] - 200).abs() < 40).all()


@st.composite
def arguments(draw: st.DrawFn) -> tuple[list[int], dict[str, Any]]:
    labels = draw(LABELS)
    limit = draw(st.integers(6, len(labels)))
    validation = draw(st.integers(1, limit - 2))
    return labels, {
        "limit": limit,
        "validation": validation,
        "labelled": draw(st.integers(1, limit - validation - 1)),
        "unlabelled": draw(st.booleans()),
        "split_seed": draw(st.integers(0, 5)),
    }


@given(arguments())
def test_division(case: tuple[list[int], dict[str, Any]]) -> None:
    labels, said = case
    whole = source(labels)
    split = divide(whole, **said)

    assert len(split.validation) == said["validation"]
    assert split.validation.has_label.all()
    assert_stratified(split.validation, pictures(labels[: said["limit"]]))

    kept = split.train.take(split.train.has_label.nonzero()[:, 0])
    assert len(kept) == said["labelled"]
    validating = set(split.validation.index.tolist())
    rest = [i for i in range(said["limit"]) if i not in validating]
    assert_stratified(kept, pictures([labels[i] for i in rest]))

    training = split.train.index.tolist()
    assert len(set(training)) == len(training)
    assert set(training) <= set(rest)
    if said["unlabelled"]:
        assert set(training) == set(rest)
    else:
        assert len(training) == said["labelled"]
    assert split.test is whole.test

    for part in (kept, split.validation):
        assert part.labels.tolist() == [labels[i] for i in part.index.tolist()]
    assert (split.train.labels[~split.train.has_label] == -1).all()


def indices(split: Split) -> tuple[list[int], list[int]]:
    return split.train.index.tolist(), split.validation.index.tolist()


def test_division_is_a_function_of_its_arguments_alone() -> None:
    said: dict[str, Any] = {"validation": 100, "labelled": 40, "unlabelled": True}
    first = indices(divide(source(BALANCED), **said))
    torch.rand(10)
    assert indices(divide(source(BALANCED), **said)) == first
    other = indices(divide(source(BALANCED), **said, split_seed=1))
    assert other[0] != first[0]
    assert other[1] != first[1]


def test_validation_does_not_depend_on_how_many_labels_are_kept() -> None:
    few = divide(source(BALANCED), validation=100, labelled=40)
    all_of_them = divide(source(BALANCED), validation=100)
    assert torch.equal(few.validation.index, all_of_them.validation.index)
    assert len(all_of_them.train) == 300


def test_pictures_that_never_had_a_label_train_but_do_not_validate() -> None:
    labelled = pictures(BALANCED[:40])
    mixed = labelled.join(pictures(BALANCED[:60], first=40).without_labels())
    whole = Source(mixed, pictures([0], first=100), tuple("abcd"), (0.5,), (0.5,))
    split = divide(whole, validation=20, unlabelled=True)
    assert split.validation.index.max() < 40
    assert int(split.train.has_label.sum()) == 20
    assert len(split.train) == 80


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"validation": 0}, "validation must lie in 1 … 399"),
        ({"validation": 400}, "validation must lie in 1 … 399"),
        ({"validation": 50, "limit": 50}, "validation must lie in 1 … 49"),
        ({"validation": 10, "limit": 401}, "limit must lie in 1 … 400 (training pictures)"),
        ({"validation": 10, "limit": 0}, "limit must lie in 1 … 400"),
        ({"validation": 100, "labelled": 301}, "labelled must lie in 1 … 300"),
        ({"validation": 100, "labelled": 0}, "labelled must lie in 1 … 300"),
    ],
)
def test_numbers_out_of_range_are_refused(said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=re.escape(sentence)):
        divide(source(BALANCED), **said)


def test_unlabelled_without_hidden_labels_warns() -> None:
    with pytest.warns(NoEffectWarning, match="labelled: N with N < 300"):
        split = divide(source(BALANCED), validation=100, unlabelled=True)
    assert len(split.train) == 300
