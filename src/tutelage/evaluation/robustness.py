"""How often networks are still right when pictures are spoiled."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch

from tutelage.data.loader import EvalLoader
from tutelage.data.pictures import Pictures
from tutelage.data.subsets import draw_stratified
from tutelage.errors import DataError, SettingError
from tutelage.evaluation.corruptions import SEVERITIES, corrupt, corruptions_for, require
from tutelage.evaluation.predictions import predict
from tutelage.models.network import Network
from tutelage.types import Batch

__all__ = ["robustness"]


def robustness(
    networks: Mapping[str, Network],
    pictures: Pictures,
    *,
    device: torch.device,
    precision: str = "fp32",
    channels_last: bool = True,
    names: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    number: int = 2000,
    seed: int = 0,
    batch_size: int = 200,
) -> dict[str, dict[str, Any]]:
    """Accuracies under corruption; each batch is spoiled once and shown to all networks.

    Args:
        networks: by any name; they are moved to `device`.
        pictures: a stratified part of the labelled ones is used, the same for the same seed.
        precision, channels_last: as in `predict`.
        names: of corruptions; None is all that change pictures of these channels.
        severities: each 0 to 5.
        number: of pictures, or all labelled ones if there are fewer.
        seed: of the choice of pictures and of what is random in the corruptions.
        batch_size: changes speed and memory only.

    Returns:
        By network: "pictures" (how many), "seed", "clean" (accuracy, a share) and "corruptions",
        which maps each name to the accuracies at `severities`.

    Raises:
        DataError: no picture has a label.
        SettingError: there is no such corruption or severity, or no picture is asked for.
    """
    known = int(pictures.has_label.sum())
    if not known:
        raise DataError("Robustness needs labels, and none of these pictures has one.")
    if number < 1:
        raise SettingError(f"number must be 1 or more pictures, but is {number}; 2000 is usual.")
    names = corruptions_for(pictures.shape[2]) if names is None else names
    for name, severity in product(names, severities):
        require(name, severity)
    chosen = pictures.take(draw_stratified(pictures, min(number, known), seed, "robustness"))
    loader = EvalLoader(chosen, batch_size=batch_size)
    look = partial(predict, device=device, precision=precision, channels_last=channels_last)

    def shares_right(batches: Iterable[Batch]) -> dict[str, float]:
        right = dict.fromkeys(networks, 0)
        for batch in batches:
            for key, network in networks.items():
                seen = look(network, [batch])
                right[key] += int((seen.outputs.argmax(dim=1) == seen.targets).sum())
        return {key: count / len(chosen) for key, count in right.items()}

    clean = shares_right(loader)
    spoiled = {
        name: [shares_right(_spoiled(loader, name, each, seed, device)) for each in severities]
        for name in names
    }
    return {
        key: {
            "pictures": len(chosen),
            "seed": seed,
            "clean": clean[key],
            "corruptions": {name: [each[key] for each in row] for name, row in spoiled.items()},
        }
        for key in networks
    }


def _spoiled(
    batches: Iterable[Batch], name: str, severity: int, seed: int, device: torch.device
) -> Iterator[Batch]:
    """The same batches on the device, corrupted."""
    for batch in batches:
        assert batch.index is not None
        images = corrupt(batch.images.to(device), name, severity, index=batch.index, seed=seed)
        yield replace(batch, images=images)
