"""A contestant in a process of its own, which waits until it is its turn."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, final

import torch

from contestants import OTHERS, take_turns
from tutelage.engine.host import keep_freed_memory, undisturbed
from tutelage.engine.memory import PeakMemory
from workloads import WORKLOADS, Setup

__all__ = ["Apart"]


@final
class Apart:
    """Starts the process, and talks to it.

    Args:
        name: of the contestant.
        workload: its name.
        device: where it works.
        store: that a contestant with stored answers reads.
        options: settings of our own training.
    """

    def __init__(
        self,
        name: str,
        workload: str,
        device: torch.device,
        *,
        store: Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        asked = {
            "name": name,
            "workload": workload,
            "device": str(device),
            "threads": torch.get_num_threads(),
            "store": store and str(store),
            "options": dict(options or {}),
        }
        command = [sys.executable, str(Path(__file__)), json.dumps(asked)]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True)
        try:
            self._listen()  # until it is ready: so they are made one after the other
        except BaseException:
            self.close()
            raise

    def turn(self) -> float:
        """Lets it take a turn; seconds per step."""
        return self._ask("turn")

    def peak_memory(self) -> int | None:
        """Bytes at the worst moment: of tensors on CUDA, else resident ones of the process.

        None where nobody counts.
        """
        found = self._ask("peak memory")
        return found["resident_bytes"] if found["device_bytes"] is None else found["device_bytes"]

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, question: str) -> Any:
        assert self._process.stdin is not None
        print(question, file=self._process.stdin, flush=True)
        return self._listen()

    def _listen(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The process {self._process.args} has died; see above why.")
        return json.loads(line)


def _serve() -> None:
    asked = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    torch.set_num_threads(asked["threads"])
    store = asked["store"] and Path(asked["store"])
    setup = Setup(
        WORKLOADS[asked["workload"]],
        torch.device(asked["device"]),
        store=store,
        options=asked["options"],
    )
    if asked["name"] not in OTHERS:  # as our engine does, whose parts the others are
        keep_freed_memory()
    peak = PeakMemory(setup.device)
    with undisturbed(setup.device):
        turn = take_turns(setup, asked["name"])
        print("true", file=answers, flush=True)
        for question in sys.stdin:
            answer = turn() if question.strip() == "turn" else peak.read()
            print(json.dumps(answer), file=answers, flush=True)
    setup.close()


if __name__ == "__main__":
    _serve()
