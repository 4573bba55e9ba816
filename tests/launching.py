"""Two processes of one run, as torchrun starts them."""

import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(*words: str, place: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Starts a script, or a module after -m, twice, and waits for both.

    Args:
        place: the folder that they work in.
    """
    return subprocess.run(
        [*TORCHRUN, *words],
        cwd=place,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
