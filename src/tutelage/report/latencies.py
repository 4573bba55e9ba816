"""Latencies: equal networks are equally fast, whatever the machine did while one was measured."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, final

from tutelage.provenance import digest
from tutelage.report.lines import Line, Record

__all__ = ["Timed", "network_kind", "of_trials", "teacher_kind", "teacher_weights"]


def network_kind(record: Record, name: str = "student") -> str:
    """The same for students of the same architecture and size on the same machine.

    Of a student that was given as a Python object nothing is known but its run.
    """
    student, machine = record["students"][name], record.get("hardware", {})
    built = record.get("recipe", {}).get("student")
    kind = [
        name,
        built if built is not None else record.get("identity"),
        [student.get(key) for key in ("parameters", "macs", "latency_batch")],
        [machine.get(key) for key in ("processor", "device", "threads")],
    ]
    return json.dumps(kind, sort_keys=True)


def teacher_kind(record: Record) -> str:
    """The same for records of the same teacher, live or stored, on the same test pictures."""
    content, recipe = record.get("content", {}), record.get("recipe", {})
    named = {key: value for key, value in (recipe.get("teacher") or {}).items() if key != "cache"}
    if recipe.get("teachers"):
        named = {key: recipe[key] for key in ("teachers", "aggregation")}
    return json.dumps([named, teacher_weights(content), content.get("test")], sort_keys=True)


def teacher_weights(content: Mapping[str, Any]) -> Any:
    """What a record's content says of its teacher's weights, live or stored; None without one."""
    known = content.get("teacher")
    if isinstance(known, Mapping) and "members" in known:  # as a store's fingerprint has it
        parts = [one["is"] for one in known["members"]]
        return digest([one["weights"] if isinstance(one, Mapping) else one for one in parts])
    if isinstance(known, Mapping):  # of a store, or given as an object
        return (known.get("fingerprint") or {}).get("teacher", known)
    return known


def of_trials(lines: Iterable[Line]) -> list[Record]:
    """The records of all trials that have not failed; of one that stands in two rows once.

    Of a trial with sub-nets each row has a record of its own.
    """
    known = {
        (line["identity"], line["record"]["students"]["student"].get("weights")): line["record"]
        for line in lines
        if line["kind"] == "trial" and "failed" not in line
    }
    return list(known.values())


@final
class Timed:
    """What was measured of equal networks, from all records that have one.

    Args:
        records: of students that were trained, and of what they say of their teachers.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._students: dict[str, list[Record]] = {}
        self._teachers: dict[str, list[Record]] = {}
        for record in records:
            for name, entry in record["students"].items():
                self._students.setdefault(network_kind(record, name), []).append(entry)
            if record["teacher"]:
                self._teachers.setdefault(teacher_kind(record), []).append(record["teacher"])

    def like(self, records: Iterable[Record], name: str = "student") -> list[Record]:
        """What is known of networks that are like the students of some of the records."""
        kinds = dict.fromkeys(network_kind(record, name) for record in records)
        return [entry for kind in kinds for entry in self._students[kind]]

    def teacher_like(self, record: Record) -> list[Record]:
        """What is known of the teacher of one of the records."""
        return self._teachers[teacher_kind(record)]
