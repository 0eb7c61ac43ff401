"""Reading sockets in turns: nothing lost or reordered, ends found, and fewer looks than messages."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator
from functools import partial

import pytest
from structlog.testing import capture_logs

from gateway import turns
from gateway.instant import Instant
from gateway.turns import ReadingTurns
from tests.gateway.peers import until


class Recorder(asyncio.Protocol):
    """What a socket brought."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.instants: list[Instant] = []
        self.lost = False

    def has(self, n_bytes: int) -> bool:
        return sum(map(len, self.pieces)) >= n_bytes

    def take(self, data: bytes, at: Instant) -> None:
        self.pieces.append(data)
        self.instants.append(at)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Line:
    """One connection: the peer's end, and ours as the gateway has it."""

    def __init__(
        self, peer: socket.socket, transport: asyncio.Transport, protocol: Recorder
    ) -> None:
        self.peer = peer
        self.transport = transport
        self.received = protocol


@pytest.fixture
async def reading() -> AsyncIterator[ReadingTurns]:
    reading = ReadingTurns()
    yield reading
    reading.close()
    reading.close()


async def connect() -> Line:
    ours, peer = socket.socketpair()  # ours gets the lowest free number
    transport, protocol = await asyncio.get_running_loop().create_connection(Recorder, sock=ours)
    return Line(peer, transport, protocol)


async def close(*lines: Line) -> None:
    for line in lines:
        line.transport.close()
        line.peer.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("count", [1, turns.FEW_CALLS, turns.FEW_CALLS + 5])
async def test_every_byte_arrives_once_and_in_order(reading: ReadingTurns, count: int) -> None:
    lines = [await connect() for _ in range(count)]
    for line in lines:
        reading.join(line.transport, line.received.take)
    for number in range(50):
        for place, line in enumerate(lines):
            line.peer.send(b"%d/%d;" % (place, number))
        await asyncio.sleep(0)
    for place, line in enumerate(lines):
        expected = b"".join(b"%d/%d;" % (place, number) for number in range(50))
        await until(partial(line.received.has, len(expected)), "all of it")
        assert b"".join(line.received.pieces) == expected
    await close(*lines)


async def test_many_calls_are_read_in_turns_and_few_at_once(
    reading: ReadingTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_S", 0.04)
    lines = [await connect() for _ in range(turns.FEW_CALLS + 1)]
    seats = [reading.join(line.transport, line.received.take) for line in lines]
    first, second, *_ = lines
    # The first frame after a pause does not wait; then a turn takes all that came since.
    first.peer.send(b"a")
    await until(lambda: first.received.pieces, "a frame on a quiet line")
    for _ in range(5):
        second.peer.send(b"b")
        await asyncio.sleep(0.002)
    await until(lambda: second.received.pieces, "its turn")
    assert second.received.pieces == [b"bbbbb"]
    for seat in seats[2:]:
        seat.leave()
    await asyncio.sleep(2 * turns.TURN_S * len(lines) ** 0.5)
    monkeypatch.setattr(turns, "TURN_S", 1000.0)  # who waited for a turn now would wait long
    for number in range(1, 4):
        second.peer.send(b"c")
        await until(partial(second.received.has, len(b"bbbbb") + number), "a frame of few")
    await close(*lines)


async def test_who_left_is_read_no_more_and_the_loop_can_take_over(reading: ReadingTurns) -> None:
    line = await connect()
    seat = reading.join(line.transport, line.received.take)
    seat.leave()
    seat.leave()
    line.peer.send(b"x")
    await asyncio.sleep(0.02)
    assert line.received.pieces == []
    seat.leave_turns()
    seat.leave_turns()
    await until(lambda: line.received.pieces == [b"x"], "the loop reads it")
    line.peer.send(b"y" * 3 * turns.READ_BYTES)
    await until(partial(line.received.has, 1 + 3 * turns.READ_BYTES), "all of it")
    assert max(map(len, line.received.pieces)) <= turns.READ_BYTES
    line.peer.close()
    await until(lambda: line.received.lost and seat.lost.done(), "the end")
    await close(line)


async def test_the_clocks_are_read_once_a_turn(
    reading: ReadingTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "FEW_CALLS", 0)
    lines = [await connect() for _ in range(3)]
    for line in lines:
        reading.join(line.transport, line.received.take)
        line.peer.send(b"a")
    await until(lambda: all(line.received.pieces for line in lines), "a turn")
    assert len({line.received.instants[0] for line in lines}) == 1
    await close(*lines)


async def test_the_loop_holds_back_who_does_not_read_what_is_written(
    reading: ReadingTurns,
) -> None:
    line = await connect()
    seat = reading.join(line.transport, line.received.take)
    line.transport.write(b"z" * 4_000_000)
    line.peer.send(b"in turns")
    await until(lambda: line.received.pieces, "who is read in turns is not asked anything")
    seat.leave_turns()
    line.peer.send(b"by the loop")
    await asyncio.sleep(0.05)
    assert line.received.pieces == [b"in turns"]
    line.peer.setblocking(False)
    left = 4_000_000
    while left:
        try:
            left -= len(line.peer.recv(left))
        except BlockingIOError:
            await asyncio.sleep(0.001)
    await until(lambda: len(line.received.pieces) == 2, "it is read again")
    await close(line)


@pytest.mark.parametrize("by_loop", [False, True])
async def test_what_a_taker_raises_ends_its_socket_alone(
    reading: ReadingTurns, by_loop: bool
) -> None:
    victim, other = await connect(), await connect()

    def fail(data: bytes, at: Instant) -> None:
        raise ZeroDivisionError("ours")

    seats = [
        reading.join(victim.transport, fail),
        reading.join(other.transport, other.received.take),
    ]
    if by_loop:
        for seat in seats:
            seat.leave_turns()
    with capture_logs() as lines:
        victim.peer.send(b"a")
        other.peer.send(b"a")
        await until(lambda: victim.received.lost and other.received.pieces, "its end")
    assert [line["event"] for line in lines] == ["fault while reading a media stream"]
    other.peer.send(b"b")
    await until(lambda: other.received.pieces == [b"a", b"b"], "the other is read")
    await close(other)


@pytest.mark.parametrize("missing", ["epoll", "eventfd", "switched off"])
async def test_where_there_are_no_turns_the_event_loop_reads(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    if missing == "epoll":
        monkeypatch.delattr(select, "epoll")
    elif missing == "eventfd":
        monkeypatch.delattr(os, "eventfd")
    reading = ReadingTurns(in_turns=missing != "switched off")
    line = await connect()
    seat = reading.join(line.transport, line.received.take)
    line.peer.send(b"first")
    await until(lambda: line.received.pieces == [b"first"], "a frame")
    seat.leave_turns()
    line.peer.send(b"last words")
    line.peer.close()
    await until(lambda: line.received.lost and seat.lost.done(), "the end")
    assert line.received.pieces == [b"first", b"last words"]
    assert reading.fault is None
    reading.close()


async def test_the_peers_end_reaches_the_protocol_behind_its_last_bytes(
    reading: ReadingTurns,
) -> None:
    line = await connect()
    reading.join(line.transport, line.received.take)
    line.peer.send(b"last words")
    line.peer.close()
    await until(lambda: line.received.lost, "the end")
    assert line.received.pieces == [b"last words"]


async def test_who_is_closing_already_gets_no_seat(reading: ReadingTurns) -> None:
    line = await connect()
    line.transport.close()
    seat = reading.join(line.transport, line.received.take)
    line.peer.send(b"z")
    await until(lambda: line.received.lost, "the end")
    seat.leave()
    assert line.received.pieces == []


async def test_a_socket_closed_under_us_leaves_its_number_to_the_next(
    reading: ReadingTurns,
) -> None:
    old = await connect()
    gone = reading.join(old.transport, old.received.take)
    old.transport.abort()
    await until(lambda: old.received.lost, "the end")
    new = await connect()
    seat = reading.join(new.transport, new.received.take)
    gone.leave()
    new.peer.send(b"y")
    await until(lambda: new.received.pieces == [b"y"], "the new one is read")
    assert old.received.pieces == []
    assert seat.fd == gone.fd, "else nothing was shown"
    await close(new)
