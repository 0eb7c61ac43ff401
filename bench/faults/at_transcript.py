"""Scenarios about what is kept: killed processes, lost sockets, wrong clocks, full disks, strangers."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from asheard.v1 import (
    fact_pb2,
    ingest_service_pb2,
    ingest_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
    transcript_pb2,
    transcript_service_pb2,
    transcript_service_pb2_grpc,
)
from bench.faults.model import ScriptedModel
from bench.faults.neighbours import neighbours
from bench.faults.phone import Phone
from bench.faults.rows import Measure, Options, Values, scenario
from bench.faults.stage import Stage, must, new_call_sid, seconds_until, stage, with_environment
from cli.system import clean_environment
from simulators import truth
from simulators.realtime import RealtimeSimulator
from simulators.realtime.script import AgentScript, Reply, Speak, say
from simulators.twilio import TwilioCaller
from simulators.twilio.caller import StepTaken
from simulators.twilio.script import AgentPlayed, CallerScript, Drop, Elapsed, HangUp, Say, Step

AT_ONCE = 25
"""Calls on a process that is killed."""

_GREETER = """
name: faults
instructions: Read the prices.
greeting: Read them.
"""

_PRICES = (
    "A dozen bagels is $11.40, a loaf of rye is $6.75, and the soda is $2.10.",
    "That will be $9.05. Cash or credit? We also have a store discount you can apply now.",
    "I have your number as 5 5 5, 0 1 9 8. Is that right?",
    "We are open from 7 in the morning until 6 in the evening, Monday through Saturday.",
)
"""Sums and numbers take long to say for the few characters that they have: what is only estimated by
characters is most wrong here."""


# -- what was heard when a process was killed ------------------------------------------------------

_KILLED = (
    Measure("calls whose final transcript claims a word that was not heard", "calls", 0),
    Measure("words claimed that were not heard", "words", 0),
    Measure("words that were heard and are not claimed", "words"),
    Measure("of them said to be uncertain", "words"),
    Measure("words that were heard", "words"),
    Measure("calls whose transcript is not final in time", "calls", 0),
)


@scenario(
    "killed-worker",
    "the session worker is killed (SIGKILL) while it has 25 calls with the agent speaking, again and again",
    *_KILLED,
    within_s=400.0,
)
async def killed_worker(options: Options) -> Values:
    return await _killed("session-0", options.calls)


@scenario(
    "killed-gateway",
    "the gateway is killed (SIGKILL) while it has 25 calls with the agent speaking, again and again",
    *_KILLED,
    within_s=400.0,
)
async def killed_gateway(options: Options) -> Values:
    return await _killed("gateway", options.calls)


async def _killed(victim: str, calls: int) -> Values:
    settings = {
        "ASHEARD_STREAM_GRACE_SECONDS": "3",
        "ASHEARD_WRITER_LOST_SECONDS": "15",
    }
    script = AgentScript(replies=(Reply(tuple(map(Speak, _PRICES))),))
    counts = [0.0] * 6
    async with (
        RealtimeSimulator(script) as model,
        stage(model.url, settings=settings, agent=_GREETER) as system,
    ):
        left = calls
        placed: list[TwilioCaller] = []
        while left > 0:
            now = min(AT_ONCE, left)
            left -= now
            await must(_all_ready(system), "the system is ready again", 60.0)
            placed += await _call_and_kill(system, victim, now)
        done = [caller.truth for caller in placed]
        finals = await system.finals([call.call_sid for call in done], 60.0)
        for call, heard in zip(done, truth.join(done, model.sessions), strict=True):
            final = finals.get(call.call_sid)
            counts[5] += final is None
            over, under, uncertain, true_words = _compare(final, heard)
            counts[0] += over > 0
            counts[1] += over
            counts[2] += under
            counts[3] += uncertain
            counts[4] += true_words
    return tuple(counts)


async def _call_and_kill(system: Stage, victim: str, calls: int) -> list[TwilioCaller]:
    """Place calls one after another, so that each is elsewhere in what it hears; then kill."""
    patient = CallerScript(end=Step(HangUp(), Elapsed(60_000), timeout_ms=60_000))
    callers = [TwilioCaller(system.media_url(), patient) for _ in range(calls)]
    running = []
    for caller in callers:
        running.append(asyncio.create_task(caller.run()))
        await asyncio.sleep(0.4)
    await must(
        lambda: all(c.carrier is not None and c.carrier.played_bytes() > 4_000 for c in callers),
        "every agent speaks",
    )
    await asyncio.sleep(1.0)
    system.signal(victim, signal.SIGKILL)
    await asyncio.gather(*running)
    return callers


def _compare(
    final: transcript_pb2.Transcript | None, heard: truth.HeardCall
) -> tuple[int, int, int, int]:
    """Words claimed and not heard; heard and not claimed; of these uncertain; heard."""
    turns = {turn.item_id: turn for turn in final.turns} if final is not None else {}
    over = under = uncertain = true_words = 0
    for item in heard.items:
        turn = turns.get(item.item_id)
        claimed = turn.heard_text.split() if turn is not None else []
        real = item.heard_text.split()
        same = 0
        for ours, theirs in zip(claimed, real, strict=False):
            if ours != theirs:
                break
            same += 1
        over += len(claimed) - same
        under += len(real) - same
        true_words += len(real)
        if turn is not None:
            missed = turn.words[len(claimed) : len(real)]
            uncertain += sum(word.uncertain for word in missed)
    return over, under, uncertain, true_words


def _all_ready(system: Stage) -> Any:
    async def ready() -> bool:
        answers = [await system.ask(program.name, "/readyz") for program in system.programs]
        return all(status == 200 for status, _ in answers)

    return ready


@scenario(
    "killed-gateway-final",
    "the gateway is killed (SIGKILL) while it has five calls; everything as configured by default",
    Measure("until the last of their transcripts is final: 90 s, 30 s, and two looks", "s", 145),
    within_s=200.0,
)
async def killed_gateway_final(_options: Options) -> Values:
    async with (
        ScriptedModel() as model,
        stage(model.url) as system,
        neighbours(system, model) as calls,
    ):
        await asyncio.sleep(1.0)
        system.signal("gateway", signal.SIGKILL)
        began_s = time.monotonic()
        sids = [phone.call_sid for phone in calls.phones]
        finals = await system.finals(sids, 180.0)
        return (round(time.monotonic() - began_s, 1) if len(finals) == len(sids) else None,)


# -- streams of one call ---------------------------------------------------------------------------


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
        """Be so much behind the machine's."""
        with self._offset.open("r+b") as file:
            file.write(bytes(ctypes.c_long(-seconds)))


# -- the store -------------------------------------------------------------------------------------


@scenario(
    "full-disk",
    "the transcript service's disk is full, while calls go on",
    Measure("until the transcript service's /readyz says so", "s", 15),
    Measure("until the gateway's /readyz says so", "s", 60),
    within_s=150.0,
)
async def full_disk(_options: Options) -> Values:
    async with (
        ScriptedModel() as model,
        stage(model.url) as system,
        neighbours(system, model) as calls,
    ):

        async def unready(name: str) -> bool:
            status, text = await system.ask(name, "/readyz")
            return status == 503 or (name == "gateway" and text.strip() not in ("", "ready"))

        async def well() -> bool:
            return not await unready("transcript") and not await unready("gateway")

        await must(well, "facts get through")  # services that start together miss each other first
        # No file of the process may grow any more: what a full disk answers, or nearly so.
        resource.prlimit(system.pid("transcript"), resource.RLIMIT_FSIZE, (4_096, 4_096))

        async def timed(name: str, within_s: float) -> float | None:
            return await seconds_until(lambda: unready(name), within_s)

        found = await asyncio.gather(timed("transcript", 40.0), timed("gateway", 90.0))
        await calls.close()
        return tuple(found)


@scenario(
    "broken-database",
    "the database file is overwritten with noise, while calls go on",
    Measure("until the transcript service's /readyz says so", "s", 15),
)
async def broken_database(_options: Options) -> Values:
    async with (
        ScriptedModel() as model,
        stage(model.url) as system,
        neighbours(system, model) as calls,
    ):
        for path in system.folder.glob("asheard.db*"):
            if path.suffix != ".db-shm":
                path.write_bytes(os.urandom(max(4096, path.stat().st_size)))

        async def unready() -> bool:
            return (await system.ask("transcript", "/readyz"))[0] == 503

        found = await seconds_until(unready, 40.0)
        await calls.close()
        return (found,)


@scenario(
    "foreign-store",
    "the transcript service is started on a store of a version that it does not know",
    Measure("of 1 start: refused with exit status 2 and one line", "", 1, at_most=False),
)
async def foreign_store(_options: Options) -> Values:
    import sqlite3

    with tempfile.TemporaryDirectory(prefix="asheard-store-") as folder:
        path = Path(folder, "asheard.db")
        environment = {
            **clean_environment(),
            "ASHEARD_STORE": f"sqlite:///{path}",
            "ASHEARD_TRANSCRIPT_LISTEN": "127.0.0.1:0",
            "ASHEARD_INGEST_LISTEN": "127.0.0.1:0",
            "ASHEARD_VIEWER_LISTEN": "127.0.0.1:0",
            "ASHEARD_TRANSCRIPT_ADMIN": "127.0.0.1:0",
        }
        await _run_briefly(environment)  # makes the store
        with contextlib.closing(sqlite3.connect(path)) as database:
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master")]
            version = next((name for name in tables if "version" in name or "schema" in name), None)
            if version is not None and not version.startswith("sqlite"):
                [column, *_] = [row[1] for row in database.execute(f"PRAGMA table_info({version})")]
                database.execute(f"UPDATE {version} SET {column} = 999")
            database.execute("PRAGMA user_version = 999")
            database.commit()
        status, text = await _run_briefly(environment)
        return (float(status == 2 and len(text.strip().splitlines()) == 1),)


async def _run_briefly(environment: dict[str, str]) -> tuple[int | None, str]:
    """Start a transcript service, and end it after a while if it does not end by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "transcript", env=environment,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(12.0):
            _, errors = await process.communicate()
        return process.returncode, errors.decode()
    except TimeoutError:
        process.terminate()
        _, errors = await process.communicate()
        return None, errors.decode()


# -- who may do what -------------------------------------------------------------------------------

_SECRET = "0123456789abcdef" * 4


@scenario(
    "strangers",
    "somebody without the secret of the system appends a fact, opens a link; a reader appends, and deletes",
    Measure("of the four that succeed", "", 0),
)
async def strangers(_options: Options) -> Values:
    settings = {"ASHEARD_INTERNAL_SECRET": _SECRET, "ASHEARD_API_TOKENS": "reader-of-transcripts"}
    reader = (("authorization", "Bearer reader-of-transcripts"),)
    async with ScriptedModel() as model, stage(model.url, settings=settings) as system:
        phone = Phone(system.media_url(), new_call_sid(), "n1")
        await phone.open()
        await phone.frames(50)
        await phone.stop()
        await phone.close()
        fact = fact_pb2.Fact(
            call_sid=phone.call_sid, writer="session/stranger", sequence=1,
            session_ended=fact_pb2.SessionEnded(reason="made up"),
        )  # fmt: skip
        tried = (
            _succeeds(_append(system.ingest, fact)),
            _succeeds(_append(system.transcripts, fact, reader)),
            _succeeds(_link(system.listens("session-0"))),
            _succeeds(_delete(system.transcripts, phone.call_sid, reader)),
        )
        return (float(sum(await asyncio.gather(*tried))),)


async def _succeeds(attempt: Any) -> bool:
    try:
        async with asyncio.timeout(5.0):
            await attempt
    except (grpc.aio.AioRpcError, TimeoutError):
        return False
    return True


async def _append(target: str, fact: fact_pb2.Fact, metadata: Any = ()) -> None:
    async with grpc.aio.insecure_channel(target) as to_service:
        stub = ingest_service_pb2_grpc.IngestServiceStub(to_service)
        request = ingest_service_pb2.AppendFactsRequest(facts=[fact])
        await stub.AppendFacts(request, metadata=metadata)


async def _link(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as to_service:
        stream = session_service_pb2_grpc.SessionServiceStub(to_service).Link()
        answer = await stream.read()
        if not isinstance(answer, session_service_pb2.LinkResponse):
            raise TimeoutError("the stream ended without a word")


async def _delete(target: str, call_sid: str, metadata: Any) -> None:
    async with grpc.aio.insecure_channel(target) as to_service:
        stub = transcript_service_pb2_grpc.TranscriptServiceStub(to_service)
        request = transcript_service_pb2.DeleteTranscriptRequest(call_sid=call_sid)
        await stub.DeleteTranscript(request, metadata=metadata)


@scenario(
    "open-ports",
    "what `make run` runs, with no setting at all",
    Measure("ports beside the public one that other machines can reach", "ports", 0),
)
async def open_ports(_options: Options) -> Values:
    # In a network of its own, so that the usual ports are free.
    command = f"ip link set lo up; exec {sys.executable} -m cli.main up --simulate-missing"
    environment = {**clean_environment(), "ASHEARD_TWILIO_VALIDATE": "off"}
    with tempfile.TemporaryDirectory(prefix="asheard-up-") as folder:
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
        process = await asyncio.create_subprocess_exec(
            "unshare", "--net", "--map-root-user", "sh", "-c", command,
            env=environment, cwd=folder, process_group=0,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await must(lambda: 8080 in dict(_listening(process.pid)), "it serves", 40.0)
            await asyncio.sleep(3.0)
            found = {port for port, loopback in _listening(process.pid) if not loopback}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
                await asyncio.sleep(0.5)
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(15):
                    await process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return (float(len(found - {8080})),)


def _listening(pid: int) -> list[tuple[int, bool]]:
    """Ports that are listened at in a process' network, and whether only from within."""
    found = []
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                host, port = fields[1].split(":")
                if fields[3] == "0A":  # TCP_LISTEN
                    # IPv4, the same written as IPv6, and IPv6: each in the machine's order of bytes.
                    loopback = host.endswith("0100007F") or host == "0" * 24 + "01000000"
                    found.append((int(port, 16), loopback))
    return found


# -- readers ---------------------------------------------------------------------------------------


@scenario(
    "long-call-watched",
    "a call of 20,000 facts is watched while facts come",
    Measure("median time from a fact to the watcher's next state", "s", 3),
    within_s=150.0,
)
async def long_call_watched(_options: Options) -> Values:
    async with ScriptedModel() as model, stage(model.url) as system:
        call_sid = new_call_sid()
        await _append_many(system.ingest, _long_call(call_sid))
        waits: list[float] = []
        seen = asyncio.Event()
        async with grpc.aio.insecure_channel(
            system.transcripts, options=[("grpc.max_receive_message_length", 256 << 20)]
        ) as to_service:
            stub = transcript_service_pb2_grpc.TranscriptServiceStub(to_service)
            request = transcript_service_pb2.WatchTranscriptRequest(call_sid=call_sid)
            states: list[int] = []

            async def watch() -> None:
                async for change in stub.WatchTranscript(request):
                    states.append(len(change.transcript.turns))
                    seen.set()

            watching = asyncio.create_task(watch())
            await asyncio.wait_for(seen.wait(), 60.0)
            for number in range(5):
                seen.clear()
                began_s = time.monotonic()
                await _append_many(system.ingest, _one_more(call_sid, number))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(seen.wait(), 25.0)
                waits.append(time.monotonic() - began_s)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return (round(sorted(waits)[len(waits) // 2], 2),)


def _long_call(call_sid: str) -> list[fact_pb2.Fact]:
    writer = "session/long"
    facts = [
        fact_pb2.Fact(
            call_sid=call_sid, writer="gateway/MZlong", sequence=1,
            call_started=fact_pb2.CallStarted(stream_sid="MZlong"),
        )
    ]  # fmt: skip
    bodies: list[dict[str, Any]] = [{"session_started": fact_pb2.SessionStarted(language="en")}]
    for number in range(4_000):
        item = f"item{number}"
        previous = f"item{number - 1}" if number else ""
        text = "That will be nine dollars and five cents, please."
        bodies += [
            {"item_added": fact_pb2.ItemAdded(
                item_id=item, role=transcript_pb2.ROLE_AGENT, previous_item_id=previous)},
            {"item_progressed": fact_pb2.ItemProgressed(item_id=item, text=text[:20], audio_ms=900)},
            {"item_generated": fact_pb2.ItemGenerated(
                item_id=item, text=text, audio_ms=3_000,
                status=fact_pb2.GENERATION_STATUS_COMPLETED)},
            {"caller_speech_started": fact_pb2.CallerSpeechStarted(item_id=f"u{number}")},
            {"caller_transcribed": fact_pb2.CallerTranscribed(
                item_id=f"u{number}", text="And then?", complete=True)},
        ]  # fmt: skip
    facts += [
        fact_pb2.Fact(call_sid=call_sid, writer=writer, sequence=number, **body)
        for number, body in enumerate(bodies, start=1)
    ]
    return facts


def _one_more(call_sid: str, number: int) -> list[fact_pb2.Fact]:
    return [
        fact_pb2.Fact(
            call_sid=call_sid, writer="session/long", sequence=20_002 + number,
            caller_transcribed=fact_pb2.CallerTranscribed(
                item_id=f"u{number}", text=f"And then, number {number}?", complete=True),
        )
    ]  # fmt: skip


async def _append_many(target: str, facts: Sequence[fact_pb2.Fact]) -> None:
    async with grpc.aio.insecure_channel(target) as to_service:
        stub = ingest_service_pb2_grpc.IngestServiceStub(to_service)
        for start in range(0, len(facts), 1_000):
            batch = facts[start : start + 1_000]
            await stub.AppendFacts(ingest_service_pb2.AppendFactsRequest(facts=batch))
