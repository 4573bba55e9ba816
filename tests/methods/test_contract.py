"""The same questions to every method in the index.

A method answers them by its place in `METHODS` and one entry in `CASES`. Its golden curve is
written by `TUTELAGE_WRITE_GOLDEN=1 pytest tests/methods/test_contract.py -k golden`, and again only
when the mathematics changes; the changelog then says why.
"""

import copy
import inspect
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import unchecked
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tutelage import rng
from tutelage.distiller import Distiller
from tutelage.errors import NetworkError
from tutelage.methods import METHODS, Method, Needs
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.depth_dynamic import DepthDynamic
from tutelage.teachers import LiveTeacher
from tutelage.types import Observation, ObservationShape, Pair, Shapes, Terms, TransferBatch

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The tensors here are too small to share, and golden curves are of one thread."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Case:
    """What the contract cannot know of a method.

    Attributes:
        terms: the names that it promises for `PAIRS`, in order.
        weight: brings its terms to about 1, so that the golden curve shows them.
        lr: of the twenty steps in which it lowers its own loss.
    """

    terms: tuple[str, ...]
    weight: float
    lr: float


CASES = {
    "attention_transfer": Case(terms=("at/early", "at/late"), weight=10.0, lr=0.1),
    "dct_attention": Case(terms=("dct/early", "dct/late"), weight=1.0, lr=0.1),
    "embedded_distillation": Case(terms=("kl/small", "attention/small"), weight=1.0, lr=0.05),
    "fitnet_hints": Case(terms=("hint/early", "hint/late"), weight=1.0, lr=0.1),
    "geometric": Case(terms=("geometry/early", "geometry/late"), weight=1.0, lr=0.1),
    "kd": Case(terms=("kl",), weight=1.0, lr=0.1),
    "knowledge_projection": Case(
        terms=(
            "projection/early<-first",
            "projection/early<-second",
            "projection/late<-first",
            "projection/late<-second",
        ),
        weight=1.0,
        lr=0.1,
    ),
}

NAMES = sorted(METHODS)
NUM_CLASSES = 5
PAIRS = (Pair("early", "first"), Pair("late", "second"))
# Other widths and strides: the student's map is the smaller one here and the larger one there.
SMALL = ObservationShape((NUM_CLASSES,), {"early": (4, 6, 8), "late": (6, 3, 4)})
STUDENT = SMALL._replace(subnets={"small": SMALL})
TEACHER = ObservationShape((NUM_CLASSES,), {"first": (7, 12, 16), "second": (5, 2, 2)})
SHAPES = Shapes(STUDENT, (TEACHER,), PAIRS)
TWINS = Shapes(STUDENT, (STUDENT,), (Pair("early", "early"), Pair("late", "late")))


def case_of(name: str) -> Case:
    assert name in CASES, f"{name} is in METHODS but not in CASES of the contract test"
    return CASES[name]


def made(name: str, shapes: Shapes = SHAPES, dtype: torch.dtype = torch.float64) -> Method:
    """A built method, its learned parts drawn from a generator of their own."""
    method = METHODS[name]()
    with rng.part(0, name):
        method.build(shapes)
    return method.to(dtype)


def numbers(name: str, *shape: int) -> Tensor:
    """Uniform in [−1, 1), the same on every machine and with every version."""
    key = torch.tensor([rng.key(0, name)])
    return 2 * rng.uniforms(key, shape)[0].double() - 1


def observation(role: str, shape: ObservationShape, n: int) -> Observation:
    assert shape.output is not None
    maps = {tap: numbers(f"{role}/{tap}", n, *size) for tap, size in shape.features.items()}
    subnets = {name: observation(f"{role}/{name}", part, n) for name, part in shape.subnets.items()}
    return Observation(3 * numbers(role, n, *shape.output), maps, subnets)


def batch_of(n: int = 4, shapes: Shapes = SHAPES) -> TransferBatch:
    """Random answers and maps in float64; every other sample has a label."""
    count = torch.arange(n)
    teachers = tuple(observation("teacher", shape, n) for shape in shapes.teachers)
    return TransferBatch(
        observation("student", shapes.student, n),
        teachers,
        targets=count % NUM_CLASSES,
        has_label=count % 2 == 0,
        index=100 + count,
        view=count % 3,
        seed=7,
    )


def each(batch: TransferBatch, change: Callable[[Tensor], Tensor]) -> TransferBatch:
    return pytree.tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, batch)


def floats(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda leaf: change(leaf) if leaf.is_floating_point() else leaf


def tensors(batch: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]


def with_gradient(batch: TransferBatch) -> tuple[TransferBatch, list[Tensor]]:
    """A copy whose student's tensors are leaves, and these leaves."""
    student = pytree.tree_map(lambda leaf: leaf.detach().clone().requires_grad_(), batch.student)
    return replace(batch, student=student), tensors(student)


def total(terms: Terms) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def assert_same(one: Terms, other: Terms, rel: float = 1e-9) -> None:
    assert list(one) == list(other)
    for term, value in one.items():
        assert value.item() == pytest.approx(other[term].item(), rel=rel, abs=0), term


# The index and the class


def test_every_method_has_a_case_and_every_case_a_method() -> None:
    assert len(METHODS) >= 3
    assert sorted(CASES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_is_final_and_makes_no_tensors_before_it_is_built(name: str) -> None:
    cls = METHODS[name]
    assert issubclass(cls, Method)
    assert getattr(cls, "__final__", False), f"{cls.__name__} is not marked @final"
    assert isinstance(cls.needs, Needs)
    for setting in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        assert setting.kind is inspect.Parameter.KEYWORD_ONLY, setting.name
        assert setting.default is not inspect.Parameter.empty, f"{setting.name} has no default"
        assert setting.annotation is not inspect.Parameter.empty, f"{setting.name} has no type"
    assert tensors([*cls().parameters(), *cls().buffers()]) == []


# One batch


@pytest.mark.parametrize("name", NAMES)
def test_gives_finite_scalars_of_the_promised_names(name: str) -> None:
    terms = made(name)(batch_of())
    assert tuple(terms) == case_of(name).terms
    for value in terms.values():
        assert value.shape == ()
        assert value.isfinite()
        assert value != 0


@pytest.mark.parametrize("name", NAMES)
def test_every_term_reaches_the_student_and_every_learned_part(name: str) -> None:
    method = made(name)
    batch, leaves = with_gradient(batch_of())
    terms = method(batch)
    for term, value in terms.items():
        gradients = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
        used = [gradient for gradient in gradients if gradient is not None]
        assert any(gradient.abs().sum() > 0 for gradient in used), term
        assert all(gradient.isfinite().all() for gradient in used), term
    total(terms).backward()
    for part, parameter in method.named_parameters():
        assert parameter.grad is not None, part
        assert parameter.grad.abs().sum() > 0, part


@pytest.mark.parametrize("name", NAMES)
def test_does_not_depend_on_the_order_of_samples(name: str) -> None:
    method, order = made(name), torch.tensor([2, 0, 3, 1])
    assert_same(method(each(batch_of(), lambda leaf: leaf[order])), method(batch_of()))


@pytest.mark.parametrize("name", NAMES)
def test_takes_what_it_keeps_of_a_teachers_map_for_the_map(name: str) -> None:
    batch, whole = batch_of(), made(name)
    sizes = {pair.teacher: STUDENT.features[pair.student][1:] for pair in PAIRS}
    maps = batch.teachers[0].features
    kept = {tap: whole.encode(maps[tap], (sizes[tap][0], sizes[tap][1])) for tap in maps}
    shape = ObservationShape((NUM_CLASSES,), {tap: tuple(kept[tap].shape[1:]) for tap in kept})
    method = made(name, Shapes(STUDENT, (shape,), PAIRS))
    shown = replace(batch, teachers=(batch.teachers[0]._replace(features=kept),))
    assert_same(method(shown), whole(batch))


@pytest.mark.parametrize("name", NAMES)
def test_is_a_mean_over_samples(name: str) -> None:
    method, batch = made(name), batch_of()
    if method.needs.compares_samples:
        pytest.skip("says that it compares samples")
    assert_same(
        method(each(batch, lambda leaf: leaf.repeat(2, *[1] * (leaf.ndim - 1)))), method(batch)
    )
    alone = [method(each(batch, lambda leaf, i=i: leaf[i : i + 1])) for i in range(4)]
    mean = {term: torch.stack([terms[term] for terms in alone]).mean() for term in alone[0]}
    assert_same(mean, method(batch))


@pytest.mark.parametrize("name", NAMES)
def test_takes_a_batch_of_one_or_refuses_it_in_words(name: str) -> None:
    method, one = made(name), batch_of(1)
    if method.needs.compares_samples:
        with pytest.raises(NetworkError, match=name):
            method(one)
    else:
        assert total(method(one)).isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_changes_nothing_and_draws_nothing(name: str) -> None:
    method, batch = made(name), batch_of()
    inputs, state = copy.deepcopy(batch), copy.deepcopy(method.state_dict())
    generator = torch.get_rng_state()
    first, second = method(batch), method(batch)
    assert_same(first, second, rel=0)
    assert torch.equal(torch.get_rng_state(), generator)
    for before, after in zip(tensors(inputs), tensors(batch), strict=True):
        assert torch.equal(before, after)
    for key, value in method.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_looks_at_labels_only_if_it_says_so(name: str) -> None:
    method, batch = made(name), batch_of()
    if method.needs.labels == "class":
        others = [(batch.targets + more) % NUM_CLASSES for more in range(1, NUM_CLASSES)]
        found = [total(method(replace(batch, targets=other))) for other in others]
        assert any(value != total(method(batch)) for value in found)
        hidden = replace(batch, targets=torch.where(batch.has_label, batch.targets, 0))
        assert_same(method(hidden), method(batch))
    else:
        blind = replace(batch, targets=None, has_label=torch.zeros(4, dtype=torch.bool))
        assert_same(method(blind), method(batch), rel=0)


# Precision and edges


@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_float64(name: str) -> None:
    single = made(name, dtype=torch.float32)(each(batch_of(), floats(Tensor.float)))
    assert_same(single, made(name)(batch_of()), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_maps_give_finite_float32_terms(name: str) -> None:
    # As under the engine's autocast: maps in bfloat16, outputs and learned parts in float32.
    def half(seen: Observation) -> Observation:
        maps = {tap: value.bfloat16() for tap, value in seen.features.items()}
        subnets = {name: half(part) for name, part in seen.subnets.items()}
        return Observation(seen.output.float(), maps, subnets)

    batch = batch_of()
    batch = replace(batch, teachers=tuple(half(seen) for seen in batch.teachers))
    batch, leaves = with_gradient(replace(batch, student=half(batch.student)))
    with torch.autocast("cpu", torch.bfloat16):
        terms = made(name, dtype=torch.float32)(batch)
    assert all(value.dtype == torch.float32 for value in terms.values())
    assert_same(terms, made(name)(batch_of()), rel=0.05)
    total(terms).backward()
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves)


@pytest.mark.parametrize("what", ["equal", "constant", "silent", "silent teacher"])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_finite_at_the_edges(name: str, what: str) -> None:
    batch = batch_of(shapes=TWINS)
    if what == "equal":
        batch = replace(batch, student=batch.teachers[0])
    elif what == "constant":
        batch = each(batch, floats(torch.ones_like))
    elif what == "silent":
        batch = replace(batch, student=pytree.tree_map(torch.zeros_like, batch.student))
    else:
        batch = replace(batch, teachers=pytree.tree_map(torch.zeros_like, batch.teachers))
    method = made(name, TWINS)
    batch, leaves = with_gradient(batch)
    terms = method(batch)
    total(terms).backward()
    assert all(value.isfinite() for value in terms.values())
    gradients = [leaf.grad for leaf in [*leaves, *method.parameters()] if leaf.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_saves_and_loads(name: str) -> None:
    method, other = made(name), METHODS[name]()
    with rng.part(1, name):  # other initial weights than `method` has
        other.build(SHAPES)
    other.restore_structure(method.structure())
    other.double().load_state_dict(load(save(method.state_dict())))
    assert_same(other(batch_of()), method(batch_of()), rel=0)


# Shapes


def misfits(needs: Needs) -> Iterator[tuple[str, Shapes]]:
    """Shapes that a method with these needs must refuse."""
    if "logits" in needs.outputs:
        yield "other classes", SHAPES._replace(student=STUDENT._replace(output=(NUM_CLASSES + 1,)))
        yield "no head", SHAPES._replace(student=STUDENT._replace(output=None))
        if needs.teachers:
            headless = TEACHER._replace(output=None)
            yield "teacher without a head", SHAPES._replace(teachers=(headless,))
        maps = STUDENT._replace(output=(NUM_CLASSES, 2, 2))
        yield "maps for logits", Shapes(maps, (maps,), PAIRS)
    if needs.subnets:
        yield "no sub-nets", SHAPES._replace(student=SMALL)
        other = {"small": SMALL._replace(output=(NUM_CLASSES + 1,))}
        yield "a sub-net of other classes", SHAPES._replace(student=STUDENT._replace(subnets=other))
        other = {"small": SMALL._replace(features={"early": (3, 6, 8)})}
        yield "no stage in common", SHAPES._replace(student=STUDENT._replace(subnets=other))
    if needs.taps == "pairs":
        yield "no pair", SHAPES._replace(pairs=())
        yield "no such tap", SHAPES._replace(pairs=(Pair("earli", "first"),))
        yield "no such tap of the teacher", SHAPES._replace(pairs=(Pair("early", "frist"),))
        yield "a tap twice", SHAPES._replace(pairs=(*PAIRS, Pair("early", "second")))
        flat = STUDENT._replace(features={**STUDENT.features, "early": (4,)})
        yield "a vector for a map", SHAPES._replace(student=flat)


MISFITS = [(name, why) for name in NAMES for why, _ in misfits(METHODS[name].needs)]


@pytest.mark.parametrize(("name", "why"), MISFITS)
def test_refuses_what_does_not_fit(name: str, why: str) -> None:
    shapes = dict(misfits(METHODS[name].needs))[why]
    with pytest.raises(NetworkError) as caught:
        METHODS[name]().build(shapes)
    assert str(caught.value).endswith(".")


def test_every_method_has_something_to_refuse() -> None:
    assert {name for name, _ in MISFITS} == set(NAMES)


# In a distiller, with networks of different width and stride


def block(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


def network(
    taps: tuple[str, str], widths: tuple[int, int], strides: tuple[int, int], dropout: float
) -> nn.Module:
    first, second = taps
    return nn.Sequential(
        OrderedDict(
            {
                first: block(3, widths[0], strides[0]),
                second: block(widths[0], widths[1], strides[1]),
                "drop": nn.Dropout(dropout),
                "pool": nn.AdaptiveAvgPool2d(1),
                "flat": nn.Flatten(),
                "head": nn.Linear(widths[1], NUM_CLASSES),
            }
        )
    )


@torch.no_grad()
def fill(module: nn.Module, role: str) -> None:
    """Initial weights that depend on no version of torch."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            parameter.copy_(numbers(f"{role}/{name}", *parameter.shape) * (6 / fan_in) ** 0.5)
        elif name.endswith("bias"):
            parameter.zero_()


def pupil_of(
    name: str,
    weight: float | None = 1.0,
    task_weight: float = 1.0,
    dropout: float = 0.0,
) -> Distiller:
    """Student and teacher with fixed weights in float64; `weight` None: from labels alone."""
    student = network(("early", "late"), (4, 6), (2, 2), dropout)
    if METHODS[name].needs.subnets:
        plain = cifar_resnet(14, 4, num_classes=NUM_CLASSES)
        student = DepthDynamic(plain, {"small": 1})
    teacher = network(("first", "second"), (7, 5), (1, 8), dropout=0.5)
    fill(student, "student")
    fill(teacher, "teacher")
    pupil = Distiller(
        student,
        teacher,
        methods={} if weight is None else {name: (METHODS[name](), weight)},
        task_weight=task_weight,
        taps=PAIRS,
        image_size=(3, 12, 16),
    )
    fill(pupil.methods, "method")
    return pupil.double()


def pictures() -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    count = torch.arange(8)
    images = (numbers("images", 8, 3, 12, 16) + 1) / 2
    return images, count % NUM_CLASSES, {"index": count, "view": count % 2}


def train(pupil: Distiller, steps: int, lr: float) -> list[float]:
    """Losses before each step, on one batch; dropout draws from the global generator."""
    optimizer = torch.optim.SGD(
        pupil.trainable_parameters(), lr=lr, momentum=0.9, weight_decay=1e-4
    )
    images, labels, which = pictures()
    losses = []
    for step in range(steps):
        out = pupil(images, labels, progress=step / steps, **which)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        losses.append(out.loss.item())
    return losses


@pytest.mark.parametrize("name", NAMES)
def test_teacher_stays_as_it_is(name: str) -> None:
    pupil = pupil_of(name)
    if not METHODS[name].needs.teachers:
        assert pupil.teachers == ()  # none is asked
        return
    (teacher,) = pupil.teachers
    assert isinstance(teacher, LiveTeacher)
    before = copy.deepcopy(teacher.network.state_dict())
    train(pupil, steps=3, lr=0.1)
    assert all(torch.equal(v, before[key]) for key, v in teacher.network.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_twenty_steps_lower_its_own_loss(name: str) -> None:
    losses = train(pupil_of(name, case_of(name).weight, task_weight=0.0), 21, case_of(name).lr)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_learned_part_moves_in_one_step(name: str) -> None:
    pupil = pupil_of(name)
    before = copy.deepcopy(pupil.methods.state_dict())
    train(pupil, steps=1, lr=0.1)
    for part, parameter in pupil.methods.named_parameters():
        assert not torch.equal(parameter, before[part]), part


def test_some_method_has_learned_parts() -> None:
    assert any(list(made(name).parameters()) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_weight_zero_leaves_the_student_bit_identical(name: str) -> None:
    students = []
    for weight in (None, 0.0, 1.0):
        torch.manual_seed(3)  # for dropout: a method that drew numbers would shift it
        pupil = pupil_of(name, weight, dropout=0.3)
        train(pupil, steps=5, lr=0.1)
        students.append(pupil.student.state_dict())
    without, silent, loud = students
    assert all(value.isfinite().all() for value in without.values())
    assert all(torch.equal(value, silent[key]) for key, value in without.items())
    assert not all(torch.equal(value, loud[key]) for key, value in without.items())


def check_compiled() -> None:
    """What the next test runs in a process of its own."""
    images, labels, which = pictures()
    for name in NAMES:
        print(name, file=sys.stderr)
        eager, compiled = pupil_of(name), pupil_of(name)
        expected = eager(images, labels, **which)
        torch.compiler.reset()  # so that no method's graph counts as another's recompilation
        out = torch.compile(compiled, backend="aot_eager", fullgraph=True)(images, labels, **which)
        assert_same(out.terms, expected.terms)
        expected.loss.backward()
        out.loss.backward()
        for (key, one), other in zip(eager.named_parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, msg=key)


@pytest.mark.slow
def test_all_compile_to_the_same_value() -> None:
    done = unchecked.call(__file__, "check_compiled()")
    assert set(NAMES) <= set(done.stderr.split())


@pytest.mark.parametrize("name", NAMES)
def test_golden_curve(name: str) -> None:
    """Twenty losses of labels and method together, in float64 on one thread."""
    curve = train(pupil_of(name, case_of(name).weight), 20, case_of(name).lr)
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("TUTELAGE_WRITE_GOLDEN") == "1":
        file.write_text("".join(f"{loss:.12f}\n" for loss in curve))
        pytest.skip(f"wrote {file.name}")
    assert file.is_file(), f"no {file.name}: run this test once with TUTELAGE_WRITE_GOLDEN=1"
    golden = [float(line) for line in file.read_text().splitlines()]
    assert len(golden) == 20
    assert curve == pytest.approx(golden, rel=0, abs=1e-6)
