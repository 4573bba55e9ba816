"""What a launcher says, and what the command does of it."""

from pathlib import Path

import pytest
from tiny import recipe

from tutelage.build import build
from tutelage.cli.main import main
from tutelage.errors import SettingError
from tutelage.launcher import Place, place, require_one_process, require_said
from tutelage.recipes import validate
from tutelage.runs import train


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_process_that_nobody_launched_is_alone(said: pytest.MonkeyPatch):
    assert place() == Place(0, 1, 0, 1)
    said.setenv("WORLD_SIZE", "1")
    assert place().first
    require_one_process("cakes")


def test_what_torchrun_says(said: pytest.MonkeyPatch):
    said.setenv("WORLD_SIZE", "6")
    said.setenv("RANK", "4")
    assert place() == Place(4, 6, 4, 6)
    said.setenv("LOCAL_RANK", "1")
    said.setenv("LOCAL_WORLD_SIZE", "3")
    assert place() == Place(4, 6, 1, 3)
    assert not place().first


@pytest.mark.parametrize(
    ("rank", "size"), [("2", "2"), ("-1", "2"), ("0", "many"), ("first", "2"), ("1", "0")]
)
def test_nonsense_is_refused(said: pytest.MonkeyPatch, rank: str, size: str):
    said.setenv("WORLD_SIZE", size)
    said.setenv("RANK", rank)
    with pytest.raises(SettingError, match=f"RANK={rank}, WORLD_SIZE={size}.*torchrun"):
        place()


def test_half_of_what_is_needed_is_refused(said: pytest.MonkeyPatch):
    said.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingError, match=r"RANK is not set.*torchrun"):
        place()
    with pytest.raises(SettingError, match="MASTER_ADDR is not set"):
        require_said("WORLD_SIZE", "MASTER_ADDR")


def test_what_one_process_makes_is_refused_to_two(
    said: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    said.setenv("WORLD_SIZE", "2")
    said.setenv("RANK", "1")
    with pytest.raises(SettingError, match="2 processes, but cakes are made by one"):
        require_one_process("cakes")
    assert main(["compare", "baselines"]) == 2
    assert capsys.readouterr().err.startswith("[1] error: A launcher has started 2 processes")


def test_a_launcher_that_gives_no_address_is_refused(
    said: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    said.setenv("WORLD_SIZE", "2")
    said.setenv("RANK", "0")
    assert main(["train", "digits-teacher"]) == 2
    assert capsys.readouterr().err.startswith("error: WORLD_SIZE is 2")


@pytest.mark.parametrize(
    ("count", "accumulate", "would"), [(3, 1, 51), (2, 2, 48), (100, 1, 100), (2, 25, 50)]
)
def test_a_batch_that_has_no_equal_parts_is_refused(count: int, accumulate: int, would: int):
    asked = validate(recipe(batch_size=50, accumulate=accumulate), "it")
    if would == 50:
        build(asked, rank=0, world_size=count)
        return
    with pytest.raises(SettingError, match=rf"in each of {count} .* {would} would do"):
        build(asked, rank=0, world_size=count)


def test_norms_that_sub_nets_share_do_not_ask_others():
    student = {"name": "resnet14", "width": 2, "subnets": {"few": 1}, "subnet_norms": "shared"}
    with pytest.raises(SettingError, match="sync_norms does not reach"):
        build(validate(recipe(student=student, sync_norms=True), "it"))


def test_what_is_started_anew_and_had_finished_is_no_error(
    said: pytest.MonkeyPatch, tmp_path: Path
):
    done = train(recipe(), name="run", runs=tmp_path, shown=False)
    said.setenv("WORLD_SIZE", "2")
    said.setenv("RANK", "1")
    again = train(recipe(), name="run", runs=tmp_path, resume=True, shown=False)
    assert again.record == done.record
