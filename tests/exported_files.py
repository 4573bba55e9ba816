"""A tiny network whose norms have seen pictures, and what its files say of themselves."""

import torch
from small_run import SPEC, Tiny
from torch import Tensor

from tutelage import rng
from tutelage.data.photographs import Rule
from tutelage.exporting import About, Form
from tutelage.models.network import Network


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def about(form: Form) -> About:
    return About("tiny", None, ("a", "b", "c"), SPEC, Rule(8, 8, 1), form, "weights", "0")


def seasoned() -> Network:
    with rng.part(0, "export"):
        network = Network(Tiny(), SPEC)
        network.train()
        with torch.no_grad():
            for number in range(3):
                network(images(20, number))
    return network.eval()
