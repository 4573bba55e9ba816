"""What makes two runs the same: the recipe, what it only names, the code, versions and machine."""

import hashlib
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.data import DATASETS, Pictures, Source, Split
from tutelage.data.views import DRAWING
from tutelage.distiller.aggregation import Ensemble, members_of
from tutelage.methods import METHODS
from tutelage.models import library
from tutelage.models.checkpoints import drawn_of, heads_of
from tutelage.models.from_file import file_of
from tutelage.models.network import Called, Network
from tutelage.provenance import PACKAGE, code_digest, digest
from tutelage.recipes import Recipe, plain
from tutelage.teachers import StoredTeacher
from tutelage.teachers.live import ANSWERING

__all__ = [
    "code_of",
    "content_of",
    "fingerprint_of",
    "identity_parts",
    "named_teacher",
    "pictures_of",
    "teacher_fingerprint",
    "weights_of",
    "what_counts",
]


_PLACES = ("run", "checkpoint", "cache")
"""Keys of a network's entry that say where something lies; what lies there is in the content."""

_OF_SOURCES = ("root", "path", "dataset", "revision", "download", "keep")
"""Keys of a source that say where it lies, and what of it stays in memory."""

_WATCHING = ("checkpoint_every", "log_every", "trackers", "threads", "device")
"""Settings of training that change no weights; threads and device are parts of their own."""


def pictures_of(pictures: Pictures) -> str:
    """Digest of pixels, labels, which of them may be used, and what names each picture.

    Of photographs it is their files that count, and how they are read.
    """
    state = hashlib.sha256()
    tensors = [pictures.labels, pictures.has_label, pictures.index]
    if isinstance(pictures.pixels, Tensor):
        tensors = [pictures.pixels, *tensors]
    else:
        state.update(repr(pictures.pixels.rule).encode())
        state.update(b"".join(pictures.digests()))
    for tensor in tensors:
        state.update(f"{tuple(tensor.shape)}\n".encode())
        state.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return state.hexdigest()[:16]


def weights_of(network: Network, *, but: Sequence[str] = ()) -> str:
    """Digest of a network's weights and buffers, bit for bit; wherever and however they lie.

    Args:
        but: names of parts of its module that do not count.
    """
    if isinstance(network, Ensemble):
        return digest([weights_of(one) for one in network.members])
    state = hashlib.sha256()
    for name, tensor in sorted(network.module.state_dict().items()):
        if name.startswith(tuple(f"{part}." for part in but)):
            continue
        plain = tensor.detach().cpu().contiguous()
        state.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        state.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]


def content_of(
    recipe: Recipe,
    source: Source,
    student: Network,
    teacher: Network | StoredTeacher | None,
    given: Collection[str],
) -> dict[str, Any]:
    """Digests of what only the files, or the objects given in Python, can tell.

    Args:
        given: which of "student" and "teacher" were given as objects.

    Returns:
        "train", "test": pictures; "picture_weights", if they have some; "source": classes, and
        mean and standard deviation of the pixels; "student", "teacher": weights, of those that do
        not begin at random; of a stored teacher the store's fingerprint, how its answers are coded,
        and its files; of several "members".
    """
    classes = {"classes": source.classes, "mean": source.mean, "std": source.std}
    content: dict[str, Any] = {
        "train": pictures_of(source.train),
        "test": pictures_of(source.test),
        "source": digest(classes),
    }
    if source.train.weight is not None:  # which no teacher's answer depends on
        content["picture_weights"] = digest(source.train.weight.tolist())
    if source.validation is not None:
        content["validation"] = pictures_of(source.validation)
    for what, network in (("student", student), ("teacher", teacher)):
        if isinstance(network, StoredTeacher):
            content[what] = _stored(network)
        elif isinstance(network, Ensemble):
            content[what] = _ensemble(recipe, network, what in given)
        elif network is not None:
            entry = getattr(recipe, what) or {}
            drawn: tuple[str, ...] = ()
            if what == "student" and entry.get("new_head"):
                drawn = heads_of(network.module, len(source.classes))
            elif what == "student" and entry.get("pretrained"):
                drawn = drawn_of(network.module, len(source.classes))
            known = _weights_known(entry, network, what in given, drawn)
            content |= {} if known is None else {what: known}
            if network.class_map is not None:
                content["class_map"] = [list(part) for part in network.class_map.parts]
    return content


def _weights_known(
    entry: Mapping[str, Any], network: Network, given: bool, drawn: Sequence[str] = ()
) -> Any:
    """What tells the weights of a network; None of one that begins at random.

    Args:
        drawn: the parts that begin at random of one whose other weights are read.
    """
    if given or "run" in entry:
        return _described(network)
    if "python" in entry:
        return _described(network) | {"file": _file(file_of(entry["python"]))}
    if "checkpoint" in entry or entry.get("pretrained"):
        return weights_of(network, but=drawn)
    return None


def _ensemble(recipe: Recipe, ensemble: Ensemble, given: bool) -> dict[str, Any]:
    """What tells several teachers."""
    entries = recipe.teachers or [{}] * len(ensemble.members)
    members = []
    for entry, one in zip(entries, ensemble.members, strict=True):
        parts = None if one.class_map is None else [list(part) for part in one.class_map.parts]
        members.append({"is": _weights_known(entry, one, given), "class_map": parts})
    mixing = {"aggregator": _aggregator(ensemble.aggregator)} if given else {}
    return {"members": members, **mixing}


def _aggregator(aggregator: nn.Module) -> list[str]:
    """One that was given as an object: its source, its settings, and what it has learned."""
    own = {key: repr(value) for key, value in vars(aggregator).items() if key not in _OF_MODULES}
    state = {name: value.tolist() for name, value in aggregator.state_dict().items()}
    return [_source_of(aggregator), digest([own, repr(state)])]


_OF_MODULES = frozenset(vars(nn.Module()))
"""What every module has."""


def _file(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def _stored(teacher: StoredTeacher) -> dict[str, Any]:
    manifest = teacher.store.manifest
    coded = {"logits": asdict(manifest.logits)}
    coded |= {tap: asdict(code) for tap, code in manifest.maps.items()}
    return {
        "fingerprint": dict(manifest.fingerprint),
        "coded": digest(coded),
        "files": digest(manifest.checksums),
    }


def teacher_fingerprint(
    recipe: Recipe, content: Mapping[str, Any], network: Network, files: Sequence[Path | None]
) -> dict[str, Any]:
    """The part of a store's fingerprint that says whose answers it holds.

    Args:
        files: with the weights of each teacher; None if it was given as an object.
    """
    members = members_of(network)
    maps = [None if one.class_map is None else one.class_map.parts for one in members]
    mapped = {"class_map": maps[0] if len(maps) == 1 else maps} if any(maps) else {}
    specs = [one.spec for one in members]
    return {
        "teacher": weights_of(network),
        "teacher_spec": digest(specs[0] if len(specs) == 1 else specs),
        **mapped,
        **named_teacher(recipe, content, files),
    }


def named_teacher(
    recipe: Recipe, content: Mapping[str, Any], files: Sequence[Path | None]
) -> dict[str, Any]:
    """What can be said of teachers without loading them: their files, and their settings."""
    settings: Any = _without(recipe.teacher or {}, _PLACES)
    if recipe.teachers:
        settings = [[_without(one, _PLACES) for one in recipe.teachers], recipe.aggregation]
    found = {"teacher_settings": digest([settings, content["source"]]) if settings else None}
    for place, file in enumerate(files, start=1):
        if file is not None and file.is_file():
            found["teacher_file" if len(files) == 1 else f"teacher_file_{place}"] = _file(file)
    return found


def fingerprint_of(recipe: Recipe, content: Mapping[str, Any], split: Split) -> dict[str, Any]:
    """What a teacher's answers depend on beside the teacher, in a run by this recipe.

    Args:
        content: as `content_of` says.
        split: of the pictures. Which of them are in which part is compared with the store's own
            lists; but where views mix pictures, the partners are drawn from all of them.
    """
    settings, views = recipe.train, recipe.data.views
    train = split.train
    pool = [pictures_of(train)] if views.get("mixup") or views.get("cutmix") else None
    # One that is still to be measured is taken from the store.
    precision = {} if "precision" in settings.open else {"precision": settings.precision}
    apart = {
        f"{key}_pictures": content[key] for key in ("validation", "unlabelled") if key in content
    }
    return {
        **apart,
        "training_pictures": content["train"],
        "test_pictures": content["test"],
        "classes": content["source"],
        "views": views,
        "pool": pool,
        "num_views": recipe.data.num_views,
        "seed": recipe.seed,
        **precision,
        "fuse_teacher": settings.fuse_teacher,
        "compile_teacher": settings.compile_teacher,
        "batch_size": settings.batch_size // settings.accumulate,
        "drawing": DRAWING,
        "answering": ANSWERING,
        **{f"{name}_version": _version(name) for name in ("torch", "torchvision", "pillow")},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _described(network: Network) -> dict[str, Any]:
    """A network that no recipe says: its class, its source, what it is shown, its weights."""
    kind = type(network.module)
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "source": _source_of(network.module),
        "spec": digest(network.spec),
        "weights": weights_of(network),
    }


def _source_of(module: nn.Module) -> str:
    """Digest of a module's structure and of the classes in it that are not torch's.

    Our own are left to the digest of the code.
    """
    sources = {"structure": repr(module)}
    for kind in {type(child) for child in module.modules()}:
        if kind.__module__.partition(".")[0] not in ("torch", PACKAGE):
            sources[f"{kind.__module__}.{kind.__qualname__}"] = _source_text(kind)
    for child in module.modules():
        if isinstance(child, Called):
            sources[child.extra_repr()] = _source_text(child.function)
    return digest(sources)


def _source_text(kind: Any) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed in by hand, or compiled
        return ""


def code_of(recipe: Recipe, student: Network, teacher: Network | StoredTeacher | None) -> str:
    """Digest of the source files that shape a run's numbers."""
    networks = [one for one in (student, teacher) if isinstance(one, Network)]
    makers: list[Any] = [type(own.module) for one in networks for own in members_of(one)]
    makers += [METHODS[name] for name in recipe.methods]
    if recipe.data.source is not None:
        makers.append(DATASETS[recipe.data.source["name"]])
    names = {maker.__module__ for maker in makers}
    ours = [name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}.")]
    zoo = ["models.timm_zoo"] if _libraries(recipe) else []
    return code_digest([*_ALWAYS, *ours, *zoo])


def _libraries(recipe: Recipe) -> set[str]:
    """Those that the recipe's networks are from, other than ours."""
    named = (recipe.student, recipe.teacher, *recipe.teachers)
    entries = [entry for entry in named if entry and "name" in entry]
    return {found for entry in entries if (found := library(entry["name"]))}


_ALWAYS = ("build", "engine.loop", "evaluation.accuracy", "evaluation.agreement")
"""What shapes the numbers of every run, with all that these import."""


def what_counts(said: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a recipe says, that which makes two trials two.

    Args:
        said: the whole recipe as JSON values, of this version or an earlier one.
        content: as `content_of` says; where something lies does not count if its content is known.
    """
    counts = {**said, "data": {**said["data"]}, "train": {**said["train"]}}
    if said["data"]["source"] is not None:
        counts["data"]["source"] = _without(said["data"]["source"], _OF_SOURCES)
    if "unlabelled" in content:  # a folder
        counts["data"]["unlabelled"] = True
    for what in ("student", "teacher"):
        if said[what] and what in content:
            counts[what] = _without(said[what], _PLACES)
    if "teacher" in content and said.get("teachers"):
        counts["teachers"] = [_without(one, _PLACES) for one in said["teachers"]]
    counts["train"] = _without(said["train"], _WATCHING)
    return counts


def _without(values: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def identity_parts(
    recipe: Recipe,
    content: Mapping[str, Any],
    code: str,
    *,
    threads: int,
    device: str,
    versions: Mapping[str, str],
    processes: int = 1,
) -> dict[str, Any]:
    """What two trials must share to be the same trial; their identity is its digest.

    Where a file lies is not part of it; what is in it is.

    Args:
        content: as `content_of` says.
        code: as `code_of` says.
        threads: of the CPU, where the recipe does not say.
        device: its kind, such as "cpu".
        versions: of packages; those of torch, torchvision and, but for its last number, Python
            count, and that of timm if a network is from there.
        processes: that trained together.
    """
    together = {"processes": processes} if processes > 1 else {}
    return {
        "recipe": digest(what_counts(plain(recipe), content)),
        "content": dict(content),
        "versions": {
            "python": ".".join(versions["python"].split(".")[:2]),
            "torch": versions["torch"],
            "torchvision": versions["torchvision"],
            **{name: versions[name] for name in _libraries(recipe)},
        },
        "device": device,
        "threads": recipe.train.threads or threads,
        **together,
        "code": code,
    }
