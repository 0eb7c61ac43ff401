"""What a process and its children used: CPU time, time spent waiting for a CPU, memory (/proc)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals of a process, or of several, at one moment."""

    cpu_s: float = 0.0
    """User and system time, of all threads; the kernel counts it in steps of 10 ms."""
    wait_s: float = 0.0
    """Time its threads were ready to run and had no core."""
    pss_bytes: int = 0
    """Memory; pages that several processes share count in part."""
    anonymous_bytes: int = 0
    """Memory that is its own: heaps and stacks. Unlike the former it does not change when another
    process maps the same library."""
    processes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu_s + other.cpu_s,
            self.wait_s + other.wait_s,
            self.pss_bytes + other.pss_bytes,
            self.anonymous_bytes + other.anonymous_bytes,
            self.processes + other.processes,
        )


CHILDREN = "/children"
"""After the name of a process: all its descendants together, such as a pool of aligners."""


def usages(pids: Mapping[str, int]) -> dict[str, Usage]:
    """Read processes by name; the descendants of one that has any are an entry of their own."""
    read: dict[str, Usage] = {}
    for name, pid in pids.items():
        own, *descendants = _family(pid)
        read[name] = usage(own)
        if descendants:
            read[name + CHILDREN] = sum(map(usage, descendants), start=Usage())
    return read


def usage(pid: int) -> Usage:
    """Read one process; one that has ended used nothing."""
    folder = _PROC / str(pid)
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        wait_ns = sum(
            int(path.read_text().split()[1]) for path in (folder / "task").glob("*/schedstat")
        )
        rollup = (folder / "smaps_rollup").read_text()
    except (OSError, ProcessLookupError):
        return Usage()
    sizes = {line.split(":")[0]: line.split()[1] for line in rollup.splitlines()[1:]}
    return Usage(
        # Fields 14 and 15 of proc_pid_stat(5) are user and system time; the name and the two
        # fields before it are cut off.
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        wait_s=wait_ns / 1e9,
        pss_bytes=int(sizes.get("Pss", 0)) * 1024,
        anonymous_bytes=int(sizes.get("Pss_Anon", 0)) * 1024,
        processes=1,
    )


def families(pids: Iterable[int]) -> set[int]:
    """Processes with all their descendants."""
    return {member for pid in pids for member in _family(pid)}


def _family(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    family = [pid]
    for member in family:
        family.extend(children.get(member, ()))
    return family


@dataclass(frozen=True, slots=True)
class Machine:
    """How busy all cores were, in total, up to now."""

    busy_s: float
    all_s: float

    def busy_share(self, since: Machine) -> float:
        """Share of all cores' time that was used since then, 0 to 1."""
        return round((self.busy_s - since.busy_s) / max(0.01, self.all_s - since.all_s), 3)


def machine() -> Machine:
    """Read the machine."""
    fields = [int(field) for field in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return Machine((sum(fields) - idle) / _TICKS_PER_S, sum(fields) / _TICKS_PER_S)


def cores() -> int:
    """Cores that we may use."""
    return len(os.sched_getaffinity(0))
