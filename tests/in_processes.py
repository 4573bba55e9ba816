"""What two processes do, started by torchrun; the first writes what it found as JSON.

python -m torch.distributed.run --standalone --nproc-per-node 2 in_processes.py FILE
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from small_run import SPEC, loader, pictures
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tutelage import rng
from tutelage.distiller import Distiller
from tutelage.methods import KD, FitNetHints
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.network import Network
from tutelage.teachers import LiveTeacher

STEPS = 5
CASES = [
    *(("group", "ddp"), ("frozen", "ddp"), ("live", "ddp")),
    *(("group", "fsdp"), ("frozen", "fsdp")),
]


def network(depth: int, seed: int, norm: Any) -> Network:
    with rng.part(seed, "processes"):
        return Network(cifar_resnet(depth, 4, num_classes=3, in_channels=1, norm=norm), SPEC)


def new_pupil(norms: str) -> Distiller:
    norm = "group" if norms == "group" else "batch"
    methods = {"kd": (KD(temperature=2), 0.5), "hints": (FitNetHints(), 1.0)}
    pupil = Distiller(network(8, 0, norm), network(14, 1, norm), methods=methods)
    pupil.train()
    for one in pupil.student.modules():
        if norms == "frozen" and isinstance(one, nn.BatchNorm2d):
            one.eval()
    return pupil


def batches(rank: int, world: int) -> Any:
    """The rank's part of each batch, and how many of the whole are labelled."""
    data = loader(pictures(60, labelled=33), batch_size=12)
    for step in range(STEPS):
        whole = data.batch(step)
        parts = (whole.images, whole.targets, whole.has_label)
        yield [one[rank::world] for one in parts], int(whole.has_label.sum())


def losses(pupil: Distiller, model: nn.Module, rank: int, world: int) -> list[float]:
    optimizer = torch.optim.SGD(pupil.trainable_parameters(), lr=0.05, momentum=0.9)
    found = []
    for (images, targets, known), labelled in batches(rank, world):
        out = model(images, targets, has_label=known, num_labelled=labelled / world)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        loss = out.loss.detach()
        if world > 1:
            distributed.all_reduce(loss)
            loss = loss / world
        found.append(loss.item())
    return found


def whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value.detach()


def look(norms: str, how: str, rank: int, world: int) -> dict[str, Any]:
    """Losses of one process with whole batches, and of all with their parts."""
    alone, pupil = new_pupil(norms), new_pupil(norms)
    began = {name: value.detach().clone() for name, value in pupil.named_parameters()}
    teacher = pupil.teachers[0]
    assert isinstance(teacher, LiveTeacher)
    taught = [one.detach().clone() for one in teacher.network.parameters()]
    if how == "ddp":
        model: Any = DistributedDataParallel(pupil)
    else:
        for name in ("layer1", "layer2", "layer3"):
            fully_shard(pupil.student.module.get_submodule(name))
        model = fully_shard(pupil)
    by_all = losses(pupil, model, rank, world)
    by_one = losses(alone, alone, 0, 1)
    ended = {name: whole(value) for name, value in pupil.named_parameters()}
    expected = {name: value.detach() for name, value in alone.named_parameters()}
    return {
        "one": by_one,
        "all": by_all,
        "moved": {
            part: max(
                float((ended[name] - began[name]).abs().max())
                for name in ended
                if name.startswith(part)
            )
            for part in ("student", "methods")
        },
        "apart": max(float((ended[name] - expected[name]).abs().max()) for name in ended),
        "sharded": sum(isinstance(value, DTensor) for value in pupil.parameters()),
        "teacher_is_plain": all(
            torch.equal(one, before) and not isinstance(one, DTensor)
            for one, before in zip(teacher.network.parameters(), taught, strict=True)
        ),
    }


def main() -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    found: dict[str, Any] = {"processes": world}
    for norms, how in CASES:
        found[f"{norms}, {how}"] = look(norms, how, rank, world)
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
