"""The training loop."""

from collections.abc import Callable

import torch

from tutelage.data.loader import EvalLoader, TrainLoader
from tutelage.distiller import Distiller
from tutelage.engine.host import memory_in_words, stopping, undisturbed
from tutelage.engine.log import Display
from tutelage.engine.memory import PeakMemory
from tutelage.engine.phases import move, phase_ends
from tutelage.engine.processes import ALONE, Processes
from tutelage.engine.profiling import Profile
from tutelage.engine.session import Session, Trained
from tutelage.engine.settings import TrainSettings
from tutelage.errors import Interrupted, SettingError
from tutelage.records import RunFolder

__all__ = ["fit", "resolve_device"]


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
    together: Processes = ALONE,
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
        together: the processes that train, all of which call this, with the same but for the part
            of each batch that `data` gives them. All see the folder; the first one writes, decides
            between phases, and shows.

    Raises:
        NonFiniteError: a term became infinite or NaN.
        Interrupted: SIGINT or SIGTERM; a checkpoint has been written.
        OutOfMemoryError: with the remedies.
        CheckpointError: the newest checkpoint is damaged, or of another run.
        RunError: no space is left on the device.
    """
    device, last = resolve_device(settings.device), settings.channels_lie_last
    ends = phase_ends(settings.steps, settings.phases)
    display = Display(title, settings.steps, shown=shown and together.first)
    profiled = folder.profile if profile and together.first else None
    watch, peak = Profile(profiled, device), PeakMemory(device)
    with memory_in_words(device, settings), stopping() as stop, undisturbed(device), display:
        session = Session(distiller, data, settings, folder, device, together)
        try:
            session.begin(seed)
            watch.begin(settings.steps - session.step)
            heard = None
            while session.ended is None:
                batch = move(data.batch(session.step), device, channels_last=last)
                session.train_step(batch)
                display.advance(session.step)
                watch.step()
                if session.step in ends:
                    session.end_phase(held_out, batch)
                if settings.evaluate_every and session.step % settings.evaluate_every == 0:
                    session.judge(validate)
                heard = session.decide_end(stop.signal)
                if session.due(settings.log_every):
                    display.numbers(session.step, session.write_log(), session.seconds_left)
                if heard or session.due(settings.checkpoint_every):
                    session.save()
                if heard and session.ended is None:
                    raise Interrupted(
                        f"Stopped at step {session.step} of {settings.steps}; all is saved.", heard
                    )
        finally:
            watch.end()
            session.close()
    return session.trained(heard or stop.signal, peak.read(), watch.dearest)
