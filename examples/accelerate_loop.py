"""Distillation in a loop that Hugging Face's accelerate distributes, on digits.

    accelerate launch examples/accelerate_loop.py

Devices, processes and precision are accelerate's affair, as for any module. A teacher is no part of
the distiller: it moves along, but is neither wrapped nor trained nor saved.
"""

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from own_loop import MEAN, STD, STEPS, accuracy, pixels_and_labels, trained_teacher
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import tutelage
from tutelage.distiller import Output
from tutelage.models import create


def train(
    pupil: tutelage.Distiller,
    optimizer: torch.optim.Optimizer,
    batches: DataLoader,
    accelerator: Accelerator,
) -> Iterator[Output]:
    """The loop: as without accelerate, but for `prepare` and `backward`."""
    model, optimizer, batches = accelerator.prepare(pupil, optimizer, batches)
    for step, (images, labels) in enumerate(batches):
        out = model(images, labels, progress=step / len(batches))
        optimizer.zero_grad()
        accelerator.backward(out.loss)
        optimizer.step()
        yield out


def main() -> None:
    """Distills a trained teacher into a small network, and prints how both do on new digits."""
    torch.manual_seed(0)
    accelerator = Accelerator()
    pixels, labels = pixels_and_labels()
    teacher = trained_teacher(pixels[:300], labels[:300])
    student = create("resnet8", num_classes=10, in_channels=1, width=8)
    pupil = tutelage.Distiller(
        student, teacher, methods={"kd": (tutelage.KD(), 1.0)}, input_normalized=([MEAN], [STD])
    )
    optimizer = torch.optim.SGD(pupil.trainable_parameters(), lr=0.1, momentum=0.9)
    images = (pixels - MEAN) / STD
    digits = TensorDataset(images[:1297], labels[:1297])
    drawn = RandomSampler(digits, replacement=True, num_samples=50 * STEPS)
    batches = DataLoader(digits, batch_size=50, sampler=drawn)
    for step, out in enumerate(train(pupil, optimizer, batches, accelerator)):
        if step % 50 == 0:
            accelerator.print(step, f"{out.loss.item():.3f}")
    on_new = accuracy(student.cpu(), images[1297:], labels[1297:])
    accelerator.print(f"teacher {accuracy(teacher.cpu(), pixels[1297:], labels[1297:]):.1%}")
    accelerator.print(f"student {on_new:.1%}")


if __name__ == "__main__":
    main()
