"""What lives as long as a training: the objects of the run, where it stands, and its step."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple, final

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree

from tutelage import rng
from tutelage.data.loader import EvalLoader, TrainLoader
from tutelage.distiller import Distiller
from tutelage.engine.averaging import Average
from tutelage.engine.checkpoint import (
    Progress,
    random_states,
    require_finite,
    restore,
    restore_structures,
    save_checkpoint,
    structures,
)
from tutelage.engine.host import keep_freed_memory
from tutelage.engine.log import Log
from tutelage.engine.norms import synchronized
from tutelage.engine.optim import keep_only, make_optimizer
from tutelage.engine.phases import end_phase
from tutelage.engine.processes import ALONE, Processes
from tutelage.engine.profiling import Dear
from tutelage.engine.settings import TrainSettings
from tutelage.errors import RunError, SettingError, nearest
from tutelage.models.fake_quantization import FakeQuantization
from tutelage.provenance import hardware, versions
from tutelage.records import RunFolder
from tutelage.teachers import StoredTeacher
from tutelage.types import Batch, Findings

__all__ = ["Session", "Trained"]

_UNTIL_SEEN = 60.0
"""Seconds that a shared file system may take to show a folder to another machine."""


class Trained(NamedTuple):
    """How training went.

    Attributes:
        steps: taken.
        seconds: spent in training, over all sessions.
        ended: "steps", "early_stopping" or "max_minutes".
        phases: what was found at the end of each phase.
        threads: of the CPU, that it was trained with.
        processes: that trained together.
        kept_memory: whether glibc was told to keep freed memory.
        peak_memory: of this session; see `engine.memory.PeakMemory.read`.
        signal: that asked the run to stop when it was at its end already.
        profile: the dearest operations, dearest first, if that was asked for.
    """

    steps: int
    seconds: float
    ended: str
    phases: tuple[dict[str, Any], ...]
    threads: int
    processes: int
    kept_memory: bool
    peak_memory: dict[str, Any]
    signal: int | None = None
    profile: tuple[Dear, ...] = ()


@final
class Session:
    """What lives as long as `fit`: the objects of the run, and where it stands.

    Its `train_step` is the step that benchmarks time: a session is made, `begin` is called once,
    `train_step` for every batch (on the device, in the settings' memory format), and `write_log`
    once per interval, as `fit` does.

    Args:
        distiller: is moved to the settings' memory format, and trained.
        data: says how many samples of a batch are labelled.
        settings, folder: as in `fit`.
        device: on which the distiller is; as `resolve_device` says.
        together: the processes that train.

    Attributes:
        ended: why the run is over, as in `Trained`; None as long as it is not.
    """

    def __init__(
        self,
        distiller: Distiller,
        data: TrainLoader,
        settings: TrainSettings,
        folder: RunFolder,
        device: torch.device,
        together: Processes = ALONE,
    ) -> None:
        assert not settings.open, "see engine.choosing"
        self._distiller, self._settings, self._folder = distiller, settings, folder
        self._device, self._together = device, together
        self._kept_memory = settings.keep_memory and keep_freed_memory()
        if settings.channels_lie_last:
            distiller.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._raw, self._schedule = make_optimizer(distiller.parameter_groups(), settings)
        self._accelerator = _accelerator(settings, device, folder if together.first else None)
        if settings.compile:
            for teacher in distiller.teachers:
                if isinstance(teacher, StoredTeacher):
                    teacher.stay_eager()
            distiller.compile()
        # "evaluation": that it does not distribute by itself, as it would whenever there are others
        self._prepared = self._accelerator.prepare_model(distiller, evaluation_mode=True)
        self._module: nn.Module = self._prepared
        self._optimizer = self._accelerator.prepare_optimizer(self._raw)
        # The loss is averaged over processes and micro-batches.
        self._num_labelled = data.num_labelled / (settings.accumulate * together.count)
        self._log = Log(folder, distiller.term_names, device, self._accelerator.log, together)
        student, decay = distiller.student.module, settings.average
        self._average = None if decay is None else Average(student, decay)
        self._at, self._began = Progress(), time.perf_counter()
        self.ended: str | None = None
        # At last: from here on `close` gives the student back.
        self._shared = ExitStack()
        self._share_norms()
        self._rounded = None
        if settings.quantization is not None:
            images = distiller.example()
            self._rounded = FakeQuantization(distiller.student, images, settings.quantization)

    def _share_norms(self) -> None:
        """From here on, if so set, batch norms ask the other processes."""
        if self._settings.sync_norms and not self._together.alone:
            self._shared.enter_context(synchronized(self._distiller))

    def begin(self, seed: int) -> None:
        """Begins the run, or goes on where its newest checkpoint stands."""
        together, folder = self._together, self._folder
        if together.first:
            folder.sweep(keep=folder.checkpoints)
        newest = self._newest_checkpoint()
        # Each process draws its own, and one that comes later not what was drawn before.
        stream = "engine" if together.first else f"engine/{together.rank}/{newest}"
        torch.default_generator.manual_seed(rng.key(seed, stream))
        if self._device.type == "cuda":
            torch.cuda.manual_seed_all(rng.key(seed, stream))
        self._at, gathered = restore(
            folder, self._distiller, self._raw, self._schedule, self._average, together
        )
        self._began -= self._at.seconds
        self._log.restore(gathered)
        if together.first:
            folder.cut_metrics(self._at.step)
        self._settle()
        self._distribute()
        if newest is None:
            self.save()
        self.decide_end()
        self._distiller.train()

    def _newest_checkpoint(self) -> str | None:
        """Its name, which all processes must see; they wait for the first one here.

        Raises:
            RunError: this one does not see what the first one does.
        """
        folder, rank = self._folder, self._together.rank

        def seen() -> list[Any]:
            return [folder.path.is_dir(), *(one.name for one in folder.checkpoints[-1:])]

        told = self._together.tell(seen())  # what the first one has made is there by now
        end = time.monotonic() + _UNTIL_SEEN
        while told != seen() and time.monotonic() < end:
            time.sleep(0.2)
        if told != seen():
            raise RunError(
                f"Process {rank} does not see the run in {folder.path} as the first one does. Put "
                "--runs on a file system that all machines share."
            )
        return told[1] if len(told) > 1 else None

    def _distribute(self) -> None:
        """Of several processes, lets a step average the gradients of what is trained now."""
        if not self._together.alone:
            # Weights of 0 may leave parameters out of a step.
            self._module = DistributedDataParallel(self._prepared, find_unused_parameters=True)

    def _settle(self) -> None:
        """Sets the thread count, and compares what bits depend on with how the run began."""
        before, threads = self._at.setting or {}, self._settings.threads
        before = {"processes": 1, **before} if before else before  # older ones did not say
        if threads is None and before.get("processes") == self._together.count:
            threads = before["threads"]
        if threads is not None:
            torch.set_num_threads(threads)
        now = _setting(self._device, self._together.count)
        changed = [f"{key} {old} → {now[key]}" for key, old in before.items() if old != now[key]]
        if changed:
            warnings.warn(
                f"The run in {self._folder.path} goes on under other conditions "
                f"({', '.join(changed)}), so its weights may differ in their last bits from those "
                "of an uninterrupted run.",
                stacklevel=3,
            )
        self._at = self._at._replace(setting=now)

    @property
    def step(self) -> int:
        """Finished steps."""
        return self._at.step

    @property
    def seconds(self) -> float:
        """Spent in training, over all sessions."""
        return time.perf_counter() - self._began

    @property
    def seconds_left(self) -> float:
        """If it goes on like this."""
        return self.seconds / max(self.step, 1) * (self._settings.steps - self.step)

    @property
    def _lr(self) -> float:
        """Of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return self.step % every == 0 or self.ended is not None

    def train_step(self, batch: Batch) -> None:
        """One optimizer step. Nothing here waits for the device."""
        settings, done = self._settings, self.step / self._settings.steps
        if self._rounded is not None:
            self._rounded.follow(done)
        pieces = list(_micro_batches(batch, settings.accumulate))
        for number, piece in enumerate(pieces, start=1):
            last = number == len(pieces)
            with nullcontext() if last else self._accelerator.no_sync(self._module):
                out = self._module(
                    piece.images,
                    piece.targets,
                    index=piece.index,
                    view=piece.view,
                    has_label=piece.has_label,
                    progress=done,
                    num_labelled=self._num_labelled,
                    weight=piece.weight,
                )
                self._accelerator.backward(out.loss / len(pieces))
            correct = self._distiller.task.num_correct(out.output, piece.targets, piece.has_label)
            self._log.add(self.step + 1, out, correct, self._num_labelled)
        if settings.clip is not None:
            trained = [one for group in self._raw.param_groups for one in group["params"]]
            self._accelerator.clip_grad_norm_(trained, settings.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._schedule.step()
        self._at = self._at._replace(step=self.step + 1)
        if self._average is not None:
            self._average.update(self.step)

    def write_log(self) -> dict[str, float]:
        """Writes the interval's line."""
        return self._log.write(self.step, self._lr)

    def end_phase(self, held_out: EvalLoader, batch: Batch) -> None:
        """Lets methods decide, and tells the optimizer what they dropped.

        Of several processes the first one decides, on its part of the batch; the others follow.
        """
        self._log.check()
        found: dict[str, Findings] = {}
        self._shared.close()  # the others do not look at what the first one does
        if self._together.first:
            found = end_phase(
                self._distiller,
                len(self._at.phases),
                held_out,
                batch,
                lr=self._lr,
                progress=self.step / self._settings.steps,
                autocast=self._accelerator.autocast,  # pyright: ignore[reportArgumentType]
            )
        self._share_norms()
        values = {name: dict(findings.values) for name, findings in found.items()}
        changed = any(findings.changed for findings in found.values())
        if not self._together.alone:
            values, changed = self._follow(values, changed)
        if changed:
            keep_only(self._raw, self._distiller.trainable_parameters())
        self._at = self._at._replace(phases=(*self._at.phases, values))
        if changed:
            self._distribute()

    def _follow(self, values: dict[str, Any], changed: bool) -> tuple[dict[str, Any], bool]:
        """Leaves of methods, in every process, what the first one has left."""
        said = [values, changed, structures(self._distiller)]
        values, changed, left = self._together.tell(said)
        if not self._together.first:
            restore_structures(self._distiller, left)
        self._together.follow(self._distiller.state_dict().values())
        return values, changed

    def judge(self, validate: Callable[[], float]) -> None:
        """Takes note of the accuracy on validation, for early stopping."""
        self._log.check()
        with nullcontext() if self._average is None else self._average.in_place():
            # Statistics of norms are each process's own, until its next step.
            self._together.follow(self._distiller.buffers())
            accuracy = validate()
        stopping_rule = self._settings.early_stopping
        margin = stopping_rule.min_delta if stopping_rule else 0.0
        better = self._at.best is None or accuracy > self._at.best + margin
        self._at = self._at._replace(
            best=accuracy if better else self._at.best,
            waited=0 if better else self._at.waited + 1,
        )
        self._log.note(self.step, {"validation_accuracy": accuracy})
        self._distiller.train()

    def decide_end(self, signal: int | None = None) -> int | None:
        """Sets `ended` if the run is over.

        Args:
            signal: that this process was sent.

        Returns:
            A signal that one of the processes was sent.
        """
        rule, limit = self._settings.early_stopping, self._settings.max_minutes
        late = limit is not None and self.step > 0 and self.seconds >= 60 * limit
        heard, late = self._together.largest(signal or 0, int(late))
        if self.step == self._settings.steps:
            self.ended = "steps"
        elif rule and self._at.waited >= rule.patience:
            self.ended = "early_stopping"
        elif late:
            self.ended = "max_minutes"
        return heard or None

    def save(self) -> None:
        """Writes a checkpoint, unless something is not finite."""
        self._log.check()
        require_finite(self._distiller, self.step)
        self._at = self._at._replace(seconds=self.seconds)
        gathered, random = self._log.gathered(), random_states(self._together)
        if self._together.first:
            save_checkpoint(
                self._folder,
                self._at,
                self._distiller,
                self._raw,
                self._schedule,
                gathered,
                random,
                self._average,
            )

    def close(self) -> None:
        """Gives the module back as it came, but trained, averaged if so set, and in eval mode."""
        try:
            for tracker in self._accelerator.trackers:  # not `end_training`: it ends the group
                tracker.finish()
            self._module = self._prepared
            self._accelerator.unwrap_model(self._prepared, keep_fp32_wrapper=False)
            if self._average is not None:
                self._average.take_over()
        finally:
            self._shared.close()
            if self._rounded is not None:
                self._rounded.remove()
            self._distiller.eval()

    def trained(
        self, signal: int | None, peak: dict[str, Any], profile: tuple[Dear, ...]
    ) -> Trained:
        """The result."""
        assert self.ended is not None
        assert self._at.setting is not None
        return Trained(
            self.step,
            self._at.seconds,
            self.ended,
            self._at.phases,
            self._at.setting["threads"],
            self._together.count,
            self._kept_memory,
            peak,
            signal,
            profile,
        )


def _micro_batches(batch: Batch, pieces: int) -> Iterator[Batch]:
    """Cuts a batch into equal parts, each with its share of the labelled samples."""
    for number in range(pieces):
        yield pytree.tree_map_only(torch.Tensor, lambda value: value[number::pieces], batch)  # noqa: B023


def _setting(device: torch.device, processes: int) -> dict[str, Any]:
    """What bits depend on beside the recipe."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else hardware()["processor"]
    where = {"threads": torch.get_num_threads(), "processes": processes}
    return {**where, "device": f"{device.type} ({name})", **versions()}


def _accelerator(
    settings: TrainSettings, device: torch.device, folder: RunFolder | None
) -> Accelerator:
    """Of a process that writes nothing, without a folder, there are no trackers."""
    available = [str(tracker) for tracker in get_available_trackers()]
    for tracker in settings.trackers:  # accelerate would leave it out, silently
        if tracker not in available:
            raise SettingError(
                f"The tracker {tracker!r} is unknown to accelerate or not installed; "
                f"{nearest(tracker, available)}. Install it, or leave it out of train.trackers."
            )
    trackers = settings.trackers if folder is not None else ()
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if settings.precision == "bf16" else "no",
        log_with=list(trackers) or None,
        project_dir=None if folder is None else str(folder.path),
    )
    if trackers and folder is not None:
        accelerator.init_trackers(folder.path.name)
    return accelerator
