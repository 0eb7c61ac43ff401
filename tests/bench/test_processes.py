"""Readings of /proc are those of the process that was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench import processes


def test_work_and_memory_of_a_child_are_seen() -> None:
    before = _own()
    code = """
memory = bytearray(30_000_000)
memory[::4096] = b"x" * len(memory[::4096])
for _ in range(3_000_000):
    pass
print()
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        after = _own()
        own = processes.usage(child.pid)
        child.communicate(b"\n")
    assert after["us/children"].processes == before.get("us/children", _NOTHING).processes + 1
    assert own.cpu_s > 0
    assert own.anonymous_bytes > 29_000_000
    assert after["us/children"].anonymous_bytes >= own.anonymous_bytes
    assert after["us"].processes == 1


_NOTHING = processes.Usage()


def _own() -> dict[str, processes.Usage]:
    return processes.usages({"us": os.getpid()})


def test_the_machine_is_between_idle_and_busy() -> None:
    before = processes.machine()
    time.sleep(0.05)
    assert 0 <= processes.machine().busy_share(before) <= 1
    assert processes.cores() >= 1


def test_a_process_that_has_gone_used_nothing() -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    assert processes.usage(int(child.stdout)).processes == 0
