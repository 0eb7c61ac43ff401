"""Reads the sockets of many calls in turns: all that are ready, every few milliseconds.

A wake-up of the event loop costs more than the frame that it is for. With a hundred calls there are
five thousand frames a second, and none of them is in a hurry: a message on the link has its price
whatever is in it, so they leave in batches anyway. So the sockets are watched by an epoll of their
own. While there are few calls, or nothing comes, the loop watches that epoll and a frame is read at
once; else it is looked at in turns, and what a turn has read leaves in one message. Interrupts and
agent audio come from the link, so they wait for no turn.

Twilio's own clock dates marks (gateway/playout), so a mark that waits for its turn is not dated later.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
from collections.abc import Callable

from gateway.quick import QuickWay

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

    def end(self) -> None:
        """The socket has ended, or failed: the event loop finds that once more, and tells the
        protocol in its own way."""
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
    read: list[tuple[Taker, bytes]] = []
    for fd, _ in ready:
        seat = seats.get(fd)
        if seat is not None and (data := seat.read()):
            read.append((seat.take, data))
    for take, data in read:
        take(data)


class ReadingTurns:
    """The sockets of a process. Belongs to the event loop that it is made in.

    Args:
        read: How those that are ready are read.
    """

    def __init__(self, read: ReadReady = read_ready) -> None:
        self._read_ready = read
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._seats: dict[int, Seat] = {}
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    def join(self, transport: asyncio.Transport, take: Taker) -> Seat:
        """Read a transport's socket from now on, instead of the event loop.

        Args:
            transport: Of a TCP connection in clear text, open.
            take: Gets the data. Of the end, the transport's protocol is told by the event loop.
        """
        seat = Seat(self, transport, take)
        if not transport.is_closing():  # else the loop is about to tell the protocol
            transport.pause_reading()
            self._seats[seat.fd] = seat
            self._epoll.register(seat.fd, select.EPOLLIN)
        return seat

    def forget(self, seat: Seat) -> None:
        """What :meth:`Seat.leave` does."""
        if self._seats.get(seat.fd) is seat:  # else another has that number already
            del self._seats[seat.fd]
            try:
                self._epoll.unregister(seat.fd)
            except (OSError, ValueError):
                pass  # It, or the epoll, is closed already; a closed one is forgotten by itself.

    def close(self) -> None:
        """Read none any more. Repeats are ignored."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _ready(self) -> None:
        """Something came while nothing was expected."""
        began_s = self._loop.time()
        self._read()
        if len(self._seats) > FEW_CALLS:
            self._loop.remove_reader(self._epoll.fileno())
            self._next_turn(began_s)

    def _next_turn(self, last_s: float) -> None:
        self._loop.call_at(last_s + TURN_S * math.sqrt(len(self._seats)), self._turn)

    def _turn(self) -> None:
        if self._epoll.closed:
            return
        began_s = self._loop.time()
        if self._read():
            self._next_turn(began_s)
        else:
            self._loop.add_reader(self._epoll.fileno(), self._ready)

    def _read(self) -> bool:
        """Read what is ready; whether anything was."""
        ready = self._epoll.poll(0, max(1, len(self._seats)))
        self._read_ready(ready, self._seats)
        return bool(ready)
