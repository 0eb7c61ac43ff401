"""Background tasks: one that fails ends the wait, one that is restarted goes on."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from runtime import background
from runtime.background import Background, restarted
from runtime.process import Stop


async def forever() -> None:
    await asyncio.Event().wait()


async def test_it_waits_for_the_first_signal() -> None:
    tasks, stop = Background(), Stop()
    tasks.start("forever", forever())
    waiting = asyncio.create_task(tasks.until_stopped(stop))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    stop.request()
    await asyncio.wait_for(waiting, 5)
    await tasks.close()


async def test_another_event_ends_the_wait_as_well() -> None:
    unusable = asyncio.Event()
    unusable.set()
    await asyncio.wait_for(Background().until_stopped(Stop(), unusable), 5)


async def test_a_task_that_fails_ends_the_wait_with_what_it_raised() -> None:
    async def failing() -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError("a bug")

    tasks = Background()
    tasks.start("forever", forever())
    tasks.start("failing", failing())
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(tasks.until_stopped(Stop()), 5)
    await tasks.close()


async def test_no_task_is_left_after_it_is_closed() -> None:
    before = asyncio.all_tasks()
    tasks, stop = Background(), Stop()
    tasks.start("forever", forever())
    stop.request()
    await tasks.until_stopped(stop)
    await tasks.close()
    assert asyncio.all_tasks() == before


async def test_a_restarted_task_goes_on_after_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RESTARTED_AFTER_S", 0.0)
    faults = iter([ValueError("a bug"), OSError("the store's"), ValueError("again"), None])
    counted: list[str] = []

    async def run() -> None:
        if (fault := next(faults)) is not None:
            raise fault

    with capture_logs() as logs:
        await restarted("sweeper", run, on_failure=counted.append, expected=(OSError,))
    assert counted == ["sweeper", "sweeper"]
    assert [(entry["event"], entry["task"]) for entry in logs] == [("task failed", "sweeper")] * 2
    assert next(faults, "none left") == "none left"
