"""What one call raises ends that call alone: its neighbours lose no frame, its record has an end.

Whatever is run for a call is made to raise here, and its clean-up too.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

import pytest
from structlog.testing import capture_logs

from asheard.v1 import fact_pb2
from gateway import server, service, turns
from gateway.call import Call
from gateway.caller_path import CallerPath
from gateway.delivery import Delivery
from gateway.lane import Lane, LaneListener
from gateway.last_line import LastLine
from gateway.media_connection import MediaConnection
from gateway.media_sink import MediaSink
from gateway.record import CallRecord
from gateway.registry import Registry, RunningCall
from gateway.turns import ReadingTurns, Seat
from gateway.twilio.messages import Start
from runtime.facts import FactWriter
from tests.gateway.conftest import World, WorldMaker
from tests.gateway.peers import TwilioEnd, until

NEIGHBOURS = 5

Trigger = Callable[[World, TwilioEnd, int], Coroutine[Any, Any, None]]


async def media(here: World, victim: TwilioEnd, handle: int) -> None:
    await victim.media()


async def mark(here: World, victim: TwilioEnd, handle: int) -> None:
    await victim.echo("p1")


async def key(here: World, victim: TwilioEnd, handle: int) -> None:
    await victim.send("dtmf", dtmf={"track": "inbound_track", "digit": "1"})


async def ping(here: World, victim: TwilioEnd, handle: int) -> None:
    await victim.socket.ping()


async def stop(here: World, victim: TwilioEnd, handle: int) -> None:
    await victim.stop()


async def speak(here: World, victim: TwilioEnd, handle: int) -> None:
    here.worker.speak("item", 400, call=handle)


async def interrupt(here: World, victim: TwilioEnd, handle: int) -> None:
    """A fence that does not return: the playhead's timer fires."""
    here.worker.speak("item", 400, call=handle)
    await victim.receive_audio(400)
    here.worker.interrupt(1, call=handle)


async def finish(here: World, victim: TwilioEnd, handle: int) -> None:
    here.worker.finish(call=handle)


async def lose(here: World, victim: TwilioEnd, handle: int) -> None:
    victim.drop()


async def replace(here: World, victim: TwilioEnd, handle: int) -> None:
    newer = await here.connect()
    newer.stream_sid = victim.stream_sid + "x"
    await newer.start(call_sid=victim.stream_sid.replace("MZ", "CA"))
    await until(lambda: here.worker.opened[-1][2] == newer.stream_sid, "the newer stream")
    await newer.stop()
    await newer.close_code()


class Case(NamedTuple):
    """What raises, every time it is called for the victim, and what leads there."""

    trigger: Trigger
    raising: tuple[tuple[type, str], ...]
    has_end: bool = True
    """Whether the stream's last fact can be expected."""


CASES = {
    "message": Case(mark, ((MediaConnection, "receive_text"), (MediaConnection, "fail"))),
    "its path": Case(media, ((CallerPath, "take"), (MediaConnection, "fail"))),
    "its frames": Case(ping, ((MediaConnection, "receive"), (MediaConnection, "fail"))),
    "its seat": Case(
        mark, ((MediaConnection, "receive_text"), (MediaConnection, "fail"), (Seat, "leave"))
    ),
    "media": Case(media, ((Call, "receive_media"), (Delivery, "answers"))),
    "mark": Case(mark, ((Call, "receive_mark"), (Delivery, "drop"), (Delivery, "media_ms"))),
    "key": Case(key, ((Call, "receive_key"), (Lane, "close"))),
    "its end": Case(stop, ((Call, "end"), (Delivery, "media_ms"))),
    "end and abandon": Case(stop, ((Call, "end"), (Call, "abandon")), False),
    "facts": Case(stop, ((FactWriter, "write"),), False),
    "closing": Case(stop, ((MediaSink, "close"), (Registry, "ended"))),
    "no close": Case(media, ((Call, "receive_media"), (MediaSink, "write"))),
    "audio": Case(speak, ((Call, "agent_audio"), (Delivery, "close"))),
    "pump": Case(speak, ((Delivery, "write"), (Delivery, "fix_waiting"))),
    "settling": Case(speak, ((Delivery, "answers"), (CallRecord, "keep"))),
    "timer": Case(interrupt, ((Delivery, "handle_timer"), (CallRecord, "keep"))),
    "interrupt": Case(interrupt, ((Call, "interrupted"), (CallRecord, "keep"))),
    "finishing": Case(finish, ((Delivery, "is_done"), (Delivery, "drop"))),
    "lost": Case(lose, ((MediaConnection, "disconnected"), (Delivery, "drop"))),
    "lost, its end": Case(lose, ((Delivery, "answers"), (Delivery, "media_ms"))),
    "replaced": Case(replace, ((MediaConnection, "supersede"), (Delivery, "close"))),
}


class Victims:
    """Makes methods raise for one call, whichever object of it they belong to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.raised = 0

    def patch(self, owner: type, name: str, its: list[object]) -> None:
        real = vars(owner)[name]

        def replaced(this: Any, *args: Any, **kwargs: Any) -> Any:
            whose = this if owner is not Registry else args[0]
            if any(whose is each for each in its):
                self.raised += 1
                raise ZeroDivisionError(f"{owner.__name__}.{name}")
            return get(this, *args, **kwargs)

        is_property = isinstance(real, property)
        get: Callable[..., Any] = real.__get__ if is_property else real
        self._monkeypatch.setattr(owner, name, property(replaced) if is_property else replaced)


OWNED: dict[str, list[object]] = {}
"""What a call has, by CallSid."""


@pytest.fixture(autouse=True)
def owned(monkeypatch: pytest.MonkeyPatch) -> None:
    OWNED.clear()
    seats: list[Seat] = []
    join, begun = ReadingTurns.join, Registry.started
    place, give, make = LastLine.place, LastLine.writer, Call.__init__
    making: list[list[object]] = []

    def joined(self: ReadingTurns, transport: asyncio.Transport, take: turns.Taker) -> Seat:
        seats.append(join(self, transport, take))
        return seats[-1]

    def started(self: Registry, call: RunningCall, call_sid: str) -> None:
        seat = next(s for s in seats if s.take.__self__ is call)  # type: ignore[attr-defined]
        OWNED[call_sid] = [call, seat]
        begun(self, call, call_sid)

    def written(self: LastLine, call_sid: str, writer: str) -> FactWriter:
        OWNED[call_sid].append(give(self, call_sid, writer))
        return OWNED[call_sid][-1]  # type: ignore[return-value]

    def placed(self: LastLine, listener: LaneListener, call_sid: str, stream_sid: str) -> Lane:
        lane = place(self, listener, call_sid, stream_sid)
        OWNED[call_sid] += [lane, listener]
        return lane

    def made(self: Call, start: Start, sink: MediaSink, *args: Any, **kwargs: Any) -> None:
        its = OWNED[start.start.call_sid]
        its.append(sink)
        making.append(its)
        make(self, start, sink, *args, **kwargs)
        making.pop()
        its.append(self.path)

    for kind in (Delivery, CallRecord):

        def made_within(
            self: object, *args: Any, _make: Callable[..., None] = kind.__init__
        ) -> None:
            making[-1].append(self)
            _make(self, *args)

        monkeypatch.setattr(kind, "__init__", made_within)

    monkeypatch.setattr(ReadingTurns, "join", joined)
    monkeypatch.setattr(Registry, "started", started)
    monkeypatch.setattr(LastLine, "writer", written)
    monkeypatch.setattr(LastLine, "place", placed)
    monkeypatch.setattr(Call, "__init__", made)


async def start(here: World, name: str) -> tuple[TwilioEnd, int]:
    end = await here.connect()
    end.stream_sid = f"MZ{name}"
    await end.start(call_sid=f"CA{name}")
    await until(lambda: here.worker.opened and here.worker.opened[-1][1] == f"CA{name}", name)
    return end, here.worker.opened[-1][0]


@pytest.mark.parametrize("way", ["in turns", "by the event loop"])
async def test_what_one_call_raises_ends_that_call_alone(
    make_world: WorldMaker, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(service, "LAST_WORDS_S", 0.2)  # what had no end keeps its lane
    if way == "by the event loop":
        monkeypatch.setenv(turns.SWITCH, "off")
    async with make_world() as here:
        here.worker.load.max_calls = 100
        here.worker.say(call=0, load_report=here.worker.load)
        neighbours = [await start(here, f"{number}") for number in range(NEIGHBOURS)]
        sent = uncounted = 0
        for number, (name, case) in enumerate(CASES.items()):
            victim, handle = await start(here, f"victim{number}")
            await victim.media()
            await until(lambda h=handle: here.worker.audio.get(h), "the victim is heard")  # type: ignore[misc]
            its = OWNED[f"CAvictim{number}"]
            with monkeypatch.context() as patch, capture_logs():
                victims = Victims(patch)
                for owner, method in case.raising:
                    victims.patch(owner, method, its)
                await case.trigger(here, victim, handle)
                if not victim.socket.closed and case.trigger is not lose:
                    await victim.close_code()
                for neighbour, _ in neighbours:
                    await neighbour.media()
                sent += 1
                await until(
                    lambda n=sent: all(  # type: ignore[misc]
                        len(here.worker.audio.get(handle, ())) == n for _, handle in neighbours
                    ),
                    f"the neighbours are heard: {name}",
                )
                await until(lambda: len(here.gateway.calls) == NEIGHBOURS, name)
                assert victims.raised >= len(case.raising), name
            uncounted += name == "end and abandon"
            active = NEIGHBOURS + uncounted
            await until(lambda n=active: here.metric("asheard_active_calls") == n, name)  # type: ignore[misc]
            if case.has_end:
                writer = f"gateway/{victim.stream_sid}"
                await until(
                    lambda w=writer: here.transcript.kinds(w)[-1:] == ["call_ended"],  # type: ignore[misc]
                    f"the last fact: {name}",
                )
        for neighbour, handle in neighbours:
            here.worker.speak("last", 100, call=handle)
            await neighbour.receive_audio(100)
            heard = [frame.media_ms for frame in here.worker.audio[handle]]
            assert heard == [20 * n for n in range(1, sent + 1)], "each frame once, in order"
        admin = f"http://127.0.0.1:{here.gateway.admin_port}"
        async with here.http.get(f"{admin}/livez") as response:
            assert response.status == 200


async def test_a_call_that_cannot_begin_has_an_end(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: CallRecord, start: object) -> None:
        raise ZeroDivisionError("ours")

    with monkeypatch.context() as patch, capture_logs():
        patch.setattr(CallRecord, "begin", refuse)
        end = await running.connect()
        await end.start()
        assert await end.close_code() == 1011
    await running.ended()
    assert running.metric("asheard_active_calls") == 0
    assert running.transcript.only("call_ended").outcome == fact_pb2.CALL_OUTCOME_DROPPED
    again = await running.call()
    await again.media()
    await until(lambda: running.worker.audio, "the next call is heard")


async def test_a_drain_ends_every_call_whatever_one_raises(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, _ = await start(running, "victim")
    other, _ = await start(running, "other")
    abort = MediaConnection.abort

    def refuse(self: MediaConnection) -> None:
        if self is OWNED["CAvictim"][0]:
            raise ZeroDivisionError("ours")
        abort(self)

    monkeypatch.setattr(MediaConnection, "abort", refuse)
    monkeypatch.setattr(service, "LAST_WORDS_S", 0.2)
    with capture_logs():
        running.stop.request()
        running.stop.request()
        codes = await asyncio.gather(victim.close_code(), other.close_code())
        assert list(codes) == [1011, 1001]
        await asyncio.wait_for(running.task, 15)
    assert running.worker.closed[2] == fact_pb2.CALL_OUTCOME_DROPPED


@pytest.mark.parametrize("few", [True, False])
async def test_livez_knows_whether_sockets_are_read(
    make_world: WorldMaker, monkeypatch: pytest.MonkeyPatch, few: bool
) -> None:
    """They are not: looking at them raises, and the event loop has forgotten them as well."""
    monkeypatch.setattr(turns, "HEARTBEAT_S", 0.05)
    if not few:
        monkeypatch.setattr(turns, "FEW_CALLS", 0)
    epolls: list[Epoll] = []

    class Epoll:
        """An epoll that can be broken."""

        def __init__(self) -> None:
            self.broken = False
            self._epoll = real()
            self.register, self.unregister = self._epoll.register, self._epoll.unregister
            self.fileno, self.close = self._epoll.fileno, self._epoll.close
            epolls.append(self)

        def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
            if self.broken:
                raise OSError("broken")
            return self._epoll.poll(timeout, maxevents)

    real = select.epoll
    monkeypatch.setattr(select, "epoll", Epoll)
    async with make_world() as running:
        await break_reading_and_look(running, epolls[-1])


async def break_reading_and_look(running: World, epoll: Any) -> None:
    end = await running.call()
    admin = f"http://127.0.0.1:{running.gateway.admin_port}/livez"

    async def live(status: int) -> str:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 10
        while True:
            async with running.http.get(admin) as response:
                if response.status == status:
                    return await response.text()
            assert loop.time() < deadline, f"never {status}"
            await asyncio.sleep(0.02)

    await live(200)
    with capture_logs():
        epoll.broken = True
        asyncio.get_running_loop().remove_reader(epoll.fileno())
        assert "not been read" in await live(503)
        epoll.broken = False
    await live(200)
    await end.media()
    await until(lambda: running.worker.audio, "read again")


async def test_the_next_turn_comes_whatever_a_turn_raises(
    make_world: WorldMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "FEW_CALLS", 0)
    raised = 0

    def raise_sometimes(ready: list[tuple[int, int]], seats: dict[int, Seat]) -> None:
        nonlocal raised
        raised += 1
        if raised % 2:
            raise ZeroDivisionError("ours")
        turns.read_ready(ready, seats)

    monkeypatch.setattr(server, "ReadingTurns", partial(ReadingTurns, raise_sometimes))
    async with make_world() as running:
        end = await running.call()
        with capture_logs() as lines:
            for number in range(1, 20):
                await end.media()
                await until(
                    lambda n=number: len(running.worker.audio.get(1, ())) == n,  # type: ignore[misc]
                    "a frame",
                )
    assert raised > 10
    assert len(lines) < 3, "said, and not at every turn"
