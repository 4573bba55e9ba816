"""Which of several processes this is, as a launcher such as torchrun says in the environment."""

import os
from typing import NamedTuple

from tutelage.errors import SettingError

__all__ = ["Place", "place", "require_one_process", "require_said"]


class Place(NamedTuple):
    """This process among those that were started together.

    Attributes:
        rank: from 0.
        world_size: of all processes, how many they are.
        local_rank, local_world_size: the same on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0


def place() -> Place:
    """What the launcher said; without one, a process is alone.

    Raises:
        SettingError: it said only half of it, or nonsense.
    """
    said = os.environ.get("WORLD_SIZE", "1")
    if said == "1":
        return Place()
    require_said("RANK")
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    # Where nobody says what is on this machine, all is.
    usual = {"LOCAL_RANK": os.environ["RANK"], "LOCAL_WORLD_SIZE": said}
    values = [os.environ.get(name, usual.get(name, said)) for name in names]
    if not all(value.isdecimal() for value in values) or int(values[0]) >= int(said):
        spelled = ", ".join(f"{n}={v}" for n, v in zip(names, values, strict=True))
        raise SettingError(
            f"RANK counts from 0 to WORLD_SIZE - 1, but the environment says {spelled}. Start the "
            "processes with torchrun."
        )
    return Place(*map(int, values))


def require_said(*names: str) -> None:
    """Refuses a launcher that left one of these out of the environment.

    Raises:
        SettingError: names it.
    """
    for name in names:
        if name not in os.environ:
            raise SettingError(
                f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, so this is one of several "
                f"processes, but {name} is not set. Start them with torchrun, or unset WORLD_SIZE."
            )


def require_one_process(what: str) -> None:
    """Refuses what several processes would each do as a whole.

    Args:
        what: it is, for the message: a plural.

    Raises:
        SettingError: a launcher has started more than one.
    """
    count = place().world_size
    if count > 1:
        raise SettingError(
            f"A launcher has started {count} processes, but {what} are made by one. Start one; "
            "tutelage train and tutelage cache share their work among several."
        )
