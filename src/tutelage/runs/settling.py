"""What a recipe leaves to measuring, decided before anything else is done with it."""

import torch

from tutelage.build import Built
from tutelage.engine.choosing import Chosen, choose, settled
from tutelage.recipes import Recipe
from tutelage.teachers import StoredTeacher

__all__ = ["settle", "with_chosen"]


def settle(built: Built, device: torch.device) -> tuple[Built, Chosen | None]:
    """Measures what is open, and enters it in the recipe; what is not open stays.

    A store was made in one precision, so a run from it has that one.

    Returns:
        The same objects with a recipe in which nothing is open; and what was chosen, if anything.
    """
    settings, chosen = built.recipe.train, Chosen({})
    if not settings.open:
        return built, None
    if isinstance(built.teacher, StoredTeacher) and "precision" in settings.open:
        chosen = Chosen({"precision": built.teacher.store.manifest.fingerprint["precision"]})
        settings = settled(settings, chosen.values)
    if settings.open:
        chosen = chosen.joined(choose(built.distiller, built.train, settings, device))
    return built._replace(recipe=with_chosen(built.recipe, chosen)), chosen


def with_chosen(recipe: Recipe, chosen: Chosen) -> Recipe:
    """The recipe with what was chosen, where it was open."""
    return recipe.model_copy(update={"train": settled(recipe.train, chosen.values)})
