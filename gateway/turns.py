"""Reads the sockets of many calls in turns: all that are ready, every few milliseconds.

A wake-up of the event loop costs more than the frame that it is for. With a hundred calls there are
five thousand frames a second, and none of them is in a hurry: a message on the link has its price
whatever is in it, so they leave in batches anyway. So the sockets are watched by an epoll of their
own. While there are few calls, or nothing comes, the loop watches that epoll and a frame is read at
once; else it is looked at in turns, and what a turn has read leaves in one message. Interrupts and
agent audio come from the link, so they wait for no turn. The clocks are read once a turn.

Marks are placed by Twilio's own clock (gateway/playout), so one that waits for its turn is not
placed later.

Where there is no epoll (it is Linux's), and for a socket that :meth:`Seat.leave_turns` was called
for, the event loop reads. Both ways lead through :class:`Seat`, to the same :data:`Taker`.

Whatever reading one socket raises ends that socket alone, and the next turn always comes. That it
does is looked at: a heartbeat is put among the sockets every second, and has to be found there like
a frame.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
from collections.abc import Callable
from typing import cast

from gateway.barrier import FAULTS, guarded, report
from gateway.instant import Instant, now
from runtime.log import get_log

log = get_log(__name__)

TURN_S = 0.0005
"""How far turns are apart, times the root of the number of calls: 5 ms with 100 calls, 10 ms with
400. So the longer wait and the greater saving are shared. Next to a frame of 20 ms nobody hears it.
At 100 calls turns save a sixth of the gateway's CPU, and 99 % of the frames are at the model
within 8 ms."""

FEW_CALLS = 25
"""So few are read at once: the CPU is there, and a turn would find one frame or two."""

Taker = Callable[[bytes, Instant], object]
"""What is given to it came over the socket next, and was read then."""

READ_BYTES = 4 * 1024
"""At most from one socket in a turn: nine messages. The rest has its turn next time."""

FIRST_READ_BYTES = 479
"""So much is tried first: more than one message with a frame of 20 ms, and as much as Python allocates
for less than a larger piece (512 bytes with what it keeps of them)."""

HEARTBEAT_S = 1.0
"""How far heartbeats are apart. Frames come every 20 ms, so that nobody but an idle gateway
notices."""

MISSED_TO_REPAIR = 2
"""So many heartbeats in a row that were not found: reading is begun anew. One may be missed by a
busy loop that runs its timers first."""

MISSED_TO_FAIL = 5
"""So many: sockets are not read, whatever else the process does, and ``/livez`` says so."""

SAID_EVERY_S = 10.0
"""How often a fault of reading itself is logged."""

SWITCH = "ASHEARD_GATEWAY_TURNS"
"""Set to ``off`` to have the event loop read every socket: for measuring what turns save."""


class Seat(asyncio.Protocol):
    """One media socket: whoever reads it, a turn or the event loop, what came goes to its taker.

    It stands at the transport in place of the protocol that served the request before, and tells
    that one of all but the data, so that its connection ends like any other. Nothing that it calls
    for a call is let out to the event loop.

    Args:
        turns: Where it is read.
        transport: Of a TCP connection in clear text.
        take: Gets the data.
    """

    def __init__(self, turns: ReadingTurns, transport: asyncio.Transport, take: Taker) -> None:
        self.fd: int = transport.get_extra_info("socket").fileno()
        self.transport = transport
        self.take = take
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is."""
        self._turns = turns
        self._in_turns = False
        self._writing_held = False
        self._before = cast(asyncio.Protocol, transport.get_protocol())
        transport.set_protocol(self)

    # -- in turns ------------------------------------------------------------------------------

    def join_turns(self) -> None:
        """Have it read in turns from now on, and not by the event loop."""
        self._in_turns = True
        self.transport.pause_reading()

    def leave_turns(self) -> None:
        """Leave reading to the event loop. Repeats are ignored.

        So is held back who sends what has to be answered, and does not read the answers.
        """
        if self._in_turns:
            self._in_turns = False
            self.leave()
            if not self._writing_held:
                self.transport.resume_reading()

    def leave(self) -> None:
        """Have it read no more, until :meth:`leave_turns`, say. Repeats are ignored."""
        self._turns.forget(self)

    def read(self) -> bytes:
        """What there is; empty when there is nothing, or the end."""
        if self.transport.is_closing():
            return b""
        data = b""
        try:
            data = os.read(self.fd, FIRST_READ_BYTES)
            if len(data) == FIRST_READ_BYTES:
                data += os.read(self.fd, READ_BYTES - FIRST_READ_BYTES)
        except BlockingIOError:
            return data
        except OSError:
            pass
        if not data:
            self._end()
        return data

    def failed(self, error: BaseException) -> None:
        """Reading it raised, or what took the data did: end this socket. The loss of its connection
        follows, and ends the call. Never raises."""
        report(log, "fault while reading a media stream", error)
        guarded(log, self.leave)
        guarded(log, self.transport.abort)

    def _end(self) -> None:
        """It has ended or failed: the event loop finds that once more, and says so."""
        self._in_turns = False
        self.leave()
        self.transport.resume_reading()

    # -- what the event loop says --------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        at = now()
        try:
            for begin in range(0, len(data), READ_BYTES):
                self.take(data[begin : begin + READ_BYTES], at)
        except FAULTS as error:
            self.failed(error)

    def pause_writing(self) -> None:
        self._writing_held = True
        if not self._in_turns:
            self.transport.pause_reading()
        guarded(log, self._before.pause_writing)

    def resume_writing(self) -> None:
        self._writing_held = False
        if not self._in_turns:
            self.transport.resume_reading()
        guarded(log, self._before.resume_writing)

    def connection_lost(self, exc: Exception | None) -> None:
        guarded(log, self.leave)
        guarded(log, self._before.connection_lost, exc)
        if not self.lost.done():
            self.lost.set_result(None)


ReadReady = Callable[[list[tuple[int, int]], dict[int, Seat]], None]
"""Reads the sockets that an epoll found ready, each once; the others are left alone."""


def read_ready(ready: list[tuple[int, int]], seats: dict[int, Seat]) -> None:
    """Read the sockets that are ready.

    Args:
        ready: Descriptors and their events, as an epoll gives them.
        seats: Whose they are, by descriptor.
    """
    # First all reading, then all work: each finds its own code and data in the caches.
    read: list[tuple[Seat, bytes]] = []
    for fd, _ in ready:
        seat = seats.get(fd)
        if seat is None:
            continue
        try:
            data = seat.read()
        except FAULTS as error:
            guarded(log, seat.failed, error)
            continue
        if data:
            read.append((seat, data))
    at = now()
    for seat, data in read:
        try:
            seat.take(data, at)
        except FAULTS as error:
            guarded(log, seat.failed, error)


class ReadingTurns:
    """The sockets of a process. Belongs to the event loop that it is made in.

    Args:
        read: How those that are ready are read.
        in_turns: Whether sockets are read in turns where that can be done. If not, the event loop
            reads each by itself.
    """

    def __init__(self, read: ReadReady = read_ready, *, in_turns: bool = True) -> None:
        self._read_ready = read
        self._loop = asyncio.get_running_loop()
        self._seats: dict[int, Seat] = {}
        self._closed = False
        self._turn_timer: asyncio.TimerHandle | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._looked = True
        """Whether sockets were looked at since the last heartbeat."""
        self._missed = 0
        """Heartbeats in a row that were not found."""
        self._said_s = -math.inf
        can = hasattr(select, "epoll") and hasattr(os, "eventfd")
        self._epoll = select.epoll() if in_turns and can else None
        if self._epoll is None:
            return
        self._pulse = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Edge-triggered: each heartbeat is found once, and need not be taken out.
        self._epoll.register(self._pulse, select.EPOLLIN | select.EPOLLET)
        self._loop.add_reader(self._epoll.fileno(), self._ready)
        self._heartbeat = self._loop.call_later(HEARTBEAT_S, self._beat)

    @property
    def fault(self) -> str | None:
        """Why calls are not served: their sockets are not read any more. None: they are."""
        if self._seats and self._missed >= MISSED_TO_FAIL:
            return f"media sockets have not been read for {self._missed * HEARTBEAT_S:.0f} s"
        return None

    def join(self, transport: asyncio.Transport, take: Taker) -> Seat:
        """Have what comes over a transport's socket taken from now on, whoever reads it.

        Args:
            transport: Of a TCP connection in clear text, open.
            take: Gets the data. What it raises ends the socket.
        """
        seat = Seat(self, transport, take)
        # One that is closing is not read: the loop is about to tell the protocol.
        if self._epoll is not None and not transport.is_closing():
            self._seats[seat.fd] = seat
            self._epoll.register(seat.fd, select.EPOLLIN)
            seat.join_turns()
        return seat

    def forget(self, seat: Seat) -> None:
        """What :meth:`Seat.leave` does."""
        if self._seats.get(seat.fd) is seat:  # else another has that number already
            del self._seats[seat.fd]
            try:
                if self._epoll is not None:
                    self._epoll.unregister(seat.fd)
            except (OSError, ValueError):
                pass  # It, or the epoll, is closed already; a closed one is forgotten by itself.

    def close(self) -> None:
        """Read none any more. Repeats are ignored."""
        if self._epoll is None or self._closed:
            return
        self._closed = True
        for timer in (self._turn_timer, self._heartbeat):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        os.close(self._pulse)

    def _ready(self) -> None:
        """Something came while nothing was expected."""
        if self._epoll is None or self._closed:
            return
        began_s = self._loop.time()
        self._look()
        if len(self._seats) > FEW_CALLS:
            self._loop.remove_reader(self._epoll.fileno())
            self._next_turn(began_s)

    def _next_turn(self, last_s: float) -> None:
        # Not `call_at`: uvloop's returns another kind of handle for what is due at once.
        due_s = last_s + TURN_S * math.sqrt(len(self._seats))
        self._turn_timer = self._loop.call_later(max(0.0, due_s - self._loop.time()), self._turn)

    def _turn(self) -> None:
        if self._epoll is None or self._closed:
            return
        began_s = self._loop.time()
        more = True
        try:
            more = self._look()
        finally:
            if more:
                self._next_turn(began_s)
            else:
                self._loop.add_reader(self._epoll.fileno(), self._ready)

    def _look(self) -> bool:
        """Read what is ready; whether anything was. A fault is logged, and the next turn tries
        again."""
        try:
            return self._read()
        except FAULTS as error:
            now_s = self._loop.time()
            if now_s - self._said_s >= SAID_EVERY_S:  # and not two hundred times a second
                self._said_s = now_s
                report(log, "fault while reading media sockets", error)
            return True

    def _read(self) -> bool:
        if self._epoll is None:
            return False
        ready = self._epoll.poll(0, len(self._seats) + 1)  # and the heartbeat
        self._read_ready(ready, self._seats)
        self._looked = True
        return bool(ready)

    # -- the heartbeat -------------------------------------------------------------------------

    def _beat(self) -> None:
        """See that sockets were looked at since the last time, and give a new sign to look for."""
        if self._closed:
            return
        self._heartbeat = self._loop.call_later(HEARTBEAT_S, self._beat)
        self._missed = 0 if self._looked else self._missed + 1
        self._looked = False
        if self._seats and self._missed >= MISSED_TO_REPAIR:
            guarded(log, self._repair)
        os.eventfd_write(self._pulse, 1)

    def _repair(self) -> None:
        """Begin to read anew. Nothing known leads here."""
        if self._missed == MISSED_TO_REPAIR:
            log.error("media sockets are not read; reading begins anew", calls=len(self._seats))
        if self._turn_timer is not None:
            self._turn_timer.cancel()
        if self._epoll is not None:
            self._loop.add_reader(self._epoll.fileno(), self._ready)
