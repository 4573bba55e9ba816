"""Small networks whose modules put out tokens, channels last, or lists."""

import torch
from torch import Tensor, nn


class Tokens(nn.Module):
    """A patch embedding, tokens in front, and two blocks, as in vision transformers."""

    def __init__(self, prefix: int, channels: int = 6, patch: int = 8) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, channels, patch, stride=patch)
        self.front = nn.Parameter(torch.zeros(1, prefix, channels))
        self.blocks = nn.Sequential(*(nn.Linear(channels, channels) for _ in range(2)))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 5)

    def forward(self, images: Tensor) -> Tensor:
        rows = self.embed(images).flatten(2).transpose(1, 2)
        rows = torch.cat([self.front.expand(len(rows), -1, -1), rows], dim=1)
        return self.head(self.norm(self.blocks(rows))[:, 0])


class ChannelsLast(nn.Module):
    """Channels lie last, as in Swin transformers.

    Args:
        channels: as many as places on a side leave the layout open.
        one_size: it takes no other pictures.
    """

    def __init__(self, channels: int, *, one_size: bool = False) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, channels, 4, stride=4)
        self.first = nn.Linear(channels, channels)
        self.merge = nn.Linear(4 * channels, 2 * channels)
        self.second = nn.Linear(2 * channels, 2 * channels)
        self.one_size = one_size

    def forward(self, images: Tensor) -> Tensor:
        if self.one_size and images.shape[-1] != 32:
            raise ValueError("pictures are 32 wide")
        maps = self.first(self.embed(images).permute(0, 2, 3, 1))
        quarters = [maps[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return self.second(self.merge(torch.cat(quarters, dim=-1))).mean((1, 2))


class Several(nn.Module):
    """A block whose output is a list; what makes its second entry has no name."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [fine, fine[:, :, ::2, ::2] + 1]


class Takes(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.linear = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.inner(images)[1].mean((2, 3)))
