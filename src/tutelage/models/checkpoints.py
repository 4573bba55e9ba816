"""Weight files: read without running anything that is in them, fitted wholly or not at all.

Read are safetensors and what `torch.load(weights_only=True)` accepts; written are safetensors.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tutelage.errors import CheckpointError
from tutelage.records import write_atomic

__all__ = [
    "drawn_of",
    "heads_of",
    "load_into",
    "parse",
    "read_description",
    "read_state",
    "save_state",
    "state_bytes",
]

_INSIDE = ("state_dict", "model")
"""Where training scripts put the weights in a file that holds more."""


def parse(text: str) -> tuple[Path, str]:
    """Splits FILE:NAME, weights from a file for the network of that name.

    >>> parse("weights/resnet56.th:resnet56")[1]
    'resnet56'

    Raises:
        CheckpointError: it has another form.
    """
    path, _, name = text.rpartition(":")
    if not path or not name:
        raise CheckpointError(
            f"Weights for a network are named FILE:NAME, and {text!r} is not of that form. "
            "Write, for example, weights/resnet56.th:resnet56."
        )
    return Path(path), name


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The weights in a file, on the CPU.

    Which of the two kinds a file is, its content says, not its name. Weights may be all that the
    file holds or stand under "state_dict" or "model"; "module.", which data-parallel training puts
    before every name, is taken off.

    Raises:
        CheckpointError: the file is absent or damaged, or holds no weights, or more than weights
            and plain values.
    """
    path = Path(path)
    content: Any = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    for key in _INSIDE:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not _is_state(content):
        raise CheckpointError(
            f"{path} holds no weights by name. Save network.state_dict(), alone or as the entry "
            '"state_dict".'
        )
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): weight for name, weight in content.items()}
    return dict(content)


def read_description(path: str | Path) -> dict[str, str]:
    """What `save_state` was told to write beside the weights.

    Raises:
        CheckpointError: the file is absent, damaged, or not safetensors.
    """
    path = Path(path)
    if not _is_safetensors(path):
        raise _damaged(path)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise _damaged(path) from error


def heads_of(module: nn.Module, num_classes: int) -> tuple[str, ...]:
    """The names of the layers that give a network's answers.

    timm says which they are. Else it is the last linear layer, or convolution, with an output for
    each class, if there is one.

    >>> heads_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 3)), 3)
    ('2',)
    """
    found = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and name and len(layer.weight) == num_classes
    ]
    named = _about(module).get("classifier") or ()
    said = (named,) if isinstance(named, str) else tuple(named)
    return tuple(name for name in said if name in found) or tuple(found[-1:])


def drawn_of(module: nn.Module, num_classes: int) -> tuple[str, ...]:
    """The parts of a network with fetched weights that are for other classes, and were drawn."""
    fetched = _about(module).get("num_classes", _IMAGENET)
    return () if fetched == num_classes else heads_of(module, num_classes)


_IMAGENET = 1000


def _about(module: nn.Module) -> Mapping[str, Any]:
    """What timm says of a network of its own."""
    known = getattr(module, "pretrained_cfg", None)
    return known if isinstance(known, Mapping) else {}


def load_into(
    module: nn.Module, state: Mapping[str, Tensor], source: str, *, but: Sequence[str] = ()
) -> None:
    """Loads weights into a module that they fit exactly; otherwise the module stays as it is.

    Only BatchNorm's count of batches may be missing: files from before 2018 have none.

    Args:
        module: may be on any device, in any memory format; both stay.
        state: as `read_state` returns it.
        source: what the weights are called in an error, usually the file.
        but: names of parts that stay as they are, whatever is there of them in `state`.

    Raises:
        CheckpointError: names are missing, unexpected, or of another shape.
    """
    wanted = module.state_dict()
    own = tuple(f"{name}." for name in but)
    if own:
        kept = {name: weight for name, weight in wanted.items() if name.startswith(own)}
        state = {name: w for name, w in state.items() if not name.startswith(own)} | kept
    missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    reshaped = [
        f"{name}, {tuple(state[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    if any(found.values()):
        counts = "; ".join(
            f"{len(names)} {kind}" + (f" (first: {names[0]})" if names else "")
            for kind, names in found.items()
        )
        what = f"the network beside {', '.join(but)}" if but else "the network"
        raise CheckpointError(
            f"The weights in {source} do not fit {what}: {counts}. Name the network, with the "
            "settings and the number of classes, that they were trained in"
            + (
                "."
                if but
                else "; a student that goes on with other classes says new_head: true, a teacher "
                "of other classes how many it has, classes: NUMBER."
            )
        )
    # A plain dict has no version, so that BatchNorm accepts a state without its count.
    module.load_state_dict(dict(state))


def save_state(
    path: str | Path, state: Mapping[str, Tensor], description: Mapping[str, str] | None = None
) -> None:
    """Writes weights as safetensors; the file is there as a whole or as it was before.

    Args:
        path: in a folder that exists.
        state: tensors on any device, in any memory format; weights that several modules share are
            written once per name.
        description: goes into the file's header.

    Raises:
        RunError: no space is left on the device.
    """
    write_atomic(Path(path), state_bytes(state, description))


def state_bytes(state: Mapping[str, Tensor], description: Mapping[str, str] | None = None) -> bytes:
    """What `save_state` writes."""
    plain = {
        name: weight.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, weight in state.items()
    }
    # Other readers look for "format".
    return _in_order(save(plain, {"format": "pt", **(description or {})}))


def _in_order(content: bytes) -> bytes:
    """The same file with its description sorted: safetensors writes it in random order."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _is_safetensors(path: Path) -> bool:
    """Whether a JSON header follows the eight bytes of its length, as in no file of torch's."""
    if not path.is_file():
        raise CheckpointError(f"There is no weight file {path}. Check the path.")
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}). Check its permissions."
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _damaged(path) from error


def _read_torch(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # given a path, torch would look at its suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damage surfaces as almost any kind, none of them documented
        raise _damaged(path) from error


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged, is no weight file, or holds objects other than tensors and plain "
        "values, which could run code and are not loaded. Fetch it again, or save "
        "network.state_dict() alone, best as safetensors."
    )


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(n, str) and isinstance(w, Tensor) for n, w in content.items())
    )
