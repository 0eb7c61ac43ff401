"""Reads the sockets of many calls in turns: all that are ready, every few milliseconds.

A wake-up of the event loop costs more than the frame that it is for. With a hundred calls there are
five thousand frames a second, and none of them is in a hurry: a message on the link has its price
whatever is in it, so they leave in batches anyway. So the sockets are watched by an epoll of their
own. While there are few calls, or nothing comes, the loop watches that epoll and a frame is read at
once; else it is looked at in turns, and what a turn has read leaves in one message. Interrupts and
agent audio come from the link, so they wait for no turn.

Twilio's own clock dates marks (gateway/playout), so a mark that waits for its turn is not dated later.

Whatever reading one socket raises ends that socket alone, and the next turn always comes. That it does is
looked at: a heartbeat is put among the sockets every second, and has to be found there like a frame.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
from collections.abc import Callable

from gateway.barrier import FAULTS, guarded, report
from gateway.quick import QuickWay
from runtime.log import get_log

log = get_log(__name__)

TURN_S = 0.0005
"""How far turns are apart, times the root of the number of calls: 5 ms with 100 calls, 10 ms with
400. So the longer wait and the greater saving are shared. Beside a frame of 20 ms nobody hears it.
At 100 calls turns take a sixth of the gateway's CPU away, and 99 % of the frames are at the model
within 8 ms."""

FEW_CALLS = 25
"""So few are read at once: the CPU is there, and a turn would find one frame or two."""

Taker = Callable[[bytes], object]
"""What is given to it came over the socket next."""

READ_BYTES = 4 * 1024
"""At most from one socket in a turn: nine messages. The rest has its turn next time."""

HEARTBEAT_S = 1.0
"""How far heartbeats are apart. Frames come every 20 ms, so that nobody but an idle gateway notices."""

MISSED_TO_REPAIR = 2
"""So many heartbeats in a row that were not found: reading is begun anew. One may be missed by a busy
loop that runs its timers first."""

MISSED_TO_FAIL = 5
"""So many: sockets are not read, whatever else the process does, and ``/livez`` says so."""

SAID_EVERY_S = 10.0
"""How often a fault of reading itself is logged."""


class Seat:
    """One socket that is read in turns. :meth:`leave` before it is closed."""

    # gateway/kernel.c does what `read` does, in these slots.
    __slots__ = ("_turns", "fd", "quick", "take", "transport")

    def __init__(self, turns: ReadingTurns, transport: asyncio.Transport, take: Taker) -> None:
        self.fd: int = transport.get_extra_info("socket").fileno()
        self.take = take
        self.transport = transport
        self.quick: QuickWay | None = None
        """For frames that may go past ``take``, as long as what comes begins with a whole one."""
        self._turns = turns

    def leave(self) -> None:
        """Read it no more. Repeats are ignored."""
        self._turns.forget(self)

    def read(self) -> bytes:
        """What there is; empty when there is nothing, or the end."""
        if self.transport.is_closing():
            return b""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self.end()
        return data

    def failed(self, error: BaseException) -> None:
        """Reading it raised, or what took the data did: end this socket. Its protocol is told by the
        event loop, and ends the call. Never raises."""
        report(log, "fault while reading a media stream", error)
        self.quick = None
        guarded(log, self.leave)
        guarded(log, self.transport.abort)

    def end(self) -> None:
        """Leave the socket to the event loop: it has ended or failed, which the loop finds once more
        and tells the protocol in its own way, or it brings what is not read in turns."""
        self.leave()
        self.transport.resume_reading()


ReadReady = Callable[[list[tuple[int, int]], dict[int, Seat]], None]
"""Reads the sockets that an epoll found ready, each once; the others are left alone."""


def read_ready(ready: list[tuple[int, int]], seats: dict[int, Seat]) -> None:
    """Read the sockets that are ready, in Python; :mod:`gateway.kernel` has a quicker one.

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
    for seat, data in read:
        try:
            seat.take(data)
        except FAULTS as error:
            guarded(log, seat.failed, error)


class ReadingTurns:
    """The sockets of a process. Belongs to the event loop that it is made in.

    Where there is no ``epoll`` (it is Linux's), the event loop reads each socket by itself.

    Args:
        read: How those that are ready are read.
    """

    def __init__(self, read: ReadReady = read_ready) -> None:
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
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
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
        """Read a transport's socket from now on, instead of the event loop.

        Args:
            transport: Of a TCP connection in clear text, open.
            take: Gets the data. Of the end, the transport's protocol is told by the event loop.
        """
        seat = Seat(self, transport, take)
        # One that is closing has no seat: the loop is about to tell the protocol.
        if self._epoll is not None and not transport.is_closing():
            transport.pause_reading()
            self._seats[seat.fd] = seat
            self._epoll.register(seat.fd, select.EPOLLIN)
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
        """Read what is ready; whether anything was. A fault is logged, and the next turn tries again."""
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
