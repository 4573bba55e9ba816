"""Several teachers' answers as one: worked out by hand, and what must not depend on anything."""

from math import log
from pathlib import Path
from typing import Any, final

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_run import held_out, loader, pictures, settings, tiny, train_tiny
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tutelage.distiller import Distiller
from tutelage.distiller.aggregation import (
    AGGREGATORS,
    AccuracyWeighted,
    Aggregator,
    ConfidenceWeighted,
    Ensemble,
    Uniform,
    mixture,
)
from tutelage.engine import make_optimizer
from tutelage.engine.phases import end_phase
from tutelage.errors import NetworkError, SettingError, TeacherError
from tutelage.evaluation.cost import macs, num_parameters
from tutelage.evaluation.memory import file_size
from tutelage.methods import KD, FitNetHints
from tutelage.methods.kd import kd_loss
from tutelage.models.class_map import ClassMap
from tutelage.models.network import Network
from tutelage.types import Findings, Observation, ObservationShape, Phase

UNKNOWN = -torch.inf


def shares(*rows: list[float]) -> Tensor:
    """Logits, one picture, of teachers that give these probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()[:, None]


def seen(*outputs: Tensor) -> tuple[Observation, ...]:
    return tuple(Observation(output) for output in outputs)


# The mixture


def test_probabilities_are_mixed_as_figure_4_of_amtml_kd_prints_them():
    """Liu et al. 2020: a plane, three teachers with weights .70, .25 and .05, and their target."""
    teachers = shares(
        [0.57, 0.03, 0.12, 0.01, 0.03, 0.01, 0.06, 0.05, 0.10, 0.03],
        [0.31, 0.01, 0.01, 0.12, 0.09, 0.21, 0.03, 0.01, 0.11, 0.11],
        [0.12, 0.09, 0.64, 0.00, 0.00, 0.01, 0.01, 0.03, 0.07, 0.03],
    )
    # The figure's zeros are rounded shares of classes that the third does know.
    teachers = teachers.clamp(min=log(1e-6))
    printed = torch.tensor([[0.48, 0.03, 0.12, 0.04, 0.04, 0.06, 0.05, 0.04, 0.10, 0.05]])
    mixed = mixture(teachers, torch.tensor([[0.70], [0.25], [0.05]])).exp()
    torch.testing.assert_close(mixed, printed.double(), atol=0.0101, rtol=0)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_kd_at_the_mixtures_temperature_learns_the_mean_of_softened_answers(name: str):
    generator = torch.Generator().manual_seed(0)
    logits = 8 * torch.randn(3, 5, 4, dtype=torch.float64, generator=generator)
    student = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    aggregator = AGGREGATORS[name](temperature=4.0)
    assert isinstance(aggregator, Uniform | AccuracyWeighted | ConfidenceWeighted)
    weights = aggregator.weights(logits / 4)
    weights = weights / weights.sum(dim=0)
    mean = (weights[:, :, None] * (logits / 4).softmax(dim=2)).sum(dim=0)
    mixed = aggregator(seen(*logits)).output
    torch.testing.assert_close((mixed / 4).softmax(dim=1), mean)
    wanted = 16 * (mean * (mean.log() - (student / 4).log_softmax(dim=1))).sum(dim=1).mean()
    assert kd_loss(student, mixed, temperature=4).item() == pytest.approx(wanted.item())


def test_softened_a_specialist_is_less_sure_of_what_it_has_never_seen():
    # A picture of the first class; to the second specialist it looks like the fourth, half as much.
    none = [UNKNOWN] * 3
    own, foreign = torch.tensor([[12.0, 0, 0, *none]]), torch.tensor([[*none, 6.0, 0, 0]])
    plain, soft = (Uniform(temperature=t)(seen(own, foreign)).output[0] for t in (1.0, 4.0))
    assert (plain[0] - plain[3]).exp() == pytest.approx(1.005, abs=1e-3)  # as good as equal
    # e³ / (e³ + 2) against e^1.5 / (e^1.5 + 2)
    assert ((soft[0] - soft[3]) / 4).exp() == pytest.approx(0.9094 / 0.6914, rel=1e-3)
    surer = ConfidenceWeighted(temperature=4.0)(seen(own, foreign)).output[0]
    assert surer[0] - surer[3] > soft[0] - soft[3]


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_temperature_that_is_none_is_refused(name: str, wrong: float):
    with pytest.raises(SettingError, match="mixed at a temperature above 0"):
        AGGREGATORS[name](temperature=wrong)


def test_specialists_for_disjoint_classes_stand_side_by_side():
    """Weights 3 and 1: the first's (3/4, 1/4) becomes 9/16, 3/16, the second's halves 1/8 each."""
    logits = torch.tensor(
        [[[log(3), 0.0, UNKNOWN, UNKNOWN]], [[UNKNOWN, UNKNOWN, 7.0, 7.0]]], dtype=torch.float64
    )
    mixed = mixture(logits, torch.tensor([[3.0], [1.0]])).exp()
    torch.testing.assert_close(mixed, torch.tensor([[9, 3, 2, 2]], dtype=torch.float64) / 16)


def test_a_class_that_more_teachers_know_has_no_advantage():
    """All say the first class, which two of three know; the third halves its own two.

    p ∝ ((1 + 1) / 2, 1/2, 1/2): counting teachers alone would give the first class 2/3.
    """
    logits = torch.tensor([[[0.0, UNKNOWN, UNKNOWN]]] * 2 + [[[UNKNOWN, 0.0, 0.0]]])
    mixed = mixture(logits, torch.ones(3, 1)).exp()
    torch.testing.assert_close(mixed, torch.tensor([[0.5, 0.25, 0.25]]))


numbers = st.floats(-8, 8, width=32)


@st.composite
def answers(draw: st.DrawFn, count: int = 3) -> Tensor:
    """Of some teachers, for two pictures of four classes."""
    values = draw(st.lists(numbers, min_size=8 * count, max_size=8 * count))
    return torch.tensor(values, dtype=torch.float64).view(count, 2, 4)


weights = st.lists(st.floats(0.01, 5), min_size=3, max_size=3).map(
    lambda values: torch.tensor(values, dtype=torch.float64)[:, None]
)


@given(answers(), weights, st.floats(0.1, 9), numbers)
def test_neither_the_scale_of_weights_nor_a_shift_of_logits_counts(
    logits: Tensor, given_weights: Tensor, scale: float, shift: float
):
    expected = mixture(logits, given_weights)
    shifted = logits + torch.tensor([shift, 0.0, -shift], dtype=torch.float64).view(3, 1, 1)
    torch.testing.assert_close(mixture(shifted, scale * given_weights), expected)


@given(answers(), weights)
def test_it_is_the_weighted_mean_where_all_know_all(logits: Tensor, given_weights: Tensor):
    share = given_weights / given_weights.sum()
    mean = (share[:, :, None] * logits.softmax(dim=2)).sum(dim=0)
    torch.testing.assert_close(mixture(logits, given_weights).exp(), mean)


def weighed() -> list[Aggregator]:
    """Of each kind one, as a run has them for three teachers."""
    found = [make() for make in AGGREGATORS.values()]
    for one in found:
        one.weigh([0.6, 0.3, 0.1])
    return found


@given(answers(1), weights)
def test_copies_of_one_teacher_say_what_it_says_whatever_the_weights(
    logits: Tensor, given_weights: Tensor
):
    expected = logits[0].log_softmax(dim=1)
    torch.testing.assert_close(mixture(logits.expand(3, -1, -1), given_weights), expected)
    for mix in weighed():
        said = mix(seen(*logits.expand(3, -1, -1))).output
        torch.testing.assert_close(said, expected)


@given(answers(), st.permutations(range(3)))
@pytest.mark.parametrize("name", ["uniform", "confidence"])
def test_the_order_of_teachers_changes_nothing_but_whose_maps_are_seen(
    name: str, logits: Tensor, order: list[int]
):
    mix = AGGREGATORS[name]()
    torch.testing.assert_close(mix(seen(*logits[order])).output, mix(seen(*logits)).output)


def test_half_precision_is_mixed_in_float32():
    logits = torch.randn(2, 3, 4).bfloat16()
    mixed = mixture(logits, torch.ones(2, 1))
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, mixture(logits.float(), torch.ones(2, 1)))


@given(st.integers(1, 40), st.integers(0, 9))
def test_where_a_picture_stands_in_a_batch_changes_no_bit(count: int, place: int):
    logits = torch.randn(3, 10, 7, generator=torch.Generator().manual_seed(count))
    more = torch.randn(3, count, 7)
    for mix in weighed():
        alone = mix(seen(*logits)).output
        among = mix(seen(*torch.cat([logits[:, :place], more, logits[:, place:]], dim=1))).output
        assert torch.equal(torch.cat([among[:place], among[place + count :]]), alone)


# Weights


def test_confidence_is_what_entropy_leaves_worked_out_by_hand():
    """(3/4, 1/4) has the entropy log 4 - 3/4 log 3 = 0.5623 of log 2: sure by 0.1887.

    (1, 0, 0) is sure by 1, (1/3, 1/3, 1/3) by nothing, and so is one that knows a single class.
    """
    weigh = ConfidenceWeighted().weights
    logits = torch.tensor(
        [
            [[log(3), 0.0, UNKNOWN], [0.0, 0.0, UNKNOWN]],
            [[99.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
            [[UNKNOWN, UNKNOWN, 5.0], [UNKNOWN, UNKNOWN, 5.0]],
        ]
    )
    first = 1 - (log(4) - 0.75 * log(3)) / log(2)
    expected = torch.tensor([[first, 1.0], [1.0, 1.0], [0.0, 1.0]])  # none is sure: all alike
    torch.testing.assert_close(weigh(logits), expected.double(), atol=1e-6, rtol=0)


def test_a_confident_teacher_counts_picture_by_picture():
    sure, unsure = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 0.1]])
    first, second = torch.cat([sure, unsure]), torch.cat([-unsure, -sure])
    mixed = ConfidenceWeighted()(seen(first, second)).output.softmax(dim=1)
    torch.testing.assert_close(mixed[0], sure[0].softmax(dim=0), atol=0.01, rtol=0)
    torch.testing.assert_close(mixed[1], (-sure)[0].softmax(dim=0), atol=0.01, rtol=0)


def test_no_class_has_the_probability_zero_though_its_teacher_counts_for_nothing():
    logits = torch.tensor([[[50.0, 0.0, UNKNOWN, UNKNOWN]], [[UNKNOWN, UNKNOWN, 0.0, 0.0]]])
    mixed = ConfidenceWeighted()(seen(*logits)).output
    assert mixed.isfinite().all()
    torch.testing.assert_close(mixed.exp()[0, 2], torch.tensor(0.0005), atol=1e-5, rtol=0)


def test_accuracy_counts_above_chance():
    mix = AccuracyWeighted()
    mix.weigh([0.6, 0.2])
    logits = shares([0.9, 0.1], [0.1, 0.9])
    mixed = mix(seen(*logits)).output.exp()
    torch.testing.assert_close(mixed, torch.tensor([[0.7, 0.3]], dtype=torch.float64))
    mix.weigh([0.0, 0.0])
    assert mix.shares.tolist() == [1, 1]
    unmeasured = AccuracyWeighted()(seen(*logits)).output
    torch.testing.assert_close(unmeasured, Uniform()(seen(*logits)).output)


def test_accuracies_that_are_given_stay():
    given_ones, measured = AccuracyWeighted(accuracies=[0.6, 0.2]), AccuracyWeighted()
    for mix in (given_ones, measured):
        mix.weigh([0.1, 0.9])
    torch.testing.assert_close(given_ones.shares, torch.tensor([0.6, 0.2]))
    torch.testing.assert_close(measured.shares, torch.tensor([0.1, 0.9]))


def test_weights_are_not_rounded_to_the_precision_of_the_answers():
    mix = AccuracyWeighted(accuracies=[0.52, 0.58])
    logits = torch.tensor([[[0.0, 1.0, UNKNOWN]], [[UNKNOWN, UNKNOWN, 0.0]]])
    expected = mix(seen(*logits)).output
    assert torch.equal(mix(seen(*logits.bfloat16())).output, expected)


@pytest.mark.parametrize("wrong", [[-0.1, 0.5], [1.1, 0.5], [float("nan"), 0.5]])
def test_accuracies_that_are_none_are_refused(wrong: list[float]):
    with pytest.raises(SettingError, match=r"lie in \[0, 1\]"):
        AccuracyWeighted(accuracies=wrong)


def test_one_accuracy_per_teacher():
    shapes = [ObservationShape((3,))] * 3
    with pytest.raises(SettingError, match="2 accuracies are given for 3 teachers"):
        AccuracyWeighted(accuracies=[0.5, 0.4]).build(shapes, shapes[0])


# In the distiller


def pupil(*teachers: Any, **changes: Any) -> Distiller:
    methods = changes.pop("methods", {"kd": (KD(), 1.0)})
    return Distiller(tiny(), list(teachers), methods=methods, **changes)


def images(count: int = 6) -> Tensor:
    return pictures(count).images.permute(0, 3, 1, 2).float() / 255


def test_a_method_sees_the_mixture_and_each_answer():
    teachers = [tiny(seed, dropout=0.0) for seed in (1, 2, 3)]
    distiller = pupil(*teachers)
    batch = distiller.observe(images(), torch.arange(6) % 3)
    outputs = [teacher(images()) for teacher in teachers]
    mean = torch.stack(outputs).softmax(dim=2).mean(dim=0)
    torch.testing.assert_close(batch.teachers[0].output.exp(), mean)
    assert len(batch.teachers) == 1
    for one, output in zip(batch.members, outputs, strict=True):
        torch.testing.assert_close(one.output, output)
    own = {name.split(".")[0] for name in distiller.state_dict()}
    assert own == {"student"}


def test_one_teacher_in_a_list_is_that_teacher():
    alone = Distiller(tiny(), tiny(1), methods={"kd": (KD(), 1.0)})
    listed = pupil(tiny(1))
    targets = torch.arange(6) % 3
    assert listed.aggregator is None
    assert torch.equal(alone.eval()(images(), targets).loss, listed.eval()(images(), targets).loss)
    assert listed.observe(images()).members == ()


def test_maps_are_the_first_teachers():
    first, second = tiny(1, width=6), tiny(2, width=2)
    distiller = pupil(first, second, methods={"hints": (FitNetHints(), 1.0)})
    batch = distiller.observe(images(), torch.arange(6) % 3)
    (tap, maps), *_ = batch.teachers[0].features.items()
    assert torch.equal(maps, batch.members[0].features[tap])
    assert maps.shape[1] in (6, 12)
    assert batch.members[1].features == {}
    distiller(images(), torch.arange(6) % 3).loss.backward()


def test_a_batch_of_several_teachers_can_be_cut():
    batch = pupil(tiny(1), tiny(2)).observe(images(), torch.arange(6) % 3, index=torch.arange(6))
    half = pytree.tree_map(lambda leaf: leaf[:3] if isinstance(leaf, Tensor) else leaf, batch)
    assert len(half.members[1].output) == len(half.teachers[0].output) == 3


def specialist(seed: int, parts: list[list[int]]) -> Network:
    return tiny(seed, num_classes=3, dropout=0.0).with_class_map(ClassMap(parts, 3))


def test_specialists_teach_together_what_none_knows_alone():
    first, second = specialist(1, [[0], [1], []]), specialist(2, [[], [], [2]])
    distiller = pupil(first, second, aggregator=ConfidenceWeighted(), task_weight=0.0)
    out = distiller(images())
    assert out.loss.isfinite()
    out.loss.backward()
    with pytest.raises(TeacherError, match="No teacher knows class 2"):
        pupil(first, specialist(2, [[], [0], []]))


def test_answers_of_other_shapes_are_refused():
    with pytest.raises(TeacherError, match="answer in the shapes"):
        pupil(tiny(1), tiny(2, num_classes=4))


def test_an_aggregator_has_several_to_aggregate():
    with pytest.raises(TeacherError, match="and 1 are given"):
        pupil(tiny(1), aggregator=Uniform())


# A learned one


@final
class Learned(Aggregator):
    """A weight per teacher, learned ten times as fast, and held still after the first phase."""

    lr_factor = 10.0

    def build(self, teachers: Any, student: ObservationShape) -> None:
        del student
        self.logits = nn.Parameter(torch.zeros(len(teachers)))

    def forward(
        self, answers: tuple[Observation, ...], student: Observation | None = None
    ) -> Observation:
        outputs = torch.stack([one.output for one in answers])
        weights = self.logits.softmax(dim=0)[:, None]
        return Observation(mixture(outputs, weights), answers[0].features)

    def end_phase(self, phase: Phase) -> Findings:
        found = {"loss": phase.lookahead(["kd.kl"]), "stays": phase.lookahead([])}
        self.logits.requires_grad_(False)
        return Findings(found, changed=True)

    def structure(self) -> Any:
        return self.logits.requires_grad

    def restore_structure(self, structure: Any) -> None:
        self.logits.requires_grad_(structure)


def learning() -> Distiller:
    return pupil(tiny(1), tiny(2), aggregator=Learned(), methods={"kd": (KD(), 1.0)})


def test_a_learned_aggregator_has_a_learning_rate_of_its_own():
    distiller = learning()
    optimizer, schedule = make_optimizer(distiller.parameter_groups(), settings(steps=8))
    own, apart = optimizer.param_groups
    assert [id(one) for one in apart["params"]] == [id(distiller.aggregator.logits)]  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    assert len(own["params"]) + 1 == len(list(distiller.trainable_parameters()))
    for _ in range(4):
        assert apart["lr"] == pytest.approx(10 * own["lr"])
        optimizer.step()
        schedule.step()


def test_it_learns_decides_between_phases_and_resumes_to_the_same_bits(tmp_path: Path):
    whole = learning()
    assert isinstance(whole.aggregator, Learned)
    trained = train_tiny(tmp_path / "whole", whole, phases=2, checkpoint_every=3)
    first, second = (found["aggregator"] for found in trained.phases)
    assert first.keys() == {"loss", "stays"}
    assert first["loss"] != first["stays"]  # the virtual step was taken
    learned = whole.aggregator.logits.detach()
    assert not torch.equal(learned, torch.zeros(2))
    assert second["stays"] > 0

    # From the checkpoint before the last, when it was already held still.
    folder = tmp_path / "again"
    again = learning()
    train_tiny(folder, again, phases=2, checkpoint_every=3)
    last = sorted((folder / "checkpoints").iterdir())[-1]
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    resumed = learning()
    assert isinstance(resumed.aggregator, Learned)
    train_tiny(folder, resumed, phases=2, checkpoint_every=3)
    assert not resumed.aggregator.logits.requires_grad
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())


def test_a_virtual_step_takes_the_aggregators_own_rate(monkeypatch: pytest.MonkeyPatch):
    """Plain steps: what the look-ahead loss was measured at, worked out beside it."""
    student = tiny(dropout=0.0)
    methods: Any = {"kd": (KD(), 1.0)}
    distiller = Distiller(student, [tiny(1), tiny(2)], aggregator=Learned(), methods=methods)
    assert isinstance(distiller.aggregator, Learned)
    before = distiller.aggregator.logits.detach().clone()
    found = []

    def look(self: Learned, phase: Phase) -> None:
        inner = distiller.task.supervised_loss

        def noting(*given: Any, **more: Any) -> Tensor:
            found.append(self.logits.detach().clone())
            return inner(*given, **more)

        monkeypatch.setattr(distiller.task, "supervised_loss", noting)
        phase.lookahead(["kd.kl"])

    monkeypatch.setattr(Learned, "end_phase", look)
    data = loader()
    batch = data.batch(0)
    kl = distiller.weighted_terms(
        "kd", ["kl"], distiller.observe(batch.images, batch.targets, index=batch.index), 0.0
    )
    (gradient,) = torch.autograd.grad(kl, [distiller.aggregator.logits])
    end_phase(distiller, 0, held_out(), batch, lr=0.01, progress=0.0)
    torch.testing.assert_close(found[0], before - 10 * 0.01 * gradient)
    assert torch.equal(distiller.aggregator.logits.detach(), before)


def test_no_method_may_take_the_aggregators_name():
    with pytest.raises(SettingError, match="called 'aggregator'"):
        pupil(tiny(1), methods={"aggregator": (KD(), 1.0)})


# As a network


def test_an_ensemble_answers_as_its_aggregator_says_and_costs_the_sum():
    members = [tiny(1, dropout=0.0), tiny(2, width=6, dropout=0.0)]
    ensemble = Ensemble(members, ConfidenceWeighted()).eval()
    expected = ConfidenceWeighted()(seen(*(one.eval()(images()) for one in members))).output
    torch.testing.assert_close(ensemble(images()), expected)
    assert num_parameters(ensemble) == sum(map(num_parameters, members))
    assert macs(ensemble, (1, 8, 8)) == sum(macs(one, (1, 8, 8)) for one in members)
    assert file_size(ensemble) == sum(map(file_size, members))
    ensemble.tap(["layer1"])
    maps = ensemble.observe(images(), ["layer1"]).features["layer1"]
    alone = members[0]
    alone.tap(["layer1"])
    assert torch.equal(maps, alone.observe(images(), ["layer1"]).features["layer1"])
    assert [stage.name for stage in ensemble.stages()] == [s.name for s in alone.stages()]


def test_an_ensemble_stays_whole():
    members = [tiny(1), tiny(2)]
    ensemble = Ensemble(members, Uniform())
    assert ensemble.whole() is ensemble
    with pytest.raises(NetworkError, match="no classes of their own"):
        ensemble.with_class_map(ClassMap([[0], [1]], 3))
    with pytest.raises(NetworkError, match="no sub-net 'x'"):
        ensemble.extract("x")
    ensemble.double()
    assert {one.mean.dtype for one in ensemble.members} == {torch.float64}
