"""Random numbers as a pure function of where they are needed, not of what was drawn before.

A stream of random numbers depends on batch order, on the number of workers and on everything drawn
earlier. Here a number is a hash of (seed, name, index, view, position), so a picture's crop, or the
locations that a loss samples, are the same in any batch, on any device and in any process.

The hash is the finalizer of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
generators, 2014), written on int64 tensors, whose products and sums wrap around as the original's
unsigned ones do. Names enter as the first eight bytes of their BLAKE2b digest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["fold", "key", "keys", "part", "permutation", "uniforms"]

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The int64 that has the same 64 bits."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _mix_int(value: int) -> int:
    value = (value + _GAMMA) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical right shift; int64's own keeps the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = value + _signed(_GAMMA)
    value = (value ^ _shift(value, 30)) * _signed(_FIRST)
    value = (value ^ _shift(value, 27)) * _signed(_SECOND)
    return value ^ _shift(value, 31)


def key(seed: int, name: str) -> int:
    """One signed 64-bit number for a seed and a name."""
    digest = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
    return _signed(_mix_int(_mix_int(seed & _MASK) ^ digest))


# What torch.compiler.assume_constant_result sets; calling it would import the compiler, which takes
# longer than all the rest, for everybody.
key._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def fold(keys: Int64[Tensor, "*n"], numbers: Int64[Tensor, "*n"] | int) -> Int64[Tensor, "*n"]:
    """Keys that depend on one more number each."""
    return _mix(keys ^ _mix(torch.as_tensor(numbers, dtype=torch.int64, device=keys.device)))


def keys(
    seed: int, name: str, index: Int64[Tensor, " n"], view: Int64[Tensor, " n"]
) -> Int64[Tensor, " n"]:
    """One key per sample; samples differ by index and view."""
    return fold(fold(torch.full_like(index, key(seed, name)), index), view)


def uniforms(keys: Int64[Tensor, " n"], shape: tuple[int, ...] = ()) -> Float[Tensor, "n ..."]:
    """Numbers in [0, 1) from 24 random bits each, float32, shape (n, *shape)."""
    count = 1
    for size in shape:
        count *= size
    position = torch.arange(1, count + 1, device=keys.device)
    bits = _mix(keys[:, None] + position * _signed(_GAMMA))
    return (_shift(bits, 40).to(torch.float32) * 2.0**-24).reshape(-1, *shape)


def permutation(seed: int, name: str, epoch: int, size: int) -> Int64[Tensor, " size"]:
    """An order of 0 .. size − 1 that depends on nothing but its arguments."""
    position = torch.arange(size)
    return torch.argsort(keys(seed, name, position, torch.full_like(position, epoch)), stable=True)


@contextmanager
def part(seed: int, name: str) -> Iterator[None]:
    """Inside, torch's global CPU generator starts from (seed, name); outside it is as it was.

    Each part of a run draws its initial weights so: adding one part changes no other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(seed, name))
        yield
