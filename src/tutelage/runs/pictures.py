"""What only a network can draw: small arrays beside the record, for reports with pictures."""

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.build import Built
from tutelage.data import EvalLoader, Pictures
from tutelage.data.subsets import draw_stratified
from tutelage.evaluation.attention import attention_maps
from tutelage.evaluation.predictions import Predictions
from tutelage.models.network import Network
from tutelage.records import RunFolder, write_atomic

__all__ = ["NUM_PICTURES", "save_pictures"]

NUM_PICTURES = 12

Arrays = dict[str, Any]
"""Name → array; untyped, since savez has keywords of its own that take none."""


def save_pictures(
    place: RunFolder,
    built: Built,
    on_test: Predictions,
    teacher_on_test: Predictions | None,
    device: torch.device,
) -> None:
    """Writes pictures.npz: plain arrays, which `numpy.load` reads without pickle.

    "same/…" are twelve test pictures, the same in every run on this data: "images" (uint8, n h w
    c), "index", "targets", and attention maps (float16, n h w) of each stage,
    "student/0", "student/1", … and "teacher/0", …; their names are "student_stages" and
    "teacher_stages". "apart/…" are the twelve in which student and teacher differ most by
    KL(teacher ‖ student), the farthest first: "images", "index", "targets", and probabilities
    (float16, n k) "student" and "teacher".

    Args:
        on_test, teacher_on_test: what both said of all test pictures.
    """
    test = built.source.test
    number = min(NUM_PICTURES, int(test.has_label.sum()))
    arrays = _same(built, test.take(draw_stratified(test, number, 0, "pictures")), device)
    if teacher_on_test is not None:
        arrays |= _apart(test, on_test, teacher_on_test)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomic(place.pictures, content.getvalue())


def _shown(pictures: Pictures, part: str) -> Arrays:
    return {
        f"{part}/images": pictures.images.numpy(),
        f"{part}/index": pictures.index.numpy(),
        f"{part}/targets": pictures.labels.numpy(),
    }


def _same(built: Built, pictures: Pictures, device: torch.device) -> Arrays:
    arrays = _shown(pictures, "same")
    (batch,) = EvalLoader(pictures, batch_size=max(len(pictures), 1))
    for what, network in (("student", built.student), ("teacher", built.teacher)):
        if not isinstance(network, Network):  # a store holds no maps of test pictures
            continue
        maps = attention_maps(network, batch.images, device=device)
        arrays[f"same/{what}_stages"] = np.array(list(maps))
        for number, values in enumerate(maps.values()):
            arrays[f"same/{what}/{number}"] = values.numpy().astype(np.float16)
    return arrays


def _apart(test: Pictures, student: Predictions, teacher: Predictions) -> Arrays:
    ours, theirs = (seen.outputs.double().log_softmax(dim=1) for seen in (student, teacher))
    divergence = (theirs.exp() * (theirs - ours)).sum(dim=1)
    farthest = torch.argsort(divergence, descending=True, stable=True)[:NUM_PICTURES]
    arrays = _shown(test.take(farthest), "apart")
    return arrays | {
        "apart/student": _shares(ours[farthest]),
        "apart/teacher": _shares(theirs[farthest]),
    }


def _shares(logarithms: Tensor) -> NDArray[np.float16]:
    return logarithms.exp().numpy().astype(np.float16)
