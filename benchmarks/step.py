"""What a step costs, and what of it is more than its parts.

    python benchmarks/step.py --workload resnet8

The step is the engine's own: it draws and augments its batch, moves it, trains, and now and then
writes its line of the log. Beside it stand the parts that no step can do without, each alone: the
teacher's forward pass, the student's forward and backward pass, the optimizer. Overhead is what the
step takes beyond their sum, in percent of the sum.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
import typer

from apart import Apart
from contestants import CONTESTANTS, make_store, take_turns
from options import AsJson, CompileTeacher, Device, Into, Rounds, Threads, require
from timing import ENOUGH, Spread, alternate, circumstances, ratio, record, spread
from tutelage.engine import resolve_device
from tutelage.engine.host import keep_freed_memory, undisturbed
from tutelage.engine.profiling import Profile
from workloads import WORKLOADS, Setup

__all__ = ["lines", "measure", "peaks", "profile_lines"]

FLOOR = ("teacher", "student", "optimizer")
STEPS = ("live_loaded", "stored_loaded", "label_only_loaded")
BESIDE = ("plain", "copy", "loader", "optimizer_fused", "optimizer_loop")


def measure(setup: Setup, *, rounds: int, warmup: int = 2) -> dict[str, Any]:
    """Times the steps and their parts in alternating rounds, in this process.

    Returns:
        What `--json` prints, but for the peaks of memory.
    """
    with undisturbed(setup.device):
        turns = {name: take_turns(setup, name) for name in (*STEPS, *FLOOR, *BESIDE)}
        times = alternate(turns, rounds=rounds, warmup=warmup)
    floor = [sum(parts) for parts in zip(*(times[name] for name in FLOOR), strict=True)]
    batch = setup.workload.batch_size
    drawn = [100 * one / step for one, step in zip(times["loader"], times[STEPS[0]], strict=True)]
    over = [100 * (step / least - 1) for step, least in zip(times[STEPS[0]], floor, strict=True)]
    result: dict[str, Spread] = {
        "plain_fp32_over_ours": ratio(times, "plain", "live_loaded"),
        "overhead_percent": spread(over),
        "teacher_ms": _milliseconds(times["teacher"]),
        "student_ms": _milliseconds(times["student"]),
        "step_ms": _milliseconds(times["live_loaded"]),
    }
    beside: dict[str, Spread] = {
        "optimizer_ms": _milliseconds(times["optimizer"]),
        "optimizer_fused_ms": _milliseconds(times["optimizer_fused"]),
        "optimizer_loop_ms": _milliseconds(times["optimizer_loop"]),
        "copy_ms": _milliseconds(times["copy"]),
        "loader_ms": _milliseconds(times["loader"]),
        "loader_percent": spread(drawn),
        "loader_images_per_second": spread([batch / one for one in times["loader"]]),
        "plain_fp32_ms": _milliseconds(times["plain"]),
        "stored_step_ms": _milliseconds(times["stored_loaded"]),
        "label_only_step_ms": _milliseconds(times["label_only_loaded"]),
        "live_over_cached": ratio(times, "live_loaded", "stored_loaded"),
        "cached_over_label_only": ratio(times, "stored_loaded", "label_only_loaded"),
    }
    return {
        **{name: value.as_json() for name, value in result.items()},
        "threads": torch.get_num_threads(),
        **{name: value.as_json() for name, value in beside.items()},
        "workload": setup.workload.title,
        "precision": setup.workload.precision,
        "device": setup.device.type,
        "rounds": rounds,
        "steps_per_turn": setup.workload.steps,
        "interval": "95 %, order statistics of the rounds",
    }


def _milliseconds(seconds: Iterable[float]) -> Spread:
    return spread([1000 * one for one in seconds])


def peaks(workload: str, setup: Setup, options: Mapping[str, Any]) -> dict[str, int | None]:
    """Peak memory in bytes of processes that take three turns and do nothing else.

    On a CPU it is resident memory, of which "nothing" has the libraries' share.
    """
    make_store(setup)
    found = {}
    for name in ("nothing", *STEPS, "plain"):
        process = Apart(name, workload, setup.device, store=setup.store, options=options)
        for _ in range(3):
            process.turn()
        found[name.removesuffix("_loaded")] = process.peak_memory()
        process.close()
    return found


def profile_lines(setup: Setup) -> Iterable[str]:
    """Where a live step spends its time: operations, dearest first, with their share of it."""
    watch, steps = Profile(setup.new_folder() / "trace.json", setup.device), 20
    with undisturbed(setup.device):
        step = CONTESTANTS["live_loaded"](setup)
        watch.begin(steps)
        for _ in range(steps):
            step()
            watch.step()
        watch.end()
    for name, calls, milliseconds, share in watch.dearest:
        yield f"  {name:44} {calls:7.0f} calls {milliseconds:8.2f} ms {100 * share:5.1f} %"


def lines(result: Mapping[str, Any]) -> Iterable[str]:
    """The same for people: medians with their intervals, and peaks of memory."""
    yield f"{result['workload']}; {result['threads']} threads, {result['rounds']} rounds"
    for name, value in result.items():
        if isinstance(value, dict) and "median" in value:
            low, high = f"{value['low']:.4g}", f"{value['high']:.4g}"
            yield f"  {name:24} {value['median']:.4g}  ({low} to {high})"
    held = {name: one for name, one in result["peak_memory_bytes"].items() if one is not None}
    yield "  peak memory, MB          " + ", ".join(
        f"{name} {one / 1e6:.0f}" for name, one in held.items()
    )


def main(
    workload: Annotated[str, typer.Option(help=f"One of {', '.join(WORKLOADS)}.")] = "resnet20",
    rounds: Rounds = ENOUGH,
    as_json: AsJson = False,
    into: Into = None,
    threads: Threads = None,
    device: Device = "cpu",
    compile_teacher: CompileTeacher = False,
    profile: Annotated[bool, typer.Option(help="Print where a live step spends its time.")] = False,
) -> None:
    """Times our step and its parts on one workload."""
    require([workload], rounds, into)
    about, options = circumstances(), {"compile_teacher": compile_teacher}
    torch.set_num_threads(threads or torch.get_num_threads())
    setup = Setup(WORKLOADS[workload], resolve_device(device), options=options)
    try:
        if profile:
            print(*profile_lines(setup), sep="\n", file=sys.stderr)
        held = peaks(workload, setup, options)
        kept = keep_freed_memory()
        result = measure(setup, rounds=rounds)
    finally:
        setup.close()
    result |= {"peak_memory_bytes": held, "kept_memory": kept, "options": options}
    if into:
        record(into, about, result)
    print(json.dumps(result) if as_json else "\n".join(lines(result)))


if __name__ == "__main__":
    typer.run(main)
