"""Writes CIFAR-10 as three files: the classes 0 to 4, the classes 5 to 9, and all of them.

python benchmarks/halves.py data
"""

import sys
from pathlib import Path

import numpy as np

from tutelage.data.cifar import cifar10

HALVES = {"first": range(5), "second": range(5, 10), "both": range(10)}


def main(root: str) -> None:
    """Writes root/cifar10-{first,second,both}.npz."""
    source = cifar10(root=root)
    for name, which in HALVES.items():
        values = {}
        for part in ("train", "test"):
            pictures = getattr(source, part)
            labels = pictures.labels.numpy()
            keep = np.isin(labels, which)
            values[f"{part}_images"] = pictures.images.numpy()[keep]
            values[f"{part}_labels"] = labels[keep] - which[0]
        classes = np.array([source.classes[number] for number in which])
        path = Path(root) / f"cifar10-{name}.npz"
        np.savez(path, **values, classes=classes)
        print(f"{path}: {len(values['train_labels']):,} to train on, {len(classes)} classes")


if __name__ == "__main__":
    main(*sys.argv[1:])
