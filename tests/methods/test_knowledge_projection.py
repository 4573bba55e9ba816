"""Knowledge projection: the formula written out, scale, and routes that are chosen."""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, final

import pytest
import torch
from safetensors.torch import load_file
from tiny import distilled, recipe, train_teacher
from torch import Tensor, nn

from tutelage import rng
from tutelage.engine.session import Session
from tutelage.errors import NetworkError, SettingError
from tutelage.methods.knowledge_projection import (
    KnowledgeProjection,
    gate_of,
    projection_loss,
    standardize,
    to_unit_variance,
)
from tutelage.recipes import validate
from tutelage.records import RunFolder, read_lines
from tutelage.runs import train
from tutelage.runs.caching import cache
from tutelage.runs.keeping import Choices
from tutelage.types import Observation, ObservationShape, Shapes, TransferBatch

Direction = Literal["teacher_to_student", "student_to_teacher"]
DIRECTIONS: tuple[Direction, ...] = ("teacher_to_student", "student_to_teacher")


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# The formula


def written_out(
    source: Tensor,
    target: Tensor,
    project: Tensor,
    *,
    gates: list[float],
    mask: list[float],
    power: int,
) -> float:
    """One number after the other; maps of one size, standardized by their channels."""

    def normal(values: Tensor) -> list[list[list[float]]]:
        """Sample → channel → places."""
        n, channels = values.shape[:2]
        rows = values.reshape(n, channels, -1).tolist()
        for channel in range(channels):
            every = [value for sample in rows for value in sample[channel]]
            mean = sum(every) / len(every)
            variance = sum((value - mean) ** 2 for value in every) / len(every)
            for sample in rows:
                sample[channel] = [
                    (value - mean) / (variance + 1e-5) ** 0.5 for value in sample[channel]
                ]
        return rows

    first, second = normal(source), normal(target)
    total = 0.0
    for sample, gate in enumerate(gates):
        own = 0.0
        for c_out in range(target.shape[1]):
            for place in range(len(second[0][0])):
                guess = sum(
                    project[c_out, c_in].item() * first[sample][c_in][place]
                    for c_in in range(source.shape[1])
                )
                own += mask[c_out] * abs(guess - second[sample][c_out][place]) ** power
        total += gate * own / target[0].numel()
    return total / len(gates)


@pytest.mark.parametrize("residual", ["l2", "l1"])
def test_equals_the_card_written_out(residual: Literal["l2", "l1"]) -> None:
    source, target, project = maps(0, 3, 4, 2, 3), maps(1, 3, 5, 2, 3), maps(2, 5, 4)
    gates, mask = [1.0, 0.25, 0.5], [0.5, 1.5, 0.0, 2.0, 1.0]
    loss = projection_loss(
        standardize(source),
        standardize(target),
        project=project,
        residual=residual,
        gates=torch.tensor(gates, dtype=torch.float64),
        mask=torch.tensor(mask, dtype=torch.float64),
    )
    power = 2 if residual == "l2" else 1
    wanted = written_out(source, target, project, gates=gates, mask=mask, power=power)
    assert loss.item() == pytest.approx(wanted)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_method_projects_in_its_direction_and_weighs_what_the_teacher_gets_wrong(
    direction: Direction,
) -> None:
    student = ObservationShape((3,), {"s": (4, 2, 3)})
    teacher = ObservationShape((3,), {"t": (5, 2, 3)})
    method = KnowledgeProjection(direction=direction, gate=0.1)
    method.build(Shapes(student, (teacher,)))
    own, other = maps(0, 2, 4, 2, 3), maps(1, 2, 5, 2, 3)
    batch = TransferBatch(
        Observation(torch.zeros(2, 3), {"s": own}),
        (Observation(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), {"t": other}),),
        torch.tensor([2, 2]),
        torch.ones(2, dtype=torch.bool),
        None,
        None,
        0,
    )
    ends = (other, own) if direction == "teacher_to_student" else (own, other)
    (project,) = method.double().projections
    assert project.shape == (ends[1].shape[1], ends[0].shape[1])
    wanted = written_out(*ends, project, gates=[1.0, 0.1], mask=[1.0] * 5, power=2)
    assert method(batch)["projection/s<-t"].item() == pytest.approx(wanted)


def test_what_is_projected_takes_the_size_of_the_other() -> None:
    large, small, project = maps(3, 2, 3, 4, 4), maps(4, 2, 5, 2, 2), maps(5, 5, 3)
    halved = torch.stack([large[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).mean(0)
    down = projection_loss(large, small, project=project)
    torch.testing.assert_close(down, projection_loss(halved, small, project=project))

    def between(values: Tensor, dim: int) -> Tensor:
        """Of two places four: the ends as they are, and a quarter and three quarters between."""
        first, last = values.split(1, dim)
        return torch.cat([first, (3 * first + last) / 4, (first + 3 * last) / 4, last], dim)

    wide = between(between(small, 2), 3)
    up = projection_loss(small, large, project=project.T)
    torch.testing.assert_close(up, projection_loss(wide, large, project=project.T))


def test_the_projection_may_stand_on_either_side_of_the_resizing() -> None:
    small, large, project = maps(6, 2, 3, 3, 2), maps(7, 2, 5, 7, 5), maps(8, 5, 3)
    wide = torch.nn.functional.interpolate(small, (7, 5), mode="bilinear")
    torch.testing.assert_close(
        projection_loss(small, large, project=project),
        projection_loss(wide, large, project=project),
    )


def best(source: Tensor, target: Tensor) -> float:
    """What the best of all projections leaves of standardized maps."""
    source, target = standardize(source), standardize(target)
    flat = [one.movedim(1, -1).flatten(0, 2) for one in (source, target)]
    project = torch.linalg.lstsq(*flat).solution.T
    return projection_loss(source, target, project=project).item()


def test_scale_and_shift_of_channels_change_nothing() -> None:
    source, target = maps(9, 4, 3, 3, 3), maps(10, 4, 4, 3, 3)
    factors = torch.tensor([3.0, -2.0, 50.0, 0.5], dtype=torch.float64)[:, None, None]
    moved = best(source * factors[:3] + 7, target * factors - 2)
    assert best(source, target) == pytest.approx(moved, rel=1e-4)  # variances are floored by 1e-5
    assert 0.3 < best(source, target) < 1


def test_a_map_that_can_be_told_from_the_other_leaves_nothing() -> None:
    # The student forgets a channel: it can be told from the teacher, not the teacher from it.
    teacher = maps(11, 4, 3, 3, 3)
    student = teacher[:, :2] * 5 - 1
    assert best(teacher, student) < 1e-4
    assert best(student, teacher) == pytest.approx(1 / 3, abs=0.1)


def test_unit_variance_divides_the_residual_by_the_targets_variance() -> None:
    source, target, project = maps(13, 2, 3, 2, 2), 7 * maps(14, 2, 4, 2, 2) + 2, maps(15, 4, 3)
    centered = target - target.mean(dim=(0, 2, 3), keepdim=True)
    spread = centered.square().mean()
    plain = torch.einsum("oi,nihw->nohw", project, source) - centered
    loss = projection_loss(source, to_unit_variance(target), project=project / spread.sqrt())
    assert loss.item() == pytest.approx((plain.square().mean() / spread).item(), rel=1e-5)


@pytest.mark.parametrize("norm", [standardize, to_unit_variance])
def test_offsets_between_channels_explain_nothing(norm: Callable[[Tensor], Tensor]) -> None:
    source, target = maps(30, 64, 4, 2, 2).abs(), maps(31, 64, 6, 2, 2)
    offsets = 30 * torch.arange(6.0, dtype=torch.float64)[:, None, None]
    flat = [norm(one).movedim(1, -1).flatten(0, 2) for one in (source, target + offsets)]
    project = torch.linalg.lstsq(*flat).solution.T
    assert projection_loss(norm(source), norm(target + offsets), project=project) > 0.9
    silent = norm(torch.full((2, 3, 2, 2), 2.0)).requires_grad_()
    assert not silent.any()


def test_a_mask_weighs_squares_and_has_a_gradient_at_zero() -> None:
    source, target, project = maps(32, 2, 3, 2, 2), maps(33, 2, 2, 2, 2), maps(34, 2, 3)
    first, second = (
        projection_loss(source, target, project=project, mask=torch.eye(2).double()[number])
        for number in (0, 1)
    )
    torch.testing.assert_close(first + second, projection_loss(source, target, project=project))
    mask = torch.zeros(2, dtype=torch.float64).requires_grad_()
    projection_loss(source, target, project=project, mask=mask).backward()
    assert mask.grad is not None
    assert (mask.grad > 0).all()


def test_a_learned_mask_can_leave_no_channel_out_and_no_score_sees_it() -> None:
    method, batch = built(mask=True, gate=1.0), observed(3)
    plain = built(gate=1.0)
    assert method(batch)["projection/a<-a"].item() == pytest.approx(
        plain(batch)["projection/a<-a"].item()
    )
    with torch.no_grad():
        for weights in method.masks:
            weights.copy_(torch.tensor([50.0, -50.0, -50.0, -50.0]))
    mask = torch.tensor([2.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    wanted = projection_loss(
        standardize(batch.teachers[0].features["a"]),
        standardize(batch.student.features["a"]),
        project=method.projections[0],
        mask=mask,
    )
    assert method(batch)["projection/a<-a"].item() == pytest.approx(wanted.item() / 9)
    scores = [one.end_phase(Look([batch])) for one in (method, plain)]
    assert scores[0] is not None
    assert scores[1] is not None
    assert scores[0].values == scores[1].values


@pytest.mark.parametrize("residual", ["l2", "l1"])
@pytest.mark.parametrize(
    ("name", "norm"), [("standardize", standardize), ("variance", to_unit_variance)]
)
def test_settings_reach_the_formula(
    residual: Any, name: Any, norm: Callable[[Tensor], Tensor]
) -> None:
    batch = observed(4)
    method = built(residual=residual, normalize=name, gate=1.0, direction="student_to_teacher")
    for route, project in zip(method.routes, method.projections, strict=True):
        wanted = projection_loss(
            norm(batch.student.features[route.student]),
            norm(batch.teachers[0].features[route.teacher]),
            project=project,
            residual=residual,
        )
        assert method(batch)[route.term].item() == pytest.approx(wanted.item() / 9)


def test_a_gate_lies_before_what_the_teacher_gets_wrong_and_nothing_else() -> None:
    logits = torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
    targets, labelled = torch.tensor([0, 1, 1, 0]), torch.tensor([True, True, True, False])
    assert gate_of(logits, targets, labelled, gate=0.1).tolist() == pytest.approx([1, 0.1, 1, 1])


def test_a_gated_sample_counts_less_and_the_mean_stays_over_all() -> None:
    source, target, project = maps(16, 2, 3, 2, 2), maps(17, 2, 3, 2, 2), maps(18, 3, 3)
    one, other = (
        projection_loss(source, target, project=project, gates=torch.eye(2).double()[number])
        for number in (0, 1)
    )
    torch.testing.assert_close(one + other, projection_loss(source, target, project=project))


# Whether features vanish


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("norm", [nn.Identity(), standardize, to_unit_variance])
def test_features_keep_their_scale_because_the_gradient_flows_through_the_norm(
    norm: Callable[[Tensor], Tensor], optimizer: str
) -> None:
    """Both sides are trained for 400 steps; without a norm the student's features vanish."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 8, generator=generator)
    teacher = torch.tanh(inputs @ torch.randn(8, 6, generator=generator))[:, :, None, None]
    layer = nn.Linear(8, 6)
    project = nn.Parameter(torch.randn(6, 6, generator=generator) / 6**0.5)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(6, 8, generator=generator) / 2)
        layer.bias.zero_()
    trained = [*layer.parameters(), project]
    made = (
        torch.optim.SGD(trained, lr=0.05, momentum=0.9)
        if optimizer == "sgd"
        else torch.optim.Adam(trained, lr=0.01)
    )

    def student() -> Tensor:
        return torch.relu(layer(inputs))[:, :, None, None]

    before = student().std().item()
    for _ in range(400):
        loss = projection_loss(norm(teacher), norm(student()), project=project)
        made.zero_grad()
        loss.backward()
        made.step()
    after = student().std().item()
    if isinstance(norm, nn.Identity):
        assert after < before / 10
    else:
        assert before / 2 < after < before * 2


# Routes

STAGES = {"a": (4, 4, 4), "b": (4, 4, 4), "c": (4, 2, 2)}


@final
class Look:
    """A phase whose held-out pictures are those given; supervised loss is a constant."""

    def __init__(self, batches: list[TransferBatch], after: dict[str, float] | None = None) -> None:
        self.number = 0
        self._batches, self._after = batches, after or {}

    def held_out(self) -> Iterator[TransferBatch]:
        return iter(self._batches)

    def lookahead(self, terms: Iterable[str]) -> float:
        return sum((self._after[term] for term in terms), start=1.0)


def observed(seed: int, n: int = 32) -> TransferBatch:
    """The student's b is a linear map of the teacher's a; all else is noise."""
    student = {name: maps(100 * seed + i, n, *STAGES[name]) for i, name in enumerate(STAGES)}
    teacher = {name: maps(100 * seed + 50 + i, n, *STAGES[name]) for i, name in enumerate(STAGES)}
    for taps in (student, teacher):  # noise of little variance, which a plain residual would choose
        taps.update({name: 0.05 * values for name, values in taps.items()})
    teacher["a"] = 20 * teacher["a"]
    student["b"] = torch.einsum("oi,nihw->nohw", maps(1234, 4, 4), teacher["a"])
    logits = maps(100 * seed + 99, n, 3)
    return TransferBatch(
        Observation(logits, student),
        (Observation(logits, teacher),),
        logits.argmax(dim=1),
        torch.ones(n, dtype=torch.bool),
        torch.arange(n),
        torch.zeros(n, dtype=torch.int64),
        seed,
    )


def built(seed: int = 0, **settings: Any) -> KnowledgeProjection:
    shape = ObservationShape((3,), dict(STAGES))
    method = KnowledgeProjection(**settings)
    with rng.part(seed, "method"):
        method.build(Shapes(shape, (shape,)))
    return method.double()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_of_nine_routes_eight_of_noise_the_real_one_survives(
    seed: int, direction: Direction
) -> None:
    method = built(seed, direction=direction)
    assert len(method.routes) == 9
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    found = []
    for phase in range(5):
        for step in range(15):
            loss = torch.stack(list(method(observed(10 * phase + step + 1000 * seed)).values()))
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
        look = Look([observed(5000 + seed), observed(6000 + seed)])
        look.number = phase
        findings = method.end_phase(look)
        found.append(None if findings is None else list(findings.values["kept"]))
        optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    assert [kept and len(kept) for kept in found] == [5, 3, 2, 1, None]
    assert method.structure() == [["b", "a"]]


def test_scores_of_the_joint_loss_are_what_they_say() -> None:
    method, batches = built(gate=1.0), [observed(1, 8), observed(2, 24)]
    findings = method.end_phase(Look(batches))
    assert findings is not None
    assert findings.changed
    fresh = built(gate=1.0)
    for route in fresh.routes:
        index = fresh.routes.index(route)
        each = [
            projection_loss(
                standardize(batch.teachers[0].features[route.teacher]),
                standardize(batch.student.features[route.student]),
                project=fresh.projections[index],
            ).item()
            for batch in batches
        ]
        score = findings.values["scores"][f"{route.student}<-{route.teacher}"]
        assert score == pytest.approx(1.0 + (8 * each[0] + 24 * each[1]) / 32)


def test_lookahead_ranks_by_what_a_step_does_for_the_labels() -> None:
    method = built(score="lookahead")
    after = {route.term: float(number) for number, route in enumerate(reversed(method.routes))}
    findings = method.end_phase(Look([], after))
    assert findings is not None
    assert method.structure() == [["b", "b"], ["b", "c"], ["c", "a"], ["c", "b"], ["c", "c"]]
    assert list(findings.values["scores"].values()) == [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


def test_a_route_whose_score_is_no_number_goes_first_and_ties_keep_their_order() -> None:
    method = built(score="lookahead", keep=4)
    after = dict.fromkeys((route.term for route in method.routes), 1.0)
    after["projection/a<-a"] = float("nan")
    findings = method.end_phase(Look([], after))
    assert findings is not None
    assert findings.values["scores"]["a<-a"] is None  # JSON knows no such number
    assert method.structure() == [["a", "b"], ["a", "c"], ["b", "a"], ["b", "b"], ["b", "c"]]
    method.end_phase(Look([], after))
    assert len(method.routes) == 4
    later = Look([], after)
    later.number = 2
    assert method.end_phase(later) is None


def test_the_weight_of_all_routes_together_stays_when_some_go() -> None:
    method, batch = built(), observed(3)
    alone = method(batch)["projection/b<-a"].item()
    method.restore_structure([["b", "a"], ["c", "c"], ["a", "a"]])
    assert method(batch)["projection/b<-a"].item() == pytest.approx(alone * 9 / 3)


def test_what_is_dropped_has_no_parameters_left() -> None:
    method = built(mask=True, keep=2)
    kept = {id(method.projections[1]), id(method.masks[1])}
    method.restore_structure([["a", "b"]])
    assert {id(parameter) for parameter in method.parameters()} == kept


def test_a_random_route_is_one_and_the_seed_draws_it() -> None:
    drawn = [built(seed, routes="random").structure() for seed in range(30)]
    assert all(len(routes) == 1 for routes in drawn)
    assert drawn[3] == built(3, routes="random").structure()
    assert len({tuple(routes[0]) for routes in drawn}) > 5
    method = built(3, routes="random")
    findings = method.end_phase(Look([]))
    assert findings is not None
    assert not findings.changed
    assert findings.values["kept"] == [f"{drawn[3][0][0]}<-{drawn[3][0][1]}"]


def test_routes_of_one_size_are_fixed() -> None:
    method = built(routes="same")
    every = [["a", "a"], ["a", "b"], ["b", "a"], ["b", "b"], ["c", "c"]]
    assert method.structure() == every
    method.end_phase(Look([observed(1)]))
    assert method.structure() == every
    small = ObservationShape((3,), {"a": (4, 9, 9)})
    with pytest.raises(NetworkError, match="Set routes: adaptive"):
        KnowledgeProjection(routes="same").build(
            Shapes(small, (ObservationShape((3,), dict(STAGES)),))
        )


def test_learned_parts_are_those_of_the_card() -> None:
    stages = {"layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8)}
    shape = ObservationShape((10,), stages)
    for direction in DIRECTIONS:
        method = KnowledgeProjection(direction=direction)
        method.build(Shapes(shape, (shape,)))
        assert sum(parameter.numel() for parameter in method.parameters()) == 12_544


# What is refused


def test_a_teacher_of_other_classes_teaches_without_the_gate() -> None:
    student = ObservationShape((3,), dict(STAGES))
    teacher = ObservationShape((7,), dict(STAGES))
    with pytest.raises(NetworkError, match=r"Set gate: 1"):
        KnowledgeProjection().build(Shapes(student, (teacher,)))
    KnowledgeProjection(gate=1.0).build(Shapes(student, (teacher,)))


def test_networks_without_maps_are_refused() -> None:
    student = ObservationShape((3,), dict(STAGES))
    with pytest.raises(NetworkError, match="none was found in the teacher"):
        KnowledgeProjection().build(Shapes(student, (ObservationShape((3,), {"flat": (4,)}),)))


@pytest.mark.parametrize("settings", [{"keep": 0}, {"gate": -0.1}, {"gate": 1.5}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="knowledge_projection"):
        KnowledgeProjection(**settings)


# In a run

PHASED: dict[str, Any] = {
    "methods": {
        "knowledge_projection": {
            "direction": "student_to_teacher",
            "weight": {"kind": "linear", "from": 3, "to": 0},
        }
    },
    "task_weight": 1.0,
    "steps": 20,
    "phases": 5,
    "checkpoint_every": 1,
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_teacher(tmp_path_factory.mktemp("teacher"))


def run(teacher: Path, runs: Path, name: str = "run", /, **changes: Any) -> RunFolder:
    value = distilled(teacher, **PHASED | changes)
    train(value, name=name, runs=runs, with_test=False, shown=False, resume=(runs / name).exists())
    return RunFolder(runs / name)


def chosen(folder: RunFolder) -> list[list[str]]:
    phases = folder.read_record()["phases"]
    return [phase["knowledge_projection"]["kept"] for phase in phases if phase]


@pytest.mark.parametrize("score", ["joint", "lookahead"])
def test_a_run_killed_between_two_phases_ends_with_the_same_routes_and_bits(
    score: str, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {"knowledge_projection": PHASED["methods"]["knowledge_projection"] | {"score": score}}
    whole = run(teacher, tmp_path, "whole", methods=methods)
    kept = chosen(whole)
    assert [len(routes) for routes in kept] == [5, 3, 2, 1]
    assert all(set(after) < set(before) for before, after in pairwise(kept))

    taking = Session.train_step

    def dying(session: Any, batch: Any) -> None:
        if session.step == 10:  # phases end after 4, 8, 12, 16 and 20
            raise KeyboardInterrupt
        taking(session, batch)

    monkeypatch.setattr(Session, "train_step", dying)
    with pytest.raises(KeyboardInterrupt):
        run(teacher, tmp_path, "killed", methods=methods)
    monkeypatch.undo()
    killed = run(teacher, tmp_path, "killed", methods=methods)
    assert killed.read_record()["phases"] == whole.read_record()["phases"]
    first, second = load_file(whole.student), load_file(killed.student)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_terms_and_parameters_go_with_their_routes(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    ending = Session.end_phase

    def watched(session: Any, held_out: Any, batch: Any) -> None:
        ending(session, held_out, batch)
        method = session._distiller.methods["knowledge_projection"]
        trained = {id(one) for group in session._raw.param_groups for one in group["params"]}
        own = [id(parameter) for parameter in method.parameters()]
        assert set(own) <= trained
        others = sum(1 for _ in session._distiller.student.parameters())
        assert len(trained) == others + len(own)
        assert set(map(id, session._raw.state)) <= trained
        sizes.append(len(own))

    monkeypatch.setattr(Session, "end_phase", watched)
    folder = run(teacher, tmp_path, log_every=4)
    assert sizes == [5, 3, 2, 1, 1]
    lines = [line for line in read_lines(folder.metrics) if "loss" in line]
    names = [sum(key.startswith("knowledge_projection.") for key in line) for line in lines]
    assert names == [9, 5, 3, 2, 1]


def test_a_store_of_whole_maps_gives_the_same_student(teacher: Path, tmp_path: Path) -> None:
    """Maps, gate and what is decided on held-out pictures come from the store, bit for bit."""
    precise = {"precision": "bf16", "data": recipe()["data"] | {"num_views": 2}}
    live = run(teacher, tmp_path, "live", **precise)
    value = distilled(teacher, **PHASED | precise)
    cache(validate(value, "live"), tmp_path / "store", Choices(logits="fp32"))
    answering = {"run": str(teacher), "cache": str(tmp_path / "store")}
    stored = run(teacher, tmp_path, "stored", **precise, teacher=answering)
    assert chosen(stored) == chosen(live)
    first, second = load_file(live.student), load_file(stored.student)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
