"""Cross-validation: seeds that test another part of the pictures each."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.data import DATASETS
from tutelage.errors import RecipeError
from tutelage.recipes import Recipe

__all__ = ["MARK", "of_seed", "require_folds", "texts"]

MARK = "{seed}"
"""Stands for the seed in the name of a file or folder."""

_SHARED, _COPIES = 0.01, 3
"""The share, or else the number, of test pictures that two folds may have in common: data sets hold
copies."""


def texts(value: Any) -> Iterator[str]:
    """All texts of a recipe but the name of a store, in which the run itself knows its seed."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from () if key == "cache" else texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value


def of_seed(value: Any, seed: int) -> Any:
    """A recipe whose `{seed}` is said, wherever it stands but in the name of a store.

    >>> of_seed({"a": ["x-{seed}"], "cache": "y-{seed}"}, 3)
    {'a': ['x-3'], 'cache': 'y-{seed}'}
    """
    if isinstance(value, Mapping):
        return {key: one if key == "cache" else of_seed(one, seed) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [of_seed(one, seed) for one in value]
    return value.replace(MARK, str(seed)) if isinstance(value, str) else value


def require_folds(recipes: Mapping[int, Recipe]) -> None:
    """Refuses seeds that test the same pictures.

    Args:
        recipes: seed → of any trial with this seed.

    Raises:
        RecipeError: several test pictures of two seeds, and more than one in a hundred, are the
            same, byte by byte.
    """
    seen: dict[bytes, int] = {}
    for seed, recipe in recipes.items():
        assert recipe.data.source is not None
        settings = {key: value for key, value in recipe.data.source.items() if key != "name"}
        tested = DATASETS[recipe.data.source["name"]](**settings).test.digests()
        before = Counter(seen[one] for one in tested if one in seen)
        other, shared = before.most_common(1)[0] if before else (None, 0)
        if shared > max(_COPIES, _SHARED * len(tested)):
            raise RecipeError(
                f"Folds test each picture once, and {shared:,} of {len(tested):,} test pictures of "
                f"seed {seed} are tested by seed {other}, too. Give each seed a part of its own, "
                "and copies of a picture one part."
            )
        seen |= dict.fromkeys(tested, seed)
