"""What makes two runs the same: the recipe, what it only names, the code, versions and machine."""

import hashlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.data import DATASETS, Pictures, Source
from tutelage.methods import METHODS
from tutelage.models.network import Network
from tutelage.provenance import PACKAGE, code_digest, digest
from tutelage.recipes import Recipe, plain

__all__ = [
    "code_of",
    "content_of",
    "identity_parts",
    "pictures_of",
    "weights_of",
]


def pictures_of(pictures: Pictures) -> str:
    """Digest of pixels, labels, which of them may be used, and what names each picture."""
    state = hashlib.sha256()
    for tensor in (pictures.images, pictures.labels, pictures.has_label, pictures.index):
        state.update(f"{tuple(tensor.shape)}\n".encode())
        state.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return state.hexdigest()[:16]


def weights_of(network: Network) -> str:
    """Digest of a network's weights and buffers, bit for bit; wherever and however they lie."""
    state = hashlib.sha256()
    for name, tensor in sorted(network.module.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        state.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        state.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]


def content_of(
    recipe: Recipe,
    source: Source,
    student: Network,
    teacher: Network | None,
    given: Collection[str],
) -> dict[str, Any]:
    """Digests of what only the files, or the objects given in Python, can tell.

    Args:
        given: which of "student" and "teacher" were given as objects.

    Returns:
        "train", "test": pictures; "source": classes, and mean and standard deviation of the pixels;
        "student", "teacher": weights, of those that do not begin at random.
    """
    classes = {"classes": source.classes, "mean": source.mean, "std": source.std}
    content: dict[str, Any] = {
        "train": pictures_of(source.train),
        "test": pictures_of(source.test),
        "source": digest(classes),
    }
    for what, network in (("student", student), ("teacher", teacher)):
        entry = getattr(recipe, what) or {}
        if network is None:
            continue
        if what in given or "run" in entry:
            content[what] = _described(network)
        elif "checkpoint" in entry:
            content[what] = weights_of(network)
    return content


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
    return digest(sources)


def _source_text(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed in by hand, or compiled
        return ""


def code_of(recipe: Recipe, student: Network, teacher: Network | None) -> str:
    """Digest of the source files that shape a run's numbers."""
    makers: list[Any] = [type(one.module) for one in (student, teacher) if one is not None]
    makers += [METHODS[name] for name in recipe.methods]
    if recipe.data.source is not None:
        makers.append(DATASETS[recipe.data.source["name"]])
    names = {maker.__module__ for maker in makers}
    ours = [name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}.")]
    return code_digest([*_ALWAYS, *ours])


_ALWAYS = ("build", "engine.loop", "evaluation.accuracy", "evaluation.agreement")
"""What shapes the numbers of every run, with all that these import."""


def identity_parts(
    recipe: Recipe,
    content: Mapping[str, Any],
    code: str,
    *,
    threads: int,
    device: str,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """What two trials must share to be the same trial; their identity is its digest.

    Where a file lies is not part of it; what is in it is.

    Args:
        content: as `content_of` says.
        code: as `code_of` says.
        threads: of the CPU, where the recipe does not say.
        device: its kind, such as "cpu".
        versions: of packages; those of torch, torchvision and, but for its last number, Python
            count.
    """
    said = plain(recipe)
    if said["data"]["source"] is not None:
        said["data"]["source"] = {
            k: v for k, v in said["data"]["source"].items() if k not in ("root", "path", "download")
        }
    for what in ("student", "teacher"):
        if said[what] and what in content:
            said[what] = {k: v for k, v in said[what].items() if k not in ("run", "checkpoint")}
    for key in ("checkpoint_every", "log_every", "trackers", "threads", "device"):
        said["train"].pop(key)
    return {
        "recipe": digest(said),
        "content": dict(content),
        "versions": {
            "python": ".".join(versions["python"].split(".")[:2]),
            "torch": versions["torch"],
            "torchvision": versions["torchvision"],
        },
        "device": device,
        "threads": recipe.train.threads or threads,
        "code": code,
    }
