"""The hash against its published form, and what the rest of the house relies on."""

import hashlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage import rng

MASK = (1 << 64) - 1
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


def splitmix64(state: int) -> int:
    """The next output of splitmix64, in Python's unbounded integers, as its authors give it."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_the_transcription_gives_the_published_sequence() -> None:
    # The first outputs for seed 1234567, as Vigna's reference program prints them.
    state, outputs = 1234567, []
    for _ in range(3):
        outputs.append(splitmix64(state))
        state = (state + 0x9E3779B97F4A7C15) & MASK
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(keys=st.lists(INT64, min_size=1, max_size=5), number=INT64)
def test_fold_is_splitmix64(keys: list[int], number: int) -> None:
    found = rng.fold(torch.tensor(keys), number)
    expected = [splitmix64((k & MASK) ^ splitmix64(number & MASK)) for k in keys]
    assert [value & MASK for value in found.tolist()] == expected


@given(key=INT64)
def test_uniforms_are_the_top_bits_of_the_sequence(key: int) -> None:
    found = rng.uniforms(torch.tensor([key]), (2, 3))
    expected = [
        (splitmix64((key + place * 0x9E3779B97F4A7C15) & MASK) >> 40) / 2**24
        for place in range(1, 7)
    ]
    assert found.shape == (1, 2, 3)
    assert found.flatten().tolist() == expected


def test_key_is_one_number_per_seed_and_name() -> None:
    keys = {rng.key(seed, name) for seed in range(-50, 50) for name in ("crop", "flip", "")}
    assert len(keys) == 300
    assert all(-(1 << 63) <= key < 1 << 63 for key in keys)


@given(seed=INT64, name=st.text(max_size=5))
def test_key_is_the_hash_of_the_seed_with_the_names_digest(seed: int, name: str) -> None:
    digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    assert rng.key(seed, name) & MASK == splitmix64(splitmix64(seed & MASK) ^ digest)


def test_a_key_does_not_depend_on_its_neighbors() -> None:
    index, view = torch.arange(100), torch.arange(100) % 7
    together = rng.uniforms(rng.keys(3, "crop", index, view), (4,))
    alone = torch.cat(
        [
            rng.uniforms(rng.keys(3, "crop", index[i : i + 1], view[i : i + 1]), (4,))
            for i in range(100)
        ]
    )
    assert torch.equal(together, alone)


def test_index_and_view_are_not_exchangeable() -> None:
    first, second = torch.tensor([3]), torch.tensor([5])
    assert rng.keys(0, "crop", first, second) != rng.keys(0, "crop", second, first)


@pytest.mark.parametrize("varying", ["index", "view", "seed", "place"])
def test_uniforms_are_uniform_along_every_argument(varying: str) -> None:
    count = 20_000
    steps, zero = torch.arange(count), torch.zeros(count, dtype=torch.int64)
    if varying == "index":
        drawn = rng.uniforms(rng.keys(0, "crop", steps, zero))
    elif varying == "view":
        drawn = rng.uniforms(rng.keys(0, "crop", zero, steps))
    elif varying == "seed":
        drawn = rng.uniforms(torch.tensor([rng.key(seed, "crop") for seed in range(count)]))
    else:
        drawn = rng.uniforms(torch.tensor([rng.key(0, "crop")]), (count,)).flatten()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed by chance once in a thousand draws.
    gap = (drawn.sort().values - (torch.arange(count) + 0.5) / count).abs().max()
    assert gap < 1.95 / math.sqrt(count)
    neighbors = torch.corrcoef(torch.stack([drawn[:-1], drawn[1:]]))[0, 1]
    assert neighbors.abs() < 4 / math.sqrt(count)


@given(seed=st.integers(0, 99), epoch=st.integers(0, 99), size=st.integers(0, 300))
def test_permutation_is_one(seed: int, epoch: int, size: int) -> None:
    order = rng.permutation(seed, "order", epoch, size)
    assert order.sort().values.tolist() == list(range(size))
    assert torch.equal(order, rng.permutation(seed, "order", epoch, size))


def test_permutations_differ_by_seed_name_and_epoch() -> None:
    base = rng.permutation(0, "order", 0, 100)
    for other in (
        rng.permutation(1, "order", 0, 100),
        rng.permutation(0, "other", 0, 100),
        rng.permutation(0, "order", 1, 100),
    ):
        assert not torch.equal(base, other)


def test_every_place_of_a_permutation_sees_every_number() -> None:
    # 3,000 orders of three: each of the six should come about 500 times (deviation 20).
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(3_000):
        order = tuple(rng.permutation(0, "order", epoch, 3).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert all(abs(count - 500) < 80 for count in counts.values())


def test_a_part_draws_its_own_numbers_and_leaves_the_others_as_they_were() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with rng.part(0, "adapter"):
        inside = torch.rand(3)
        torch.rand(1000)
    assert torch.equal(torch.rand(3), expected)

    with rng.part(0, "adapter"):
        again = torch.rand(3)
    with rng.part(0, "student"):
        other = torch.rand(3)
    with rng.part(1, "adapter"):
        reseeded = torch.rand(3)
    assert torch.equal(inside, again)
    assert not torch.equal(inside, other)
    assert not torch.equal(inside, reseeded)


def test_a_part_restores_the_generator_after_an_error() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    with pytest.raises(KeyError), rng.part(0, "adapter"):
        raise KeyError
    assert torch.equal(torch.random.get_rng_state(), before)
