"""Distillation as a module of Lightning, on digits: `python examples/lightning_module.py`.

Needs `pip install lightning`. Terms of the loss appear in its loggers as `train/NAME`.
"""

import torch
from lightning import LightningModule, Trainer
from own_loop import MEAN, STD, accuracy, pixels_and_labels, trained_teacher
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import tutelage
from tutelage.models import create


class Distilled(LightningModule):
    """Trains the student of a distiller; its checkpoints hold no teacher.

    Args:
        pupil: student, teacher and methods.
        lr: learning rate.
    """

    def __init__(self, pupil: tutelage.Distiller, lr: float) -> None:
        super().__init__()
        self.pupil, self.lr = pupil, lr

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of images and labels."""
        images, labels = batch
        done = self.global_step / self.trainer.estimated_stepping_batches
        out = self.pupil(images, labels, progress=done)
        self.log_dict({f"train/{name}": value for name, value in out.terms.items()})
        return out.loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Of the student, and of what methods learn."""
        return torch.optim.SGD(self.pupil.trainable_parameters(), lr=self.lr, momentum=0.9)


def main() -> None:
    """Distills a trained teacher into a small network, and prints how both do on new digits."""
    torch.manual_seed(0)
    pixels, labels = pixels_and_labels()
    teacher = trained_teacher(pixels[:300], labels[:300])
    student = create("resnet8", num_classes=10, in_channels=1, width=8)
    pupil = tutelage.Distiller(
        student, teacher, methods={"kd": (tutelage.KD(), 1.0)}, input_normalized=([MEAN], [STD])
    )
    images = (pixels - MEAN) / STD
    digits = TensorDataset(images[:1297], labels[:1297])
    trainer = Trainer(max_epochs=8, logger=False, enable_checkpointing=False)
    trainer.fit(Distilled(pupil, lr=0.1), DataLoader(digits, batch_size=50, shuffle=True))
    print(f"teacher {accuracy(teacher.cpu(), pixels[1297:], labels[1297:]):.1%}")
    print(f"student {accuracy(student.cpu(), images[1297:], labels[1297:]):.1%}")


if __name__ == "__main__":
    main()
