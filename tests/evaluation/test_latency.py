"""Latency by a clock that the test winds; no test looks at real time."""

import pytest
import torch
from torch import Tensor, nn

from tutelage.errors import SettingError
from tutelage.evaluation import latency as tested
from tutelage.evaluation.latency import Latency, latency


class Witness(nn.Module):
    """Notes how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout()
        self.seen: list[tuple] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((tuple(images.shape), self.training, torch.is_grad_enabled()))
        return images


class Clock:
    """Round i, counted from 1, lasts i milliseconds; time passes between rounds, too."""

    def __init__(self) -> None:
        self.now, self.calls = 100.0, 0

    def __call__(self) -> float:
        self.calls += 1
        started = self.calls % 2 == 0
        self.now += 1e-3 * (self.calls // 2) if started else 5.0
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tested, "perf_counter", clock)
    return clock


@pytest.mark.usefixtures("clock")
def test_median_and_percentile_are_those_of_the_timed_rounds():
    """Rounds of 6, 7, ... 26 ms: the 95th of 100 parts of 20 steps is the 19th step."""
    torch.set_num_threads(1)
    measured = latency(Witness(), (3, 8, 8), rounds=21, warmup=5)
    assert measured.median_ms == pytest.approx(16)
    assert measured.p95_ms == pytest.approx(25)
    assert measured == Latency(measured.median_ms, measured.p95_ms, 1, 1, 21)


@pytest.mark.usefixtures("clock")
def test_percentiles_between_rounds_are_interpolated():
    measured = latency(Witness(), (3, 8, 8), rounds=2, warmup=0)
    assert measured.median_ms == pytest.approx(1.5)
    assert measured.p95_ms == pytest.approx(1.95)


def test_one_round_is_its_own_median(clock: Clock):
    measured = latency(Witness(), (3, 8, 8), rounds=1, warmup=3)
    assert measured.median_ms == measured.p95_ms == pytest.approx(4)
    assert clock.calls == 8


def test_the_network_is_measured_as_it_is_used_and_left_as_it_was():
    network = Witness()
    network.dropout.eval()
    generator = torch.get_rng_state()
    latency(network, (3, 4, 6), batch_size=2, rounds=3, warmup=1)
    assert network.seen == [((2, 3, 4, 6), False, False)] * 4
    assert (network.training, network.dropout.training) == (True, False)
    assert torch.equal(torch.get_rng_state(), generator)


def test_naming_the_device_where_it_is_changes_nothing():
    network = nn.Conv2d(3, 4, 1)
    weight = network.weight
    assert latency(network, (3, 4, 4), rounds=1, warmup=0, device="cpu").rounds == 1
    assert network.weight is weight
    assert weight.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_an_accelerator_the_network_comes_back():
    network = nn.Conv2d(3, 4, 1)
    weight, before = network.weight, network.weight.detach().clone()
    assert latency(network, (3, 4, 4), rounds=3, warmup=1, device="cuda").median_ms > 0
    assert network.weight is weight
    assert torch.equal(weight, before)


def test_an_accelerator_is_waited_for_before_and_after(monkeypatch: pytest.MonkeyPatch):
    """On the meta device, which stands for one that answers before it has finished."""
    order = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda _: order.append("wait"))
    monkeypatch.setattr(tested, "perf_counter", lambda: order.append("clock") or 0.0)
    network = nn.Conv2d(3, 4, 1, device="meta")
    latency(network, (3, 4, 4), rounds=1, warmup=1)
    assert order == ["wait", "clock", "wait", "clock"] * 2


@pytest.mark.parametrize("wrong", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_nothing_to_time_is_refused(wrong: tuple[int, int, int]):
    batch_size, rounds, warmup = wrong
    with pytest.raises(SettingError, match=f"={batch_size}, rounds={rounds}, warmup={warmup}"):
        latency(nn.ReLU(), (3, 4, 4), batch_size=batch_size, rounds=rounds, warmup=warmup)
