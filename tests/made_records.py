"""Records as runs would leave them, made up: for tests of what reads records."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

Line = dict[str, Any]

CONTROLS = {"short": "label-only", "long": "label-only-long"}
ACCURACIES = {
    "label-only": [0.640, 0.650, 0.660],
    "label-only-long": [0.645, 0.655, 0.665],
    "kd": [0.700, 0.712, 0.718],
    "hints": [0.640, 0.660, 0.655],
}
CLASSES = ["cat", "dog", "ship"]
CORRUPTIONS = ("gaussian_noise", "defocus_blur", "contrast")


def network(accuracy: float, **more: Any) -> dict[str, Any]:
    """What a record says of a network."""
    measured = {
        "validation_accuracy": accuracy + 0.01,
        "test_accuracy": accuracy,
        "weights": f"{accuracy:.4f}",
        "parameters": 75_290,
        "macs": 12_239_488,
        "latency_ms": 0.6,
        "latency_p95_ms": 0.8,
        "latency_batch": 1,
    }
    return measured | more


def teacher(**more: Any) -> dict[str, Any]:
    big = {"parameters": 853_018, "macs": 125_485_696, "latency_ms": 5.7}
    return network(0.93, validation_pictures=1000, **big, **more)


def deeply(accuracy: float, classes: list[str] | None = None) -> dict[str, Any]:
    """What is measured beyond accuracy."""
    names = classes or CLASSES
    count = len(names)
    right = round(100 * accuracy)
    wrong = (100 - right) // max(count - 1, 1)
    scores = {"ece": 0.1, "nll": 1.0, "brier": 0.4}
    bins = [[0, 0.0, 0.0]] * 5 + [[30, (i + 0.5) / 15, i / 15] for i in range(5, 15)]
    falling = [round(accuracy - 0.05 * severity, 4) for severity in range(1, 6)]
    return {
        "test": {
            "top1": accuracy,
            "top5": None,
            "balanced": accuracy,
            "per_class": [accuracy + 0.01 * (i % 3 - 1) for i in range(count)],
            "classes": names,
            "confusion": [[right if i == j else wrong for j in range(count)] for i in range(count)],
            "calibration": scores | {"bins": bins, "temperature": 1.5, "scaled": scores},
            "correct": correct(accuracy, 100 * count),
            "pictures": 100 * count,
        },
        "robustness": {
            "pictures": 50,
            "seed": 0,
            "clean": accuracy,
            "corruptions": dict.fromkeys(CORRUPTIONS, falling),
        },
        "similarity": [
            {"student": "layer1", "teacher": "layer1", "cka": accuracy, "attention": 0.6},
            {"student": "layer2", "teacher": "layer2", "cka": accuracy / 2, "attention": -0.1},
        ],
        "people": {"cross_entropy": 1.4, "kl": 0.8, "top1": accuracy - 0.02},
        "latency_batched": {"batch": 32, "median_ms": 12.0, "p95_ms": 14.5},
        "file_bytes": 302_312,
        "peak_memory_bytes": 613_000,
    }


def correct(accuracy: float, pictures: int) -> str:
    """A bit for each picture, of which the first are right."""
    bits = np.arange(pictures) < round(accuracy * pictures)
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def measured_deeply(have: list[Line], classes: list[str] | None = None) -> list[Line]:
    """The same lines; everything was measured of their students and teachers."""
    for one in have:
        student = one["record"]["students"]["student"]
        student |= deeply(student["test_accuracy"], classes)
        student |= {
            "agreement": 0.8,
            "fidelity": {"top1": 0.8, "kl": 0.5, "on_teacher_errors": 0.4},
        }
        of_teacher = deeply(0.93, classes)
        del of_teacher["similarity"]
        one["record"]["teacher"] |= of_teacher
        one["record"]["data"] |= {"duplicates": {"train": 2, "train/test": 3}}
    return have


def record(accuracy: float = 0.7, *, seed: int = 0, **more: Any) -> dict[str, Any]:
    """A whole record; `student` is added to what it says of the student."""
    name = more.pop("name", f"run-seed{seed}")
    student = network(accuracy) | more.pop("student", {})
    return {
        "schema": 1,
        "name": name,
        "command": "tutelage compare spec.yaml",
        "began": f"2026-01-01T00:00:0{seed % 10}+00:00",
        "commit": "0123456789ab",
        "identity": f"{name}{seed}",
        "code": "c0de",
        "content": {"train": "aaaa", "test": "bbbb", "source": "cccc"},
        "versions": {"python": "3.11.7", "torch": "2.15.0", "tutelage": "0.1.0"},
        "hardware": {
            "system": "Linux x86_64",
            "processor": "A processor",
            "cores": 2,
            "device": "cpu",
            "threads": 2,
        },
        "recipe": {
            "schema": 1,
            "seed": seed,
            "data": {"source": {"name": "digits"}, "validation": 100, "split_seed": 0},
            "student": {"name": "resnet8", "width": 16},
            "teacher": {"name": "resnet56"},
            "methods": {"kd": {"weight": 0.9, "temperature": 4.0}},
            "taps": "auto",
            "task_weight": 0.1,
            "train": {"steps": 2400, "precision": "bf16"},
        },
        "seconds": 100.0,
        "steps": 2400,
        "ended": "steps",
        "collapsed": False,
        "phases": [{}],
        "students": {"student": student},
        "teacher": teacher(),
        "data": {"train": 2500, "labelled": 2500, "validation": 100, "test": 300, "classes": 3},
        "readings": [
            {
                "split": "test",
                "time": "2026-01-01T01:00:00+00:00",
                "command": "tutelage compare spec.yaml",
                "purpose": "final measurement, after all choices",
            }
        ],
    } | more


def spec(*rows: str, controls: Any = None, **more: Any) -> dict[str, Any]:
    """A specification; each row has a setting of its own."""
    names = rows or tuple(ACCURACIES)
    return {
        "schema": 1,
        "name": "made",
        "base": "digits",
        "seeds": [0, 1, 2],
        "controls": controls or (CONTROLS if set(CONTROLS.values()) <= set(names) else "none"),
        "rows": {row: {"like": None, "set": {"row": row}, "choose": {}} for row in names},
        "note": "",
    } | more


def line(row: str, seed: int, accuracy: float, *, kind: str = "trial", **more: Any) -> Line:
    """A trial's line; `record` is added to its record."""
    settings = more.pop("settings", {"row": row})
    parts = {"code": "c0de", "versions": {"torch": "2.15.0"}, "device": "cpu", "threads": 2}
    made = record(accuracy, seed=seed, name=f"{row}-seed{seed}")
    made |= more.pop("record", {})
    return {
        "kind": kind,
        "row": row,
        "seed": seed,
        "settings": settings,
        "identity": f"{kind} {row} {seed} {settings}",
        "parts": parts,
        "record": made,
    } | more


def lines(**accuracies: list[float]) -> list[Line]:
    """Trials of seeds 0, 1, …; of all rows unless some are named (with _ for -)."""
    named = {row.replace("_", "-"): values for row, values in accuracies.items()}
    return [
        line(row, seed, accuracy)
        for row, values in (named or ACCURACIES).items()
        for seed, accuracy in enumerate(values)
    ]


WIDTHS = {"student.width": [8, 16]}


def lines_of_widths(**at_16: list[float]) -> list[Line]:
    """Trials of all rows at two widths of the student; some may do otherwise at the second."""
    found = []
    for width in WIDTHS["student.width"]:
        given = {row.replace("_", "-"): values for row, values in at_16.items()}
        for row, values in (ACCURACIES | (given if width == 16 else {})).items():
            for seed, accuracy in enumerate(values):
                one = line(row, seed, accuracy, settings={"student.width": width, "row": row})
                one["record"]["name"] = f"{row}-{width}-seed{seed}"
                one["record"]["recipe"]["student"]["width"] = width
                one["record"]["students"]["student"]["macs"] *= width**2 // 64
                found.append(one)
    return found


def write_comparison(path: Path, lines: list[Line], **more: Any) -> Path:
    """The file of a comparison: its specification first, unless one is among the lines."""
    own = [] if any(one["kind"] == "spec" for one in lines) else [spec_line(**more)]
    path.write_text("".join(json.dumps(one) + "\n" for one in [*own, *lines]))
    return path


def spec_line(**more: Any) -> Line:
    return {"kind": "spec", "spec": spec() | more}


def metrics(steps: int = 5, terms: tuple[str, ...] = ("supervised", "kd.kl")) -> list[Line]:
    """What a run logs, ten steps a line; it falls as it should."""
    found = []
    for number in range(1, steps + 1):
        one = {"step": 10 * number, "loss": 5 / number}
        one |= {term: (2 + place) / number for place, term in enumerate(terms)}
        one |= {"accuracy": 1 - 1 / (number + 1), "lr": 0.1, "images_per_second": 900.0}
        found.append(one | ({"validation_accuracy": 1 - 1 / (number + 2)} if number % 2 else {}))
    return found


def write_run(folder: Path, kept: dict[str, Any], logged: list[Line] | None = None) -> Path:
    """The folder of a finished run."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("schema: 1\n")
    (folder / "record.json").write_text(json.dumps(kept))
    if logged is not None:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in logged))
    return folder


def write_pictures(folder: Path, *, seed: int = 0, number: int = 3, size: int = 8) -> Path:
    """What a run with a teacher leaves of a few gray pictures of three classes."""
    generator = np.random.default_rng(seed)
    shown = {
        "images": np.arange(number * size * size, dtype=np.uint8).reshape(number, size, size, 1),
        "index": np.arange(number) + 2**40 + 7,
        "targets": np.arange(number) % 3,
    }
    arrays = {f"{part}/{key}": value for part in ("same", "apart") for key, value in shown.items()}
    for what, sides in (("student", (8, 4, 2)), ("teacher", (8, 4, 2))):
        arrays[f"same/{what}_stages"] = np.array([f"layer{n + 1}" for n in range(len(sides))])
        for place, side in enumerate(sides):
            maps = generator.random((number, side, side)).astype(np.float16)
            arrays[f"same/{what}/{place}"] = maps
        shares = generator.dirichlet(np.ones(3), number).astype(np.float16)
        arrays[f"apart/{what}"] = shares
    np.savez_compressed(folder / "pictures.npz", allow_pickle=False, **arrays)
    return folder / "pictures.npz"
