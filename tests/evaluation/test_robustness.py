"""Accuracy under corruption: everybody sees the same pixels, and the shares are right."""

import pytest
import torch
from torch import Tensor, nn

from tutelage.data import EvalLoader, Pictures
from tutelage.data.digits import digits
from tutelage.errors import DataError, SettingError
from tutelage.evaluation import robustness as tested
from tutelage.evaluation.accuracy import accuracy
from tutelage.evaluation.corruptions import CORRUPTIONS, corrupt
from tutelage.evaluation.predictions import predict
from tutelage.evaluation.robustness import robustness
from tutelage.models.network import Network

CPU = torch.device("cpu")


class Witness(nn.Module):
    """Says "bright" above one half, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.clone())
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def plain(*levels: int) -> Pictures:
    """Pictures of one gray each; the label says whether it is bright."""
    images = torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 8, 8, 1)
    return Pictures.with_labels(images, (torch.tensor(levels) > 127).long())


def test_brightness_by_hand():
    """0.463, 0.380 and 0.302 pass one half when 0.05, 0.15 and 0.2 are added; 0.784 is bright."""
    found = robustness({"it": Network(Witness())}, plain(118, 97, 77, 200), device=CPU)["it"]
    assert found["pictures"] == 4
    assert found["seed"] == 0
    assert found["clean"] == 1.0
    assert found["corruptions"]["brightness"] == [0.75, 0.75, 0.5, 0.25, 0.25]


def test_all_networks_are_shown_the_same_pixels_each_spoiled_once(
    monkeypatch: pytest.MonkeyPatch,
):
    calls: list[tuple[str, int]] = []

    def counting(images: Tensor, name: str, severity: int, **other: Tensor) -> Tensor:
        calls.append((name, severity))
        return corrupt(images, name, severity, **other)  # pyright: ignore

    monkeypatch.setattr(tested, "corrupt", counting)
    one, other = Witness(), Witness()
    networks = {"student": Network(one), "teacher": Network(other)}
    names = ["shot_noise", "motion_blur"]
    robustness(networks, digits().test, device=CPU, names=names, number=50, batch_size=20)
    assert len(one.seen) == 3 * (1 + 2 * 5)  # batches of 20, 20 and 10; clean, then spoiled
    assert all(torch.equal(a, b) for a, b in zip(one.seen, other.seen, strict=True))
    assert calls == [(name, s) for name in names for s in (1, 2, 3, 4, 5) for _ in range(3)]


def test_batch_size_changes_nothing():
    def measured(batch_size: int) -> tuple[dict, Tensor]:
        witness = Witness()
        found = robustness(
            {"it": Network(witness)},
            digits().test,
            device=CPU,
            names=["fog"],
            severities=[5],
            number=40,
            batch_size=batch_size,
        )
        return found, torch.cat(witness.seen)

    whole, pixels = measured(200)
    parts, same = measured(7)
    assert whole == parts
    assert torch.equal(pixels, same)


def test_clean_is_the_accuracy_on_the_chosen_pictures():
    pictures = digits().test
    torch.manual_seed(1)
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    found = robustness({"it": network}, pictures, device=CPU, names=["jpeg"], severities=[0, 1])
    seen = predict(network, EvalLoader(pictures, batch_size=100), device=CPU)
    assert found["it"]["pictures"] == len(pictures)
    assert found["it"]["clean"] == accuracy(seen) == found["it"]["corruptions"]["jpeg"][0]


def test_all_that_change_these_pictures_are_measured_at_five_severities():
    found = robustness({"it": Network(Witness())}, plain(10, 240), device=CPU)["it"]
    assert list(found["corruptions"]) == [name for name in CORRUPTIONS if name != "saturation"]
    assert all(len(shares) == 5 for shares in found["corruptions"].values())


def test_the_chosen_pictures_are_stratified_and_replayable():
    def shown(seed: int) -> Tensor:
        witness = Witness()
        networks = {"it": Network(witness)}
        robustness(networks, digits().test, device=CPU, names=[], number=100, seed=seed)
        return torch.cat(witness.seen)

    assert torch.equal(shown(0), shown(0))
    assert not torch.equal(shown(0), shown(1))
    assert len(shown(0)) == 100


def test_pictures_without_label_are_passed_over():
    mixed = plain(10, 240).join(plain(30, 220).without_labels())
    assert robustness({"it": Network(Witness())}, mixed, device=CPU)["it"]["pictures"] == 2
    with pytest.raises(DataError, match="none of these pictures has one"):
        robustness({}, plain(10, 240).without_labels(), device=CPU)


def test_the_generator_and_the_modes_stay_as_they_are():
    network = Network(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 2)))
    generator = torch.get_rng_state()
    robustness({"it": network}, plain(10, 240), device=CPU, names=["fog", "gaussian_noise"])
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(part.training for part in network.modules())


def test_what_is_not_there_is_refused_before_anything_is_shown():
    witness = Witness()
    networks = {"it": Network(witness)}
    with pytest.raises(SettingError, match="no corruption 'frog'; did you mean fog"):
        robustness(networks, plain(10), device=CPU, names=["jpeg", "frog"])
    with pytest.raises(SettingError, match="but is 6"):
        robustness(networks, plain(10), device=CPU, severities=[1, 6])
    with pytest.raises(SettingError, match="number must be 1 or more pictures, but is 0"):
        robustness(networks, plain(10), device=CPU, number=0)
    assert not witness.seen
