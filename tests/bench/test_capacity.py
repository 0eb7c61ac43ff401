"""What one core carries: which processes are on it, and how two systems compare."""

from __future__ import annotations

import os
import subprocess

import msgspec

from bench.capacity import TRIES, Capacity, Search, ratio
from bench.processes import families
from bench.systems import carries_audio
from bench.table import tables


def carried(system: str, calls: int) -> Capacity:
    return Capacity(
        system=system,
        date="2026-11-26",
        calls=calls,
        gave_way_at=calls + 50,
        forward_p99_ms={calls: 12.34, calls + 50: None},
        generator_bottleneck=False,
    )


def test_the_ratio_is_of_what_was_carried() -> None:
    assert ratio(carried("asheard", 450), carried("yardstick", 300)).ratio == 1.5
    assert ratio(carried("asheard", 450), carried("yardstick", 0)).ratio is None


def test_the_number_rises_until_a_core_gives_way_more_than_once() -> None:
    search = Search([100, 200, 300])
    search.take(in_time=True)
    assert search.calls == 200
    search.take(in_time=False)  # that may have been the machine
    assert search.calls == 200
    search.take(in_time=True)
    for _ in range(TRIES):
        assert search.calls == 300
        search.take(in_time=False)
    assert (search.carried, search.gave_way_at) == (200, 300)
    assert search.calls is None


def test_a_core_may_carry_all_that_is_tried() -> None:
    search = Search([100])
    search.take(in_time=True)
    assert (search.carried, search.gave_way_at) == (100, None)
    assert search.calls is None


def test_a_capacity_is_a_row() -> None:
    line = msgspec.json.encode(carried("asheard", 400)).decode()
    assert "| asheard | 400 | 400: 12.3, 450: – |" in tables([line]).splitlines()


def test_frames_go_through_gateway_workers_and_the_others_whole() -> None:
    names = ("gateway", "session-0", "session-0/children", "transcript", "yardstick", "relay")
    assert [name for name in names if carries_audio(name)] == [
        "gateway", "session-0", "yardstick", "relay",
    ]  # fmt: skip


def test_a_family_is_a_process_with_its_descendants() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert families([os.getpid()]) >= {os.getpid(), child.pid}
        assert families([child.pid]) == {child.pid}
        child.kill()
