"""The training loop."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple, final

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from torch.utils import _pytree as pytree

from tutelage import rng
from tutelage.data.loader import EvalLoader, TrainLoader
from tutelage.distiller import Distiller
from tutelage.engine.averaging import Average
from tutelage.engine.checkpoint import Progress, restore, save_checkpoint
from tutelage.engine.host import (
    keep_freed_memory,
    memory_in_words,
    require_one_process,
    stopping,
    undisturbed,
)
from tutelage.engine.log import Display, Log
from tutelage.engine.memory import PeakMemory
from tutelage.engine.optim import keep_only, make_optimizer
from tutelage.engine.phases import end_phase, move, phase_ends
from tutelage.engine.profiling import Dear, Profile
from tutelage.engine.settings import TrainSettings
from tutelage.errors import Interrupted, SettingError, nearest
from tutelage.models.fake_quantization import FakeQuantization
from tutelage.provenance import hardware, versions
from tutelage.records import RunFolder
from tutelage.teachers import StoredTeacher
from tutelage.types import Batch

__all__ = ["Session", "Trained", "fit", "resolve_device"]


class Trained(NamedTuple):
    """How training went.

    Attributes:
        steps: taken.
        seconds: spent in training, over all sessions.
        ended: "steps", "early_stopping" or "max_minutes".
        phases: what was found at the end of each phase.
        threads: of the CPU, that it was trained with.
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
    kept_memory: bool
    peak_memory: dict[str, Any]
    signal: int | None = None
    profile: tuple[Dear, ...] = ()


def resolve_device(name: str) -> torch.device:
    """The device that a setting means.

    Raises:
        SettingError: it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError(
            "device is cuda, but PyTorch finds no CUDA device here. Set train.device to auto or "
            "cpu, or install a driver that fits."
        )
    return torch.device(name)


def fit(
    distiller: Distiller,
    data: TrainLoader,
    settings: TrainSettings,
    folder: RunFolder,
    *,
    held_out: EvalLoader,
    validate: Callable[[], float],
    seed: int,
    title: str = "",
    shown: bool = True,
    profile: bool = False,
) -> Trained:
    """Trains, from the newest checkpoint in the folder if there is one.

    The distiller stays on the device, in eval mode. Thread count, random states and signal handlers
    are afterwards as they were; only `keep_memory` lasts as long as the process.

    Args:
        held_out: validation pictures, for what methods decide between phases.
        validate: accuracy of the student on validation, in [0, 1].
        seed: of dropout and the like; weights are drawn already, views have their own.
        title: what the progress display calls the run.
        shown: whether to show one.
        profile: whether to watch about ten steps, and to write a Chrome trace of them.

    Raises:
        NonFiniteError: a term became infinite or NaN.
        Interrupted: SIGINT or SIGTERM; a checkpoint has been written.
        OutOfMemoryError: with the remedies.
        CheckpointError: the newest checkpoint is damaged, or of another run.
        RunError: no space is left on the device.
    """
    device, last = resolve_device(settings.device), settings.channels_lie_last
    ends = phase_ends(settings.steps, settings.phases)
    display = Display(title, settings.steps, shown=shown)
    watch, peak = Profile(folder.profile if profile else None, device), PeakMemory(device)
    require_one_process()
    with memory_in_words(device, settings), stopping() as stop, undisturbed(device), display:
        session = Session(distiller, data, settings, folder, device)
        try:
            session.begin(seed)
            watch.begin(settings.steps - session.step)
            while session.ended is None:
                batch = move(data.batch(session.step), device, channels_last=last)
                session.train_step(batch)
                display.advance(session.step)
                watch.step()
                if session.step in ends:
                    session.end_phase(held_out, batch)
                if settings.evaluate_every and session.step % settings.evaluate_every == 0:
                    session.judge(validate)
                session.decide_end()
                if session.due(settings.log_every):
                    display.numbers(session.step, session.write_log(), session.seconds_left)
                if stop.signal or session.due(settings.checkpoint_every):
                    session.save()
                if stop.signal and session.ended is None:
                    raise Interrupted(
                        f"Stopped at step {session.step} of {settings.steps}; all is saved.",
                        stop.signal,
                    )
        finally:
            watch.end()
            session.close()
    return session.trained(stop.signal, peak.read(), watch.dearest)


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
    ) -> None:
        assert not settings.open, "see engine.choosing"
        self._distiller, self._settings, self._folder = distiller, settings, folder
        self._device = device
        self._kept_memory = settings.keep_memory and keep_freed_memory()
        if settings.channels_lie_last:
            distiller.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._raw, self._schedule = make_optimizer(distiller.parameter_groups(), settings)
        self._accelerator = _accelerator(settings, device, folder)
        if settings.compile:
            for teacher in distiller.teachers:
                if isinstance(teacher, StoredTeacher):
                    teacher.stay_eager()
            distiller.compile()
        self._module = self._accelerator.prepare_model(distiller)
        self._optimizer = self._accelerator.prepare_optimizer(self._raw)
        # The loss is averaged over processes and micro-batches.
        pieces = settings.accumulate * self._accelerator.num_processes
        self._num_labelled = data.num_labelled / pieces
        self._log = Log(folder, distiller.term_names, device, self._accelerator.log)
        student, decay = distiller.student.module, settings.average
        self._average = None if decay is None else Average(student, decay)
        self._at, self._began = Progress(), time.perf_counter()
        self.ended: str | None = None
        # At last: from here on `close` gives the student back.
        self._rounded = None
        if settings.quantization is not None:
            images = distiller.example()
            self._rounded = FakeQuantization(distiller.student, images, settings.quantization)

    def begin(self, seed: int) -> None:
        """Begins the run, or goes on where its newest checkpoint stands."""
        torch.default_generator.manual_seed(rng.key(seed, "engine"))
        if self._device.type == "cuda":
            torch.cuda.manual_seed_all(rng.key(seed, "engine"))
        self._at, gathered = restore(
            self._folder, self._distiller, self._raw, self._schedule, self._average
        )
        self._began -= self._at.seconds
        self._log.restore(gathered)
        self._folder.cut_metrics(self._at.step)
        self._settle()
        if not self._folder.checkpoints:
            self.save()
        self.decide_end()
        self._distiller.train()

    def _settle(self) -> None:
        """Sets the thread count, and compares what bits depend on with how the run began."""
        before, wanted = self._at.setting or {}, self._settings.threads
        threads = before.get("threads") if wanted is None else wanted
        if threads is not None:
            torch.set_num_threads(threads)
        now = _setting(self._device)
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
        """Lets methods decide, and tells the optimizer what they dropped."""
        self._log.check()
        found = end_phase(
            self._distiller,
            len(self._at.phases),
            held_out,
            batch,
            lr=self._lr,
            progress=self.step / self._settings.steps,
            autocast=self._accelerator.autocast,  # pyright: ignore[reportArgumentType]
        )
        if any(findings.changed for findings in found.values()):
            keep_only(self._raw, self._distiller.trainable_parameters())
        values = {name: dict(findings.values) for name, findings in found.items()}
        self._at = self._at._replace(phases=(*self._at.phases, values))

    def judge(self, validate: Callable[[], float]) -> None:
        """Takes note of the accuracy on validation, for early stopping."""
        self._log.check()
        with nullcontext() if self._average is None else self._average.in_place():
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

    def decide_end(self) -> None:
        """Sets `ended` if the run is over."""
        rule, limit = self._settings.early_stopping, self._settings.max_minutes
        if self.step == self._settings.steps:
            self.ended = "steps"
        elif rule and self._at.waited >= rule.patience:
            self.ended = "early_stopping"
        elif limit is not None and self.step > 0 and self.seconds >= 60 * limit:
            self.ended = "max_minutes"

    def save(self) -> None:
        """Writes a checkpoint, unless something is not finite."""
        self._log.check()
        self._at = self._at._replace(seconds=self.seconds)
        save_checkpoint(
            self._folder,
            self._at,
            self._distiller,
            self._raw,
            self._schedule,
            self._log.gathered(),
            self._average,
        )

    def close(self) -> None:
        """Gives the module back as it came, but trained, averaged if so set, and in eval mode."""
        try:
            for tracker in self._accelerator.trackers:  # not `end_training`: it ends the group
                tracker.finish()
            self._accelerator.unwrap_model(self._module, keep_fp32_wrapper=False)
            if self._average is not None:
                self._average.take_over()
        finally:
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
            self._kept_memory,
            peak,
            signal,
            profile,
        )


def _micro_batches(batch: Batch, pieces: int) -> Iterator[Batch]:
    """Cuts a batch into equal parts, each with its share of the labelled samples."""
    for number in range(pieces):
        yield pytree.tree_map_only(torch.Tensor, lambda value: value[number::pieces], batch)  # noqa: B023


def _setting(device: torch.device) -> dict[str, Any]:
    """What bits depend on beside the recipe."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else hardware()["processor"]
    return {"threads": torch.get_num_threads(), "device": f"{device.type} ({name})", **versions()}


def _accelerator(settings: TrainSettings, device: torch.device, folder: RunFolder) -> Accelerator:
    available = [str(tracker) for tracker in get_available_trackers()]
    for tracker in settings.trackers:  # accelerate would leave it out, silently
        if tracker not in available:
            raise SettingError(
                f"The tracker {tracker!r} is unknown to accelerate or not installed; "
                f"{nearest(tracker, available)}. Install it, or leave it out of train.trackers."
            )
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if settings.precision == "bf16" else "no",
        log_with=list(settings.trackers) or None,
        project_dir=str(folder.path),
    )
    if settings.trackers:
        accelerator.init_trackers(folder.path.name)
    return accelerator
