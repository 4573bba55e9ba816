"""From what a recipe says of a network to the network."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tutelage import rng
from tutelage.data import Source
from tutelage.distiller.aggregation import AGGREGATORS, Ensemble, Uniform
from tutelage.errors import CheckpointError, NetworkError, TeacherError, nearest
from tutelage.models import made_for
from tutelage.models.checkpoints import heads_of, load_into, read_state
from tutelage.models.class_map import ClassMap, Strange
from tutelage.models.from_file import make_from_file
from tutelage.models.network import LUMA, AnyNetwork, Network
from tutelage.models.saved import Description, read_description_of, read_network
from tutelage.recipes import Recipe, left_open, read_recipe
from tutelage.recipes.networks import NETWORK_KEYS, TEACHER_KEYS
from tutelage.records import RunFolder
from tutelage.types import InputSpec

__all__ = ["make_student", "make_teacher", "open_student", "spec_of", "teacher_files"]

_DEEP = 100


def spec_of(source: Source, entry: Mapping[str, Any] | None = None) -> InputSpec:
    """What a network of this source wants to be shown, unless its entry says otherwise.

    A network of the zoo wants what it was made for; others pictures as they are, normalized by the
    mean and the standard deviation of the training pictures.

    Raises:
        NetworkError: mean or std has not one number per channel.
    """
    height, width, own = source.train.shape
    entry = entry or {}
    made = made_for(entry["name"]) if "name" in entry else None
    channels = entry.get("channels", own)
    mean, std = _statistics(source, channels)
    if made is not None and channels == len(made.mean):
        mean, std = made.mean, made.std
    mean, std = tuple(entry.get("mean", mean)), tuple(entry.get("std", std))
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise NetworkError(
                f"{name} has {len(values)} numbers, but the network is shown {channels} "
                "channel(s). Give one number per channel."
            )
    height, width = entry.get("size") or (made and made.size) or (height, width)
    return InputSpec(height, width, channels, mean, std)


def _statistics(source: Source, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the training pictures, if they had so many channels."""
    mean, std = source.mean, source.std
    if channels == len(mean):
        return mean, std
    if len(mean) == 1:
        return mean * channels, std * channels
    gray = sum(weight * value for weight, value in zip(LUMA, mean, strict=True))
    return (gray,), (sum(std) / len(std),)


def _describe(
    source: Source, entry: Mapping[str, Any], num_classes: int | None = None
) -> Description:
    own = ("name", "python", "arguments", "cache", *NETWORK_KEYS, *TEACHER_KEYS)
    return Description(
        entry["name"] if "name" in entry else entry["python"],
        {key: value for key, value in entry.items() if key not in own},
        len(source.classes) if num_classes is None else num_classes,
        spec_of(source, entry),
        given="python" in entry,
        subnets=entry.get("subnets", {}),
        subnet_norms=entry.get("subnet_norms", "separate"),
        classes=source.classes if num_classes is None else (),
    )


def _make(entry: Mapping[str, Any], description: Description, what: str) -> Network:
    """The network of an entry that names one, or a function that makes one; with its weights."""
    if "python" not in entry:
        return description.make(_weights(entry, description.num_classes))
    made = make_from_file(
        entry["python"],
        num_classes=description.num_classes,
        in_channels=description.spec.channels,
        arguments=entry["arguments"],
        what=what,
    )
    return description.wrap(made, _weights(entry, description.num_classes))


def _weights(entry: Mapping[str, Any], num_classes: int) -> Callable[[nn.Module], None] | None:
    """What loads the weights that an entry names."""
    if "checkpoint" not in entry:
        return None
    place = entry["checkpoint"]

    def fill(module: nn.Module) -> None:
        heads = heads_of(module, num_classes) if entry.get("new_head") else ()
        if entry.get("new_head") and not heads:
            raise CheckpointError(
                f"new_head: true, but the network has no layer with {num_classes} outputs, which "
                "would be its head. Leave it out, and give weights for these classes."
            )
        load_into(module, read_state(Path(place)), place, but=heads)

    return fill


def make_student(
    recipe: Recipe, source: Source, given: nn.Module | None
) -> tuple[Network, Description]:
    """The student, and how to make it anew.

    Args:
        given: takes the place of the recipe's entry.

    Raises:
        TutelageError: it does not exist, or its weights do not fit.
    """
    entry = recipe.student
    if given is not None:
        network = _as_network(given, source)
        name = f"{type(given).__module__}.{type(given).__qualname__}"
        spec = network.spec or spec_of(source)
        return network, Description(name, {}, len(source.classes), spec, given=True)
    if entry is None:
        raise left_open("student", "student")
    if "run" in entry:
        return _of_run(entry, "student")
    description = _describe(source, entry)
    with rng.part(recipe.seed, "student"):
        network = _make(entry, description, "student")
    _warn_of_depth(entry)
    if description.settings.get("pretrained"):  # from here on its weights lie with the run
        settings = {**description.settings, "pretrained": False}
        description = description._replace(settings=settings)
    return network, description


def _as_network(given: AnyNetwork, source: Source) -> Network:
    """An object that was handed over; one without a spec is shown what the data is."""
    return given if isinstance(given, Network) else Network(given, spec_of(source))


def _warn_of_depth(entry: Mapping[str, Any]) -> None:
    """Says what very deep networks need in order to begin to learn."""
    named = re.fullmatch(r"resnet(\d*)", entry.get("name", ""))
    depth = int(named[1] or entry.get("depth", 0)) if named else 0
    fresh = "checkpoint" not in entry and not entry.get("zero_init", True)
    if depth > _DEEP and fresh:
        warnings.warn(
            f"A ResNet of more than {_DEEP} layers often fails to begin to learn. Set "
            "zero_init: true in the student, so that every block begins as its shortcut.",
            stacklevel=2,
        )


def _of_run(entry: Mapping[str, Any], what: str) -> tuple[Network, Description]:
    """The student of an earlier run, or one of its sub-nets."""
    folder = Path(entry["run"])
    network, description = open_student(folder, what)
    if "subnet" not in entry:
        return network, description
    return network.extract(entry["subnet"]), description.of(entry["subnet"])


def open_student(place: Path, what: str = "student") -> tuple[Network, Description]:
    """The student of a run, however it is made.

    Args:
        place: the run's folder, or the student's file.
        what: it is, for messages.

    Raises:
        RunError: there is no finished run, or the student was handed over as an object.
        TutelageError: what makes it is not there any more.
    """
    return _by_function(place, what) or read_network(place)


def _by_function(folder: Path, what: str) -> tuple[Network, Description] | None:
    """The student of a run whose recipe names a function that makes it; None of others."""
    place = RunFolder(folder.parent if folder.is_file() else folder)
    if folder.is_file() and place.student != folder:
        return None
    if not place.recipe.is_file() or not place.student.is_file():
        return None
    made = read_recipe(place.recipe).student or {}
    if "python" not in made:
        return None
    description = read_description_of(place.student)
    with rng.part(0, "load"):
        network = _make(
            {key: value for key, value in made.items() if key != "checkpoint"}, description, what
        )
    load_into(network.module, read_state(place.student), str(place.student))
    return network, description


def make_teacher(
    recipe: Recipe, source: Source, given: AnyNetwork | Sequence[AnyNetwork] | None
) -> Network | None:
    """The teacher, if it is a network; what it says is of the source's classes, in their order.

    Args:
        given: takes the place of the recipe's entry; several are mixed uniformly, unless they come
            as an `Ensemble`.

    Returns:
        An `Ensemble` of several.

    Raises:
        TutelageError: it does not exist, has no weights, or its classes are not the data's.
    """
    if isinstance(given, Sequence):
        if len(given) < 2:
            raise TeacherError(
                f"Several teachers are two or more, but {len(given)} are given. Give one alone."
            )
        return Ensemble([_as_network(one, source).whole() for one in given], Uniform())
    if given is not None:
        return _as_network(given, source).whole()
    if recipe.teachers:
        return _ensemble(recipe, source)
    if recipe.teacher is None:
        return None
    return _teacher(recipe.teacher, source, partly=False)


def _ensemble(recipe: Recipe, source: Source) -> Ensemble:
    """Several teachers; each class of the data must be known to one of them."""
    members = [_teacher(entry, source, partly=True) for entry in recipe.teachers]
    maps = [member.class_map for member in members]
    for place, name in enumerate(source.classes):
        if all(one is not None and not one.parts[place] for one in maps):
            raise TeacherError(
                f"No teacher knows the class {name!r}. Every class of the data must be known to "
                "one of them; extend a class_map, or add a teacher."
            )
    assert recipe.aggregation is not None
    settings = {key: value for key, value in recipe.aggregation.items() if key != "name"}
    return Ensemble(members, AGGREGATORS[recipe.aggregation["name"]](**settings))


def _teacher(entry: Mapping[str, Any], source: Source, *, partly: bool) -> Network:
    """One teacher.

    Args:
        partly: whether it may know a part of the classes.
    """
    if "run" in entry:
        network, description = _of_run(entry, "teacher")
        names = _names(entry.get("classes")) or description.classes
        number = description.num_classes
        return _with_classes(network.whole(), entry, names, number, source, partly=partly)
    name = entry.get("name") or entry["python"]
    if "checkpoint" not in entry and not entry.get("pretrained") and "name" in entry:
        raise TeacherError(
            f"The teacher {name} has no weights, and an untrained teacher teaches noise. "
            f"Write FILE:{name}, or {{run: FOLDER}} of a run that trained it."
        )
    if "subnets" in entry:
        raise TeacherError(
            "A teacher answers as a whole, so it has no use for sub-nets. Leave subnets out, or "
            "take {run: FOLDER, subnet: NAME} of a run that trained them."
        )
    names = _names(entry.get("classes"))
    known = entry["classes"] if isinstance(entry.get("classes"), int) else len(names) or None
    with rng.part(0, "teacher"):  # for a head that no weights are fetched for
        network = _make(entry, _describe(source, entry, known), "teacher")
    number = known or len(source.classes)
    return _with_classes(network, entry, names, number, source, partly=partly)


def _names(classes: Any) -> tuple[str, ...]:
    """Names of a teacher's classes; none if only their number is known."""
    if isinstance(classes, str):
        try:
            classes = Path(classes).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise TeacherError(
                f"The file {classes}, which is to name the teacher's classes, cannot be read. Give "
                "a text file with one name per line, their number, or a list."
            ) from error
        classes = [name.strip() for name in classes if name.strip()]
    return tuple(classes) if isinstance(classes, list | tuple) else ()


def _with_classes(
    network: Network,
    entry: Mapping[str, Any],
    names: Sequence[str],
    number: int,
    source: Source,
    *,
    partly: bool,
) -> Network:
    """The teacher with its classes brought to the data's; refuses what would teach others.

    Args:
        names: of its classes, if they are known.
        number: of its classes.
        partly: whether classes of the data may be unknown to it.
    """
    asked = entry.get("class_map")
    if asked is None:
        if names and tuple(names) != source.classes:
            raise TeacherError(
                f"The teacher's classes are {_listed(names)}, and the data's "
                f"{_listed(source.classes)}. Say which is which with class_map: `names` if "
                "they are called alike, a list or mapping, or `none` if only its maps are to teach."
            )
        return network
    if asked == "none":
        if partly:
            raise TeacherError(
                "class_map: none means that a teacher's answers say nothing of the data, and "
                "several teachers answer together. Name it alone, as `teacher`."
            )
        return network.with_class_map(Strange(len(source.classes)))
    numbers = {name: place for place, name in enumerate(names)}
    parts = _parts(asked, source.classes, numbers, partly=partly)
    resolved = []
    for own, part in zip(source.classes, parts, strict=True):
        many = part if isinstance(part, list | tuple) else [part]
        resolved.append([_number(one, numbers, own) for one in many if one is not None])
    return network.with_class_map(ClassMap(resolved, number))


def _parts(
    asked: Any, classes: Sequence[str], numbers: Mapping[str, int], *, partly: bool
) -> list[Any]:
    """For each class of the data what of the teacher's it is; None where it is unknown to it.

    Args:
        numbers: of the teacher's classes whose names are known.
        partly: whether there may be such classes.
    """
    if asked == "names":
        return [name if name in numbers or not partly else None for name in classes]
    if isinstance(asked, Mapping):
        for name in asked:
            if name not in classes:
                raise TeacherError(
                    f"class_map names {name!r}, which is no class of the data; "
                    f"{nearest(name, classes)}."
                )
        asked = [asked.get(name) for name in classes]
    if len(asked) != len(classes):
        raise TeacherError(
            f"class_map has {len(asked)} entries, but the data has {len(classes)} classes. Give "
            "one for each, in their order."
        )
    if None in asked and not partly:
        raise TeacherError(
            f"class_map says nothing of the data's class {classes[asked.index(None)]!r}. A "
            "single teacher must know every class of the data; add an entry."
        )
    return list(asked)


def _number(one: int | str, numbers: Mapping[str, int], own: str) -> int:
    if isinstance(one, int):
        return one
    if one not in numbers:
        said = nearest(one, numbers) if numbers else "say its classes: a list, or a file of names"
        raise TeacherError(f"The teacher knows no class {one!r}, for the data's {own!r}; {said}.")
    return numbers[one]


def _listed(names: Sequence[str]) -> str:
    few = ", ".join(names[:4])
    return few if len(names) <= 4 else f"{few}, … ({len(names)})"


def teacher_files(recipe: Recipe) -> tuple[Path | None, ...]:
    """The file with the weights that a recipe names for each of its teachers, if it names one."""
    return tuple(_file_of(entry) for entry in recipe.teachers or [recipe.teacher or {}])


def _file_of(entry: Mapping[str, Any]) -> Path | None:
    if "checkpoint" in entry:
        return Path(entry["checkpoint"])
    if "run" not in entry:
        return None
    run = Path(entry["run"])
    return run if run.is_file() else RunFolder(run).student
