"""Distillation in a training loop of one's own, on digits of which 300 have a label.

The loop is `train`; the rest one has already. Its images are normalized, as in most loops. The
teacher wants them larger and normalized in another way, which is its own affair: it is a `Network`.
"""

from collections.abc import Iterator, Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import tutelage
from tutelage.distiller import Output
from tutelage.models import create

MEAN, STD = 0.305, 0.376
STEPS = 200


def pixels_and_labels() -> tuple[Tensor, Tensor]:
    """The digits: pixels in [0, 1], shape (1797, 1, 8, 8), and the numbers that they show."""
    dots, numbers = load_digits(return_X_y=True)
    pixels = torch.as_tensor(dots, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return pixels, torch.as_tensor(numbers)


def trained_teacher(pixels: Tensor, labels: Tensor) -> tutelage.Network:
    """A large network, which normalizes by itself; trained on labels alone."""
    spec = tutelage.InputSpec(height=12, width=12, channels=1, mean=(0.3,), std=(0.4,))
    teacher = tutelage.Network(create("resnet14", num_classes=10, in_channels=1), spec)
    optimizer = torch.optim.SGD(teacher.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(10):
        for rows in torch.randperm(len(pixels)).split(50):
            optimizer.zero_grad()
            cross_entropy(teacher(pixels[rows]), labels[rows]).backward()
            optimizer.step()
    return teacher.eval()


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images that are named rightly."""
    with torch.no_grad():
        return (network.eval()(images).argmax(dim=1) == labels).float().mean().item()


def train(
    pupil: tutelage.Distiller,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
) -> Iterator[Output]:
    """The loop. Of a batch it takes the images, their labels, and which of these are known."""
    for step, (images, labels, known) in enumerate(batches):
        out = pupil(images, labels, has_label=known, progress=step / len(batches))
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        yield out


def main() -> None:
    """Trains a teacher, distills it into a small network, and prints how both do on new digits."""
    torch.manual_seed(0)
    pixels, labels = pixels_and_labels()
    teacher = trained_teacher(pixels[:300], labels[:300])
    student = create("resnet8", num_classes=10, in_channels=1, width=8)
    images = (pixels - MEAN) / STD
    rows = torch.randint(1297, (STEPS, 50))  # of which the first 300 have a label
    batches = [(images[some], labels[some], some < 300) for some in rows]

    hints = tutelage.Schedule("linear", from_=1.0, to=0.0)
    methods = {"kd": (tutelage.KD(temperature=4), 0.9), "hints": (tutelage.FitNetHints(), hints)}
    pupil = tutelage.Distiller(
        student, teacher, methods=methods, task_weight=0.1, input_normalized=([MEAN], [STD])
    )
    optimizer = torch.optim.SGD(pupil.trainable_parameters(), lr=0.1, momentum=0.9)
    for step, out in enumerate(train(pupil, optimizer, batches)):
        if step % 50 == 0:
            print(step, {name: round(value.item(), 3) for name, value in out.terms.items()})

    print(f"teacher {accuracy(teacher, pixels[1297:], labels[1297:]):.1%}")
    print(f"student {accuracy(student, images[1297:], labels[1297:]):.1%}")


if __name__ == "__main__":
    main()
