"""Lists a folder of photographs anew for a cross-validation, in which each is tested once.

python benchmarks/folds.py data/scene15 --folds 5

Writes FOLDER-fold-0.csv and so on: manifests in which other pictures of each class have the split
test, the rest train, whatever folder they lie in.
"""

import argparse
import csv
import hashlib
import io
from collections import defaultdict
from pathlib import Path

from tutelage.data.listing import ENDINGS, PARTS
from tutelage.records import write_atomic


def main() -> None:
    """Reads FOLDER/train/CLASS/…, FOLDER/val/CLASS/… and FOLDER/test/CLASS/…."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    asked = parser.parse_args()
    classes: dict[str, list[str]] = defaultdict(list)
    for part in PARTS:
        for path in (asked.folder / part).glob("*/*"):
            if path.suffix.lower() in ENDINGS:
                classes[path.parent.name].append(path.relative_to(asked.folder).as_posix())
    few = min(map(len, classes.values()), default=0)
    if not 2 <= asked.folds <= few:
        parser.error(
            f"The smallest class in the parts of {asked.folder} has {few} pictures. Give --folds "
            f"from 2 to that, not {asked.folds}."
        )
    drawn = [(path, label) for label in sorted(classes) for path in _drawn(classes[label])]
    for number in range(asked.folds):
        rows = [
            (path, label, "test" if place % asked.folds == number else "train")
            for place, (path, label) in enumerate(drawn)
        ]
        out = asked.folder.with_name(f"{asked.folder.name}-fold-{number}.csv")
        text = io.StringIO()
        csv.writer(text).writerows([("path", "label", "split"), *rows])
        write_atomic(out, text.getvalue())
        tested = sum(split == "test" for *_, split in rows)
        print(f"{out}: {len(rows) - tested:,} to train on, {tested:,} to test")


def _drawn(paths: list[str]) -> list[str]:
    """In an order that hashes give."""
    return sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())


if __name__ == "__main__":
    main()
