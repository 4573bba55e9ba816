"""Student, teachers, methods and weights as one module: images in, loss out.

It fits into any loop: see `examples/own_loop.py`. The engine uses nothing else.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, distributed, nn
from torch.utils import _pytree as pytree

from tutelage import rng
from tutelage.distiller.aggregation import Aggregator, Uniform, known_classes
from tutelage.distiller.objective import Objective, Schedule, Weight
from tutelage.errors import NetworkError, SettingError, TeacherError
from tutelage.methods._base import Method
from tutelage.models.network import AnyNetwork, Network, shape_of
from tutelage.taps import Stage, pair_stages
from tutelage.tasks import Classification, Task
from tutelage.teachers import LiveTeacher, Teacher
from tutelage.types import Batch, Observation, Pair, Shapes, Terms, TransferBatch

__all__ = ["Distiller", "Output"]

SUPERVISED = "supervised"
AGGREGATOR = "aggregator"
"""How findings and checkpoints call it; no method may be called so."""


class Output(NamedTuple):
    """What one call of a distiller gives.

    Attributes:
        loss: to call `backward` on.
        terms: unweighted, detached: "supervised", "supervised/NAME" for each sub-net, and
            "method.term" for each term of a method.
        output: of the student, in float32, detached.
    """

    loss: Float[Tensor, ""]
    terms: Terms
    output: Any


@final
class Distiller(nn.Module):
    """Trains a student from labels, teachers and methods.

    Args:
        student: any module from images to an output. A `Network` is given pixels in [0, 1] and
            normalizes by itself; another module is given the images as they come.
        teacher: likewise; or any callable from images to an output; or an object with the
            `Teacher` interface; or a list of several of these, over the same classes (a class that
            one does not know has the logit -∞ with it); or None, for labels alone or methods in
            which the student teaches itself. It is put into eval mode, frozen, and becomes no part
            of this module. It is not run if no method asks for a teacher.
        methods: name → (method, weight). See `distiller.objective.Weight`. Learned parts come to
            be where the student is, in its precision.
        task: what outputs mean; classification unless said.
        task_weight: weight of the supervised term, which is the mean over labelled samples.
        subnet_weight: weight of the mean of the sub-nets' supervised terms, within `task_weight`;
            without effect on a student that has none.
        input_normalized: (mean, std) with which the images that come are normalized already; each
            `Network` gets them back as pixels. None: images are pixels in [0, 1].
        taps: "auto" pairs the stages of student and teacher by stride; or pairs of sub-module
            names, student first.
        seed: of learned parts and of all randomness in methods.
        image_size: (channels, height, width) of the images, needed where neither network is a
            `Network` with an input spec.
        aggregator: makes one answer of several teachers'; `Uniform` unless said. Methods look at
            the maps of the first.

    Attributes:
        student: the `Network` that is trained.
        methods: name → method.
        aggregator: None unless there are several teachers.
        pairs: the taps that correspond, if a method asked for pairs.
        term_names: the keys of `Output.terms`, in order.

    Raises:
        NetworkError, SettingError, TeacherError: what was given does not fit together.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        student: nn.Module,
        teacher: AnyNetwork | Teacher | Sequence[AnyNetwork | Teacher] | None = None,
        *,
        methods: Mapping[str, tuple[Method, Weight]] | None = None,
        task: Task | None = None,
        task_weight: float | Schedule = 1.0,
        subnet_weight: float = 1.0,
        input_normalized: tuple[Sequence[float], Sequence[float]] | None = None,
        taps: Literal["auto"] | Sequence[tuple[str, str]] = "auto",
        seed: int = 0,
        image_size: tuple[int, int, int] | None = None,
        aggregator: Aggregator | None = None,
    ) -> None:
        super().__init__()
        methods = methods or {}
        self.student = student if isinstance(student, Network) else Network(student)
        self.methods = _as_modules({name: method for name, (method, _) in methods.items()})
        # A plain tuple: teachers are no sub-modules. One that no method asks is not run.
        wanted = any(method.needs.teachers for method, _ in methods.values())
        given = _listed(teacher) if wanted else ()
        self._teachers = tuple(_as_teacher(one, self.student) for one in given)
        if aggregator is not None and wanted and len(given) < 2:
            raise TeacherError(
                f"An aggregator makes one answer of several teachers', and {len(given)} are given. "
                "Give more, or leave it out."
            )
        self.aggregator = (aggregator or Uniform()) if len(given) > 1 else None
        self.task: Task = task or Classification()
        self.seed = seed
        self._normalized = input_normalized is not None
        self._images_checked = self._normalized
        for name, values in zip(("_mean", "_std"), _affine(input_normalized), strict=True):
            self.register_buffer(name, values, persistent=False)
        self._image_size = image_size or _known_size(self.student, self._teachers)

        for name, (method, _) in methods.items():
            self._check_needs(name, method)
        if AGGREGATOR in methods:
            raise SettingError(f"No method may be called {AGGREGATOR!r}. Choose another name.")
        self.pairs = self._choose_pairs(taps)
        self._taps_s, self._taps_t = self._choose_taps(self.pairs)
        self.student.tap(self._taps_s, "student")
        for one, taps_of_one in zip(self._teachers, self._taps_of_each(), strict=True):
            one.tap(taps_of_one, self._image_size)
        self._build_aggregator()
        dry = self._dry_run()
        shapes = Shapes(
            shape_of(dry.student), tuple(shape_of(seen) for seen in dry.teachers), self.pairs
        )
        for name, method in self.named_methods():
            if next(method.parameters(), None) is not None:
                raise SettingError(
                    f"{name} is in use already, and a method is built once. Make a new one for "
                    "every name and every distiller."
                )
            with rng.part(seed, f"method/{name}"):
                method.build(shapes)
        terms = self._method_terms(dry)
        first = next(self.student.parameters(), torch.empty(0))
        self.methods.to(first.device, first.dtype)
        if self.aggregator is not None:
            self.aggregator.to(first.device, first.dtype)
        weights = {name: weight for name, (_, weight) in methods.items()}
        self._objective = Objective(task_weight, weights, terms, subnet_weight=subnet_weight)
        self.term_names = (
            SUPERVISED,
            *(f"{SUPERVISED}/{name}" for name in self.student.subnets),
            *(f"{name}.{term}" for name, own in terms.items() for term in own),
        )

    # What the constructor decides

    def _check_needs(self, name: str, method: Method) -> None:
        needs = method.needs
        if needs.teachers > len(self._teachers):
            raise TeacherError(
                f"{name} needs {needs.teachers} teacher(s), but {len(self._teachers)} are given. "
                "Name a teacher, or leave the method out."
            )
        if needs.outputs and self.task.kind not in needs.outputs:
            raise SettingError(
                f"{name} compares outputs of the kind {' or '.join(needs.outputs)}, but the task's "
                f"are {self.task.kind}. Choose a method for that kind."
            )
        processes = distributed.get_world_size() if distributed.is_initialized() else 1
        if needs.compares_samples and processes > 1:
            warnings.warn(
                f"{name} compares the samples of a batch with each other, and each of {processes} "
                "processes compares those of its own part alone, as with a smaller batch. Train "
                "in one process where that matters.",
                stacklevel=4,
            )
        if needs.subnets and not self.student.subnets:
            raise NetworkError(
                f"{name} teaches the sub-nets of a student, and this one has none. Give it some: "
                "subnets, in a recipe, or tutelage.models.depth_dynamic.DepthDynamic."
            )

    def stages(self) -> tuple[list[Stage], list[Stage]]:
        """The candidate taps of student and first teacher (none without a teacher)."""
        found = self.student.stages(self._image_size)
        return found, [s for one in self._teachers[:1] for s in one.stages(self._image_size)]

    def _wanted(self) -> set[str]:
        return {method.needs.taps for _, method in self.named_methods()}

    def _choose_pairs(self, taps: Literal["auto"] | Sequence[tuple[str, str]]) -> tuple[Pair, ...]:
        if "pairs" not in self._wanted():
            return ()
        if taps == "auto":
            pairs = pair_stages(*self.stages())
        else:
            pairs = tuple(Pair(*pair) for pair in taps)
        if not pairs:
            raise NetworkError(
                "No stage of the student has the stride of a stage of the teacher, so there is "
                "nothing to compare. Name pairs of sub-modules in `taps`."
            )
        return pairs

    def _choose_taps(self, pairs: tuple[Pair, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        names_s = [pair.student for pair in pairs]
        names_t = [pair.teacher for pair in pairs]
        if "all" in self._wanted():
            stages_s, stages_t = self.stages()
            names_s += [stage.name for stage in stages_s]
            needs = [method.needs for _, method in self.named_methods()]
            if any(one.taps == "all" and one.reads_teacher for one in needs):
                names_t += [stage.name for stage in stages_t]
        return tuple(dict.fromkeys(names_s)), tuple(dict.fromkeys(names_t))

    def _taps_of_each(self) -> list[tuple[str, ...]]:
        """Of every teacher: the first is looked into, the others answer."""
        return [self._taps_t if number == 0 else () for number in range(len(self._teachers))]

    def _build_aggregator(self) -> None:
        if self.aggregator is None:
            return
        if self.task.kind not in self.aggregator.outputs:
            raise SettingError(
                f"The aggregator mixes outputs of the kind {' or '.join(self.aggregator.outputs)}, "
                f"but the task's are {self.task.kind}. Choose one for that kind."
            )
        seen_t, seen_s = self._dry_answers(), self.student.dry_run((), self._image_size)
        shapes = {shape_of(seen).output for seen in seen_t}
        if len(shapes) > 1:
            raise TeacherError(
                f"The teachers answer in the shapes {sorted(map(str, shapes))}, and one answer is "
                "made of theirs. Give each the same classes, by a class_map."
            )
        with rng.part(self.seed, "aggregator"):
            self.aggregator.build([shape_of(seen) for seen in seen_t], shape_of(seen_s))
        known = torch.stack([known_classes(seen.output) for seen in seen_t]).any(dim=0)
        if not known.all():
            raise TeacherError(
                f"No teacher knows class {int((~known).nonzero()[0])}. Every class of the data "
                "must be known to one of them."
            )

    def _dry_answers(self) -> tuple[Observation, ...]:
        return tuple(
            one.dry_run(taps, self._image_size)
            for one, taps in zip(self._teachers, self._taps_of_each(), strict=True)
        )

    def _together(
        self, answers: tuple[Observation, ...], student: Observation
    ) -> tuple[tuple[Observation, ...], tuple[Observation, ...]]:
        """What methods see of the teachers, and of each where there are several."""
        if self.aggregator is None:
            return answers, ()
        return (self.aggregator(answers, student),), answers

    def _dry_run(self) -> TransferBatch:
        seen_s = self.student.dry_run(self._taps_s, self._image_size)
        seen_t = self._dry_answers()
        targets = self.task.example_targets(2)
        number = torch.zeros(2, dtype=torch.int64)
        has_label = torch.ones(2, dtype=torch.bool)
        dry = TransferBatch(seen_s, seen_t, targets, has_label, number, number, self.seed)
        dry = pytree.tree_map(_like_new_parts, dry)
        with torch.no_grad():
            together, members = self._together(dry.teachers, dry.student)
        return replace(dry, teachers=together, members=members)

    def _method_terms(self, dry: TransferBatch) -> dict[str, list[str]]:
        with torch.no_grad():
            return {name: list(method(dry)) for name, method in self.named_methods()}

    # What a loop uses

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Of the student and of learned parts of methods; never of a teacher."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The same for an optimizer: a group for all, and one for an aggregator's parameters.

        "lr_factor" of a group says what its learning rate is, times the run's.
        """
        own = () if self.aggregator is None else self.aggregator.parameters()
        apart = {id(parameter) for parameter in own}
        trained = list(self.trainable_parameters())
        groups: list[dict[str, Any]] = [
            {"params": [one for one in trained if id(one) not in apart], "lr_factor": 1.0}
        ]
        others = [one for one in trained if id(one) in apart]
        if self.aggregator is not None and others:
            groups.append({"params": others, "lr_factor": self.aggregator.lr_factor})
        return groups

    def example(self) -> Float[Tensor, "2 c h w"]:
        """Gray pictures as the student takes them, for a dry run."""
        return self.student.example(self._image_size)

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        """The teacher's sub-modules whose maps methods look at."""
        return self._taps_t

    def named_methods(self) -> Iterator[tuple[str, Method]]:
        """Name and method, in the order given."""
        for name, method in self.methods.items():
            assert isinstance(method, Method)
            yield name, method

    def deciding(self) -> Iterator[tuple[str, Method | Aggregator]]:
        """Who may decide something between phases: the methods, and then the aggregator."""
        yield from self.named_methods()
        if self.aggregator is not None:
            yield AGGREGATOR, self.aggregator

    def _require_no_labels(self) -> None:
        for name, method in self.named_methods():
            if method.needs.labels == "class":
                raise SettingError(
                    f"{name} looks at class labels, but the distiller was called without targets. "
                    "Give them, or leave the method out."
                )

    def _to_pixels(self, images: Tensor) -> Tensor:
        if self._normalized:
            return images * self._std + self._mean
        if not self._images_checked and not torch.compiler.is_compiling():
            low, high = images.min().item(), images.max().item()  # the first batch only
            if not (low >= -1e-4 and high <= 1 + 1e-4):  # so put, NaN is refused too
                raise SettingError(
                    f"Images must be pixels in [0, 1], but the first batch spans {low:.2f} to "
                    f"{high:.2f}. If they are normalized, say how: input_normalized=(mean, std)."
                )
            self._images_checked = True
        return images

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Distiller":
        """Moves the teachers along with `.to(...)`, though they are no sub-modules."""
        super()._apply(fn, recurse)
        for one in self._teachers:
            one.apply(fn)
        return self

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """As given; a module as a `LiveTeacher`."""
        return self._teachers

    def forward(
        self,
        images: Float[Tensor, "n c h w"],
        targets: Any = None,
        *,
        index: Int64[Tensor, " n"] | None = None,
        view: Int64[Tensor, " n"] | None = None,
        has_label: Bool[Tensor, " n"] | None = None,
        progress: float | Tensor | None = None,
        num_labelled: float | None = None,
        weight: Float[Tensor, " n"] | None = None,
    ) -> Output:
        """Observes a batch and adds up the loss.

        Args:
            images: pixels in [0, 1], or normalized as `input_normalized` says.
            targets: class numbers, for classification. None: no sample is labelled.
            index, view: which samples these are; needed by stored teachers and by methods that
                draw random numbers.
            has_label: False where the target is a placeholder. None: all are labelled, or without
                targets none.
            progress: finished fraction of the run; needed where a weight follows a schedule.
            num_labelled: what the sum over labelled samples is divided by. None: their number.
            weight: what each sample's supervised loss is multiplied by. None: 1.

        Raises:
            SettingError: something needed was not given, or images are outside [0, 1].
        """
        seen = self.observe(images, targets, index=index, view=view, has_label=has_label)
        if num_labelled is None and has_label is not None:
            divisor = seen.has_label.sum().clamp(min=1)
        else:
            divisor = num_labelled or max(len(images), 1)
        output = seen.student.output
        weighed = {} if weight is None else {"weight": weight}
        supervised, *parts = depths = [
            self.task.supervised_loss(one.output, seen.targets, seen.has_label, divisor, **weighed)
            for one in (seen.student, *seen.student.subnets.values())
        ]
        terms = {name: method(seen) for name, method in self.named_methods()}
        loss = self._objective(supervised, terms, progress, subnets=parts)
        flat = {
            name: value.detach() for name, value in zip(self.term_names, depths, strict=False)
        } | {
            f"{name}.{term}": value.detach()
            for name, values in terms.items()
            for term, value in values.items()
        }
        return Output(loss, flat, pytree.tree_map(_detached, output))

    def weighted_terms(
        self, part: str, terms: Sequence[str], seen: TransferBatch, progress: float
    ) -> Float[Tensor, ""]:
        """The weighted sum of some terms; what a step on these alone descends.

        Args:
            part: the method whose terms these are; or "aggregator", with terms of all methods.
            terms: as the method names them; with "aggregator" as `term_names` does.
        """
        chosen: dict[str, Terms] = {}
        for name, method in self.named_methods():
            wanted = {AGGREGATOR: _terms_of(name, terms), name: terms}.get(part, ())
            if len(wanted) > 0:
                values = method(seen)
                chosen[name] = {term: values[term] for term in wanted}
        return self._objective(torch.zeros((), device=seen.has_label.device), chosen, progress)

    def observe(
        self,
        images: Float[Tensor, "n c h w"],
        targets: Any = None,
        *,
        index: Int64[Tensor, " n"] | None = None,
        view: Int64[Tensor, " n"] | None = None,
        has_label: Bool[Tensor, " n"] | None = None,
    ) -> TransferBatch:
        """What methods see of a batch: teachers first, under `no_grad`, then the student."""
        pixels = self._to_pixels(images)
        if has_label is None:
            known = targets is not None
            has_label = torch.full((len(images),), known, device=images.device)
        elif targets is None:
            raise SettingError(
                "has_label says which targets count, but there are no targets. Give both or "
                "neither."
            )
        if targets is None:
            self._require_no_labels()
            targets = self.task.example_targets(len(images)).to(images.device)
        seen_t = tuple(
            one.observe(
                Batch(pixels if one.takes_pixels else images, targets, has_label, index, view),
                taps,
            )
            for one, taps in zip(self._teachers, self._taps_of_each(), strict=True)
        )
        shown = images if self.student.spec is None else pixels
        seen_s = self.student.observe(shown, self._taps_s)
        together, members = self._together(seen_t, seen_s)
        return TransferBatch(seen_s, together, targets, has_label, index, view, self.seed, members)


def _terms_of(method: str, names: Iterable[str]) -> list[str]:
    """Of full names of terms those of one method, as it names them."""
    prefix = f"{method}."
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _listed(
    teacher: AnyNetwork | Teacher | Sequence[AnyNetwork | Teacher] | None,
) -> tuple[AnyNetwork | Teacher, ...]:
    if teacher is None:
        return ()
    return tuple(teacher) if isinstance(teacher, Sequence) else (teacher,)


def _as_modules(methods: Mapping[str, nn.Module]) -> nn.ModuleDict:
    try:
        return nn.ModuleDict(methods)
    except KeyError as error:  # a dot, or what a ModuleDict calls something of its own
        raise SettingError(f"A method cannot bear this name: {error}. Choose another.") from None


def _as_teacher(teacher: AnyNetwork | Teacher, student: Network) -> Teacher:
    network = teacher.network if isinstance(teacher, LiveTeacher) else teacher
    if not isinstance(network, nn.Module):
        if isinstance(teacher, Teacher):
            return teacher
        return LiveTeacher(Network(teacher))
    trained = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in trained for parameter in network.parameters()):
        raise TeacherError(
            "Student and teacher share weights, but a teacher is frozen. Give a copy as teacher: "
            "copy.deepcopy(student)."
        )
    if isinstance(teacher, LiveTeacher):
        return teacher
    network = network if isinstance(network, Network) else Network(network)
    return LiveTeacher(network.whole())  # its sub-nets would be run for nothing


def _known_size(student: Network, teachers: tuple[Teacher, ...]) -> tuple[int, int, int] | None:
    """The picture size that a network without a spec is probed with: the other's."""
    networks = (student, *(one.network for one in teachers if isinstance(one, LiveTeacher)))
    for network in networks:
        if network.spec is not None:
            return network.spec.channels, network.spec.height, network.spec.width
    return None


def _affine(
    normalized: tuple[Sequence[float], Sequence[float]] | None,
) -> Iterable[Tensor | None]:
    if normalized is None:
        return None, None
    mean, std = normalized
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise SettingError(
            "input_normalized is one mean and one std above 0 per channel, but it is "
            f"{tuple(mean)} and {tuple(std)}. Give those that the images were normalized with."
        )
    return tuple(torch.tensor(list(values)).view(-1, 1, 1) for values in normalized)


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _like_new_parts(leaf: Any) -> Any:
    """What learned parts are when they are made: on the CPU, in the default precision."""
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.to("cpu", torch.get_default_dtype()) if leaf.is_floating_point() else leaf.cpu()
