"""The benchmarks compare equal work, count turns rightly, and print what they promise."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from timm import create_model

import contestants
import peers
import plain
import step
import timing
from apart import Apart
from timing import Spread, spread
from tutelage.engine.host import undisturbed
from tutelage.records import read_lines
from workloads import WORKLOADS, Setup, Workload

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
TINY = WORKLOADS["tiny"]
FROM_TIMM = Workload(
    "networks of timm",
    partial(create_model, "resnet10t", num_classes=3),
    partial(create_model, "mobilenetv3_small_050", num_classes=3),
    *(32, 4, 3, 8, 2, 1),
)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[Setup]:
    """A setup of the workload that is asked for, tiny otherwise; other tests' allocator stays."""
    workload = getattr(request, "param", TINY)
    made = Setup(workload, CPU, options={"keep_memory": False})
    with undisturbed(CPU):
        yield made
    made.close()


# Medians and intervals


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # 2 × P(at most 9 heads of 30) = 4.3 %, of 10 it would be 9.9 %;
    # 2 × (1 + 9) / 2⁹ = 3.9 %; 2 × 1 / 2⁶ = 3.1 %; below six nothing reaches 95 %.
    [(30, 10, 21), (9, 2, 8), (6, 1, 6), (5, 1, 5), (2, 1, 2), (1, 1, 1)],
)
def test_the_interval_lies_between_the_ranks_that_a_fair_coin_gives(
    count: int, low: int, high: int
):
    values = [float(number) for number in range(1, count + 1)]
    random.Random(0).shuffle(values)
    assert spread(values) == Spread((count + 1) / 2, low, high)


def test_the_interval_holds_the_true_median_in_95_of_100_cases():
    draw = random.Random(1)
    found = [spread([draw.expovariate(1) for _ in range(30)]) for _ in range(2000)]
    held = sum(one.low <= 0.693147 <= one.high for one in found) / len(found)
    assert 0.94 < held < 0.975  # 95.7 % by the binomial distribution


def test_a_ratio_is_that_of_two_turns_of_one_round():
    times = {"other": [2.0, 9.0, 4.0], "ours": [1.0, 9.0, 1.0]}
    assert timing.ratio(times, "other", "ours").median == 2  # not 4 / 1, that of the medians


def test_in_each_round_everybody_has_one_turn_in_changing_order():
    taken: list[str] = []

    def turn(name: str) -> float:
        taken.append(name)
        return float(len(taken))

    names = ["a", "b", "c"]
    times = timing.alternate({name: partial(turn, name) for name in names}, rounds=20, warmup=2)
    rounds = [tuple(taken[start : start + 3]) for start in range(0, len(taken), 3)]
    assert len(rounds) == 22
    assert all(sorted(one) == names for one in rounds)
    assert len(set(rounds)) > 3
    assert all(len(values) == 20 for values in times.values())
    assert min(min(values) for values in times.values()) == 7  # two rounds of warm-up before


@pytest.mark.parametrize(
    ("low", "high", "met", "met_at_most"),
    [
        (2.0, 2.1, True, False),
        (1.95, 2.1, True, False),
        (1.93, 2.3, False, False),
        (1, 2.05, False, True),
    ],
)
def test_a_bar_is_met_if_the_whole_interval_is_within_three_percent(
    low: float, high: float, met: bool, met_at_most: bool
):
    found = {"median": 2.0, "low": low, "high": high}
    assert peers.Ratio("a", "b", {"w": 2.0}).met("w", found) is met
    assert peers.Ratio("a", "b", {"w": 2.0}, at_most=True).met("w", found) is met_at_most
    assert peers.Ratio("a", "b").met("w", found) is None


def test_who_is_to_be_faster_must_be_so_in_the_whole_interval():
    faster = peers.Ratio("a", "b", {"w": 1.0})
    assert faster.met("w", {"median": 1.02, "low": 1.001, "high": 1.1})
    assert not faster.met("w", {"median": 0.99, "low": 0.98, "high": 0.995})
    assert not faster.met("w", {"median": 1.02, "low": 0.999, "high": 1.1})


# Equal work


def test_the_plain_loop_is_short_and_plain():
    text = Path(plain.__file__).read_text()
    assert len(text.splitlines()) <= 30
    assert not any(word in text for word in ("autocast", "channels_last", "fuse", "compile"))
    assert all(word in text for word in ("no_grad", "eval()", "loss.item()", "SGD"))


def losses(setup: Setup, name: str, count: int = 2) -> list[float]:
    """Of a contestant's first steps."""
    one, found = contestants.CONTESTANTS[name](setup), []
    for _ in range(count):
        value = one()
        if isinstance(one, contestants.Ours):
            value = one.session.write_log()["loss"]
        found.append(value)
    return found


EQUAL = ("torchdistill_eval", "torchdistill_bf16", "timm", "live", "stored")


@pytest.mark.parametrize(
    "world",
    [replace(TINY, precision="fp32"), replace(FROM_TIMM, precision="fp32")],
    ids=["own", "timm"],
    indirect=True,
)
@pytest.mark.parametrize("name", EQUAL)
def test_all_steps_compute_the_same_loss(world: Setup, name: str):
    if (why := contestants.absent(name)) is not None:
        pytest.skip(why)
    expected = losses(world, "plain")
    found = losses(world, name)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    # Of the same optimizer; norms over few numbers make much of what is rounded otherwise.
    assert found[1] == pytest.approx(expected[1], rel=1e-3)
    assert expected[0] != pytest.approx(expected[1], rel=1e-2)


def test_by_default_the_teacher_of_torchdistill_trains(world: Setup):
    pytest.importorskip("torchdistill")
    assert losses(world, "torchdistill")[0] != pytest.approx(
        losses(world, "torchdistill_eval")[0], rel=1e-3
    )


def test_in_bf16_everybody_is_about_there(world: Setup):
    expected = losses(world, "plain")[0]
    for name in ("timm", "live", "stored"):
        assert losses(world, name)[0] == pytest.approx(expected, rel=0.05)


def test_what_a_store_is_compared_with_is_a_pass_over_the_same_pictures(world: Setup):
    question = contestants.store_question(world)
    seen: list[int] = []
    question.teacher.network.module.register_forward_hook(lambda *given: seen.append(len(given[2])))
    contestants.build_store(world, question)
    assert sum(seen) == TINY.num_pictures
    assert contestants.CONTESTANTS["teacher_pass"](world)() is None
    folder = contestants.make_store(world)
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}


# What is printed


def is_spread(value: Any) -> bool:
    return (
        list(value) == ["median", "low", "high"]
        and value["low"] <= value["median"] <= value["high"]
    )


PROMISED_BY_STEP = [
    *("plain_fp32_over_ours", "overhead_percent", "teacher_ms", "student_ms", "step_ms"),
    "threads",
]
PROMISED_BY_PEERS = [
    *("plain_fp32_over_ours", "torchdistill_over_ours", "torchdistill_bf16_over_ours"),
    *("timm_over_ours", "live_over_cached", "cached_over_label_only"),
    "cache_build_over_teacher_pass",
]


def test_step_gives_the_keys_that_it_promises(world: Setup):
    result = step.measure(world, rounds=2, warmup=1)
    assert list(result)[:6] == PROMISED_BY_STEP
    assert all(is_spread(result[key]) for key in PROMISED_BY_STEP[:-1])
    assert result["threads"] == torch.get_num_threads()
    json.dumps(result, allow_nan=False)
    assert any("overhead" in line for line in step.lines(result | {"peak_memory_bytes": {}}))


@pytest.mark.parametrize(
    "world",
    [replace(TINY, side=32, batch_size=64, num_pictures=128, precision="fp32")],
    indirect=True,
)
def test_the_profile_names_what_a_step_spends_its_time_on(world: Setup):
    lines = list(step.profile_lines(world))
    assert any("convolution" in line for line in lines)
    assert all(line.endswith(" %") for line in lines)


def test_overhead_is_what_the_step_takes_beyond_its_parts(
    world: Setup, monkeypatch: pytest.MonkeyPatch
):
    seconds = {"live_loaded": 1.25, "plain": 2.5}
    seconds |= {"teacher": 0.5, "student": 0.25, "optimizer": 0.25}
    monkeypatch.setattr(step, "take_turns", lambda _, name: lambda: seconds.get(name, 1.0))
    result = step.measure(world, rounds=2, warmup=0)
    assert result["overhead_percent"] == {"median": 25.0, "low": 25.0, "high": 25.0}
    assert result["plain_fp32_over_ours"]["median"] == 2.0
    assert result["step_ms"]["median"] == 1250.0


def test_peers_gives_the_keys_that_it_promises(world: Setup):
    times = peers.measure("tiny", world, rounds=2, warmup=1)
    result = peers.summary({"tiny": times})
    assert list(result)[:7] == PROMISED_BY_PEERS
    there = "torchdistill" not in result["not_measured"]
    for key in PROMISED_BY_PEERS:
        assert list(result[key]) == ["tiny"]
        if there or "torchdistill" not in key:
            assert is_spread(result[key]["tiny"])
    assert set(result["floor_ms"]["tiny"]) == {"teacher", "student", "copy"}
    json.dumps(result, allow_nan=False)


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(contestants, "find_spec", lambda _: None)
    assert contestants.absent("timm") is None
    names = [name for name in peers.NAMES if contestants.absent(name) is None]
    assert len(names) == len(peers.NAMES) - 3
    result = peers.summary({"tiny": {name: [1.0, 2.0] for name in names}})
    assert set(result["not_measured"]) == set(peers.NAMES) - set(names)
    assert "not installed" in result["not_measured"]["torchdistill"]
    assert result["torchdistill_over_ours"] == {"tiny": None}
    assert result["timm_over_ours"]["tiny"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    text = "\n".join(peers.lines(result))
    assert "not measured: torchdistill: torchdistill is not installed" in text


def test_a_record_says_what_was_around_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file = tmp_path / "step.jsonl"
    for words in (["--record", str(file)], [f"--record={file}"]):
        monkeypatch.setattr(sys, "argv", ["x/step.py", *words, "--workload", "tiny"])
        timing.record(file, timing.circumstances(), {"threads": 2})
    first, second = read_lines(file)
    assert first["command"] == second["command"] == "python benchmarks/step.py --workload tiny"
    assert first["result"] == second["result"] == {"threads": 2}
    assert {"began", "load_before", "commit", "scripts", "versions", "hardware"} < set(first)
    assert len(first["load_before"]) == 3


# Processes


@pytest.mark.slow
def test_a_contestant_in_a_process_of_its_own():
    process = Apart("plain", "tiny", CPU)
    try:
        assert process.turn() > 0
        held = process.peak_memory()
        assert held is None or held > 10**7
    finally:
        process.close()


@pytest.mark.slow
def test_a_contestant_that_dies_is_an_error():
    with pytest.raises(RuntimeError, match="has died"):
        Apart("nobody", "tiny", CPU)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["step", "peers"])
def test_the_scripts_print_one_object(script: str, tmp_path: Path):
    words = ["--workload", "tiny", "--rounds", "2", "--json"] + ["--apart"] * (script == "peers")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    promised = PROMISED_BY_STEP if script == "step" else PROMISED_BY_PEERS
    assert list(json.loads(done.stdout))[: len(promised)] == promised
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("main", [step.main, peers.main])
def test_a_record_of_few_rounds_is_refused(main: Any, tmp_path: Path):
    with pytest.raises(Exception, match="at least 30 rounds"):
        main(rounds=29, into=tmp_path / "step.jsonl")
