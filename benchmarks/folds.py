"""Lists a folder of photographs anew for a cross-validation, in which each is tested once.

python benchmarks/folds.py data/scene15 --folds 5

Writes FOLDER-fold-0.csv and so on: manifests in which other pictures of each class have the split
test, the rest train, whatever folder they lie in.
"""

import argparse
import csv
import hashlib
from collections import defaultdict
from pathlib import Path


def main() -> None:
    """Reads FOLDER/train/CLASS/… and FOLDER/test/CLASS/…."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    asked = parser.parse_args()
    classes: dict[str, list[str]] = defaultdict(list)
    for part in ("train", "test"):
        for path in (asked.folder / part).glob("*/*.*"):
            classes[path.parent.name].append(path.relative_to(asked.folder).as_posix())
    for number in range(asked.folds):
        rows = [
            (path, label, "test" if place % asked.folds == number else "train")
            for label, paths in sorted(classes.items())
            for place, path in enumerate(sorted(paths, key=_drawn))
        ]
        out = asked.folder.with_name(f"{asked.folder.name}-fold-{number}.csv")
        with out.open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "split"), *rows])
        tested = sum(split == "test" for *_, split in rows)
        print(f"{out}: {len(rows) - tested:,} to train on, {tested:,} to test")


def _drawn(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


if __name__ == "__main__":
    main()
