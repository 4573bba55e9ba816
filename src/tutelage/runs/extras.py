"""What is measured of networks on test beyond their answers to it, where it is asked for."""

from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutelage.build import EVALUATION_BATCH
from tutelage.data import EvalLoader, Pictures
from tutelage.data.soft_labels import read_soft_labels, require_soft_labels
from tutelage.data.subsets import draw_stratified
from tutelage.engine import TrainSettings
from tutelage.evaluation.predictions import predict
from tutelage.evaluation.robustness import robustness
from tutelage.evaluation.similarity import similarity
from tutelage.evaluation.soft_labels import against_people
from tutelage.models.network import Network
from tutelage.provenance import code_digest
from tutelage.taps import pair_stages
from tutelage.types import Pair

__all__ = ["NOTHING", "Extras", "add_extras", "measuring_code"]

_SIMILARITY_PICTURES = 1000
_CODE = {
    "test": ("accuracy", "agreement", "calibration", "classes", "fidelity"),
    "robustness": ("robustness",),
    "similarity": ("similarity",),
    "people": ("soft_labels",),
}
"""What a record holds of test → the modules of `evaluation` that measure it."""


@cache
def measuring_code(part: str) -> str:
    """Digest of the code that measures "test", or one of the keys of `Extras`."""
    return code_digest(f"evaluation.{name}" for name in _CODE[part])


class Extras(NamedTuple):
    """What is asked for.

    Attributes:
        corruptions: of how many test pictures every corruption is shown; 0 for none.
        similarity: linear CKA of student's and teacher's maps, stage by stage.
        soft_labels: a file of how often people named each class of the test pictures.
    """

    corruptions: int = 0
    similarity: bool = False
    soft_labels: Path | None = None

    def digest(self) -> str | None:
        """Of the file of soft labels, if there is one.

        Raises:
            DataError: it is not there.
        """
        if self.soft_labels is None:
            return None
        require_soft_labels(self.soft_labels)
        return sha256(self.soft_labels.read_bytes()).hexdigest()[:16]

    @property
    def keys(self) -> list[str]:
        """Under which names a student's entry in the record holds them."""
        names = ("robustness", "similarity", "people")
        return [name for name, wanted in zip(names, self, strict=True) if wanted]

    def __str__(self) -> str:
        parts = []
        if self.corruptions:
            parts.append(f"corruptions of {self.corruptions} pictures")
        if self.similarity:
            parts.append("similarity of maps")
        if self.soft_labels:
            parts.append("people's labels")
        return ", ".join(parts)


NOTHING = Extras()


def add_extras(
    entries: Mapping[str, dict[str, Any]],
    networks: Mapping[str, Network],
    test: Pictures,
    extras: Extras,
    *,
    pairs: Sequence[Pair] | None,
    settings: TrainSettings,
    device: torch.device,
) -> None:
    """Measures what is asked for, and enters it.

    Args:
        entries: of the record, by the names of `networks`.
        networks: "student" and perhaps "teacher".
        test: all test pictures.
        pairs: of maps; those of equal stride if None.

    Raises:
        DataError: the file of soft labels does not fit.
    """
    how = {"precision": settings.precision, "channels_last": settings.channels_lie_last}
    answering = {name: network for name, network in networks.items() if network.answers}
    if extras.corruptions:
        number = min(extras.corruptions, len(test))
        found = robustness(answering, test, device=device, number=number, **how)
        for name, values in found.items():
            entries[name]["robustness"] = values
    if extras.similarity and "teacher" in networks:
        student, teacher = networks["student"], networks["teacher"]
        number = min(_SIMILARITY_PICTURES, len(test))
        some = test.take(draw_stratified(test, number, 0, "similarity"))
        entries["student"]["similarity"] = similarity(
            student,
            teacher,
            EvalLoader(some, batch_size=EVALUATION_BATCH),
            pair_stages(student.stages(), teacher.stages()) if pairs is None else pairs,
            device=device,
        )
    if extras.soft_labels:
        loader = EvalLoader(test, batch_size=EVALUATION_BATCH)
        for name, network in answering.items():
            seen = predict(network, loader, device=device, **how)
            shares = read_soft_labels(extras.soft_labels, len(test), seen.outputs.shape[1])
            entries[name]["people"] = against_people(seen, shares)
