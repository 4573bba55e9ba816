"""The plain loop: what anybody writes first, and nothing else. Speed is measured against it."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax


def plain(
    student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor
) -> Iterator[float]:
    """Distills on one resident batch for ever, temperature 4; yields the loss of each step."""
    student.train()
    teacher.eval()
    optimizer = torch.optim.SGD(
        student.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    while True:
        with torch.no_grad():
            answer = teacher(images)
        logits = student(images)
        soft = kl_div(log_softmax(logits / 4, 1), softmax(answer / 4, 1), reduction="batchmean")
        loss = 0.1 * cross_entropy(logits, labels) + 0.9 * 4**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
