"""Reading sockets in turns: nothing lost or reordered, ends found, and fewer looks than messages."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from functools import partial

import pytest

from gateway import turns
from gateway.turns import ReadingTurns
from tests.gateway.peers import until


class Recorder(asyncio.Protocol):
    """What a socket brought."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.lost = False

    def has(self, n_bytes: int) -> bool:
        return sum(map(len, self.pieces)) >= n_bytes

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

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
        reading.join(line.transport, line.received.data_received)
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
    seats = [reading.join(line.transport, line.received.data_received) for line in lines]
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
    seat = reading.join(line.transport, line.received.data_received)
    seat.leave()
    seat.leave()
    line.peer.send(b"x")
    await asyncio.sleep(0.02)
    assert line.received.pieces == []
    line.transport.resume_reading()
    await until(lambda: line.received.pieces == [b"x"], "the loop reads it")
    await close(line)


async def test_the_peers_end_reaches_the_protocol_behind_its_last_bytes(
    reading: ReadingTurns,
) -> None:
    line = await connect()
    reading.join(line.transport, line.received.data_received)
    line.peer.send(b"last words")
    line.peer.close()
    await until(lambda: line.received.lost, "the end")
    assert line.received.pieces == [b"last words"]


async def test_who_is_closing_already_gets_no_seat(reading: ReadingTurns) -> None:
    line = await connect()
    line.transport.close()
    seat = reading.join(line.transport, line.received.data_received)
    line.peer.send(b"z")
    await until(lambda: line.received.lost, "the end")
    seat.leave()
    assert line.received.pieces == []


async def test_a_socket_closed_under_us_leaves_its_number_to_the_next(
    reading: ReadingTurns,
) -> None:
    old = await connect()
    gone = reading.join(old.transport, old.received.data_received)
    old.transport.abort()
    await until(lambda: old.received.lost, "the end")
    new = await connect()
    seat = reading.join(new.transport, new.received.data_received)
    gone.leave()
    new.peer.send(b"y")
    await until(lambda: new.received.pieces == [b"y"], "the new one is read")
    assert old.received.pieces == []
    assert seat.fd == gone.fd, "else nothing was shown"
    await close(new)
