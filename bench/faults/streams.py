"""Scenarios about several streams of one call: lost sockets, wrong clocks."""

from __future__ import annotations

import asyncio
import ctypes
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from asheard.v1 import (
    transcript_pb2,
)
from bench.faults.rows import Measure, Options, Values, scenario
from bench.faults.stage import must, stage, with_environment
from simulators.realtime import RealtimeSimulator
from simulators.realtime.script import AgentScript, say
from simulators.twilio import TwilioCaller
from simulators.twilio.caller import StepTaken
from simulators.twilio.script import AgentPlayed, CallerScript, Drop, Elapsed, HangUp, Say, Step

_GREETER = """
name: faults
instructions: Read the prices.
greeting: Read them.
"""


@scenario(
    "lost-socket",
    "five callers' media sockets are lost, Twilio asks for new streams, and the calls go on",
    Measure("calls said to be final while they went on", "calls", 0),
    Measure("of 5 calls: completed, with all that was said, once they are over", "calls", 5, at_most=False),
)  # fmt: skip
async def lost_socket(_options: Options) -> Values:
    return await _streams_of_a_call(None)


@scenario(
    "clock-set-back",
    "the same, and the gateway's clock is set back by an hour between the two streams",
    Measure("calls said to be final while they went on", "calls", 0),
    Measure(
        "of 5 calls: completed, all that was said, over after they began", "calls", 5, at_most=False
    ),
)
async def clock_set_back(_options: Options) -> Values:
    with tempfile.TemporaryDirectory(prefix="asheard-clock-") as folder:
        clock = _Clock(Path(folder))
        return await _streams_of_a_call(clock)


async def _streams_of_a_call(clock: _Clock | None) -> Values:
    script = AgentScript(
        replies=(say("Yes, I can help you place your order. What would you like?"),)
    )
    agent = _GREETER
    caller_script = CallerScript(
        steps=(
            Step(Drop(), AgentPlayed(1_200)),
            Step(Say("I want bagels and a soda."), Elapsed(5_000)),
        ),
        end=Step(HangUp(), Elapsed(4_000)),
    )
    adjust = clock.adjust if clock is not None else lambda program: program
    async with (
        RealtimeSimulator(script) as model,
        stage(model.url, agent=agent, adjust=adjust) as system,
    ):
        callers = [TwilioCaller(system.voice_url(), caller_script) for _ in range(5)]
        early: set[str] = set()

        async def call(caller: TwilioCaller) -> None:
            sid = caller.truth.call_sid
            running = asyncio.create_task(caller.run())
            while not running.done():
                transcript = await system.transcript(sid)
                if transcript is not None and transcript.final and not running.done():
                    early.add(sid)
                await asyncio.wait([running], timeout=0.1)

        calling = [asyncio.create_task(call(caller)) for caller in callers]
        if clock is not None:
            await must(lambda: all(len(_steps(c)) > 0 for c in callers), "the sockets are lost")
            clock.set_back(3_600)
        await asyncio.gather(*calling)
        finals = await system.finals([c.truth.call_sid for c in callers], 45.0)
        whole = 0
        for caller in callers:
            transcript = finals.get(caller.truth.call_sid)
            if transcript is None:
                continue
            said = [t.heard_text for t in transcript.turns if t.role == transcript_pb2.ROLE_CALLER]
            whole += (
                transcript.state == transcript_pb2.CALL_STATE_COMPLETED
                and said == ["I want bagels and a soda."]
                and transcript.end_time.ToNanoseconds() >= transcript.start_time.ToNanoseconds()
            )
        return len(early), whole


def _steps(caller: TwilioCaller) -> list[StepTaken]:
    """What a caller has done so far: the first is to lose the socket."""
    return caller.truth.steps


_SHIFTED_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static volatile long *offset_s;
int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (!offset_s) {
        int file = open(getenv("BENCH_CLOCK"), O_RDONLY);
        offset_s = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    }
    int result = real(which, now);
    if (which == CLOCK_REALTIME) now->tv_sec += *offset_s;
    return result;
}
"""


class _Clock:
    """A wall clock of the gateway's that can be set: a library in front of libc, compiled here."""

    def __init__(self, folder: Path) -> None:
        source, self._library = folder / "clock.c", folder / "clock.so"
        self._offset = folder / "offset"
        self._offset.write_bytes(bytes(ctypes.c_long(0)))
        source.write_text(_SHIFTED_CLOCK)
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source), "-ldl"],
            check=True, capture_output=True,
        )  # fmt: skip

    def adjust(self, program: Any) -> Any:
        """Give the gateway that clock."""
        settings = {"LD_PRELOAD": str(self._library), "BENCH_CLOCK": str(self._offset)}
        return with_environment("gateway", **settings)(program)

    def set_back(self, seconds: int) -> None:
        """Be so much before the machine's."""
        with self._offset.open("r+b") as file:
            file.write(bytes(ctypes.c_long(-seconds)))
