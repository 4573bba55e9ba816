"""Our step beside the steps of others, on equal work.

    pip install -e '.[peers]'
    python benchmarks/peers.py            # all in one process, the allocator told to keep memory
    python benchmarks/peers.py --apart    # each as its user runs it, in a process of its own

All train on the same resident batch from the same weights; see `contestants.py`. What is not
installed is named as not measured, and its numbers are null.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from typing import Annotated, Any, NamedTuple

import torch
import typer

from apart import Apart
from contestants import absent, make_store, take_turns
from options import AsJson, CompileTeacher, Device, Into, Rounds, Threads, require
from timing import ENOUGH, alternate, circumstances, ratio, record, spread
from tutelage.engine import resolve_device
from tutelage.engine.host import keep_freed_memory, undisturbed
from workloads import WORKLOADS, Setup

__all__ = ["RATIOS", "lines", "measure", "summary"]


class Ratio(NamedTuple):
    """What is compared with what.

    Attributes:
        above, below: contestants, whose times are divided.
        bars: workload → what the ratio should be; 1: ours is to be faster.
        at_most: whether it should be at most that, rather than at least.
    """

    above: str
    below: str
    bars: Mapping[str, float] = {}
    at_most: bool = False

    def met(self, workload: str, found: Mapping[str, float]) -> bool | None:
        """Whether the whole interval is within 3 % of the bar, or better; None without a bar.

        Who is to be faster, must be so in the whole interval.
        """
        bar = self.bars.get(workload)
        if bar is None:
            return None
        if bar == 1:
            return found["low"] > 1
        return found["high"] < bar / 0.97 if self.at_most else found["low"] > 0.97 * bar


RATIOS: dict[str, Ratio] = {
    "plain_fp32_over_ours": Ratio(
        "plain", "live", {"resnet20": 2.3, "resnet8": 2.3, "mobilenet": 1.0}
    ),
    "torchdistill_over_ours": Ratio("torchdistill", "live", {"resnet20": 2.7, "resnet8": 3.0}),
    "torchdistill_bf16_over_ours": Ratio("torchdistill_bf16", "live"),
    "timm_over_ours": Ratio("timm", "live", {"resnet20": 1.10, "resnet8": 1.15, "mobilenet": 1.0}),
    "live_over_cached": Ratio("live", "stored", {"resnet20": 1.7, "resnet8": 2.9}),
    "cached_over_label_only": Ratio(
        "stored", "label_only", dict.fromkeys(("resnet20", "resnet8", "mobilenet"), 1.04), True
    ),
    "cache_build_over_teacher_pass": Ratio(
        "store_build",
        "teacher_pass",
        dict.fromkeys(("resnet20", "resnet8", "mobilenet"), 1.10),
        True,
    ),
    "torchdistill_over_cached": Ratio("torchdistill", "stored", {"resnet20": 4.6, "resnet8": 8.6}),
    "torchdistill_eval_over_ours": Ratio("torchdistill_eval", "live"),
    "timm_over_cached": Ratio("timm", "stored"),
}
"""The first seven are what `--json` promises."""

FLOOR = ("teacher", "student", "copy")
STEPS = (
    "plain",
    "torchdistill",
    "torchdistill_eval",
    "torchdistill_bf16",
    "timm",
    "live",
    "stored",
)
NAMES = (*STEPS, "label_only", *FLOOR, "store_build", "teacher_pass")


def measure(
    name: str, setup: Setup, *, rounds: int, warmup: int = 2, apart: bool = False
) -> dict[str, list[float]]:
    """Times all contestants that are there, in alternating rounds.

    Args:
        name: of the workload.
        apart: whether each has a process of its own.

    Returns:
        Contestant → seconds per step in each round.
    """
    present = [one for one in NAMES if absent(one) is None]
    with undisturbed(setup.device):
        if not apart:
            turns: dict[str, Callable[[], float]] = {one: take_turns(setup, one) for one in present}
            return alternate(turns, rounds=rounds, warmup=warmup)
        make_store(setup)
    with ExitStack() as stack:
        turns = {
            one: stack.enter_context(
                closing(Apart(one, name, setup.device, store=setup.store, options=setup.options))
            ).turn
            for one in present
        }
        return alternate(turns, rounds=rounds, warmup=warmup)


def summary(times: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Any]:
    """What `--json` prints of the times of each workload: ratio → workload → median and interval.

    Null where one of the two was not measured.
    """

    def over(workload: str, above: str, below: str) -> dict[str, float] | None:
        there = times[workload].keys() >= {above, below}
        return ratio(times[workload], above, below).as_json() if there else None

    ratios = {
        key: {workload: over(workload, one.above, one.below) for workload in times}
        for key, one in RATIOS.items()
    }
    milliseconds = {
        workload: {
            name: spread([1000 * one for one in values]).as_json() for name, values in own.items()
        }
        for workload, own in times.items()
    }
    floor = {
        workload: {name: own.pop(name) for name in FLOOR} for workload, own in milliseconds.items()
    }
    reasons = {name: absent(name) for name in NAMES}
    return {
        **ratios,
        "not_measured": {name: why for name, why in reasons.items() if why is not None},
        "floor_ms": floor,
        "ms": milliseconds,
    }


def lines(result: Mapping[str, Any]) -> Iterable[str]:
    """Ratios with their bars, then the floor and the times."""
    for key in sorted(RATIOS, key=lambda key: "bf16" not in key):  # the honest ratio first
        one = RATIOS[key]
        for workload, found in result[key].items():
            yield f"{key:30} {workload:10} " + (_found(one, workload, found) if found else "–")
    for name, why in result["not_measured"].items():
        yield f"not measured: {name}: {why}"
    for workload, own in result["ms"].items():
        both = {**result["floor_ms"][workload], **own}
        times = ", ".join(f"{name} {value['median']:.4g}" for name, value in both.items())
        yield f"{workload}, ms: {times}"


def _found(one: Ratio, workload: str, found: Mapping[str, float]) -> str:
    text = f"{found['median']:.3f}  ({found['low']:.3f} to {found['high']:.3f})"
    met = one.met(workload, found)
    if met is None:
        return text
    side = "at most" if one.at_most else "at least"
    return f"{text}  {side} {one.bars[workload]}: {'met' if met else 'not met'}"


def main(
    workload: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(WORKLOADS)}; several; all but tiny.")
    ] = None,
    apart: Annotated[bool, typer.Option(help="Each in a process of its own.")] = False,
    rounds: Rounds = ENOUGH,
    as_json: AsJson = False,
    into: Into = None,
    threads: Threads = None,
    device: Device = "cpu",
    compile_teacher: CompileTeacher = False,
) -> None:
    """Times our step beside the plain loop, torchdistill and timm."""
    names = workload or [name for name in WORKLOADS if name != "tiny"]
    require(names, rounds, into)
    about, options = circumstances(), {"compile_teacher": compile_teacher}
    torch.set_num_threads(threads or torch.get_num_threads())
    kept = not apart and keep_freed_memory()
    times = {}
    for name in names:
        print(WORKLOADS[name].title, file=sys.stderr)
        setup = Setup(WORKLOADS[name], resolve_device(device), options=options)
        try:
            times[name] = measure(name, setup, rounds=rounds, apart=apart)
        finally:
            setup.close()
    result = summary(times) | {
        "threads": torch.get_num_threads(),
        "device": resolve_device(device).type,
        "rounds": rounds,
        "steps_per_turn": {name: WORKLOADS[name].steps for name in names},
        "apart": apart,
        "options": options,
        "kept_memory": "as each does itself" if apart else kept,
        "interval": "95 %, order statistics of the rounds",
    }
    if into:
        record(into, about, result)
    print(json.dumps(result) if as_json else "\n".join(lines(result)))


if __name__ == "__main__":
    typer.run(main)
