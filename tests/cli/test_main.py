import errno
import importlib
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import typer

from tutelage import __version__
from tutelage.cli import main as module
from tutelage.cli.main import VERBS, main
from tutelage.errors import Interrupted, NoEffectWarning, RunError

SOURCE = Path(__file__).resolve().parents[2] / "src"


def say(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    """Makes `tutelage train` do something else."""
    app = typer.Typer()

    @app.command()
    def train(words: list[str] | None = None, resume: bool = False) -> None:
        action()

    monkeypatch.setattr(importlib.import_module("tutelage.cli.train"), "app", app)


def throw(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize("argv", [["--help"], ["--version"], [], ["trainn"], ["--no-such"]])
def test_what_needs_no_verb_loads_no_verb_and_no_torch(argv: list[str]):
    code = f"""
import sys
from tutelage.cli.main import main
code = main({argv!r})
loaded = {{"torch", "numpy", "yaml", "tutelage.recipes", "tutelage.cli.train"}} & set(sys.modules)
sys.exit(str(loaded) if loaded else code)
"""
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env
    )
    wrong = argv in (["trainn"], ["--no-such"])
    assert done.returncode == (2 if wrong else 0), done.stderr
    assert bool(done.stderr) == wrong
    if argv == ["--version"]:
        assert done.stdout == f"tutelage {__version__}\n"
    elif not wrong:
        assert all(verb in done.stdout and line in done.stdout for verb, (_, line) in VERBS.items())


def test_report_loads_no_torch(world: Path):
    code = f"""
import sys
from tutelage.cli.main import main
assert main(["report", {str(world / "runs" / "student")!r}]) == 0
assert "torch" not in sys.modules
"""
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=env)


def test_the_module_is_a_program(world: Path):
    done = subprocess.run(
        [sys.executable, "-m", "tutelage.cli.main", "report", "nowhere"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nowhere is no run folder")


def test_the_table_of_verbs_is_complete():
    files = {path.stem for path in Path(str(module.__file__)).parent.glob("*.py")}
    assert {file for file, _ in VERBS.values()} == files - {"__init__", "arguments", "main"}
    assert len(VERBS) >= 7


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_verb_begins_with_its_line_and_has_an_example(verb: str, call: Any):
    said = call(verb, "--help")
    assert said.code == 0
    assert f"Usage: tutelage {verb}" in said.out
    assert VERBS[verb][1] in " ".join(said.out.split())
    assert f"tutelage {verb}" in said.out.partition("Example")[2]


def test_an_unknown_verb_is_answered_with_the_nearest(call: Any):
    code, out, err = call("trainn")
    assert (code, out) == (2, "")
    assert "'trainn'; did you mean train?" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train"], ["RECIPE", "`tutelage train --help`"]),
        (["train", "digits", "--nmae", "x"], ["--nmae", "--name"]),
        (["recipes", "copy", "x"], ["copy", "`tutelage recipes --help`"]),
        (["--verbose"], ["--verbose", "`tutelage --help`"]),
    ],
)
def test_a_wrong_call_ends_with_one_line_that_says_where_the_right_one_stands(
    argv: list[str], words: list[str], call: Any
):
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words)


def test_our_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, call: Any):
    say(monkeypatch, throw(RunError("It is taken. Choose another.")))
    assert call("train") == (2, "", "error: It is taken. Choose another.\n")


@pytest.mark.parametrize(
    ("argv", "more"),
    [
        (["train", "--words", "a b"], "tutelage train --words 'a b' --resume"),
        (["train", "--resume"], "tutelage train --resume\n"),
    ],
)
def test_an_interrupted_run_says_with_which_command_it_goes_on(
    argv: list[str], more: str, monkeypatch: pytest.MonkeyPatch, call: Any
):
    say(monkeypatch, throw(Interrupted("Stopped at step 7 of 9.", 15)))
    code, out, err = call(*argv)
    assert (code, out) == (128 + 15, "")
    assert err.startswith("Stopped at step 7 of 9. Go on with: tutelage train")
    assert more in err


def test_ctrl_c_outside_training_is_quiet(monkeypatch: pytest.MonkeyPatch, call: Any):
    say(monkeypatch, throw(KeyboardInterrupt()))
    assert call("train") == (130, "", "Stopped. Go on with: tutelage train --resume\n")


def test_a_run_that_was_stopped_at_its_end_needs_no_second_call(
    monkeypatch: pytest.MonkeyPatch, call: Any
):
    say(monkeypatch, throw(Interrupted("The run is finished.", 2, finished=True)))
    assert call("train") == (130, "", "The run is finished.\n")


@pytest.mark.parametrize("category", [NoEffectWarning, UserWarning])
def test_what_is_meant_for_the_user_is_a_note_every_time(
    category: type[Warning], monkeypatch: pytest.MonkeyPatch, call: Any
):
    say(monkeypatch, lambda: warnings.warn("That changes nothing.", category, stacklevel=1))
    for _ in range(2):
        assert call("train") == (0, "", "note: That changes nothing.\n")


def test_other_warnings_go_their_way(monkeypatch: pytest.MonkeyPatch):
    say(monkeypatch, lambda: warnings.warn("Old.", DeprecationWarning, stacklevel=1))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        main(["train"])
    assert [str(each.message) for each in seen] == ["Old."]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_what_the_system_refuses_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, call: Any
):
    say(monkeypatch, throw(OSError(number, os.strerror(number), "runs/x")))
    code, out, err = call("train")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "runs/x" in err


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    say(monkeypatch, throw(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["train"])
    say(monkeypatch, throw(FileNotFoundError(errno.ENOENT, "gone", "weights")))
    with pytest.raises(FileNotFoundError):
        main(["train"])
