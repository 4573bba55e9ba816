"""The distiller: who learns, who does not, what counts, and what is refused."""

import copy
import gc
import warnings
import weakref
from collections.abc import Iterator
from math import exp, log, log1p
from typing import Any, cast, final

import pytest
import torch
import unchecked
from torch import Tensor, nn

from tutelage.distiller import Distiller, Schedule
from tutelage.errors import NetworkError, SettingError, TeacherError
from tutelage.methods import KD, AttentionTransfer, FitNetHints, Geometric, Method
from tutelage.methods._base import Needs
from tutelage.models import create
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.depth_dynamic import DepthDynamic, Norms
from tutelage.models.network import Network
from tutelage.types import Batch, InputSpec, Observation, Pair, Shapes, Terms, TransferBatch

SPEC_S = InputSpec(16, 16, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SPEC_T = InputSpec(24, 24, 3, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))


def student(**settings: Any) -> Network:
    torch.manual_seed(1)
    return Network(create("resnet8", num_classes=5, in_channels=3, width=2, **settings), SPEC_S)


class Blurred(nn.Module):
    """A teacher that differs in train mode: dropout, and BatchNorm that follows what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.body = create("resnet14", num_classes=5, in_channels=3, width=3)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.drop(images))


def teacher() -> Network:
    torch.manual_seed(2)
    return Network(Blurred(), SPEC_T)


def pictures(n: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(n, 3, 16, 16, generator=generator), torch.arange(n) % 5


def steps(pupil: Distiller, count: int = 3) -> None:
    optimizer = torch.optim.SGD(pupil.trainable_parameters(), lr=0.05, momentum=0.9)
    which = torch.arange(8)
    for step in range(count):
        out = pupil(*pictures(), index=which, view=which, progress=step / count)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()


@final
class Shares(Method):
    """Three terms in two parts; needs nothing."""

    needs = Needs(teachers=0)

    def forward(self, batch: TransferBatch) -> Terms:
        value = batch.student.output.square().sum(1).mean()
        return {"size/a": value, "size/b": 2 * value, "rest": 3 * value}


@final
class Draws(Method):
    """A random number for every logit of every sample."""

    needs = Needs(teachers=0)

    def forward(self, batch: TransferBatch) -> Terms:
        output = batch.student.output
        return {"noise": (batch.draw("noise", (output.shape[1],)) * output).sum(1).mean()}


@final
class Looks(Method):
    """Notes what it is built for, and asks for every candidate tap."""

    needs = Needs(taps="all")
    seen: Shapes

    def build(self, shapes: Shapes) -> None:
        self.seen = shapes

    def forward(self, batch: TransferBatch) -> Terms:
        maps = [*batch.student.features.values(), *batch.teachers[0].features.values()]
        return {"all": torch.stack([value.float().mean() for value in maps]).sum()}


# The teacher


def test_the_teacher_is_no_part_of_the_distiller():
    guide = teacher()
    pupil = Distiller(student(), guide, methods={"kd": (KD(), 1.0), "hints": (FitNetHints(), 1.0)})
    inside = set(guide.modules())
    assert inside.isdisjoint(pupil.modules())
    own = {id(value) for value in [*guide.parameters(), *guide.buffers()]}
    assert own.isdisjoint(id(value) for value in [*pupil.parameters(), *pupil.buffers()])
    assert own.isdisjoint(id(value) for value in pupil.state_dict().values())
    assert own.isdisjoint(id(value) for value in pupil.trainable_parameters())
    assert {name.split(".")[0] for name in pupil.state_dict()} == {"student", "methods"}


def test_the_student_and_learned_parts_are_trained_and_nothing_else():
    pupil = Distiller(student(), teacher(), methods={"hints": (FitNetHints(), 1.0)})
    trained = list(pupil.trainable_parameters())
    parts = [*pupil.student.parameters(), *pupil.methods.parameters()]
    assert [id(one) for one in trained] == [id(one) for one in parts]
    assert len(list(pupil.methods.parameters())) == 6  # a weight and a bias for each of three pairs
    pupil.student.module.get_submodule("conv1").requires_grad_(False)
    assert len(list(pupil.trainable_parameters())) == len(trained) - 1


@pytest.mark.parametrize("as_module", [False, True])
def test_the_teacher_stays_as_it_is_whatever_calls_train(as_module: bool):
    guide = teacher()
    given = guide.module if as_module else guide
    pupil = Distiller(student(), given, methods={"kd": (KD(), 1.0), "hints": (FitNetHints(), 1.0)})
    before = copy.deepcopy(guide.state_dict())
    parent = nn.ModuleList([pupil, given])
    parent.train()
    answers = []
    for _ in range(2):
        answers.append(pupil.observe(*pictures()).teachers[0].output)
        steps(parent.train()[0])  # pyright: ignore[reportArgumentType]
    assert torch.equal(*answers)  # dropout is off
    assert not any(part.training for part in given.modules())
    assert all(torch.equal(value, before[name]) for name, value in guide.state_dict().items())
    assert all(parameter.grad is None for parameter in guide.parameters())
    assert pupil.student.training


def test_the_teacher_moves_along():
    guide = teacher()
    pupil = Distiller(student(), guide, methods={"kd": (KD(), 1.0)})
    pupil.double()
    assert {value.dtype for value in guide.parameters()} == {torch.float64}
    images, labels = pictures()
    out = pupil(images.double(), labels)
    assert out.loss.dtype == out.output.dtype == torch.float64
    pupil.to("meta")
    assert {value.device.type for value in [*guide.parameters(), *guide.buffers()]} == {"meta"}


class Absent(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise AssertionError("the teacher was run")


@pytest.mark.parametrize("methods", [{}, {"shares": (Shares(), 1.0)}])
def test_a_teacher_that_nobody_asks_is_not_run(methods: dict):
    guide = Absent()
    pupil = Distiller(student(), guide, methods=methods)
    steps(pupil)
    assert pupil.teachers == ()
    assert guide.training


class Remembers:
    """A teacher that is no network: it looks its answers up."""

    takes_pixels = True

    def __init__(self) -> None:
        self.answers = torch.randn(20, 5)
        self.asked: list[Batch] = []

    def tap(self, names, image_size=None) -> None:
        assert list(names) == []

    def stages(self, image_size) -> list:
        return []

    def dry_run(self, taps, image_size) -> Observation:
        return Observation(self.answers[:2])

    def observe(self, batch: Batch, taps) -> Observation:
        self.asked.append(batch)
        return Observation(self.answers[batch.index])

    def apply(self, fn) -> None:
        self.answers = fn(self.answers)


def test_whoever_keeps_the_interface_can_teach():
    guide = Remembers()
    pupil = Distiller(student(), guide, methods={"kd": (KD(temperature=1), 1.0)})
    images, labels = pictures()
    which = torch.arange(8) + 10
    out = pupil(images, labels, index=which, view=which * 0)
    log_p, log_q = guide.answers[10:18].log_softmax(1), out.output.log_softmax(1)
    expected = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    torch.testing.assert_close(out.terms["kd.kl"], expected)
    assert torch.equal(guide.asked[0].images, images)
    pupil.double()
    assert guide.answers.dtype == torch.float64


def test_student_and_teacher_may_not_share_weights():
    both = student()
    for one in (both, both.module):
        with pytest.raises(TeacherError, match=r"copy[.]deepcopy"):
            Distiller(both, one, methods={"kd": (KD(), 1.0)})
    assert all(parameter.requires_grad for parameter in both.parameters())
    Distiller(both, copy.deepcopy(both), methods={"kd": (KD(), 1.0)})


# Pixels


class Echo(nn.Module):
    """Keeps what it is shown; its logits are the first row of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.shown = torch.zeros(0)

    def forward(self, images: Tensor) -> Tensor:
        self.shown = images.detach()
        return self.scale * images[:, 0, 0]


def spec(mean: float, std: float, side: int = 2) -> InputSpec:
    return InputSpec(side, side, 1, (mean,), (std,))


def shown(one: nn.Module) -> list[float]:
    echo = one.module if isinstance(one, Network) else one
    assert isinstance(echo, Echo)
    return echo.shown.unique().tolist()


@pytest.mark.parametrize("wrapped", [("student", "teacher"), ("student",), ("teacher",), ()])
def test_each_network_gets_what_it_wants_to_be_shown(wrapped: tuple[str, ...]):
    # A pixel of 0.75, normalized by the loop with mean 0.25 and std 0.5: 1.
    pupil_net = Network(Echo(), spec(0.5, 0.25)) if "student" in wrapped else Echo()
    guide = Network(Echo(), spec(0.875, 0.125)) if "teacher" in wrapped else Echo()
    pupil = Distiller(
        pupil_net,
        guide,
        methods={"kd": (KD(), 1.0)},
        input_normalized=([0.25], [0.5]),
        image_size=(1, 2, 2),
    )
    pupil(torch.ones(3, 1, 2, 2))
    assert shown(pupil_net) == [1.0]  # (0.75 − 0.5) / 0.25, or as it comes
    assert shown(guide) == [-1.0 if "teacher" in wrapped else 1.0]  # (0.75 − 0.875) / 0.125


def test_channels_are_corrected_each_by_its_own_numbers():
    net = Network(nn.Identity(), InputSpec(1, 1, 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)
    task = cast(Any, Blind())
    pupil = Distiller(net, task=task, input_normalized=(mean, std))
    images = torch.tensor([1.0, 2.0, 0.5]).view(1, 3, 1, 1)
    assert pupil.observe(images).student.output.flatten().tolist() == [1, 0.75, 0.5]
    assert all(not name.startswith("_") for name in pupil.state_dict())


class Blind:
    """A task without a score."""

    kind = "map"

    def supervised_loss(self, output, targets, has_label, num_labelled) -> Tensor:
        return torch.zeros(())

    def num_correct(self, output, targets, has_label) -> Tensor:
        return torch.zeros(())

    def example_targets(self, count: int) -> Tensor:
        return torch.zeros(count)


def test_pixels_need_no_correction():
    net, guide = Network(Echo(), spec(0.5, 0.25)), Echo()
    pupil = Distiller(net, guide, methods={"kd": (KD(), 1.0)})
    pupil(torch.full((3, 1, 2, 2), 0.75))
    assert shown(net) == [1.0]
    assert shown(guide) == [0.75]


@pytest.mark.parametrize(
    ("value", "spans"), [(-1.5, "-1.50 to 0.50"), (2.0, "0.50 to 2.00"), (float("nan"), "nan")]
)
def test_images_that_are_no_pixels_are_refused_in_the_first_batch(value: float, spans: str):
    pupil = Distiller(student())
    images, labels = torch.full((8, 3, 16, 16), 0.5), pictures()[1]
    images[3, 1, 2, 4] = value
    with pytest.raises(SettingError, match=f"{spans}.*input_normalized="):
        pupil(images, labels)
    pupil(*pictures())
    pupil(images, labels)  # a look at every batch would cost time


def test_input_normalized_must_be_one_mean_and_std_per_channel():
    for wrong in (([0.5], [0.5, 0.5]), ([0.5], [0.0])):
        with pytest.raises(SettingError, match="one mean and one std above 0 per channel"):
            Distiller(student(), input_normalized=wrong)


# What is scored

# Logits (1, 0): the cross-entropy is log(1 + 1/e) for label 0 and 1 more for label 1.
ZERO = log1p(exp(-1))
ONE = ZERO + 1


def echo_pupil(**settings: Any) -> Distiller:
    return Distiller(Echo(), image_size=(1, 2, 2), **settings)


def rows(n: int) -> Tensor:
    return torch.tensor([1.0, 0.0]).expand(n, 1, 2, 2)


@pytest.mark.parametrize(
    ("labelled", "num_labelled", "expected"),
    [
        (None, None, (2 * ZERO + 2 * ONE) / 4),
        (None, 8, (2 * ZERO + 2 * ONE) / 8),
        ([True, False, True, False], None, (2 * ZERO) / 2),
        ([True, True, True, False], None, (2 * ZERO + ONE) / 3),
        ([True, True, True, False], 2, (2 * ZERO + ONE) / 2),
        ([True, True, True, False], 0.5, (2 * ZERO + ONE) / 0.5),
        ([False] * 4, None, 0.0),
        ([False] * 4, 2, 0.0),
    ],
)
def test_unlabelled_samples_do_not_count(labelled, num_labelled, expected: float):
    has_label = None if labelled is None else torch.tensor(labelled)
    labels = torch.tensor([0, 1, 0, 1])
    out = echo_pupil()(rows(4), labels, has_label=has_label, num_labelled=num_labelled)
    assert out.terms["supervised"].item() == pytest.approx(expected)
    assert out.loss.item() == pytest.approx(expected)
    if has_label is not None:
        hidden = torch.where(has_label, labels, -1)
        again = echo_pupil()(rows(4), hidden, has_label=has_label, num_labelled=num_labelled)
        assert again.loss == out.loss


def test_without_targets_nothing_is_supervised():
    out = echo_pupil()(rows(4))
    out.loss.backward()
    assert out.loss.item() == 0
    with pytest.raises(SettingError, match=r"has_label .* there are no targets"):
        echo_pupil()(rows(4), has_label=torch.ones(4, dtype=torch.bool))


def test_the_task_and_each_method_have_their_weights():
    shares = {"shares": (Shares(), {"size": 10.0, "rest": 0.5})}
    out = echo_pupil(task_weight=0.25, methods=shares)(rows(2), torch.tensor([0, 0]))
    # |(1, 0)|² = 1: the terms are 1, 2 and 3.
    assert [value.item() for value in out.terms.values()] == pytest.approx([ZERO, 1, 2, 3])
    assert out.loss.item() == pytest.approx(0.25 * ZERO + 10 * (1 + 2) + 0.5 * 3)
    assert out.loss.requires_grad
    assert not any(value.requires_grad for value in [*out.terms.values(), out.output])


def test_a_weighted_part_of_a_method_is_what_lookahead_asks_for():
    shares = {"shares": (Shares(), {"size": Schedule("linear", 10.0, 0.0), "rest": 0.5})}
    pupil = echo_pupil(task_weight=0.25, methods=shares)
    seen = pupil.observe(rows(2), torch.tensor([0, 0]))
    assert pupil.weighted_terms("shares", ("size/b", "rest"), seen, 0.5).item() == 10 + 1.5


def test_a_schedule_follows_progress_and_is_refused_without_it():
    pupil = echo_pupil(task_weight=Schedule("linear", 1.0, 0.0))
    labels = torch.tensor([0, 0])
    for progress, weight in ((0.0, 1.0), (0.25, 0.75), (1.0, 0.0)):
        for given in (progress, torch.tensor(progress)):
            assert pupil(rows(2), labels, progress=given).loss.item() == pytest.approx(
                weight * ZERO
            )
    with pytest.raises(SettingError, match="progress=step / steps"):
        pupil(rows(2), labels)


def test_unknown_and_missing_parts_are_refused():
    with pytest.raises(
        SettingError, match="shares has no terms 'sized' to weigh; did you mean size"
    ):
        echo_pupil(methods={"shares": (Shares(), {"sized": 1.0, "rest": 1.0})})
    with pytest.raises(SettingError, match="shares has terms 'rest'"):
        echo_pupil(methods={"shares": (Shares(), {"size": 1.0})})


def test_term_names_are_the_keys_of_terms_in_order():
    methods: dict[str, Any] = {
        "zeta": (Shares(), 1.0),
        "kd": (KD(), 1.0),
        "at": (AttentionTransfer(), 1.0),
    }
    pupil = Distiller(student(), teacher(), methods=methods)
    out = pupil(*pictures())
    assert tuple(out.terms) == pupil.term_names
    assert pupil.term_names == (
        "supervised",
        *("zeta.size/a", "zeta.size/b", "zeta.rest"),
        "kd.kl",
        *("at.at/layer1", "at.at/layer2", "at.at/layer3"),
    )


def test_kd_is_what_the_formula_says():
    net, guide = Echo(), Echo()
    nn.init.constant_(guide.scale, log(3))  # logits (log 3, 0): 3/4 and 1/4
    nn.init.zeros_(net.scale)
    kd = {"kd": (KD(temperature=1), 2.0)}
    out = Distiller(net, guide, methods=kd, image_size=(1, 2, 2))(rows(3))
    assert out.loss.item() == pytest.approx(2 * (0.75 * log(1.5) + 0.25 * log(0.5)))


# Adding a method changes nothing else


def trained(methods: dict[str, Any]) -> dict[str, Tensor]:
    pupil = Distiller(student(), teacher(), methods=methods)
    steps(pupil)
    return pupil.state_dict()


def test_at_weight_zero_the_student_is_bit_identical():
    alone = trained({})
    silent = trained({"hints": (FitNetHints(), 0.0), "kd": (KD(), 0.0), "draws": (Draws(), 0.0)})
    loud = trained({"hints": (FitNetHints(), 1.0)})
    assert all(torch.equal(value, silent[name]) for name, value in alone.items())
    assert not all(torch.equal(value, loud[name]) for name, value in alone.items())


def test_initial_weights_depend_on_seed_and_name_alone():
    def parts(seed: int = 0, **others: Any) -> list[Tensor]:
        methods = {**others, "hints": (FitNetHints(), 1.0)}
        pupil = Distiller(student(), teacher(), methods=methods, seed=seed)
        return list(pupil.methods["hints"].parameters())

    reference = parts()
    torch.manual_seed(123)
    again = parts(first=(FitNetHints(), 1.0), kd=(KD(), 1.0))
    assert all(torch.equal(one, two) for one, two in zip(reference, again, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(reference, parts(seed=1), strict=True))


def test_making_and_calling_one_draws_nothing_from_the_global_generator():
    net, guide = student(), teacher()
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(9)
    state = torch.get_rng_state()
    methods: dict[str, Any] = {"hints": (FitNetHints(), 1.0), "draws": (Draws(), 1.0)}
    pupil = Distiller(net, guide, methods=methods)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    which = torch.arange(8)
    pupil(*pictures(), index=which, view=which)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_belong_to_the_sample():
    pupil = Distiller(student(norm="group"), methods={"draws": (Draws(), 1.0)}, seed=4)
    images, labels = pictures()
    index, view, order = torch.arange(8), torch.arange(8) % 3, torch.randperm(8)
    term = pupil(images, labels, index=index, view=view).terms["draws.noise"]
    moved = pupil(images[order], labels[order], index=index[order], view=view[order])
    torch.testing.assert_close(moved.terms["draws.noise"], term)
    other = pupil(images, labels, index=index, view=view + 1)
    assert abs(other.terms["draws.noise"] - term) > 1e-3
    with pytest.raises(SettingError, match=r"draws random numbers \('noise'\).*index="):
        pupil(images, labels)


# Needs and taps


def test_what_a_method_needs_is_checked_before_the_first_step():
    with pytest.raises(TeacherError, match=r"kd needs 1 teacher\(s\), but 0 are given"):
        Distiller(student(), methods={"kd": (KD(), 1.0)})
    with pytest.raises(SettingError, match=r"kd compares outputs of the kind logits, .* are map"):
        Distiller(student(), teacher(), methods={"kd": (KD(), 1.0)}, task=cast(Any, Blind()))
    parts = Shares()
    parts.needs = Needs(teachers=0, subnets=True)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(NetworkError, match="parts teaches the sub-nets of a student, and"):
        Distiller(student(), methods={"parts": (parts, 1.0)})


def test_stages_are_paired_unless_pairs_are_named():
    auto = Distiller(student(), teacher(), methods={"at": (AttentionTransfer(), 1.0)})
    assert auto.pairs == tuple(Pair(f"layer{n}", f"body.layer{n}") for n in (1, 2, 3))
    named = Distiller(
        student(),
        teacher(),
        methods={"at": (AttentionTransfer(), 1.0)},
        taps=[("layer1", "body.layer2")],
    )
    assert named.pairs == (Pair("layer1", "body.layer2"),)
    assert named.term_names == ("supervised", "at.at/layer1")
    seen = named.observe(*pictures())
    assert seen.student.features["layer1"].shape == (8, 2, 16, 16)
    assert seen.teachers[0].features["body.layer2"].shape == (8, 6, 12, 12)


def test_pairs_belong_to_methods_that_ask_for_them():
    pupil = Distiller(student(), teacher(), methods={"kd": (KD(), 1.0)}, taps=[("no", "such")])
    assert pupil.pairs == ()
    assert pupil.observe(*pictures()).student.features == {}


def test_a_method_may_look_at_every_stage():
    looks = Looks()
    pupil = Distiller(student(), teacher(), methods={"looks": (looks, 1.0)})
    assert looks.seen.pairs == ()
    assert looks.seen.student.features == {
        "layer1": (2, 16, 16),
        "layer2": (4, 8, 8),
        "layer3": (8, 4, 4),
    }
    assert looks.seen.teachers[0].output == (5,)
    assert looks.seen.teachers[0].features["body.layer3"] == (12, 6, 6)
    assert [stage.name for stage in pupil.stages()[0]] == ["layer1", "layer2", "layer3"]
    assert pupil(*pictures()).terms["looks.all"].isfinite()


def test_taps_that_do_not_exist_or_do_not_fit_are_refused():
    def make(taps: Any, net: nn.Module, guide: nn.Module) -> Distiller:
        methods = {"hints": (FitNetHints(), 1.0)}
        return Distiller(net, guide, methods=methods, taps=taps, image_size=(3, 16, 16))

    with pytest.raises(NetworkError, match=r"The student has no sub-module 'layer4'.*did you mean"):
        make([("layer4", "body.layer1")], student(), teacher())
    with pytest.raises(NetworkError, match=r"The teacher has no sub-module 'layer1'.*body.layer1"):
        make([("layer1", "layer1")], student(), teacher())
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
    with pytest.raises(NetworkError, match="nothing to compare"):
        make("auto", student(), flat)
    with pytest.raises(NetworkError, match="'0' puts out no map"):
        make([("layer1", "0")], student(), flat)


def test_networks_of_unknown_size_are_refused_unless_it_is_said():
    bare = create("resnet8", num_classes=5, in_channels=3, width=2)
    with pytest.raises(NetworkError, match="image_size="):
        Distiller(bare)
    Distiller(bare, image_size=(3, 16, 16))(*pictures())
    Distiller(bare, teacher(), methods={"kd": (KD(), 1.0)})(*pictures())  # known from the teacher


def test_a_method_is_built_once():
    hints = FitNetHints()
    for methods in ({"one": (hints, 1.0), "two": (hints, 1.0)}, {"hints": (hints, 1.0)}):
        with pytest.raises(SettingError, match=r"is in use already.*Make a new one"):
            Distiller(student(), teacher(), methods=methods)


@pytest.mark.parametrize("name", ["a.b", "", "keys"])
def test_a_name_that_modules_cannot_have_is_refused(name: str):
    with pytest.raises(SettingError, match="cannot bear this name"):
        Distiller(student(), methods={name: (Shares(), 1.0)})


# Precision, memory, copies


def test_learned_parts_come_in_the_students_precision():
    pupil = Distiller(
        student().double(), teacher().double(), methods={"hints": (FitNetHints(), 1.0)}
    )
    assert {value.dtype for value in pupil.parameters()} == {torch.float64}
    images, labels = pictures()
    out = pupil(images.double(), labels)
    assert out.loss.dtype == torch.float64
    single = Distiller(student(), teacher(), methods={"hints": (FitNetHints(), 1.0)})
    assert single(images, labels).loss.item() == pytest.approx(out.loss.item(), rel=1e-4)


def test_autocast_to_bfloat16_gives_float32_answers_and_terms():
    methods: dict[str, Any] = {
        "kd": (KD(), 1.0),
        "hints": (FitNetHints(), 1.0),
        "at": (AttentionTransfer(), 10.0),
    }
    pupil = Distiller(student(), teacher(), methods=methods)
    exact = pupil(*pictures())
    with torch.autocast("cpu", torch.bfloat16):
        seen = pupil.observe(*pictures())
        out = pupil(*pictures())
    assert seen.student.features["layer1"].dtype == torch.bfloat16
    assert seen.teachers[0].features["body.layer1"].dtype == torch.bfloat16
    assert seen.teachers[0].output.dtype == torch.float32
    assert {value.dtype for value in [out.loss, out.output, *out.terms.values()]} == {torch.float32}
    for name, value in exact.terms.items():
        assert out.terms[name].item() == pytest.approx(value.item(), rel=0.1, abs=1e-4), name
    out.loss.backward()
    gradients = [one.grad for one in pupil.trainable_parameters()]
    assert all(one is not None and one.isfinite().all() for one in gradients)


def test_no_map_outlives_its_batch():
    pupil = Distiller(student(), teacher(), methods={"hints": (FitNetHints(), 1.0)})
    seen = pupil.observe(*pictures())
    maps = [weakref.ref(one) for one in seen.student.features.values()]
    maps += [weakref.ref(one) for one in seen.teachers[0].features.values()]
    assert len(maps) == 6
    del seen
    gc.collect()
    assert all(one() is None for one in maps)


def test_a_copy_goes_its_own_way():
    pupil = Distiller(student(), teacher(), methods={"hints": (FitNetHints(), 1.0)})
    other = copy.deepcopy(pupil)
    steps(pupil)
    steps(other)
    pairs = zip(pupil.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(one, two) and one is not two for one, two in pairs)
    guide, copied = (cast(Any, one.teachers[0]).network for one in (pupil, other))
    assert guide is not copied


# Compiling


def losses(pupil: Distiller, forward: Any, count: int = 6) -> Iterator[float]:
    optimizer = torch.optim.SGD(pupil.trainable_parameters(), lr=0.05)
    which = torch.arange(8)
    for step in range(count):
        if step == 2:  # by then it is known that progress changes
            torch.compiler.set_stance("fail_on_recompile")
        out = forward(*pictures(), index=which, view=which + step, progress=step / count)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        yield out.loss.item()
    torch.compiler.set_stance("default")


def tiny(spec: InputSpec, width: int) -> Network:
    """Two stages; small, since compiling takes longer than running."""
    torch.manual_seed(width)
    first = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(width, 4, 3, 2, 1), nn.Dropout(0.5 if width > 2 else 0.0))
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    return Network(nn.Sequential(first, second, *head), spec)


def check_compiled() -> None:
    """What the next test runs in a process without the check of shapes."""
    curves = []
    for compiled in (False, True):
        methods: dict[str, Any] = {
            "kd": (KD(), Schedule("cosine", 1.0, 0.0, start=0.2, end=0.7)),
            "hints": (FitNetHints(), Schedule("linear", 0.0, 1.0)),
            "draws": (Draws(), 0.1),
        }
        guide = tiny(SPEC_T, 3)
        normalized = (0.4, 0.5, 0.6), (0.5, 0.5, 0.5)
        pupil = Distiller(tiny(SPEC_S, 2), guide, methods=methods, input_normalized=normalized)
        buffers = copy.deepcopy(guide.state_dict())
        forward = torch.compile(pupil, backend="aot_eager", fullgraph=True) if compiled else pupil
        curves.append(torch.tensor(list(losses(pupil, forward))))
        for name, value in guide.state_dict().items():
            assert torch.equal(value, buffers[name]), name
    torch.testing.assert_close(*curves)
    assert curves[0].unique().numel() == 6
    print("same")


@pytest.mark.slow
def test_it_compiles_as_a_whole_and_progress_does_not_compile_it_again():
    assert unchecked.call(__file__, "check_compiled()").stdout == "same\n"


# Sub-nets


@pytest.mark.parametrize("norms", ["separate", "shared"])
def test_the_supervised_terms_of_sub_nets_are_weighted_as_their_mean(norms: Norms):
    deep = DepthDynamic(cifar_resnet(20, 2, num_classes=4), {"14": 2, "8": 1}, norms=norms)
    images, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % 4
    pupil = Distiller(deep.eval(), task_weight=0.5, subnet_weight=3.0, image_size=(3, 8, 8)).eval()
    out = pupil(images, labels)
    assert tuple(out.terms) == ("supervised", "supervised/14", "supervised/8") == pupil.term_names
    for term, name in (("supervised", "full"), ("supervised/14", "14"), ("supervised/8", "8")):
        alone = Distiller(deep.extract(name), image_size=(3, 8, 8)).eval()
        torch.testing.assert_close(out.terms[term], alone(images, labels).loss.detach())
    whole, *parts = out.terms.values()
    torch.testing.assert_close(out.loss.detach(), 0.5 * (whole + 3 * sum(parts) / 2))


def test_a_method_that_compares_samples_says_what_several_processes_do_to_it(
    monkeypatch: pytest.MonkeyPatch,
):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Distiller(student(), teacher(), methods={"near": (Geometric(pool="batch"), 1.0)})
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
        Distiller(student(), teacher(), methods={"near": (Geometric(pool="image"), 1.0)})
    with pytest.warns(UserWarning, match=r"^near compares .* each of 4 .* of its own part"):
        Distiller(student(), teacher(), methods={"near": (Geometric(pool="batch"), 1.0)})
