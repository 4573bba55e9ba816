"""Plain text from records: tables that can be read on any terminal and pasted anywhere."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "align",
    "cautions",
    "count",
    "duplicates_in_words",
    "duration",
    "facts",
    "listing",
    "percent",
    "ratio",
    "run_table",
]

Record = Mapping[str, Any]

MISSING = "–"
GIVEN = "given as a Python object"
_HEADER = [
    "validation",
    "test",
    "agreement",
    "params",
    "MACs",
    "latency",
    "training",
]


# One number


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage with one decimal.

    >>> percent(0.9175), percent(None)
    ('91.8 %', '–')
    """
    return MISSING if share is None else f"{100 * share:.1f} %"


def count(number: int) -> str:
    """A count in three digits, with k, M or G.

    >>> [count(n) for n in (87, 4902, 412_345, 125_485_706, 3_100_000_000)]
    ['87', '4.90 k', '412 k', '125 M', '3.10 G']
    """
    rounded = float(f"{number:.3g}")
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{rounded / size:#.3g}".rstrip(".") + f" {unit}"
    return str(number)


def ratio(larger: float, smaller: float) -> str:
    """How many times something goes into another.

    >>> ratio(125.5, 12.4), ratio(3, 2)
    ('10.1×', '1.5×')
    """
    return f"{larger / smaller:.1f}×"


def duration(seconds: float) -> str:
    """A time in its natural unit.

    >>> duration(12.34), duration(150), duration(9000)
    ('12.3 s', '2.5 min', '2.5 h')
    """
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


# A table


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines; the first column flush left, the others flush right.

    >>> print(align([["", "test"], ["student", "91.8 %"]]))
               test
    student  91.8 %
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def listing(lines: Sequence[tuple[str, str]]) -> str:
    """Names and what is said of them, one per line, in two columns.

    >>> print(listing([("data", "digits"), ("seed", "0")]))
    data  digits
    seed  0
    """
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name.ljust(width)}  {text}".rstrip() for name, text in lines)


# Of runs


def run_table(records: Sequence[Record]) -> list[list[str]]:
    """A header, then each run's students and, below them, its teacher; for `align`.

    Rows bear the names of runs, if there are several.
    """
    rows = [["", *_HEADER]]
    for record in records:
        for name, student in record["students"].items():
            title = name
            if len(records) > 1:
                title = record["name"] if name == "student" else f"{record['name']}, {name}"
            rows.append(
                [
                    title,
                    percent(student["validation_accuracy"]),
                    percent(student.get("test_accuracy")),
                    percent(student.get("agreement")),
                    *_costs(student),
                    duration(record["seconds"]),
                ]
            )
        teacher = record["teacher"]
        if teacher is not None:
            rows.append(
                [
                    "  its teacher",
                    percent(teacher.get("validation_accuracy")),
                    percent(teacher.get("test_accuracy")),
                    "",
                    *_costs(teacher),
                    "",
                ]
            )
    return rows


def _costs(network: Record) -> list[str]:
    return [
        count(network["parameters"]),
        count(network["macs"]),
        f"{network['latency_ms']:.2f} ms",
    ]


def facts(record: Record) -> list[tuple[str, str]]:
    """What one needs to know to believe a run's numbers, for `listing`."""
    recipe, data, machine = record["recipe"], record["data"], record["hardware"]
    source = recipe["data"]["source"]
    versions = record["versions"]
    teacher = record["teacher"]
    lines = [
        ("run", record["name"]),
        ("student", _network(recipe["student"])),
        ("teacher", MISSING if teacher is None else _teachers(recipe, teacher)),
        ("methods", _methods(recipe)),
        (
            "data",
            f"{source['name'] if source else GIVEN}: {data['train']:,} pictures to train on, "
            f"{data['labelled']:,} with label; {data['validation']:,} for validation, "
            f"{data['test']:,} for test; {data['classes']} classes",
        ),
        (
            "training",
            f"{record['steps']:,} of {recipe['train']['steps']:,} steps in "
            f"{duration(record['seconds'])}, seed {recipe['seed']}, ended by {record['ended']}",
        ),
        ("command", record["command"]),
        ("began", record["began"]),
        ("code", f"commit {record['commit'] or 'unknown'}, digest {record['code']}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        (
            "machine",
            f"{machine['processor']}, {machine['cores']} cores; run on {machine['device']}, "
            f"{machine['threads']} threads, {recipe['train']['precision']}",
        ),
    ]
    for reading in record["readings"]:
        lines.append(
            (
                f"{reading['split']} read",
                f"{reading['time']} by `{reading['command']}`: {reading['purpose']}",
            )
        )
    if not record["readings"]:
        lines.append(("test read", "never"))
    return lines


def _network(entry: Record | None) -> str:
    if entry is None:
        return GIVEN
    if "cache" in entry:
        named = {key: value for key, value in entry.items() if key != "cache"}
        whose = f" of {_network(named)}" if named else ""
        return f"stored answers{whose} in {entry['cache']}"
    if "run" in entry:
        return f"the student of {entry['run']}"
    name = entry.get("name") or f"what {entry['python']} makes"
    settings = [f"{key} {value}" for key, value in entry.items() if key not in ("name", "python")]
    return f"{name} ({', '.join(settings)})" if settings else name


def _teachers(recipe: Record, teacher: Record) -> str:
    """The teacher; of several how they are mixed, and how well each knows its classes."""
    if not recipe.get("teachers"):
        return _network(recipe["teacher"])
    stored = f"stored answers in {recipe['teacher']['cache']} of " if recipe["teacher"] else ""
    how = recipe["aggregation"]["name"]
    each = [
        f"{one['name']} ({percent(one['validation_accuracy'])} on {one['classes']} classes)"
        for one in teacher.get("members", [])
    ]
    return f"{stored}{len(recipe['teachers'])}, mixed by {how}: {', '.join(each)}"


def _methods(recipe: Record) -> str:
    entries = []
    for name, settings in recipe["methods"].items():
        said = ", ".join(f"{key} {value}" for key, value in settings.items())
        entries.append(f"{name} ({said})")
    return "; ".join([*entries, f"labels (weight {recipe['task_weight']})"])


def duplicates_in_words(duplicates: Mapping[str, int]) -> str:
    """Which exact duplicates there are between what is trained on, chosen by and tested on.

    >>> duplicates_in_words({"train": 2, "train/test": 3})
    '3 picture(s) of test are in train as well'
    """
    return "; ".join(
        f"{count} picture(s) of {second} are in {first} as well"
        for first, _, second, count in (
            (*name.partition("/"), count) for name, count in duplicates.items()
        )
        if second
    )


def cautions(records: Sequence[Record]) -> list[str]:
    """What a reader of several runs' numbers must know before comparing them."""
    found = []
    for record in records:
        if record["collapsed"]:
            found.append(f"{record['name']} is at chance: it has learned nothing.")
        if shared := duplicates_in_words(record["data"].get("duplicates", {})):
            found.append(f"{record['name']}: {shared}.")
    if len(records) < 2:
        return found
    machines = {
        (record["hardware"]["processor"], record["hardware"]["device"]) for record in records
    }
    if len(machines) > 1:
        found.append("Measured on different machines: times and latencies do not compare.")
    if len({record["content"]["test"] for record in records}) > 1:
        found.append("Measured on different test pictures: accuracies do not compare.")
    found.append(
        "One run per line: what seeds alone make of it is not shown. `tutelage compare` shows it."
    )
    return found
