"""What a file says is what the network says, through the runtime that it is for."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from exported_files import about, images
from torch import nn

from tutelage import rng
from tutelage.data.photographs import Rule
from tutelage.errors import CheckpointError, ExportError, SettingError
from tutelage.exporting import About, Form, just_made, make, open_file
from tutelage.exporting.extras import needed
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.fake_quantization import FakeQuantization, _Range
from tutelage.models.network import Network
from tutelage.types import InputSpec

Write = Callable[[Form], Path]

ONNX = [Form(), Form(precision="fp16"), Form(precision="int8"), Form(batch=3, normalized=True)]
OTHERS = [
    Form("torch"),
    Form("torch", "fp16", 2),
    Form("executorch", batch=1),
    Form("executorch", "fp16", 2, normalized=True),
    Form("executorch", "int8", 4),
]
BOUND = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.2}
"""Of the largest logit."""


def name_of(form: Form) -> str:
    return form.name


@pytest.mark.parametrize(
    "form", [*ONNX, *(pytest.param(form, marks=pytest.mark.slow) for form in OTHERS)], ids=name_of
)
def test_a_file_says_what_the_network_says(form: Form, written: Write, network: Network):
    file = just_made(written(form), about(form))
    for count in (1, 3, 7):  # neither is a multiple of every batch
        shown = images(count, seed=count)
        with torch.no_grad():
            ours, theirs = network(shown), file(shown)
        assert theirs.shape == (count, 3)
        assert theirs.dtype == torch.float32
        assert float((ours - theirs).abs().max()) <= BOUND[form.precision] * float(ours.abs().max())


def test_the_network_is_left_as_it_was(written: Write, network: Network):
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    written(Form("torch", "fp16", 2))
    after = network.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not network.training


@pytest.mark.parametrize(
    "form",
    [Form("onnx", "int8"), pytest.param(Form("executorch", "int8", 4), marks=pytest.mark.slow)],
    ids=name_of,
)
def test_rounding_in_training_is_what_the_file_will_do(form: Form, tmp_path: Path):
    """Training sees an error of the file's size, and in ONNX mostly the very same.

    ExecuTorch leaves out rare large values, so that its levels lie elsewhere than in training;
    PyTorch's own imitation of the file agrees with it no better.
    """
    generator = torch.Generator().manual_seed(0)
    shown, *ranging = (torch.rand(32, 3, 16, 16, generator=generator) for _ in range(3))
    spec = InputSpec(16, 16, 3, (0.5,) * 3, (0.25,) * 3)
    with rng.part(0, "rounding"):
        network = Network(cifar_resnet(8), spec).train()
    with torch.no_grad():
        for images_of_one_step in ranging * 10:
            network(images_of_one_step)
    said = About("net", None, (), spec, Rule(16, 16, 3), form, "weights", "0")
    path = tmp_path / form.file
    path.write_bytes(make(network.eval(), form, said, ranging))
    file, plain = just_made(path, said)(shown), network(shown).detach()
    assert form.target != "torch"
    FakeQuantization(network, shown[:2], form.target)
    for one in network.modules():  # ranges from what the file was calibrated with
        one.training = isinstance(one, _Range)
    network(torch.cat(ranging))
    ours = network.eval()(shown).detach()
    size, seen = (float((one - plain).square().mean()) for one in (file, ours))
    assert size / 2 < seen < 2 * size
    if form.target == "onnx":
        assert 0 < float((file - ours).square().mean()) < size / 3


def test_int8_is_made_of_whole_numbers(written: Write):
    model = onnx.load(written(Form(precision="int8")))
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8
    ]
    # Seven bits, so that products of two neighbors fit into sixteen.
    assert max(abs(int(one.min())) for one in weights if one.size > 1) <= 64


@pytest.mark.parametrize("batch", [None, 20, 64])
def test_every_calibration_picture_is_shown(
    batch: int | None, network: Network, monkeypatch: pytest.MonkeyPatch
):
    seen: list[torch.Tensor] = []

    def note(program: object, form: Form, said: object, some: list[torch.Tensor]) -> bytes:
        seen.extend(some)
        return b""

    monkeypatch.setattr("tutelage.exporting.onnx_files.make_onnx", note)
    form = Form(precision="int8", batch=batch)
    given = [images(32, 1), images(17, 2)]
    make(network, form, about(form), given)
    assert {len(part) for part in seen} == {batch or 32}
    assert torch.equal(torch.cat(seen)[:49], torch.cat(given))
    filled = torch.cat(seen)[49:]
    assert torch.equal(filled, given[1][-1:].expand_as(filled))


def test_int8_for_many_at_once(written: Write, network: Network):
    file = just_made(written(Form(precision="int8", batch=64)), about(Form(batch=64)))
    with torch.no_grad():
        ours, theirs = network(images(70)), file(images(70))
    assert float((ours - theirs).abs().max()) <= BOUND["int8"] * float(ours.abs().max())


def test_halves_are_halves(written: Write):
    kinds = {one.data_type for one in onnx.load(written(Form(precision="fp16"))).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds


def test_norms_are_folded_and_nothing_of_training_is_left(written: Write):
    operators = {node.op_type for node in onnx.load(written(Form())).graph.node}
    assert "Conv" in operators
    assert not operators & {"BatchNormalization", "Dropout"}


def test_who_does_not_know_us_can_run_it(written: Write, network: Network):
    session = onnxruntime.InferenceSession(str(written(Form())), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.shape) == ("images", ["batch", 1, 8, 8])
    shown = images(5)
    (logits,) = session.run(["logits"], {"images": shown.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(logits), network(shown), atol=1e-5)


def test_normalized_means_that_the_caller_normalizes(written: Write, network: Network):
    form = Form(batch=3, normalized=True)
    session = onnxruntime.InferenceSession(str(written(form)), providers=["CPUExecutionProvider"])
    shown = images(3)
    (logits,) = session.run(None, {"images": network.prepare(shown).numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(logits), network(shown), atol=1e-5)
    assert session.get_inputs()[0].shape == [3, 1, 8, 8]


def test_a_file_whose_graph_is_another_is_refused(written: Write, tmp_path: Path):
    model = onnx.load(written(Form()))
    (said,) = model.metadata_props
    lies = about(Form())
    said.value = lies._replace(spec=lies.spec._replace(height=9)).to_json()
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="onnxruntime cannot ask"):
        open_file(tmp_path / "model.onnx")[0](images(2))


def test_a_file_takes_pictures_of_any_size_as_the_network_does(written: Write, network: Network):
    file, said = open_file(written(Form()))
    assert said == about(Form())
    larger = torch.rand(2, 3, 20, 30)
    with torch.no_grad():
        assert torch.allclose(file(larger), network(larger), atol=1e-4)


# Bad input


def test_a_file_that_is_not_there(tmp_path: Path):
    for suffix in (".onnx", ".pte"):
        with pytest.raises(CheckpointError, match="There is no file"):
            open_file(tmp_path / f"none{suffix}")


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".pte", marks=pytest.mark.slow)])
def test_a_damaged_file_is_refused(suffix: str, tmp_path: Path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"hello" * 100)
    with pytest.raises(CheckpointError, match="damaged"):
        open_file(path)


def test_a_cut_file_is_refused(written: Write, tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(written(Form()).read_bytes()[:2000])
    with pytest.raises(CheckpointError):
        open_file(path)


def test_somebody_elses_file_is_refused(written: Write, tmp_path: Path):
    model = onnx.load(written(Form()))
    del model.metadata_props[:]
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match="does not say what network it holds"):
        open_file(path)


def test_other_files_are_no_exports(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"its name ends in none of \.onnx, \.pte"):
        open_file(tmp_path / "model.pt2")


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "a/../../secret"])
def test_weights_from_elsewhere_are_refused(place: str, written: Write, tmp_path: Path):
    model = onnx.load(written(Form()))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="outside its folder"):
        open_file(folder / "model.onnx")


def test_weights_from_elsewhere_are_found_in_inner_graphs(written: Write, tmp_path: Path):
    model = onnx.load(written(Form()))
    inner = onnx.helper.make_graph([], "inner", [], [])
    tensor = onnx.TensorProto(name="w", data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    inner.initializer.append(tensor)
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["o"], then_branch=inner))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="outside its folder"):
        open_file(path)


class Bessel(nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(maps)


def with_bessel() -> Network:
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), Bessel())
    module = nn.Sequential(inner, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    return Network(module, InputSpec(8, 8, 1, (0.0,), (1.0,))).eval()


@pytest.mark.parametrize("target", ["onnx", pytest.param("executorch", marks=pytest.mark.slow)])
def test_an_operator_that_the_target_lacks_is_named_with_its_place(target: str):
    form = Form(target).check()  # pyright: ignore[reportArgumentType]
    with pytest.raises(ExportError, match=r"no operator for \S*bessel_j0, which .* '0\.1' uses"):
        make(with_bessel(), form, about(form))


class Deciding(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((2, 3)) if pixels.sum() > 0 else pixels.amax((2, 3))


def test_what_decides_by_a_value_cannot_be_written_down():
    network = Network(Deciding(), InputSpec(8, 8, 1, (0.0,), (1.0,))).eval()
    with pytest.raises(ExportError, match="cannot be written down as a graph"):
        make(network, Form(), about(Form()))


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingError, match=r"needs onnxruntime, .* 'tutelage\[onnx\]'"):
        needed("onnx", "onnxruntime")


def test_a_fault_within_a_package_is_not_taken_for_its_absence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "torchao.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchao", raising=False)
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        needed("torchao")


@pytest.mark.slow
def test_opening_needs_no_extra_until_a_file_is_opened():
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('onnx', 'onnxruntime', 'onnxscript', 'executorch')))\n"
        "import tutelage.exporting, tutelage.runs"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
