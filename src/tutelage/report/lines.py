"""Lines of a comparison: of which row and combination, whether they work, what must agree."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from tutelage.errors import RunError

__all__ = [
    "Line",
    "Record",
    "by_seed",
    "combinations",
    "full_name",
    "has_one_test",
    "is_trial",
    "lineage",
    "of_student",
    "overlap_of",
    "require_same",
    "require_same_test",
    "student_of",
    "subnet_of",
    "teacher_of_any_seed",
    "title_of",
    "tries_of",
    "works",
]

Record = Mapping[str, Any]
Line = Mapping[str, Any]


# Combinations of the axes


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the axes' values; without axes a single empty one.

    >>> combinations({"width": [8, 16], "depth": [2]})
    [{'width': 8, 'depth': 2}, {'width': 16, 'depth': 2}]
    """
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def title_of(group: Mapping[str, Any]) -> str:
    """Values of the axes, in words.

    >>> title_of({"student.width": 8, "data.labelled": 500})
    'student.width 8, data.labelled 500'
    """
    return ", ".join(f"{key} {value}" for key, value in group.items())


def full_name(row: str, part: str) -> str:
    """A row's name in the whole comparison.

    >>> full_name("kd", ""), full_name("kd", "student.width 8")
    ('kd', 'kd, student.width 8')
    """
    return f"{row}, {part}" if part else row


def lineage(rows: Mapping[str, Record], name: str) -> list[str]:
    """A row after those that it is like, the most distant first.

    >>> lineage({"a": {}, "b": {"like": "a"}}, "b")
    ['a', 'b']
    """
    like = rows[name].get("like")
    return [*(lineage(rows, like) if like else []), name]


def subnet_of(rows: Mapping[str, Record], name: str) -> str | None:
    """The sub-net that a row shows: its own, or that of the row that it is like; None for none.

    >>> rows = {"a": {}, "b": {"like": "a", "subnet": "8"}, "c": {"like": "b"}}
    >>> subnet_of(rows, "a"), subnet_of(rows, "c")
    (None, '8')
    """
    said = [rows[one].get("subnet") for one in lineage(rows, name)]
    known = [one for one in said if one is not None]
    return known[-1] if known and known[-1] != "full" else None


# Lines


def is_trial(line: Line, row: str) -> bool:
    """Whether a line is a trial of a row."""
    return line["kind"] == "trial" and line["row"] == row


def by_seed(row: str, lines: Iterable[Line]) -> dict[int, Line]:
    """A row's trials."""
    return {line["seed"]: line for line in lines if is_trial(line, row)}


def tries_of(rows: Iterable[str], lines: Iterable[Line]) -> list[Line]:
    """The tries of some rows."""
    named = set(rows)
    return [line for line in lines if line["kind"] == "try" and line["row"] in named]


def works(line: Line) -> bool:
    """Whether a trial or try has ended in a student that has learned something."""
    return "failed" not in line and not line["record"]["collapsed"]


def student_of(line: Line) -> Record:
    """What a line's record says of the student."""
    return line["record"]["students"]["student"]


def of_student(line: Line, subnet: str | None) -> Line:
    """The line as that of one student: a sub-net, or the whole.

    Of a run that trained several depths each has a share of the wall time, in proportion to its
    MACs: all of them together took that time.

    Args:
        subnet: its name; None for the whole.

    Raises:
        RunError: the trial had no such sub-net.
    """
    if "failed" in line:
        return line
    students = line["record"]["students"]
    name = subnet or "student"
    if name not in students:
        raise RunError(
            f"{line['row']} is to be the sub-net {name!r}, but its trials trained "
            f"{', '.join(students)}. Name one of student.subnets."
        )
    student = students[name]
    own: dict[str, Any] = {"students": {"student": student}}
    if "collapsed" in student:
        own["collapsed"] = student["collapsed"]
    if len(students) > 1:
        share = student["macs"] / sum(entry["macs"] for entry in students.values())
        own["seconds"] = share * line["record"]["seconds"]
        own["seconds_of_all_depths"] = line["record"]["seconds"]
    return {**line, "record": {**line["record"], **own}}


# What may stand together


def teacher_of_any_seed(content: Mapping[str, Any]) -> Any:
    """What a record's content says of its teacher; each seed has a store of its own."""
    teacher = content.get("teacher")
    if not isinstance(teacher, Mapping) or not isinstance(teacher.get("fingerprint"), Mapping):
        return teacher
    known = {key: value for key, value in teacher["fingerprint"].items() if key != "seed"}
    return {key: value for key, value in teacher.items() if key != "files"} | {"fingerprint": known}


def require_same(row: str, lines: Iterable[Line], fields: Callable[[Record], Record]) -> None:
    """Checks that what enters one mean, or one paired difference, agrees in some fields.

    Args:
        row: whom the message is about.
        lines: that have not failed.
        fields: name → value of what must agree, from a record.

    Raises:
        RunError: two lines differ in one of them.
    """
    first: dict[str, tuple[Any, Line]] = {}
    for line in lines:
        for field, value in sorted(fields(line["record"]).items()):
            known, other = first.setdefault(field, (value, line))
            if value != known:
                raise RunError(
                    f"{row}: {field} is {known} in one trial ({other['row']}, seed "
                    f"{other['seed']}) and {value} in another ({line['row']}, seed "
                    f"{line['seed']}), and what was measured on different data enters no common "
                    "mean. Run the comparison again, or remove the lines of one of them."
                )


def require_same_test(row: str, lines: Iterable[Line]) -> None:
    """Checks that trials were shown the same test pictures.

    Raises:
        RunError: they were shown others, or another number of them.
    """
    require_same(row, (line for line in lines if "failed" not in line), _of_test)


def has_one_test(lines: Iterable[Line]) -> bool:
    """Whether all trials were shown the same test pictures, so far as they tell."""
    known = [line["record"].get("content", {}).get("test") for line in lines]
    return len({str(one) for one in known if one is not None}) <= 1


def overlap_of(lines: Iterable[Line]) -> float:
    """Pictures that test over those that train, at most; see `stats.paired_interval`.

    Args:
        lines: of folds.
    """
    shares = [
        student_of(line)["test"]["pictures"] / line["record"]["data"]["train"]
        for line in lines
        if works(line) and student_of(line).get("test")
    ]
    return max(shares, default=0.0)


def _of_test(record: Record) -> Record:
    answers = record["students"]["student"].get("test") or {}
    fields = {
        "content.test": record.get("content", {}).get("test"),
        "test.pictures": answers.get("pictures"),
    }
    return {name: value for name, value in fields.items() if value is not None}
