import copy

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from tutelage.engine import TrainSettings, norms
from tutelage.engine.norms import synchronized
from tutelage.errors import SettingError


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process, which is all there are."""
    monkeypatch.setattr(norms, "all_reduce", lambda values: values)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)


NORMS = [
    nn.BatchNorm2d(5),
    nn.BatchNorm2d(5, affine=False, eps=0.1),
    nn.BatchNorm2d(5, momentum=None),
    nn.BatchNorm2d(5, track_running_stats=False),
    BatchNormAct2d(5),
]


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.usefixtures("alone")
def test_it_is_the_batch_norm_that_it_stands_for(norm: nn.Module):
    own, other = copy.deepcopy(norm).train(), copy.deepcopy(norm).train()
    maps = torch.empty(0)
    for _ in range(3):
        maps = (3 * torch.rand(6, 5, 4, 3) + 7).requires_grad_()
        pull = torch.rand(6, 5, 4, 3)
        expected = other(maps)
        (wanted,) = torch.autograd.grad((expected * pull).sum(), maps)
        with synchronized(own):
            found = own(maps)
            (gradient,) = torch.autograd.grad((found * pull).sum(), maps)
        assert torch.allclose(found, expected, atol=1e-5)
        assert torch.allclose(gradient, wanted, atol=1e-5)
    assert own.state_dict().keys() == other.state_dict().keys()
    for name, value in other.state_dict().items():
        assert torch.allclose(own.state_dict()[name], value, atol=1e-5)
    with synchronized(own.eval()):
        assert torch.allclose(own(maps), other.eval()(maps), atol=1e-5)


@pytest.mark.usefixtures("alone")
def test_flat_maps_and_other_precisions():
    norm = nn.BatchNorm1d(5).train()
    values = torch.rand(7, 5)
    expected = copy.deepcopy(norm)(values)
    with synchronized(norm):
        assert torch.allclose(norm(values), expected, atol=1e-5)
        assert norm(values.bfloat16()).dtype == torch.bfloat16
        assert norm.eval()(values).shape == (7, 5)


def test_modules_stay_themselves():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), BatchNormAct2d(5), nn.ReLU())
    kinds = [type(one) for one in network]
    seen = []
    network[1].register_forward_hook(lambda *given: seen.append(given[2]))
    with synchronized(network):
        assert [type(one) for one in network] != kinds
        network.eval()(torch.rand(2, 3, 4, 4))
    assert [type(one) for one in network] == kinds
    assert len(seen) == 1


def test_a_norm_of_another_class_is_refused():
    class Own(nn.BatchNorm2d):
        """Somebody's."""

    with pytest.raises(SettingError, match=r"Own. Leave it out"), synchronized(Own(3)):
        pass


def test_it_is_not_compiled():
    with pytest.raises(SettingError, match="sync_norms and compile"):
        TrainSettings(steps=1, sync_norms=True, compile=True)
