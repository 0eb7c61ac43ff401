"""What a process and its children used: CPU time, time spent waiting for a CPU, memory (/proc)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals of a process and all its descendants at one moment."""

    cpu_s: float
    """User and system time, of all threads; the kernel counts it in steps of 10 ms."""
    wait_s: float
    """Time its threads were ready to run and had no core."""
    pss_bytes: int
    """Memory; pages that several processes share count in part."""
    anonymous_bytes: int
    """Memory that is its own: heaps and stacks. Unlike the former it does not change when another
    process maps the same library."""
    processes: int


def usage(pid: int) -> Usage:
    """Read a process and its descendants; those that end meanwhile are left out."""
    cpu_ticks = wait_ns = pss_bytes = anonymous_bytes = count = 0
    for member in _family(pid):
        try:
            fields = (_PROC / str(member) / "stat").read_text().rpartition(")")[2].split()
            waits = [
                int(path.read_text().split()[1])
                for path in (_PROC / str(member) / "task").glob("*/schedstat")
            ]
            rollup = (_PROC / str(member) / "smaps_rollup").read_text()
        except (OSError, ProcessLookupError):
            continue
        # Fields 14 and 15 of proc_pid_stat(5) are user and system time; the name and the two
        # fields before it are cut off.
        cpu_ticks += int(fields[11]) + int(fields[12])
        wait_ns += sum(waits)
        sizes = {line.split(":")[0]: line.split()[1] for line in rollup.splitlines()[1:]}
        pss_bytes += int(sizes["Pss"]) * 1024
        anonymous_bytes += int(sizes["Pss_Anon"]) * 1024
        count += 1
    return Usage(cpu_ticks / _TICKS_PER_S, wait_ns / 1e9, pss_bytes, anonymous_bytes, count)


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
