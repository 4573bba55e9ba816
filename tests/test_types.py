"""What the parts pass to each other: trees of tensors, and random numbers tied to their sample."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree

from tutelage import rng
from tutelage.errors import SettingError
from tutelage.types import Batch, Observation, TransferBatch


def transfer(n: int = 4, seed: int = 7) -> TransferBatch:
    count = torch.arange(n)
    maps = torch.rand(n, 2, 3, 3)
    seen = Observation(torch.rand(n, 5), {"tap": maps}, {"half": Observation(maps.mean(1))})
    return TransferBatch(seen, (seen,), count, count > 0, 100 + count, count % 2, seed)


def test_batches_and_observations_are_trees():
    batch = transfer()
    images = Batch(torch.rand(4, 3, 2, 2), {"boxes": torch.rand(4, 4)}, batch.has_label, None, None)
    for tree in (batch, images):
        leaves, shape = pytree.tree_flatten(tree)
        again = pytree.tree_unflatten(leaves, shape)
        assert type(again) is type(tree)
        assert all(a is b for a, b in zip(leaves, pytree.tree_leaves(again), strict=True))
    tensors = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
    assert len(tensors) == 2 * 3 + 4  # targets, has_label, index, view
    cut = pytree.tree_map(lambda leaf: leaf[:1] if isinstance(leaf, Tensor) else leaf, batch)
    assert cut.student.subnets["half"].output.shape == (1, 3, 3)
    assert cut.index.tolist() == [100]


def test_draws_are_uniform_numbers_per_sample():
    drawn = transfer(500).draw("places", (20,))
    assert drawn.shape == (500, 20)
    assert 0 <= drawn.min()
    assert drawn.max() < 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)
    assert drawn.var() == pytest.approx(1 / 12, abs=0.005)
    assert len(drawn.unique()) > 9_000
    assert transfer().draw("one each").shape == (4,)


@given(st.permutations(range(5)))
def test_a_draw_belongs_to_the_sample_and_not_to_its_place(order: list[int]):
    batch = transfer(5)
    moved = pytree.tree_map(lambda leaf: leaf[order] if isinstance(leaf, Tensor) else leaf, batch)
    assert torch.equal(moved.draw("x", (2, 3)), batch.draw("x", (2, 3))[order])


def test_a_draw_depends_on_seed_name_index_and_view_and_on_nothing_else():
    batch = transfer()
    drawn = batch.draw("x", (3,))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    other = replace(batch, targets=None, student=Observation(None))
    assert torch.equal(other.draw("x", (3,)), drawn)
    assert torch.equal(torch.get_rng_state(), state)
    assert batch.index is not None
    assert batch.view is not None
    for changed in (
        replace(batch, seed=8).draw("x", (3,)),
        replace(batch, index=batch.index + 1).draw("x", (3,)),
        replace(batch, view=batch.view + 1).draw("x", (3,)),
        batch.draw("y", (3,)),
    ):
        assert not (changed == drawn).any()


def test_a_draw_is_the_hash_that_views_use():
    batch = transfer()
    assert batch.index is not None
    assert batch.view is not None
    keys = rng.keys(7, "x", batch.index, batch.view)
    assert torch.equal(batch.draw("x", (3,)), rng.uniforms(keys, (3,)))


@pytest.mark.parametrize("missing", ["index", "view"])
def test_a_draw_without_knowing_the_samples_is_refused(missing: str):
    batch = replace(transfer(), **{missing: None})
    with pytest.raises(SettingError, match=r"'places'.* index=.* view="):
        batch.draw("places")
