"""Batches: functions of the step, fair to every picture, and shared out without loss."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from tutelage.data.loader import EvalLoader, TrainLoader, _Ahead
from tutelage.data.pictures import Pictures
from tutelage.data.views import Views
from tutelage.errors import DataError, NoEffectWarning, SettingError
from tutelage.types import Batch

AUGMENTED = Views(crop_padding=1, flip=True)
SIZES = st.integers(0, 12)


def pictures(labelled: int, others: int = 0) -> Pictures:
    """Unlabelled ones first: the loader may not count on an order."""
    count = labelled + others
    images = torch.arange(count * 4).reshape(count, 2, 2, 1).byte()
    whole = Pictures.with_labels(images, torch.arange(count), first=100)
    positions = torch.arange(count)
    return whole.take(positions[:others]).without_labels().join(whole.take(positions[others:]))


def leaves(batch: Batch) -> tuple[Tensor, ...]:
    """Images, targets, has_label, index, view; a loader knows all of them."""
    assert batch.index is not None
    assert batch.view is not None
    return batch.images, batch.targets, batch.has_label, batch.index, batch.view


def index_of(batch: Batch) -> Tensor:
    return leaves(batch)[3]


def assert_same(first: Batch, second: Batch) -> None:
    assert all(torch.equal(a, b) for a, b in zip(leaves(first), leaves(second), strict=True))


@given(labelled=SIZES, others=SIZES, batch_size=st.integers(2, 20), step=st.integers(0, 50))
def test_a_batch_is_a_function_of_its_step(
    labelled: int, others: int, batch_size: int, step: int
) -> None:
    assume(labelled + others)
    said: dict[str, Any] = {"batch_size": batch_size, "seed": 3, "num_views": 4}
    used = TrainLoader(pictures(labelled, others), AUGMENTED, **said)
    for earlier in (0, 7, step, 2):
        used.batch(earlier)
    fresh = TrainLoader(pictures(labelled, others), AUGMENTED, **said)
    assert_same(used.batch(step), fresh.batch(step))


@given(
    labelled=SIZES,
    others=SIZES,
    batch_size=st.integers(2, 20),
    steps=st.integers(1, 12),
    num_views=st.sampled_from([None, 1, 3]),
)
def test_every_picture_is_visited_equally_often_each_time_in_its_next_view(
    labelled: int, others: int, batch_size: int, steps: int, num_views: int | None
) -> None:
    assume(labelled + others)
    loader = TrainLoader(
        pictures(labelled, others), Views(), batch_size=batch_size, seed=0, num_views=num_views
    )
    visits: dict[bool, dict[int, list[int]]] = {True: defaultdict(list), False: defaultdict(list)}
    for step in range(steps):
        _, _, *sample = leaves(loader.batch(step))
        for known, index, view in zip(*sample, strict=True):
            visits[bool(known)][int(index)].append(int(view))
    for size, seen in ((labelled, visits[True]), (others, visits[False])):
        counts = [len(views) for views in seen.values()] + [0] * (size - len(seen))
        assert max(counts, default=0) - min(counts, default=0) <= 1
        for views in seen.values():
            assert views == [i if num_views is None else i % num_views for i in range(len(views))]


@given(
    labelled=st.integers(1, 12),
    others=st.integers(1, 12),
    share=st.integers(1, 4),
    world_size=st.integers(1, 4),
    step=st.integers(0, 9),
)
def test_processes_share_the_batch_of_one(
    labelled: int, others: int, share: int, world_size: int, step: int
) -> None:
    assume(share * world_size > 1)
    said: dict[str, Any] = {"batch_size": share * world_size, "seed": 1}
    whole = TrainLoader(pictures(labelled, others), AUGMENTED, **said)
    parts = [
        TrainLoader(pictures(labelled, others), AUGMENTED, **said, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert {part.num_labelled for part in parts} == {whole.num_labelled}
    batches = [part.batch(step) for part in parts]
    assert {len(index_of(batch)) for batch in batches} == {share}
    interleaved = Batch(
        *(torch.stack(parts, 1).flatten(0, 1) for parts in zip(*map(leaves, batches), strict=True))
    )
    assert_same(interleaved, whole.batch(step))


@pytest.mark.parametrize("asked", [None, 1, 5, 15])
def test_labelled_pictures_come_first_and_in_a_fixed_number(asked: int | None) -> None:
    loader = TrainLoader(pictures(6, 18), Views(), batch_size=16, labelled_per_batch=asked, seed=0)
    assert loader.num_labelled == (4 if asked is None else asked)  # 16 × 6 / 24
    for step in range(20):
        batch = loader.batch(step)
        assert batch.has_label.tolist() == [i < loader.num_labelled for i in range(16)]
        assert (batch.targets[~batch.has_label] == -1).all()


def test_the_proportion_leaves_a_place_for_each_kind() -> None:
    few = TrainLoader(pictures(1, 500), Views(), batch_size=8, seed=0)
    many = TrainLoader(pictures(500, 1), Views(), batch_size=8, seed=0)
    assert (few.num_labelled, many.num_labelled) == (1, 7)


def test_of_one_kind_all_are_of_it() -> None:
    assert TrainLoader(pictures(5), Views(), batch_size=8, seed=0).num_labelled == 8
    assert TrainLoader(pictures(0, 5), Views(), batch_size=8, seed=0).num_labelled == 0


def test_pixels_and_targets_are_those_of_the_index() -> None:
    whole = pictures(6, 6)
    batch = TrainLoader(whole, Views(), batch_size=8, seed=0).batch(3)
    position = index_of(batch) - 100
    assert torch.equal(batch.images, (whole.images[position] / 255).permute(0, 3, 1, 2))
    assert torch.equal(batch.targets, whole.labels[position])


def test_orders_differ_by_epoch_seed_and_kind() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        loader = TrainLoader(pictures(40), Views(), batch_size=40, seed=seed)
        return index_of(loader.batch(epoch)).tolist()

    assert sorted(order(0, 0)) == sorted(order(0, 1)) == list(range(100, 140))
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    index = index_of(TrainLoader(pictures(20, 20), Views(), batch_size=40, seed=0).batch(0))
    # Unlabelled pictures are the first 20 of the source, labelled ones the others.
    assert (index[:20] - 120).tolist() != (index[20:] - 100).tolist()


def test_the_seed_reaches_the_views() -> None:
    whole = pictures(1)
    first, second = (
        torch.cat([loader.batch(step).images for step in range(30)])
        for loader in (TrainLoader(whole, AUGMENTED, batch_size=1, seed=s) for s in (0, 1))
    )
    assert not torch.equal(first, second)


def test_targets_are_mixed_as_the_caller_says() -> None:
    loader = TrainLoader(
        pictures(6, 6),
        Views(mixup=1.0),
        batch_size=8,
        seed=0,
        mix=lambda first, second, share: {"labels": (first, second), "share": share},
    )
    batch = loader.batch(0)
    first, second = batch.targets["labels"]
    assert torch.equal(first >= 0, batch.has_label)
    assert torch.equal(second >= 0, batch.has_label)
    assert ((batch.targets["share"] >= 0) & (batch.targets["share"] <= 1)).all()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"batch_size": 0}, "multiple of their number, 1, but is 0; 1 would do"),
        ({"batch_size": 9, "world_size": 4}, "multiple of their number, 4, but is 9; 8 would do"),
        ({"batch_size": 1}, "at least one of each, but batch_size is 1"),
        ({"batch_size": 8, "labelled_per_batch": 0}, "1 … 7 for batch_size 8"),
        ({"batch_size": 8, "labelled_per_batch": 8}, "1 … 7 for batch_size 8"),
        ({"batch_size": 8, "num_views": 0}, "num_views must be 1 or more, but is 0"),
    ],
)
def test_settings_out_of_range_are_refused(said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        TrainLoader(pictures(5, 5), Views(), seed=0, **said)


def test_no_pictures_are_refused() -> None:
    with pytest.raises(SettingError, match="there are none"):
        TrainLoader(pictures(0), Views(), batch_size=4, seed=0)


def test_mixing_without_a_rule_for_targets_is_refused() -> None:
    with pytest.raises(SettingError, match="how targets are mixed"):
        TrainLoader(pictures(5), Views(cutmix=1.0), batch_size=4, seed=0)


@pytest.mark.parametrize("kinds", [(5, 0), (0, 5)])
def test_a_number_of_labelled_ones_without_a_choice_warns(kinds: tuple[int, int]) -> None:
    with pytest.warns(NoEffectWarning, match="labelled_per_batch: 2 changes nothing"):
        TrainLoader(pictures(*kinds), Views(), batch_size=4, labelled_per_batch=2, seed=0)


@given(count=st.integers(0, 20), batch_size=st.integers(1, 8), world_size=st.integers(1, 4))
def test_evaluation_shows_each_picture_once_in_order(
    count: int, batch_size: int, world_size: int
) -> None:
    whole = pictures(count)
    seen: list[int] = []
    for rank in range(world_size):
        loader = EvalLoader(whole, batch_size=batch_size, rank=rank, world_size=world_size)
        batches = list(loader)
        assert len(loader) == len(batches)
        assert all(len(index_of(batch)) == batch_size for batch in batches[:-1])
        mine = [int(index) for batch in batches for index in index_of(batch)]
        assert mine == whole.index[rank::world_size].tolist()
        seen += mine
    assert sorted(seen) == whole.index.tolist()


def test_evaluation_shows_pictures_as_they_are_again_and_again() -> None:
    whole = pictures(3, 2)
    loader = EvalLoader(whole, batch_size=4)
    for _ in range(2):
        batches = list(loader)
        assert [len(batch.has_label) for batch in batches] == [4, 1]
        images = torch.cat([batch.images for batch in batches])
        assert torch.equal(images, (whole.images / 255).permute(0, 3, 1, 2))
        assert torch.cat([batch.targets for batch in batches]).tolist() == whole.labels.tolist()
        assert all((leaves(batch)[4] == 0).all() for batch in batches)


def test_evaluation_refuses_empty_batches() -> None:
    with pytest.raises(SettingError, match="batch_size must be 1 or more, but is 0"):
        EvalLoader(pictures(3), batch_size=0)


# Classes of unequal size


def unequal() -> Pictures:
    """Of three classes 2, 5 and 9 pictures, and four without a label."""
    labels = torch.tensor([0] * 2 + [1] * 5 + [2] * 9 + [0] * 4)
    pictures = Pictures.with_labels(torch.zeros(20, 2, 2, 1, dtype=torch.uint8), labels)
    return pictures.take(torch.arange(16)).join(
        pictures.take(torch.arange(16, 20)).without_labels()
    )


def test_balanced_classes_take_turns_and_their_pictures_too():
    loader = TrainLoader(
        unequal(), Views(), batch_size=8, labelled_per_batch=6, seed=3, balanced=True
    )
    visits: dict[int, list[int]] = {}
    for step in range(30):
        batch: Any = loader.batch(step)
        counts = torch.bincount(batch.targets[:6], minlength=3)
        assert counts.tolist() == [2, 2, 2]
        for index, view in zip(batch.index[:6].tolist(), batch.view[:6].tolist(), strict=True):
            visits.setdefault(index, []).append(view)
    # 60 visits of each class: 30 of each of two pictures, 12 of five, 6 or 7 of nine
    assert [len(visits[n]) for n in range(7)] == [30] * 2 + [12] * 5
    assert {len(visits[n]) for n in range(7, 16)} == {6, 7}
    assert all(views == list(range(len(views))) for views in visits.values())


def test_balanced_batches_are_a_function_of_the_step_and_of_the_seed():
    loaders = [
        TrainLoader(unequal(), Views(), batch_size=5, seed=seed, balanced=True)
        for seed in (0, 0, 1)
    ]
    first, again, other = (
        torch.stack([loader.batch(n).targets for n in (4, 1, 9)]) for loader in loaders
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# Made ahead


def test_what_is_made_ahead_is_what_would_be_made_when_asked():
    made: list[int] = []

    def make(step: int) -> Any:
        made.append(step)
        return step * 10

    ahead = _Ahead(make)
    steps = [0, 1, 2, 7, 8, 3, 3]
    assert [ahead(step) for step in steps] == [step * 10 for step in steps]
    assert set(steps) <= set(made)


def test_a_failure_ahead_is_told_when_its_batch_is_asked_for():
    def make(step: int) -> Any:
        if step == 2:
            raise DataError("a picture has gone")
        return step

    ahead = _Ahead(make)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(DataError, match="has gone"):
        ahead(2)


def test_weights_go_with_their_pictures() -> None:
    data = replace(pictures(12), weight=torch.arange(100.0, 112.0))
    loader = TrainLoader(data, Views(flip=True), batch_size=5, seed=0)
    for step in range(4):
        batch = loader.batch(step)
        assert batch.weight is not None
        assert batch.index is not None
        assert batch.weight.tolist() == batch.index.tolist()
    with pytest.raises(SettingError, match="weights of their own"):
        TrainLoader(data, Views(mixup=0.5), batch_size=5, seed=0, mix=lambda *_: torch.zeros(5, 2))
