"""No step waits for the device: what runs in each step never asks a tensor for its value.

Two checks that need no GPU. The source of what runs in every step is read:

- it may not call `.item()`, `.tolist()`, `.cpu()`, `.numpy()`, `.nonzero()`, `float`, `int`, or
  `bool`;
- it may branch (`if`, `while`, `assert`, `… if … else …`, `and`, `or`, `not`, a filter in a
  comprehension) only on what the host knows without asking: see `host_knows`. Whatever is not
  recognized as such counts as a question to a tensor.

And a step of every method is run while each such question raises: PyTorch answers all of them, `if
tensor` included, by the same few operators. (A third check, on CUDA, is in test_loop.py.)

Exempt by name: `Distiller._to_pixels`, which looks at the first batch.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import NUM_CLASSES, loader, pictures, settings, tiny
from torch.utils._python_dispatch import TorchDispatchMode

import tutelage
from tutelage.distiller import Distiller, Schedule
from tutelage.engine.session import Session
from tutelage.methods import METHODS
from tutelage.models.cifar_resnet import cifar_resnet
from tutelage.models.depth_dynamic import DepthDynamic
from tutelage.models.network import Network
from tutelage.records import RunFolder

SOURCE = Path(tutelage.__file__).parent

ASKING = {"item", "tolist", "cpu", "numpy", "nonzero"}
CONVERTING = {"float", "int", "bool"}

IN_EACH_STEP: dict[str, set[str]] = {
    "engine/session.py": {"Session.train_step", "_micro_batches"},
    "engine/phases.py": {"move"},
    "engine/log.py": {"Log.add"},
    "distiller/distiller.py": {
        "Distiller.forward",
        "Distiller.observe",
        "Distiller.weighted_terms",
        "Distiller._to_pixels",
    },
    "distiller/objective.py": {"Objective.__call__", "Schedule.value", "_now", "part_of"},
    "layouts.py": {"Layout.map_of"},
    "taps.py": {"Recorder._keep", "Recorder.start", "Recorder.stop"},
    "teachers/live.py": {"LiveTeacher.observe"},
    "models/network.py": {
        "Network.forward",
        "Network.prepare",
        "Network.observe",
        "_to_float32",
    },
    "models/fake_quantization.py": {
        "_rounded_weight",
        "_Range.forward",
        "_Range.rounded",
        "FakeQuantization.follow",
        "_begin",
        "_end",
        "_put",
    },
    "models/depth_dynamic.py": {
        "DepthDynamic.call_all",
        "DepthDynamic._seen",
        "DepthDynamic._stages",
        "DepthDynamic._stem",
        "DepthDynamic._head",
    },
    "tasks/classification.py": {
        "Classification.supervised_loss",
        "Classification.num_correct",
    },
    "types.py": {"TransferBatch.draw"},
    "rng.py": {"keys", "fold", "uniforms", "_mix", "_shift"},
}
"""File → what of it runs in each step. Of ops.py and of a method's file it is every function but
`__init__`, `build`, what serves the end of a phase, and what only these call."""

BETWEEN_STEPS = {"__init__", "build", "end_phase", "structure", "restore_structure"}
FIRST_BATCH_ONLY = {("distiller/distiller.py", "Distiller._to_pixels")}

HOST_CALLS = {"isinstance", "len", "is_compiling", "is_floating_point"}
HOST_ATTRIBUTES = {
    *("shape", "ndim", "dtype", "device", "training", "spec", "takes_pixels", "kind"),
    "channels",  # of a spec
    "gate",  # a setting
    "guide",  # a setting
    "detach",  # a setting
    "_shares_first",  # a fact of two networks
    "locations",  # a setting
    "_plain",  # a fact of a spec
}
HOST_NAMES = {
    "last",  # number of a micro-batch
    "same",  # two shapes
    "half",  # a dtype
    "by_range",  # a setting
    "rescale",  # a setting
    "channels_last",  # a setting
    "masked",  # a setting
    "num_labelled",  # a number, or None
    "num_pictures",  # a length
    "num_points",  # a length
    "num_distances",  # a number
    "args",  # of a call
    "height",  # of a map
    "width",  # of a map
}


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """All functions with their dotted names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield inside + node.name, node
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from functions(node, f"{inside}{node.name}.")
        else:
            yield from functions(node, inside)


def host_knows(test: ast.expr) -> bool:
    """Whether a condition can be decided without the value of a tensor.

    So are: comparisons with None or by identity; membership of names; comparisons with a shape, a
    length, a text or the like; types; and the names above.
    """
    match test:
        case ast.Constant():
            return True
        case ast.BoolOp(values=parts) | ast.Tuple(elts=parts):
            return all(map(host_knows, parts))
        case ast.UnaryOp(operand=operand):
            return host_knows(operand)
        case ast.Compare(ops=[ast.Is() | ast.IsNot()]):
            return True
        case ast.Compare(ops=[one], left=ast.Name() | ast.Constant()) if _is_membership(one):
            return True
        case ast.Compare(left=left, comparators=others):
            return any(host_knows(side) and not _is_number(side) for side in (left, *others))
        case ast.Call(func=ast.Name(id="any" | "all"), args=[ast.GeneratorExp(elt=each)]):
            return host_knows(each)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in HOST_CALLS
        case ast.Attribute(attr=name):
            return name in HOST_ATTRIBUTES
        case ast.Subscript(value=value):
            return host_knows(value)
        case ast.Name(id=name):
            return name in HOST_NAMES
    return False


def _is_membership(operator: ast.cmpop) -> bool:
    return type(operator).__name__.endswith("In")  # with or without not


def _is_number(side: ast.expr) -> bool:
    return isinstance(side, ast.Constant) and not isinstance(side.value, str)


def questions(function: ast.FunctionDef) -> list[str]:
    """What in a function asks a tensor for its value, or may."""
    found = []
    for node in own_nodes(function):
        match node:
            case ast.Call(func=ast.Attribute(attr=name)) if name in ASKING:
                found.append(f"{node.lineno}: .{name}()")
            case ast.Call(func=ast.Name(id=name)) if name in CONVERTING:
                found.append(f"{node.lineno}: {name}()")
        asked = [test for test in conditions(node) if not host_knows(test)]
        found += [f"{test.lineno}: if {ast.unparse(test)}" for test in asked]
    return found


def own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Of the body, without functions inside, which have their own line in the table."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [
            child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.FunctionDef)
        ]


def conditions(node: ast.AST) -> list[ast.expr]:
    match node:
        case (
            ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) | ast.Assert(test=test)
        ):
            return [test]
        case ast.BoolOp(values=values):
            return values[:-1]  # the last is a result, not a question
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return [operand]
        case ast.comprehension(ifs=ifs):
            return ifs
        case ast.Match(subject=subject):
            return [subject]
    return []


def stepping(path: Path) -> dict[str, ast.FunctionDef]:
    """The functions of a file that run in each step."""
    name = path.relative_to(SOURCE).as_posix()
    known = dict(functions(ast.parse(path.read_text())))
    if name in IN_EACH_STEP:
        missing = IN_EACH_STEP[name] - known.keys()
        assert not missing, f"{name} has no {missing} any more; mend the table"
        return {inner: known[inner] for inner in IN_EACH_STEP[name]}
    return called(
        known, [inner for inner in known if not last(inner).startswith("_")], but=BETWEEN_STEPS
    )


def called(
    known: dict[str, ast.FunctionDef], first: list[str], *, but: set[str]
) -> dict[str, ast.FunctionDef]:
    """The functions named in `first`, and all that they call or mention, by last name."""
    found: dict[str, ast.FunctionDef] = {}
    waiting = list(first)
    while waiting:
        inner = waiting.pop()
        if inner in found or last(inner) in but:
            continue
        found[inner] = known[inner]
        named = {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(known[inner])
            if isinstance(node, ast.Name | ast.Attribute)
        }
        waiting += [other for other in known if last(other) in named]
    return found


def last(name: str) -> str:
    return name.rpartition(".")[2]


FILES = [
    *(SOURCE / name for name in IN_EACH_STEP),
    SOURCE / "ops.py",
    *sorted((SOURCE / "methods").glob("[!_]*.py")),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_what_runs_in_each_step_asks_no_tensor(path: Path):
    name = path.relative_to(SOURCE).as_posix()
    checked = stepping(path)
    assert checked
    found = {
        inner: asked
        for inner, node in checked.items()
        if (name, inner) not in FIRST_BATCH_ONLY and (asked := questions(node))
    }
    assert found == {}


def test_the_exemption_is_needed_and_looks_at_the_first_batch_only():
    for name, inner in FIRST_BATCH_ONLY:
        assert questions(stepping(SOURCE / name)[inner])
    pupil = Distiller(tiny())
    pupil(torch.zeros(2, 1, 8, 8))
    pupil(torch.full((2, 1, 8, 8), 7.0))  # nobody looks any more


@pytest.mark.parametrize(
    "line",
    [
        "x.item()",
        "y = x.sum().tolist()",
        "x.detach().cpu()",
        "float(x)",
        "y = 1 if x > 0 else 2",
        "if x.any(): pass",
        "if len(x) and x.isfinite().all(): pass",
        "while x < 3: pass",
        "assert (x >= 0).all()",
        "y = [v for v in x if v > 0]",
        "y = x or 3",
        "y = not x",
        "if x: pass",
        "if x.shape[0] > 1 and x[0] > 1: pass",
    ],
)
def test_questions_are_found(line: str):
    (function,) = ast.parse(f"def step(x):\n    {line}\n").body
    assert isinstance(function, ast.FunctionDef)
    assert questions(function)


@pytest.mark.parametrize(
    "line",
    [
        "if x is None: pass",
        "if x.shape[-2:] == (4, 4): pass",
        "y = 1 if isinstance(x, int) else 2",
        "y = x if x.ndim == 1 else x.argmax(1)",
        "y = torch.where(x > 0, x, 0)",
        "if self.kind == 'linear': pass",
        "y = [v for v in x if v is not None]",
    ],
)
def test_what_the_host_knows_is_no_question(line: str):
    (function,) = ast.parse(f"def step(x):\n    {line}\n").body
    assert isinstance(function, ast.FunctionDef)
    assert questions(function) == []


# The same, while it runs


class Asked(Exception):
    """A tensor was asked for its value."""


ASKING_OPERATORS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero"}


class NoQuestions(TorchDispatchMode):
    """Inside, a tensor that is asked for its value raises."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in (
            "_local_scalar_dense",
            "is_nonzero",
            "equal",
            "nonzero",
        ):
            raise Asked(str(func))
        return func(*args, **(kwargs or {}))


def test_a_question_raises():
    number = torch.ones(1)
    for ask in (bool, float, int, torch.Tensor.item, torch.nonzero):
        with pytest.raises(Asked), NoQuestions():
            ask(number)
    with NoQuestions():
        torch.where(number > 0, number, 0.0)


def distiller(name: str) -> Distiller:
    weight = Schedule("cosine", from_=2.0, to=1.0)
    student = tiny()
    if METHODS[name].needs.subnets:
        deep = cifar_resnet(14, 4, in_channels=1, num_classes=NUM_CLASSES)
        student = Network(DepthDynamic(deep, {"few": 1}), student.spec)
    return Distiller(student, tiny(3, width=8), methods={name: (METHODS[name](), weight)})


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_asks_no_tensor(name: str, accumulate: int, tmp_path: Path):
    data = loader(pictures(60, labelled=20))
    session = Session(
        distiller(name),
        data,
        settings(accumulate=accumulate),
        RunFolder(tmp_path),
        torch.device("cpu"),
    )
    session.begin(0)
    session.train_step(data.batch(0))  # the first batch is looked at
    for step in (1, 2):
        batch = data.batch(step)
        with NoQuestions():
            session.train_step(batch)
    session.write_log()
    session.close()
    assert session.step == 3
