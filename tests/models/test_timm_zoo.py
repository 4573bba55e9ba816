"""Networks of timm and torchvision by name, and ours by name in timm."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import tutelage.models.with_timm
from tutelage.errors import NetworkError
from tutelage.models import BY_NAME, NETWORKS, create, library, made_for
from tutelage.models.checkpoints import save_state
from tutelage.models.timm_zoo import zoo_names

assert tutelage.models.with_timm


@pytest.mark.parametrize(
    ("name", "of", "kind"),
    [
        ("resnet8", None, "tutelage"),
        ("resnet18", "timm", "timm"),
        ("timm/resnet18", "timm", "timm"),
        ("torchvision/resnet18", "torchvision", "torchvision"),
        ("shufflenet_v2_x0_5", "torchvision", "torchvision"),
        ("resnet18.a1_in1k", "timm", "timm"),
    ],
)
def test_a_name_says_whose_network_it_is(name: str, of: str | None, kind: str):
    assert library(name) == of
    network = create(name, num_classes=5, in_channels=3)
    assert type(network).__module__.startswith(kind)
    with torch.no_grad():
        assert network.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_ours_come_first_and_names_are_not_said_twice():
    names = list(BY_NAME)
    assert names[: len(NETWORKS)] == list(NETWORKS)
    assert len(names) == len(set(names)) == len(BY_NAME)
    assert {"resnet50", "mobilenetv3_small_100", "shufflenet_v2_x1_0"} <= set(zoo_names())
    assert "resnet51" not in BY_NAME


def test_gray_pictures_are_taken_by_timms_networks_and_refused_by_torchvisions():
    network = create("mobilenetv3_small_050", num_classes=3, in_channels=1)
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
    with pytest.raises(NetworkError, match="takes 3 channels, but the pictures have 1"):
        create("torchvision/resnet18", num_classes=3, in_channels=1)


def test_what_a_network_was_made_for_is_known():
    residual, transformer = made_for("resnet18"), made_for("vit_tiny_patch16_224")
    assert residual is not None
    assert residual == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), None)
    assert transformer is not None
    assert transformer.size == (224, 224)
    assert made_for("torchvision/vit_b_16") == (*residual[:2], (224, 224))
    assert made_for("resnet8") is None


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "torchvision/vit_b_32"])
def test_a_network_of_one_size_is_made_for_the_size_that_is_asked_for(name: str):
    arguments = {"depth": 1} if name.startswith("vit_tiny") else None
    network = create(
        name, num_classes=4, in_channels=3, image_size=(64, 64), arguments=arguments
    ).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 4)


def test_settings_and_arguments_reach_the_constructor():
    network = create(
        "resnet18",
        num_classes=4,
        in_channels=3,
        drop_rate=0.25,
        arguments={"zero_init_last": False, "layers": (1, 1, 1, 1)},
    )
    assert network.drop_rate == 0.25
    assert len(network.layer1) == 1  # pyright: ignore[reportArgumentType]
    dropout = create(
        "torchvision/mobilenet_v2", num_classes=4, in_channels=3, arguments={"dropout": 0.5}
    )
    assert [m.p for m in dropout.modules() if isinstance(m, nn.Dropout)] == [0.5]


@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18"])
def test_an_unknown_argument_is_refused_in_one_sentence(name: str):
    with pytest.raises(NetworkError, match=r"resnet18 cannot be made with .*widht"):
        create(name, num_classes=4, in_channels=3, arguments={"widht": 3})
    with pytest.raises(NetworkError, match=f"no setting of {name} 'pretraind'; did you mean pre"):
        create(name, num_classes=4, in_channels=3, pretraind=True)


@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18"])
def test_weights_that_cannot_be_fetched_are_said_with_a_way_out(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("the network is unreachable")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    with pytest.raises(NetworkError, match=r"could not be fetched.*unreachable.*FILE:NAME"):
        create(name, num_classes=4, in_channels=3, pretrained=True)


def test_torchvisions_weights_are_taken_but_for_a_head_of_other_classes(
    monkeypatch: pytest.MonkeyPatch,
):
    full = create("torchvision/squeezenet1_1", num_classes=1000, in_channels=3)
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: full.state_dict()
    )
    own = create("torchvision/squeezenet1_1", num_classes=7, in_channels=3, pretrained=True)
    heads = [key for key, value in own.state_dict().items() if value.shape[0] == 7]
    assert heads == ["classifier.1.weight", "classifier.1.bias"]
    rest = {key: value for key, value in own.state_dict().items() if key not in heads}
    assert all(torch.equal(value, full.state_dict()[key]) for key, value in rest.items())


def test_ours_are_known_to_timm_and_take_a_students_file(tmp_path: Path):
    student = create("resnet8", num_classes=10, in_channels=3, width=4).eval()
    path = tmp_path / "student.safetensors"
    save_state(path, student.state_dict())
    again = timm.create_model(
        "resnet8_cifar", num_classes=10, width=4, checkpoint_path=str(path)
    ).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(images), student(images))
    assert sorted(timm.list_models("*_cifar")) == sorted(f"{name}_cifar" for name in NETWORKS)
    with pytest.raises(NetworkError, match=r"no weights of resnet8 to fetch.*checkpoint_path"):
        timm.create_model("resnet8_cifar", pretrained=True)
