"""A drain ends when nothing is left, at the second signal, or at its deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from runtime import drain
from runtime.drain import until_drained
from runtime.process import Stop


class Work:
    """Something that is under way until :attr:`done`."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.cancelled = False

    async def idle(self) -> None:
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def events(logs: list[Any]) -> list[str]:
    return [entry["event"] for entry in logs]


async def test_it_waits_until_nothing_is_left() -> None:
    work = Work()
    draining = asyncio.create_task(until_drained(Stop(), work.idle(), drain_s=60))
    await asyncio.sleep(0.01)
    assert not draining.done()
    work.done.set()
    assert await draining


@pytest.mark.parametrize("drain_s", [0.0, 60.0, None])
async def test_nothing_under_way_is_drained_whatever_the_deadline(drain_s: float | None) -> None:
    work = Work()
    work.done.set()
    assert await until_drained(Stop(), work.idle(), drain_s=drain_s)


async def test_the_second_signal_ends_it_and_the_wait_with_it() -> None:
    work, stop = Work(), Stop()
    stop.request()
    with capture_logs() as logs:
        draining = asyncio.create_task(until_drained(stop, work.idle(), calls=lambda: 3))
        await asyncio.sleep(0.01)
        assert not draining.done()
        stop.request()
        assert not await draining
    assert work.cancelled
    assert logs[-1]["why"] == "second signal"
    assert logs[-1]["calls"] == 3


async def test_the_deadline_ends_it_and_the_wait_with_it() -> None:
    work = Work()
    with capture_logs() as logs:
        assert not await until_drained(Stop(), work.idle(), drain_s=0.02, calls=lambda: 2)
    assert work.cancelled
    assert logs[-1]["why"] == "deadline"


async def test_a_drain_that_lasts_says_so_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "STILL_DRAINING_EVERY_S", 0.01)
    work, left = Work(), [3, 2, 1]

    def calls() -> int:
        if len(left) == 1:
            work.done.set()
        return left.pop(0)

    with capture_logs() as logs:
        assert await until_drained(Stop(), work.idle(), drain_s=60, calls=calls)
    assert events(logs) == ["draining", "still draining", "still draining"]
    assert [entry["calls"] for entry in logs] == [3, 2, 1]


async def test_what_is_raised_is_logged_and_what_follows_a_drain_can_follow() -> None:
    async def idle() -> None:
        raise ZeroDivisionError("ours")

    with capture_logs() as logs:
        assert not await until_drained(Stop(), idle(), drain_s=60)
    assert events(logs) == ["draining", "drain failed"]


async def test_a_drain_that_is_cancelled_leaves_nothing_behind() -> None:
    work = Work()
    before = asyncio.all_tasks()
    draining = asyncio.create_task(until_drained(Stop(), work.idle()))
    await asyncio.sleep(0.01)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    assert work.cancelled
    assert asyncio.all_tasks() == before
