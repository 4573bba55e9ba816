"""What a recipe leaves to measuring, decided before anything else is done with it."""

import torch

from tutelage.build import Built
from tutelage.engine import ALONE, Processes, TrainSettings, resolve_device
from tutelage.engine.choosing import Chosen, choose, settled
from tutelage.engine.host import imitates_bf16
from tutelage.recipes import Recipe
from tutelage.teachers import StoredTeacher

__all__ = ["caution", "settle", "with_chosen"]


def settle(
    built: Built, device: torch.device, together: Processes = ALONE
) -> tuple[Built, Chosen | None]:
    """Measures what is open, and enters it in the recipe; what is not open stays.

    A store was made in one precision, so a run from it has that one. Of several processes the first
    one measures, alone, for all.

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
        measured = Chosen({})
        if together.first:
            measured = choose(built.distiller, built.train, settings, device)
        chosen = chosen.joined(Chosen(**together.tell(measured._asdict())))
    return built._replace(recipe=with_chosen(built.recipe, chosen)), chosen


def caution(settings: TrainSettings) -> str | None:
    """What is to be known before hours are spent, if anything."""
    if settings.precision != "bf16" or not imitates_bf16(resolve_device(settings.device)):
        return None
    return (
        "This processor has no instructions for bf16 and imitates them, so fp32 may be several "
        "times faster. Say train.precision=fp32; auto measures it."
    )


def with_chosen(recipe: Recipe, chosen: Chosen) -> Recipe:
    """The recipe with what was chosen, where it was open."""
    return recipe.model_copy(update={"train": settled(recipe.train, chosen.values)})
