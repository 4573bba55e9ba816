"""Linear CKA: by hand, what it must not notice, and on the maps of two networks."""

import pytest
import torch
from torch import nn

from tutelage.evaluation.similarity import (
    MAX_NUMBERS,
    _flat,
    attention_correlation,
    linear_cka,
    similarity,
)
from tutelage.models.network import Network
from tutelage.types import Batch, InputSpec, Pair


def rows(count: int, numbers: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, numbers, generator=torch.Generator().manual_seed(seed))


def test_by_hand():
    # Centered rows (−1, 0, 1) and (1, −2, 1): their kernels meet in 0; with (0, 0, 3) → (−1, −1, 2)
    # the product of (−1, 0, 1) and (−1, −1, 2) is 3, squared 9, over 2 · 6.
    first = torch.tensor([[0.0], [1.0], [2.0]])
    assert linear_cka(first, torch.tensor([[3.0], [0.0], [3.0]])) == 0
    assert linear_cka(first, torch.tensor([[0.0], [0.0], [3.0]])) == 0.75


def test_it_is_the_feature_form_of_the_paper():
    """‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) with centered columns: equation in section 3 of the paper."""
    x, y = rows(40, 7).double(), rows(40, 5, 1).double()
    x, y = x - x.mean(0), y - y.mean(0)
    norm = torch.linalg.matrix_norm
    expected = norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))
    assert linear_cka(x, y) == pytest.approx(float(expected), abs=1e-6)


def test_rotations_scales_and_shifts_do_not_count():
    x, y = rows(30, 6), rows(30, 4, 1)
    turned = x @ torch.linalg.qr(rows(6, 6, 2)).Q
    assert linear_cka(3 * turned + 5, y) == pytest.approx(linear_cka(x, y), abs=1e-5)
    assert linear_cka(x, 3 * turned + 5) == pytest.approx(1, abs=1e-5)


def test_it_is_symmetric_and_within_its_range():
    x, y = rows(30, 6), rows(30, 4, 1)
    assert linear_cka(x, y) == linear_cka(y, x)
    assert 0 < linear_cka(x, y) < 1


def test_a_map_that_is_always_the_same_is_like_nothing():
    assert linear_cka(torch.ones(5, 3), rows(5, 3)) == 0


@pytest.mark.parametrize("shape", [(2, 16, 32, 32), (2, 64, 56, 56), (2, 3, 500, 300)])
def test_large_maps_are_pooled(shape: tuple[int, ...]):
    flat = _flat(torch.ones(shape))
    assert flat.shape[1] <= MAX_NUMBERS
    assert flat.shape[1] * 4 > min(MAX_NUMBERS, shape[1] * shape[2] * shape[3])
    assert torch.allclose(flat, torch.ones_like(flat))


class Two(nn.Module):
    """Two maps, of which the second doubles the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.drop = nn.Conv2d(1, 3, 3), nn.Identity(), nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.drop(self.second(2 * self.first(images))).mean(dim=(2, 3))


def batches() -> list[Batch]:
    images = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    known = torch.ones(12, dtype=torch.bool)
    whole = (images, torch.zeros(12, dtype=torch.int64), known, torch.arange(12))
    return [
        Batch(*(column[part] for column in whole), view=None)
        for part in (slice(0, 5), slice(5, 12))
    ]


# Where they look


def test_places_by_hand():
    """(0, 1, 2, 3) with itself 1, turned round -1, with (1, 0, 3, 2) 1 - 6 · 4 / (4 · 15) = 0.6."""
    maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]).repeat(3, 1, 1)
    others = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[3.0, 2.0], [1.0, 0.0]], [[1.0, 0], [3, 2]]])
    found = attention_correlation(maps, others)
    assert found is not None
    assert found.tolist() == pytest.approx([1, -1, 0.6])
    again = attention_correlation(7 * maps + 2, 0.1 * others)
    assert again is not None
    assert again.tolist() == pytest.approx(found.tolist())


def test_a_larger_map_is_averaged_and_a_flat_one_looks_nowhere():
    small = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0))
    large = small.repeat_interleave(4, dim=1).repeat_interleave(2, dim=2)
    same = attention_correlation(small, large)
    assert same is not None
    assert same.tolist() == pytest.approx([1, 1])
    flat = attention_correlation(small, torch.ones(2, 5, 5))
    assert flat is not None
    assert flat.tolist() == [0, 0]
    assert attention_correlation(small, torch.ones(2, 1, 1)) is None


def test_of_two_networks():
    spec = InputSpec(6, 6, 1, (0.5,), (0.25,))
    student, teacher = Network(Two(), spec).train(), Network(Two(), spec)
    pairs = [Pair("first", "first"), Pair("second", "first"), Pair("second", "second")]
    found = similarity(student, teacher, batches(), pairs, device=torch.device("cpu"))
    assert [(one["student"], one["teacher"]) for one in found] == [tuple(pair) for pair in pairs]
    assert found[0]["cka"] == pytest.approx(found[1]["cka"], abs=1e-5)
    assert 0 < found[0]["cka"] <= 1
    assert student.training
    (same,) = similarity(student, student, batches(), pairs[:1], device=torch.device("cpu"))
    assert same["cka"] == pytest.approx(1, abs=1e-5)
    assert same["attention"] == pytest.approx(1, abs=1e-5)
    assert -1 < found[0]["attention"] < 1
    assert found[0]["attention"] == pytest.approx(found[1]["attention"], abs=1e-5)
