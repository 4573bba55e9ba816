"""One pass over pictures: nothing lost, nothing changed."""

import pytest
import torch
from torch import Tensor, nn

from tutelage.data import EvalLoader
from tutelage.data.digits import digits
from tutelage.evaluation.predictions import predict
from tutelage.models.network import Network

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Logits that can be worked out: the sum of the pixels, and its opposite."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm2d(1, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        total = self.drop(self.norm(images)).sum(dim=(1, 2, 3))
        return torch.stack([total, -total], dim=1)


@pytest.mark.parametrize("batch_size", [7, 100, 500])
def test_every_picture_is_seen_once_in_order_and_in_eval_mode(batch_size: int):
    pictures = digits().test
    seen = predict(Network(Brightness()), EvalLoader(pictures, batch_size=batch_size), device=CPU)
    pixels = pictures.images.float().sum(dim=(1, 2, 3)) / 255
    assert torch.equal(seen.index, pictures.index)
    assert torch.equal(seen.targets, pictures.labels)
    assert seen.has_label.all()
    # BatchNorm's fresh statistics are mean 0 and variance 1.
    assert torch.allclose(seen.outputs[:, 0], pixels, rtol=1e-4)


def test_modes_and_statistics_are_as_before():
    network = Network(Brightness())
    network.module.norm.eval()  # pyright: ignore
    before = {child: child.training for child in network.modules()}
    buffers = {name: value.clone() for name, value in network.state_dict().items()}
    seen = predict(network, EvalLoader(digits().test, batch_size=100), device=CPU)
    assert {child: child.training for child in network.modules()} == before
    assert all(torch.equal(buffers[name], value) for name, value in network.state_dict().items())
    assert not seen.outputs.requires_grad


def test_modes_are_restored_when_a_network_fails():
    network = Network(nn.Linear(3, 2))
    with pytest.raises(RuntimeError):
        predict(network, EvalLoader(digits().test, batch_size=100), device=CPU)
    assert network.training
    assert network.module.training


def test_bfloat16_gives_float32_close_to_the_same():
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    batches = EvalLoader(digits().test, batch_size=500)
    exact = predict(network, batches, device=CPU).outputs
    rounded = predict(network, batches, device=CPU, precision="bf16").outputs
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert torch.allclose(rounded, exact, atol=0.03)
