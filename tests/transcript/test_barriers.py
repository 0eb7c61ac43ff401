"""What goes wrong in one call, or below the service, from the outside (integration)."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import subprocess
from collections.abc import Awaitable, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import structlog.testing

from asheard.v1 import fact_pb2
from asheard.v1.fact_pb2 import (
    CallEnded,
    CallerTranscribed,
    CallOutcome,
    CallStarted,
    Fact,
    FactDropped,
    ItemAdded,
    ItemProgressed,
    PlaybackStarted,
    SessionAssigned,
    SessionStarted,
    TimedWord,
    WordsTimed,
    WriterLost,
)
from asheard.v1.transcript_pb2 import CallState, Transcript
from asheard.v1.transcript_service_pb2 import CheckHeardRequest, ListCallsRequest
from tests.transcript.call_facts import Writer, short_call
from tests.transcript.running_server import Client, running
from transcript import facts as facts_module
from transcript.index import Index
from transcript.join import join
from transcript.store_dialect import Connection
from transcript.store_health import StoreHealth
from transcript.store_sql import SqlStore
from transcript.store_sqlite import SqliteDialect


async def status_of(answer: Awaitable[object]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return caught.value.code()


# One call


async def test_a_call_that_cannot_be_joined_concerns_its_own_readers_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_for_one(facts: list[Fact], known: object) -> Transcript:
        if facts[0].call_sid == "CA1":
            raise RuntimeError("a bug")
        return join(facts)

    monkeypatch.setattr("transcript.joined.join", fails_for_one)

    async def watched(call_sid: str) -> list[Transcript]:
        return [state async for state in client.watch(call_sid)]

    with structlog.testing.capture_logs() as lines:
        await client.append([*short_call("CA1", ended=False), *short_call("CA2", ended=False)])
        neighbour = asyncio.create_task(watched("CA2"))
        for n in range(2):  # and again: nothing was broken by the first time
            assert await status_of(client.get("CA1")) is grpc.StatusCode.INTERNAL
            assert await status_of(watched("CA1")) is grpc.StatusCode.INTERNAL
            check = CheckHeardRequest(call_sid="CA1", passage="Hello")
            asked = client.transcripts.CheckHeard(check)
            assert await status_of(asked) is grpc.StatusCode.INTERNAL
            listed = await client.transcripts.ListCalls(ListCallsRequest())
            assert "CA2" in [call.call_sid for call in listed.calls]
            assert (await client.get("CA2")).state == CallState.CALL_STATE_ACTIVE
            # More facts, and so another try, by the index too.
            await client.append([*short_call("CA1"), *short_call(f"CB{n}")])
            assert (await client.get(f"CB{n}")).final
        await client.append(short_call("CA2"))
        assert (await asyncio.wait_for(neighbour, 20))[-1].final
    told = [line for line in lines if line["log_level"] == "error"]
    assert [(line["event"], line["call"]) for line in told] == [("call cannot be joined", "CA1")]
    assert "asheard_transcript_tasks_failed_total{" not in await client.metrics()


async def test_tasks_of_the_service_are_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.background.RESTARTED_AFTER_S", 0.01)
    failures = {"index": 2, "alive": 2, "sweep": 2}

    def failing(name: str) -> None:
        if failures[name]:
            failures[name] -= 1
            raise RuntimeError("a bug")

    real_write, real_check = Index.write, StoreHealth.check

    async def write(self: Index, call_sid: str) -> None:
        failing("index")
        await real_write(self, call_sid)

    async def check(self: StoreHealth) -> str | None:
        failing("alive")
        return await real_check(self)

    async def sweep(_self: object, _now_s: float) -> None:
        failing("sweep")

    monkeypatch.setattr(Index, "write", write)
    monkeypatch.setattr(StoreHealth, "check", check)
    monkeypatch.setattr("transcript.sweeper.Sweeper.sweep", sweep)
    async with running(tmp_path / "facts.db") as client:  # and ready, in spite of it
        while failures["index"]:
            await client.append(short_call(f"CA{failures['index']}"))
            await asyncio.sleep(0.05)
        while any(failures.values()):
            await asyncio.sleep(0.01)
        await client.append(short_call("CA9"))
        async with asyncio.timeout(20):
            # By the index' own task; a call of those before counts as well if it was tried again.
            while re.search(r"calls_final_total [1-9]", text := await client.metrics()) is None:
                await asyncio.sleep(0.05)
        for task in ("index of calls", "store check", "sweeper"):
            assert f'asheard_transcript_tasks_failed_total{{task="{task}"}} 2.0' in text


# Writers


def out_of_bounds() -> dict[str, Fact]:
    """Facts that are refused, by the field that must be named."""
    session, gateway = Writer("CA1", "session/1"), Writer("CA1", "gateway/MZ1")
    long = "x" * 300
    far = 1 << 62
    word = TimedWord(text_start=1, text_end=2, end_ms=far)
    position = fact_pb2.PositionFixed()
    position.position.high_ms = -far
    return {
        "call_sid": Fact(call_sid="CA\0", writer="session/1", sequence=1),
        "writer": Fact(call_sid="CA1", writer="transcript/closed", sequence=1),
        "sequence": Fact(call_sid="CA1", writer="session/1", sequence=far),
        "fact": session.write(caller_transcribed=CallerTranscribed(text="x" * 300_000)),
        "item_added.item_id": session.write(item_added=ItemAdded(item_id=long)),
        "session_started.model": session.write(session_started=SessionStarted(model=long)),
        "words_timed.words": session.write(words_timed=WordsTimed(words=[word])),
        "words_timed.source.method": session.write(
            words_timed=WordsTimed(source={"method": long})  # type: ignore[arg-type]
        ),
        "item_progressed.content_index": session.write(
            item_progressed=ItemProgressed(content_index=(1 << 31) - 1)
        ),
        "item_progressed.text_offset": session.write(
            item_progressed=ItemProgressed(text_offset=-1)
        ),
        "item_progressed.audio_ms": session.write(item_progressed=ItemProgressed(audio_ms=far)),
        "playback_started.at_ms": gateway.write(playback_started=PlaybackStarted(at_ms=-far)),
        "position_fixed.position.high_ms": gateway.write(position_fixed=position),
        "session_assigned.session_writer": gateway.write(
            session_assigned=SessionAssigned(session_writer="session/\0")
        ),
        "call_started.stream_number": gateway.write(call_started=CallStarted(stream_number=-1)),
        "fact_dropped.reason": gateway.write(fact_dropped=FactDropped(reason="x" * 5_000)),
        "writer_lost": gateway.write(writer_lost=WriterLost(writer="session/1")),
    }


async def test_a_fact_out_of_bounds_is_refused_alone_with_its_field_named(client: Client) -> None:
    bad = out_of_bounds()
    facts: list[Fact] = []
    for n, fact in enumerate(bad.values()):
        facts += [fact, *short_call(f"CB{n}")]
    answer = await client.append(facts)
    named = [rejected.reason.partition(":")[0] for rejected in answer.rejected]
    assert named == list(bad)
    assert [facts[rejected.index] for rejected in answer.rejected] == list(bad.values())
    for n in range(len(bad)):
        assert (await client.get(f"CB{n}")).final


def test_usual_facts_are_within_the_bounds() -> None:
    for fact in short_call():
        assert facts_module.fault(fact) is None
    far = 86_400_000 * 2
    for body in (
        {"barged_in": fact_pb2.BargedIn(onset_ms=-300, detection_us=1 << 40)},
        {"call_ended": CallEnded(at_ms=far)},
        {"caller_transcribed": CallerTranscribed(text="é" * 100_000)},
        {"playout_traced": fact_pb2.PlayoutTraced(events=[{"now_us": 1 << 50, "media_ms": 1 << 50}])},  # type: ignore[list-item]
        {"call_started": CallStarted(from_number=f"sip:{'a' * 240}@b")},
    ):  # fmt: skip
        assert facts_module.fault(Writer("CA1", "gateway/MZ1").write(**body)) is None


async def test_what_a_call_may_hold_is_bounded_and_said_once(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transcript.store_append.MAX_CALL_FACTS", 20)
    session = Writer("CA1", "session/1")
    for n in range(40):
        session.write(caller_transcribed=CallerTranscribed(item_id=f"{n}", text="x"))
    with structlog.testing.capture_logs() as lines:
        for at in range(0, 40, 5):
            assert not (await client.append(session.facts[at : at + 5])).rejected
        await client.append(short_call("CA2"))
    assert (await client.get("CA1")).revision == 20
    assert (await client.get("CA2")).final
    assert [line["call"] for line in lines if "as a call may" in line["event"]] == ["CA1"]
    counted = 'asheard_transcript_facts_total{outcome="surplus",writer="session"} 20.0'
    assert counted in await client.metrics()


async def test_what_comes_for_a_final_call_is_counted_and_said_once(client: Client) -> None:
    await client.append(short_call())
    final = await client.get("CA1")
    assert final.final
    straggler = Writer("CA1", "gateway/MZ2")
    with structlog.testing.capture_logs() as lines:
        for n in range(3):
            fact = straggler.write(call_started=CallStarted(stream_sid="MZ2", stream_number=n))
            assert not (await client.append([fact])).rejected
    assert await client.get("CA1") == final
    assert [line["call"] for line in lines if "final call" in line["event"]] == ["CA1"]
    counted = 'asheard_transcript_facts_total{outcome="late",writer="gateway"} 3.0'
    assert counted in await client.metrics()


async def test_bad_names_of_calls_and_processes_are_refused(client: Client) -> None:
    assert await status_of(client.get("CA\0")) is grpc.StatusCode.NOT_FOUND
    assert await status_of(client.append([], "two words")) is grpc.StatusCode.INVALID_ARGUMENT


# Time


async def test_calls_of_a_process_that_fell_silent_become_final(tmp_path: Path) -> None:
    """A gateway is gone and its neighbour lives, by signs of life alone, and then ends."""

    async with running(tmp_path / "facts.db", grace_s=0.3, lost_s=2.0) as client:
        for n, process in enumerate(("dead", "alive"), start=1):
            gateway = Writer(f"CA{n}", "gateway/MZ1")
            await client.append([gateway.write(call_started=CallStarted(stream_number=1))], process)

        async def beat() -> None:
            while True:
                await client.append([], "alive")
                await asyncio.sleep(0.2)

        beating = asyncio.create_task(beat())
        states = [state async for state in client.watch("CA1")]
        assert (states[-1].final, states[-1].state) == (True, CallState.CALL_STATE_FAILED)
        assert (await client.get("CA2")).state == CallState.CALL_STATE_ACTIVE
        ended = CallEnded(outcome=CallOutcome.CALL_OUTCOME_DROPPED)
        await client.append([gateway.write(call_ended=ended)], "alive")
        assert not (await client.get("CA2")).final
        states = [state async for state in client.watch("CA2")]
        assert states[-1].final
        beating.cancel()


# The store


class Limited(SqliteDialect):
    """SQLite with a limit that can be set and taken away, on all connections."""

    limit = ""
    opened: list[Connection]

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opened = []

    def connect(self) -> Connection:
        connection = super().connect()
        self.opened.append(connection)
        self.set(self.limit)
        return connection

    def set(self, limit: str) -> None:
        """A pragma, which holds for each connection by itself; "" for none."""
        self.limit = limit
        for connection in self.opened:
            with contextlib.suppress(sqlite3.ProgrammingError):  # it was closed
                connection.execute(f"PRAGMA {limit or 'query_only = OFF'}").fetchall()
                if not limit:
                    connection.execute("PRAGMA max_page_count = 1000000").fetchall()


@pytest.mark.parametrize(
    ("limit", "says"),
    [("max_page_count = 1", "the disk is full"), ("query_only = ON", "may not be written to")],
)
async def test_a_store_that_takes_no_writes_is_not_ready_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, says: str
) -> None:
    monkeypatch.setattr("transcript.store_health.CHECK_EVERY_S", 0.1)
    monkeypatch.setattr("transcript.store_health.CHECK_LOST_EVERY_S", 0.1)
    database = Limited(tmp_path / "facts.db")
    async with running(tmp_path / "facts.db", store=SqlStore(database)) as client:
        await client.append(short_call("CA1"))
        assert (await client.get("CA1")).final
        database.set(limit)
        big = [CallerTranscribed(item_id=f"{n}", text="x" * 5_000) for n in range(50)]
        writer = Writer("CA2", "session/1")
        facts = [writer.write(caller_transcribed=body) for body in big]
        assert await status_of(client.append(facts, "p")) is grpc.StatusCode.UNAVAILABLE
        text = await client.until_ready_is(503)
        assert says in text
        assert "CA2" not in text
        assert (await client.get("CA1")).final  # what is there is read all the same
        assert await status_of(client.append([], "p")) is grpc.StatusCode.UNAVAILABLE
        database.set("")
        while True:
            try:
                await client.append(facts)
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
        await client.until_ready_is(200)
        await client.append([], "p")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_is_said_and_facts_go_in_when_there_is_room(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transcript.store_health.APPEND_FAULT_S", 0.5)
    monkeypatch.setattr("transcript.store_health.CHECK_EVERY_S", 0.1)
    monkeypatch.setattr("transcript.store_health.CHECK_LOST_EVERY_S", 0.1)
    async with running(small_disk / "facts.db") as client:
        await client.append(short_call("CA1"))
        rest = small_disk / "rest"
        with rest.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        # Found out by the check alone, before anybody's facts are refused.
        assert "the disk is full" in await client.until_ready_is(503)
        assert await status_of(client.append(short_call("CA2"))) is grpc.StatusCode.UNAVAILABLE
        rest.unlink()
        await client.until_ready_is(200)
        await client.append(short_call("CA2"))
        assert (await client.get("CA2")).final


async def test_a_damaged_file_is_said_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    async with running(path) as client:
        for n in range(30):
            await client.append(short_call(f"CA{n}"))
        # Brings everything from the log to the file; then the file is damaged after its header.
        dialect = SqliteDialect(path)
        connection = dialect.connect()
        dialect.forget(connection)
        connection.close()
        content = path.read_bytes()
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (len(content) - 4096))
        while True:
            try:
                await client.append(short_call("CB1"))
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                break
        assert "restore" in await client.until_ready_is(503)
