"""The same picture twice: what is in train and in test as well is no test."""

from collections import Counter
from itertools import combinations

from tutelage.data.pictures import Pictures
from tutelage.data.subsets import Split

__all__ = ["duplicates"]


def duplicates(split: Split) -> dict[str, int]:
    """Counts exact duplicates, pixel by pixel, or of files; one that was saved anew is not found.

    Returns:
        "train/validation", "train/test", "validation/test": pictures of the second that are in the
        first as well; "train", "validation", "test": pictures that are there once more. What there
        is none of is left out.
    """
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    counted = {name: _digests(pictures) for name, pictures in parts.items()}
    found = {name: sum(counts.values()) - len(counts) for name, counts in counted.items()}
    for first, second in combinations(counted, 2):
        shared = counted[first].keys() & counted[second].keys()
        found[f"{first}/{second}"] = sum(counted[second][digest] for digest in shared)
    return {name: count for name, count in found.items() if count}


def _digests(pictures: Pictures) -> Counter[bytes]:
    return Counter(pictures.digests())
