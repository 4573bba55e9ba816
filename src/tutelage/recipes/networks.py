"""What a recipe may say of a network: its name, file, run or function, and what it is shown."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from tutelage.distiller.aggregation import AGGREGATORS
from tutelage.errors import CheckpointError
from tutelage.models import BY_NAME
from tutelage.models.checkpoints import parse
from tutelage.models.depth_dynamic import Norms
from tutelage.recipes.entries import entry_of
from tutelage.recipes.mistakes import mistake

__all__ = [
    "NETWORK_KEYS",
    "TEACHER_KEYS",
    "aggregation_entry",
    "network_entry",
    "teacher_entry",
    "teachers_entry",
]

_SHOWN = ("mean", "std", "size", "channels")
NETWORK_KEYS = ("checkpoint", "new_head", *_SHOWN, "subnets", "subnet_norms")
"""What an entry may say of any network, beside its name and its factory's settings."""

TEACHER_KEYS = ("classes", "class_map")
"""What it may say of a teacher beside that, and beside a run."""


def network_entry(value: Any) -> dict[str, Any]:
    """What makes a network, with defaults filled in.

    `NAME`, `FILE:NAME`, `{name: …, checkpoint: FILE, mean: …, std: …, size: …, channels: …}`,
    `{python: FILE.py:FUNCTION, arguments: {…}, …}` or `{run: FOLDER}`. Of a run whose student has
    sub-nets, `subnet: NAME` beside `run` takes one of them. With `new_head: true` beside a
    checkpoint the layer that gives the answers is not taken from it.
    """
    if isinstance(value, str) and ":" in value:
        value = _from_file(value)
    elif isinstance(value, Mapping) and isinstance(name := value.get("name"), str) and ":" in name:
        if "checkpoint" in value:  # which an override has added
            raise mistake(
                f"{name!r} names a file with weights, and so does checkpoint. Leave one of them out"
            )
        value = {**value, **_from_file(name)}
    if isinstance(value, Mapping) and "run" in value:
        return _run(value)
    if not isinstance(value, Mapping):
        return entry_of(BY_NAME, "network")(value)
    own = {key: check(value[key]) for key, check in _CHECKS.items() if key in value}
    if own.get("new_head") is False:
        del own["new_head"]
    rest = {key: value[key] for key in value if key not in _CHECKS}
    if own.get("new_head") and "checkpoint" not in own:
        raise mistake(
            "new_head: true goes with a checkpoint, of which all but the head is taken; it has no "
            "use without one, or beside pretrained"
        )
    return (_python(rest) if "python" in rest else entry_of(BY_NAME, "network")(rest)) | own


def _from_file(text: str) -> dict[str, Any]:
    """Of FILE:NAME."""
    try:
        checkpoint, name = parse(text)
    except CheckpointError as error:
        raise mistake(str(error).removesuffix(".")) from None
    return {"name": name, "checkpoint": str(checkpoint)}


def teacher_entry(value: Any) -> dict[str, Any]:
    """As `network_entry`; `classes` and `class_map` say how its answers become those to the data.

    With `cache: FOLDER` beside it, or alone, a store answers in its place; `cache: null` is none.
    """
    if not isinstance(value, Mapping):
        return network_entry(value)
    cache = value.get("cache")
    if not isinstance(cache, str | None):
        raise mistake(f"cache must be the folder of a store, not {cache!r}")
    checks = {"classes": _classes, "class_map": _class_map}
    own = {key: check(value[key]) for key, check in checks.items() if value.get(key) is not None}
    if cache is not None:
        own["cache"] = cache
    if value.get("new_head"):
        raise mistake("new_head: true is for what is trained; a teacher's head is what teaches")
    named: Any = {k: v for k, v in value.items() if k not in ("cache", *TEACHER_KEYS)}
    if not named and cache is not None:
        return own
    return network_entry(named) | own


def teachers_entry(value: Any) -> list[dict[str, Any]]:
    """Several teachers, each as `teacher_entry` says but without a store; [] for none."""
    if value in ([], None):
        return []
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise mistake(
            f"teachers is a list of two or more, not {value!r}; one is called teacher, and stands "
            "alone"
        )
    entries = []
    for place, one in enumerate(value):
        entry = teacher_entry(one) if one is not None else None
        if entry is None or "cache" in entry:
            raise mistake(
                f"teachers, place {place}: name a network, not {one!r}; a store has the answers of "
                "all together, and is named by `teacher: {cache: FOLDER}`"
            )
        entries.append(entry)
    return entries


def aggregation_entry(value: Any) -> dict[str, Any]:
    """How several teachers' answers become one: a name, or a name with settings."""
    return entry_of(AGGREGATORS, "aggregation")(value)


def _run(value: Mapping[str, Any]) -> dict[str, Any]:
    if not set(value) <= {"run", "subnet"} or not isinstance(value["run"], str):
        remedy = ""
        if value.get("new_head"):
            file = "checkpoint: FOLDER/student.safetensors"
            remedy = f"; for other classes name the network, and beside it {file}"
        raise mistake(
            "a network from an earlier run is {run: FOLDER}, with subnet: NAME if it has "
            f"sub-nets, and nothing else{remedy}"
        )
    if not isinstance(value.get("subnet", ""), str):
        raise mistake(f"subnet must be a sub-net's name in quotes, not {value['subnet']!r}")
    return dict(value)


def _python(value: Mapping[str, Any]) -> dict[str, Any]:
    """`{python: FILE.py:FUNCTION, arguments: {…}}`."""
    place, arguments = value["python"], value.get("arguments", {})
    file, _, function = place.rpartition(":") if isinstance(place, str) else ("", "", "")
    if not (file.endswith(".py") and function.isidentifier()):
        raise mistake(f"python names a function in a local file, FILE.py:FUNCTION, not {place!r}")
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        raise mistake(f"arguments is a mapping from names to values, not {arguments!r}")
    if set(value) - {"python", "arguments"}:
        odd = sorted(set(value) - {"python", "arguments"})
        raise mistake(
            f"{odd[0]!r} is no key of a network that a function makes; put what the function takes "
            "under arguments"
        )
    return {"python": place, "arguments": dict(arguments)}


def _checkpoint(value: Any) -> str:
    if not isinstance(value, str):
        raise mistake(f"checkpoint must be a file's name, not {value!r}")
    return value


def _new_head(value: Any) -> bool:
    if not isinstance(value, bool):
        raise mistake(f"new_head is true or false, not {value!r}")
    return value


def _numbers(key: str) -> Callable[[Any], list[float]]:
    def check(value: Any) -> list[float]:
        if not isinstance(value, list | tuple) or not all(
            isinstance(x, int | float) for x in value
        ):
            raise mistake(f"{key} must be a list of numbers, one per channel, not {value!r}")
        return list(value)

    return check


def _size(value: Any) -> list[int]:
    """One number for a square, or height and width."""
    sides = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(sides) != 2 or not all(_is_count(side) for side in sides):
        raise mistake(f"size is a number of pixels, or [height, width], not {value!r}")
    return sides


def _channels(value: Any) -> int:
    if value not in (1, 3) or isinstance(value, bool):
        raise mistake(f"channels is 1 for gray or 3 for RGB, not {value!r}")
    return value


def _norms(value: Any) -> str:
    if value not in get_args(Norms):
        raise mistake(f"subnet_norms is separate or shared, not {value!r}")
    return value


def _subnets(value: Any) -> dict[str, Any]:
    """Name → blocks of each stage."""
    counts = list(value.values()) if isinstance(value, Mapping) else []
    for count in counts or [None]:
        many = count if isinstance(count, list | tuple) else [count]
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in many):
            raise mistake(
                'subnets is a mapping from names to blocks of each stage, such as {"14": 2, "8": '
                f"[1, 1, 1]}}, not {value!r}"
            )
    return {str(name): list(c) if isinstance(c, tuple) else c for name, c in value.items()}


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "checkpoint": _checkpoint,
    "new_head": _new_head,
    "mean": _numbers("mean"),
    "std": _numbers("std"),
    "size": _size,
    "channels": _channels,
    "subnets": _subnets,
    "subnet_norms": _norms,
}


def _classes(value: Any) -> Any:
    """How many classes a teacher knows, their names, or a file with one name per line."""
    if isinstance(value, str) or (_is_count(value) and value > 1):
        return value
    if isinstance(value, list | tuple) and len(value) > 1:
        return [str(name) for name in value]
    raise mistake(
        "classes of a teacher is their number, a list of their names, or a text file with one name "
        f"per line, not {value!r}"
    )


def _class_map(value: Any) -> Any:
    """`names`, `none`, or what of the teacher's classes each class of the data is."""
    if value in ("names", "none"):
        return value
    entries = value
    if isinstance(value, Mapping):
        entries = list(value.values())
    if isinstance(entries, list | tuple) and entries and all(map(_is_part, entries)):
        if isinstance(value, Mapping):
            return {str(name): part for name, part in value.items()}
        return list(value)
    raise mistake(
        "class_map is `names`, `none`, a list with an entry for each class of the data, or a "
        "mapping from its classes to entries; an entry is a class of the teacher (its name, or its "
        f"number from 0) or a list of these, not {value!r}"
    )


def _is_part(value: Any) -> bool:
    if value is None:  # a class that one of several teachers does not know
        return True
    many = value if isinstance(value, list | tuple) else [value]
    return bool(many) and all(
        isinstance(one, str) or (isinstance(one, int) and not isinstance(one, bool)) for one in many
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
