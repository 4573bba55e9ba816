"""A saved student comes back as it was, or the file is refused in words."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import CheckpointError, NetworkError, RunError
from tutelage.models.checkpoints import read_description, read_state, save_state
from tutelage.models.network import Network
from tutelage.models.saved import Description, load, read_network, save_network
from tutelage.records import RunFolder
from tutelage.types import InputSpec

SPEC = InputSpec(8, 6, 1, (0.1 + 0.2,), (1 / 3,))
DESCRIPTION = Description("resnet8", {"width": 2, "shortcut": "B"}, 4, SPEC)


def trained() -> Network:
    """With statistics of its own in its buffers."""
    network = DESCRIPTION.make()
    network(torch.rand(5, 1, 8, 6))
    return network.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "student.safetensors"
    save_network(path, trained(), DESCRIPTION)
    return path


def test_what_comes_back_is_the_same_bit_for_bit(tmp_path: Path):
    network, path = trained(), tmp_path / "student.safetensors"
    save_network(path, network, DESCRIPTION)
    back, description = read_network(path)
    assert description == DESCRIPTION
    assert back.spec == SPEC
    assert not back.training
    assert back.state_dict().keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name
        assert back.state_dict()[name].dtype == value.dtype
    images = torch.rand(3, 1, 9, 9)
    assert torch.equal(load(path)(images), network(images))


def test_the_same_student_is_the_same_file(tmp_path: Path, saved: Path):
    # Its digest stands for it in records. Tried often: safetensors orders its header at random.
    network = load(saved)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    for _ in range(8):
        save_network(tmp_path / "other.safetensors", network, DESCRIPTION)
        assert (tmp_path / "other.safetensors").read_bytes() == saved.read_bytes()


def test_loading_does_not_touch_the_generator_of_others_weights(saved: Path):
    # It draws initial weights, but what they are does not matter.
    first, second = load(saved), load(saved)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_folder_stands_for_the_student_in_it(saved: Path):
    (saved.parent / "recipe.yaml").write_text("")
    assert read_network(saved.parent)[1] == DESCRIPTION
    assert torch.equal(
        load(str(saved.parent)).module.state_dict()["linear.weight"],
        read_state(saved)["linear.weight"],
    )


def test_a_run_without_a_student_is_to_be_continued(saved: Path):
    RunFolder(saved.parent).recipe.write_text("")
    saved.unlink()
    with pytest.raises(RunError, match=r"no trained student yet.*--resume"):
        load(saved.parent)


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunError):
        load(tmp_path)
    with pytest.raises(RunError):
        load(tmp_path / "absent")


@given(st.data())
def test_a_file_cut_off_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    folder = tmp_path_factory.mktemp("cut")
    save_network(folder / "whole", trained(), DESCRIPTION)
    content = (folder / "whole").read_bytes()
    (folder / "part").write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(CheckpointError):
        load(folder / "part")


FOREIGN = [
    None,
    {"tutelage": "{"},
    {"tutelage": "[]"},
    {"tutelage": "3"},
    {"tutelage": "{}"},
    {"tutelage": json.dumps({"spec": {"mean": [0], "std": [1]}})},
    {"tutelage": json.dumps(DESCRIPTION._asdict() | {"spec": SPEC._asdict(), "more": 1})},
    {"tutelage": json.dumps(DESCRIPTION._asdict() | {"spec": {"mean": 0.5, "std": 1}})},
]


@pytest.mark.parametrize("description", FOREIGN)
def test_weights_of_somebody_else_are_refused(saved: Path, description: dict[str, str] | None):
    save_state(saved, read_state(saved), description)
    with pytest.raises(CheckpointError, match="no student that tutelage has written"):
        load(saved)


def described(path: Path, **changed: object) -> None:
    values = json.loads(read_description(path)["tutelage"]) | changed
    save_state(path, read_state(path), {"tutelage": json.dumps(values)})


def test_weights_that_do_not_fit_the_description_are_refused(saved: Path):
    described(saved, num_classes=5)
    with pytest.raises(CheckpointError, match=r"2 of another shape \(first: linear.weight"):
        load(saved)


def test_a_network_that_is_no_longer_known_is_refused(saved: Path):
    described(saved, name="resnet9")
    with pytest.raises(NetworkError, match="no network 'resnet9'"):
        load(saved)


def test_a_student_that_was_an_object_is_refused_but_its_weights_are_there(saved: Path):
    network = load(saved)
    save_network(saved, network, Description("mine.Student", {}, 4, SPEC, given=True))
    with pytest.raises(RunError, match=r"made by somebody.s own code \(mine.Student\)"):
        load(saved)
    network.module.load_state_dict(read_state(saved))


def test_the_file_opens_with_what_it_is(saved: Path):
    description = read_description(saved)
    assert description["format"] == "pt"
    values = json.loads(description["tutelage"])
    assert values["name"] == "resnet8"
    assert values["spec"]["mean"] == [0.1 + 0.2]
