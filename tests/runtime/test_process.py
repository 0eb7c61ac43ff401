"""A service as a process: exit status, signals, log lines. Real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

SERVICE = """
import asyncio, gc, sys, weakref
from runtime import process
from runtime.errors import ConfigurationError
from runtime.log import get_log
from runtime.process import run_service

log = get_log(__name__)

process.FULL_COLLECTION_S = 0.1

async def serve(environment, stop):
    if environment["HOW"] == "bad":
        raise ConfigurationError("ASHEARD_X='y': give z")
    if environment["HOW"] == "bad in a task":
        async with asyncio.TaskGroup() as group:
            async def fail():
                raise ConfigurationError("ASHEARD_X='y': give z")
            group.create_task(fail())
    if environment["HOW"] == "bug":
        raise ZeroDivisionError("ours")
    if environment["HOW"] == "garbage":
        class Cycle:
            pass
        fulls = []
        gc.callbacks.append(
            lambda phase, info: fulls.append(1) if info["generation"] == 2 and phase == "stop" else None
        )
        kept = [[] for _ in range(300_000)]
        by_count = len(fulls)
        cycle = Cycle()
        cycle.itself = cycle
        gone = weakref.ref(cycle)
        gc.collect(1)
        del cycle, kept
        await asyncio.sleep(0.3)
        log.info("collected", by_count=by_count, by_clock=len(fulls) - by_count, gone=gone() is None)
        return
    log.bind(call="CA1").info("serving", port=7, spared=gc.get_freeze_count())
    await stop.draining.wait()
    log.info("draining")
    await stop.now.wait()
    log.info("ending")

import os
sys.exit(run_service("test", serve, {**os.environ, "ASHEARD_LOG_FORMAT": "json"}))
"""


Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def launch(how: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVICE],
            env={"HOW": how, "PATH": "/usr/bin:/bin"},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", ["bad", "bad in a task"])
def test_bad_configuration_is_one_line_and_exit_status_2(start: Start, how: str) -> None:
    process = start(how)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said == "asheard test: ASHEARD_X='y': give z\n"


def test_a_bug_is_a_traceback_and_not_exit_status_2(start: Start) -> None:
    process = start("bug")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ZeroDivisionError: ours" in said


def test_the_first_sigterm_drains_the_second_ends(start: Start) -> None:
    process = start("well")
    assert process.stderr is not None
    first = json.loads(process.stderr.readline())
    assert (first["event"], first["call"], first["port"], first["service"]) == (
        "serving", "CA1", 7, "test",
    )  # fmt: skip
    process.send_signal(signal.SIGTERM)
    assert json.loads(process.stderr.readline())["event"] == "draining"
    process.send_signal(signal.SIGTERM)
    assert json.loads(process.stderr.readline())["event"] == "ending"
    assert process.wait(timeout=30) == 0


def test_modules_are_spared_by_the_garbage_collector(start: Start) -> None:
    process = start("well")
    assert process.stderr is not None
    serving = json.loads(process.stderr.readline())
    assert serving["spared"] > 10_000  # the interpreter, asyncio and the log alone are more


def test_full_collections_are_made_by_the_clock_and_not_when_calls_come(start: Start) -> None:
    process = start("garbage")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    collected = json.loads(said.splitlines()[0])
    assert collected["by_count"] == 0, "300,000 new objects are no reason"
    assert collected["by_clock"] >= 1
    assert collected["gone"]
