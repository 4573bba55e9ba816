"""How much memory a training session needed at its worst moment, as the system counts it."""

import sys
from pathlib import Path
from typing import Any, final

import torch

if sys.platform != "win32":
    import resource

__all__ = ["PeakMemory"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@final
class PeakMemory:
    """Watches from when it is made; Linux forgets the peak of the time before, where allowed.

    Args:
        device: whose own memory is watched, too, if it is CUDA's.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._since = "start of training" if _forget() else "start of process"
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def read(self) -> dict[str, Any]:
        """For a record.

        Returns:
            "resident_bytes" of the process, with all that it had loaded before and with pages of
            files that it has mapped, such as a store's; None where nobody counts. "device_bytes"
            of tensors on CUDA; None elsewhere. "since" when the former is counted.
        """
        on_device = None
        if self._device.type == "cuda":
            on_device = torch.cuda.max_memory_allocated(self._device)
        return {"resident_bytes": _peak(), "device_bytes": on_device, "since": self._since}


def _forget() -> bool:
    """Begins to count anew; whether that could be done."""
    try:
        _RESET.write_text("5")  # see proc(5)
    except OSError:
        return False
    return _high_water_mark() is not None


def _high_water_mark() -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(kilobytes[0]) if kilobytes else None


def _peak() -> int | None:
    known = _high_water_mark()
    if known is not None or sys.platform == "win32":
        return known
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
