"""A folder of a teacher's answers: safetensors shards, and a manifest that says what they are.

    manifest.json                       what was asked of whom, how answers are coded, checksums
    index-CHECKSUM.safetensors          the pictures of each part, sorted
    train-VIEW-NUMBER-CHECKSUM.safetensors
    validation-…, test-…                pictures as they are; logits whole and in float32

An entry is one view of one picture; a shard holds neighbors in the order of their index, all in one
view, so that an epoch reads one stretch of the store. A shard appears under its name as a whole or
not at all, and its name ends in the first 16 digits of its SHA-256: so it needs no list to be found
whole, and processes that write different shards need not talk. Reading is by memory map.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Int64
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from tutelage.errors import StoreError
from tutelage.records import write_atomic
from tutelage.teachers.manifest import GO_ON, Manifest, shard_name

__all__ = [
    "INDEX",
    "Store",
    "complete",
    "existing",
    "is_whole",
    "sweep",
    "write_shard",
]

INDEX = "index"
"""Name of the file that holds each part's pictures."""

_FILE = re.compile(r"(.+)-([0-9a-f]{16})\.safetensors")
_OPEN = 8192
"""So many shards stay mapped; Linux allows a process 65,530 maps."""


# Files


def existing(folder: Path) -> dict[str, Path]:
    """Shards and index that are there: name without checksum → file."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        match = _FILE.fullmatch(path.name)
        if match:
            found.setdefault(match[1], path)
    return found


def checksum_in(path: Path) -> str:
    """The one that a file's name promises."""
    match = _FILE.fullmatch(path.name)
    assert match is not None
    return match[2]


def is_whole(path: Path) -> bool:
    """Whether a file's content has the checksum in its name."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16] == checksum_in(path)


def write_shard(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> Path:
    """Writes a file under its checksum: there as a whole, and on the disk, or not at all.

    Raises:
        RunError: no space is left on the device.
    """
    # One entry only: the order of several would change from process to process.
    content = save(dict(tensors), metadata={"tutelage": name})
    checksum = hashlib.sha256(content).hexdigest()[:16]
    path = folder / f"{name}-{checksum}.safetensors"
    write_atomic(path, content, go_on=GO_ON)
    return path


def sweep(folder: Path, names: Iterable[str] | None) -> None:
    """Removes what killed processes have left half-written: of these files, or of all."""
    patterns = [".*.partial-*"] if names is None else [f".{name}-*.partial-*" for name in names]
    for pattern in patterns:
        for left in folder.glob(pattern):
            left.unlink(missing_ok=True)


# Reading


@final
class Store:
    """A complete store, read by memory map; each shard is checked when it is first read.

    Args:
        folder: that `tutelage cache` has written.

    Attributes:
        folder, manifest: what it is.

    Raises:
        StoreError: it is absent, unfinished or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, Manifest.read(folder)
        checksums = self.manifest.checksums
        if checksums is None:
            names = [shard.name for shard in self.manifest.shards()]
            there = existing(folder)
            raise StoreError(
                f"The store in {folder} is unfinished: {sum(name in there for name in names)} of "
                f"{len(names)} files are there. Run the `tutelage cache` that began it again; it "
                "goes on."
            )
        self._checksums = checksums
        self._checked: set[str] = set()
        self._load = lru_cache(maxsize=_OPEN)(self._open)
        self._index = self._open(INDEX)

    def __reduce__(self) -> tuple[type["Store"], tuple[Path]]:
        """Copies and other processes map the files anew."""
        return Store, (self.folder,)

    def _open(self, name: str) -> dict[str, Tensor]:
        path = self.folder / f"{name}-{self._checksums.get(name)}.safetensors"
        try:
            if name in self._checked or is_whole(path):
                self._checked.add(name)
                return load_file(path)
        except FileNotFoundError:
            raise StoreError(
                f"The store in {self.folder} lacks {path.name}. Run the `tutelage cache` that "
                "made it again: it makes what is missing."
            ) from None
        except (OSError, SafetensorError):
            pass
        raise StoreError(
            f"{path} is damaged: its content does not have its checksum. Run the `tutelage cache` "
            "that made the store again: it makes anew what is damaged."
        )

    def locate(self, part: str, index: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """Places of pictures in a part, −1 for those that are not in it."""
        known, index = self._index[part], index.contiguous()
        if not len(known):
            return torch.full_like(index, -1)
        place = torch.searchsorted(known, index).clamp_(max=len(known) - 1)
        return place.masked_fill_(known[place] != index, -1)

    def read(
        self,
        part: str,
        view: Int64[Tensor, " n"],
        places: Int64[Tensor, " n"],
        names: Iterable[str],
    ) -> dict[str, Tensor]:
        """The coded tensors of some entries, copied out.

        Args:
            view: below the part's number of views.
            places: as `locate` gives them, none −1.
            names: of the tensors.
        """
        kind = self.manifest.parts[part]
        shard = view * kind.shards_per_view + places // kind.shard_size
        row = places % kind.shard_size
        layout = self.manifest.layout(part)
        result = {
            name: torch.empty(len(places), *layout[name][1], dtype=layout[name][0])
            for name in names
        }
        for number in np.unique(shard.numpy()).tolist():
            loaded = self._load(shard_name(part, *divmod(number, kind.shards_per_view)))
            mine = (shard == number).nonzero()[:, 0]
            for name, values in result.items():
                values[mine] = loaded[name][row[mine]]
        return result

    def damaged(self) -> list[str]:
        """Names of files that are absent or not as they were written; reads all of them."""
        files = {name: f"{name}-{sum_}.safetensors" for name, sum_ in self._checksums.items()}
        paths = [self.folder / file for file in files.values()]
        return [path.name for path in paths if not path.is_file() or not is_whole(path)]


def complete(folder: Path, manifest: Manifest) -> bool:
    """Finishes the manifest once every file is there; any process may, all write the same.

    Returns:
        Whether the store is complete.
    """
    found = existing(folder)
    names = [INDEX, *(shard.name for shard in manifest.shards())]
    if not all(name in found for name in names):
        return False
    checksums = {name: checksum_in(found[name]) for name in names}
    if manifest.checksums != checksums:
        replace(manifest, checksums=checksums).write(folder)
    return True
