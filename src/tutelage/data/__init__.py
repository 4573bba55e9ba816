"""Where pictures come from: one line each. A source's arguments are what a recipe may say of it."""

from collections.abc import Callable

from tutelage.data import arrays, cifar, digits, folder, hub
from tutelage.data.loader import EvalLoader, TrainLoader
from tutelage.data.pictures import Pictures, Source
from tutelage.data.subsets import Split, divide
from tutelage.data.views import Views

__all__ = [
    "DATASETS",
    "EvalLoader",
    "Pictures",
    "Source",
    "Split",
    "TrainLoader",
    "Views",
    "divide",
]

DATASETS: dict[str, Callable[..., Source]] = {
    "digits": digits.digits,  # embedded: 1,797 scans, 8×8, 10 classes
    "cifar10": cifar.cifar10,  # official files, 32×32, 10 classes
    "cifar100": cifar.cifar100,  # official files, 32×32, 100 classes
    "arrays": arrays.arrays,  # an .npz file of one's own
    "folder": folder.folder,  # photographs, a sub-folder per class
    "manifest": folder.manifest,  # photographs that a CSV file lists
    "hub": hub.hub,  # Hugging Face's datasets, or their local files
}
