"""The ResNet-56 of CIFAR-100 with a head for other classes: see scene-folds-recipe.yaml."""

from pathlib import Path

from torch import nn

from tutelage.models.checkpoints import read_state
from tutelage.models.cifar_resnet import cifar_resnet

WEIGHTS = Path("runs/cifar100-teacher/student.safetensors")


def resnet56(num_classes: int) -> nn.Module:
    """The network for RGB pictures; its linear layer begins at random, all else as it was."""
    network = cifar_resnet(56, num_classes=num_classes)
    learned = {name: weight for name, weight in read_state(WEIGHTS).items() if "linear" not in name}
    found = network.load_state_dict(learned, strict=False)
    if found.unexpected_keys or any("linear" not in name for name in found.missing_keys):
        raise SystemExit(f"{WEIGHTS} does not hold the weights of a ResNet-56.")
    return network
