"""Weight files: what comes back is what went in; everything else is refused, and nothing is run."""

import errno
import os
import pickle
import tempfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tutelage.errors import CheckpointError, RunError
from tutelage.models import create
from tutelage.models.checkpoints import (
    heads_of,
    load_into,
    parse,
    read_description,
    read_state,
    save_state,
)
from tutelage.models.cifar_resnet import cifar_resnet


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name])
        for name in first
    )


@pytest.fixture
def state() -> dict[str, Tensor]:
    return cifar_resnet(8, 4).state_dict()


# ------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_content_says_what_kind_a_file_is(
    tmp_path: Path, state: dict[str, Tensor], suffix: str
):
    safetensors.torch.save_file(state, tmp_path / f"a{suffix}")
    torch.save(state, tmp_path / f"b{suffix}")
    assert same(read_state(tmp_path / f"a{suffix}"), state)
    assert same(read_state(str(tmp_path / f"b{suffix}")), state)


@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_of_torch_are_read(tmp_path: Path, state: dict[str, Tensor], zipped: bool):
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert same(read_state(tmp_path / "w.pth"), state)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_are_found_inside_a_training_file(
    tmp_path: Path, state: dict[str, Tensor], key: str
):
    whole = {"epoch": 3, "best_prec1": 91.5, key: OrderedDict(state), "optimizer": {"lr": [0.1]}}
    torch.save(whole, tmp_path / "w.pth")
    assert same(read_state(tmp_path / "w.pth"), state)


def test_the_prefix_of_data_parallel_training_is_taken_off(
    tmp_path: Path, state: dict[str, Tensor]
):
    torch.save({f"module.{n}": w for n, w in state.items()}, tmp_path / "w.pth")
    assert same(read_state(tmp_path / "w.pth"), state)


def test_a_name_that_begins_with_module_among_others_stays(tmp_path: Path):
    odd = {"module.weight": torch.ones(1), "head.weight": torch.zeros(2)}
    torch.save(odd, tmp_path / "w.pth")
    assert same(read_state(tmp_path / "w.pth"), odd)


class Hostile:
    """Runs a command wherever it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("way", ["torch", "torch_legacy", "pickle"])
def test_a_hostile_file_is_refused_and_not_run(tmp_path: Path, way: str):
    marker = tmp_path / "pwned"
    content = {"state_dict": {"weight": torch.ones(1)}, "extra": Hostile(marker)}
    path = tmp_path / "w.pth"
    if way == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=way == "torch")
    with pytest.raises(CheckpointError, match=r"could run code and are not loaded\."):
        read_state(path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if way != "pickle" else pickle.loads(path.read_bytes())
    assert marker.exists()  # the file was hostile indeed


def test_a_whole_network_is_refused(tmp_path: Path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"save network\.state_dict\(\) alone"):
        read_state(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [{}, {"lr": 0.1}, torch.ones(3), {"state_dict": {}}, {3: 4}])
def test_a_file_without_weights_is_refused(tmp_path: Path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_state(tmp_path / "w.pth")


def test_an_absent_file_and_a_folder_are_refused(tmp_path: Path):
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(CheckpointError, match="There is no weight file"):
            read_state(path)


@pytest.mark.parametrize("content", [b"", b"\0", b"not a weight file", b"\xff" * 8 + b"{}"])
def test_what_is_no_weight_file_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged, is no weight file"):
        read_state(tmp_path / "w")


def contents() -> dict[str, bytes]:
    """The same weights as bytes of each format."""
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w"
        weights = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}
        save_state(path, weights)
        made["safetensors"] = path.read_bytes()
        for name, zipped in (("zip", True), ("legacy", False)):
            torch.save(weights, path, _use_new_zipfile_serialization=zipped)
            made[name] = path.read_bytes()
    return made


CONTENTS = contents()


@pytest.mark.parametrize("kind", CONTENTS)
@given(data=st.data())
def test_a_file_cut_off_anywhere_is_refused(tmp_path_factory, kind: str, data: st.DataObject):
    whole = CONTENTS[kind]
    path = tmp_path_factory.mktemp("cut") / "w"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CheckpointError):
        read_state(path)


@pytest.mark.parametrize("kind", CONTENTS)
@settings(max_examples=200)
@given(data=st.data())
def test_a_file_with_wrong_bytes_gives_tensors_or_our_error(
    tmp_path_factory, kind: str, data: st.DataObject
):
    damaged = bytearray(CONTENTS[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "w"
    path.write_bytes(damaged)
    with suppress(CheckpointError):
        assert all(isinstance(weight, Tensor) for weight in read_state(path).values())


# ------------------------------------------------------------------------------------ writing


def test_any_layout_and_type_comes_back_as_it_was(tmp_path: Path):
    shared = torch.randn(4, 3)
    state = {
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "transposed": torch.randn(3, 5).T,
        "part": torch.randn(10)[2:4],
        "tied": shared,
        "tied_too": shared,
        "half": torch.randn(3).bfloat16(),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "learned": nn.Parameter(torch.randn(2)),
    }
    save_state(tmp_path / "w.safetensors", state)
    assert same(read_state(tmp_path / "w.safetensors"), state)


def test_a_description_travels_in_the_header(tmp_path: Path, state: dict[str, Tensor]):
    path = tmp_path / "w.safetensors"
    save_state(path, state, {"network": '{"name": "resnet8"}'})
    assert read_description(path) == {"format": "pt", "network": '{"name": "resnet8"}'}
    assert same(read_state(path), state)
    save_state(path, state)
    assert read_description(path) == {"format": "pt"}


def test_only_our_own_format_has_a_description(tmp_path: Path, state: dict[str, Tensor]):
    torch.save(state, tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    for name in ("w.pth", "w.safetensors"):
        with pytest.raises(CheckpointError, match="is damaged"):
            read_description(tmp_path / name)


def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "w.safetensors"
    save_state(path, state)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space"):
        save_state(path, {name: weight + 1 for name, weight in state.items()})
    assert [each.name for each in tmp_path.iterdir()] == ["w.safetensors"]
    assert same(read_state(path), state)


# ------------------------------------------------------------------------------------ fitting


def test_weights_that_fit_are_loaded_and_the_layout_stays(state: dict[str, Tensor]):
    network = cifar_resnet(8, 4).to(memory_format=torch.channels_last)  # pyright: ignore
    load_into(network, state, "w.pth")
    assert same(network.state_dict(), state)
    assert network.layer1[0].conv1.weight.is_contiguous(  # pyright: ignore
        memory_format=torch.channels_last
    )


def test_files_from_before_batches_were_counted_fit(state: dict[str, Tensor]):
    old = {name: w for name, w in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    network = cifar_resnet(8, 4)
    load_into(network, old, "w.pth")
    assert same(network.state_dict(), state)


def test_what_does_not_fit_is_counted_named_and_not_loaded(state: dict[str, Tensor]):
    del state["conv1.weight"], state["bn1.bias"]
    state["fc.bias"] = torch.zeros(1)
    state["linear.weight"] = torch.zeros(100, 16)
    state["linear.bias"] = torch.zeros(100)
    network = cifar_resnet(8, 4)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_into(network, state, "folder/w.pth")
    assert str(caught.value).startswith(
        "The weights in folder/w.pth do not fit the network: 2 missing (first: conv1.weight); "
        "1 unexpected (first: fc.bias); 2 of another shape (first: linear.weight, (100, 16) for "
        "(10, 16))."
    )
    assert same(network.state_dict(), before)


def test_kinds_of_misfit_that_do_not_occur_are_counted_as_zero(state: dict[str, Tensor]):
    del state["linear.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing .*; 0 unexpected; 0 of another shape"):
        load_into(cifar_resnet(8, 4), state, "w.pth")


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("levit_128s", ("head.linear", "head_dist.linear")),  # two, as timm says
        ("resnet10t", ("fc",)),
        ("torchvision/squeezenet1_1", ("classifier.1",)),  # a convolution
        ("resnet8", ("linear",)),
    ],
)
def test_a_networks_heads(name: str, heads: tuple[str, ...]):
    size = (224, 224) if name == "levit_128s" else None
    network = create(name, num_classes=7, in_channels=3, image_size=size)
    assert heads_of(network, 7) == heads
    assert heads_of(network, 13) == ()


def test_all_but_a_part_is_loaded(state: dict[str, Tensor]):
    network = cifar_resnet(8, 4, num_classes=3)
    before = network.linear.weight.clone()
    del state["linear.bias"]
    load_into(network, state, "w.pth", but=["linear"])
    assert torch.equal(network.linear.weight, before)
    assert torch.equal(network.conv1.weight, state["conv1.weight"])
    del state["conv1.weight"]
    with pytest.raises(CheckpointError, match="do not fit the network beside linear: 1 missing"):
        load_into(network, state, "w.pth", but=["linear"])


# -------------------------------------------------------------------------------- FILE:NAME


@pytest.mark.parametrize(
    ("text", "path", "name"),
    [("w.th:resnet20", "w.th", "resnet20"), ("/a/b:c/w.th:resnet8", "/a/b:c/w.th", "resnet8")],
)
def test_the_name_stands_after_the_last_colon(text: str, path: str, name: str):
    assert parse(text) == (Path(path), name)


@pytest.mark.parametrize("text", ["resnet20", "w.th:", ":resnet20", "", ":"])
def test_another_form_is_refused(text: str):
    with pytest.raises(CheckpointError, match="named FILE:NAME"):
        parse(text)
