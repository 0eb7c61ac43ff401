"""The Realtime API for figures: many sessions, one cheap process (``python -m bench.load.model``).

What a bridge is sent, and in which order, is as recorded (protocol notes B.5); what it sends is
believed. Voice detection is scripted: a caller's frame says by a flag in its tag that speech begins
or ends with it, so that the time a bridge takes to act on it can be measured to the microsecond.
Each end of the caller's speech, and each ``response.create``, brings the next line.

With ``--bare`` the far end is not a bridge but a blind relay: appended audio comes as Twilio's
frames, and audio and interrupts go out as Twilio's messages.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from pathlib import Path

import uvloop
from picows import WSListener, WSUpgradeRequest, ws_create_server

from bench.load import control, lines, record
from bench.load.clock import Beat
from bench.load.session import Session, Sessions

MANY_SESSIONS = 250
"""With more than so many the process naps between its turns."""

NAP_S = 0.002
"""So long: then it reads what has come meanwhile. A model far away is not woken
up on the bridge's account, which on one machine is dearer than the frame that it is for. Frames are
measured when they are read, so they look up to 2 ms later."""

_NEVER = 1 << 62


class Model:
    """The process: its sessions, its beat, and the window in which it measures."""

    def __init__(self, *, seed: int, bare: bool) -> None:
        self.beat = Beat()
        self._sessions = Sessions(seed=seed, bare=bare)
        self._window = self._sessions.window

    def accept(self, request: WSUpgradeRequest) -> WSListener:
        """A new session."""
        return Session(self._sessions)

    def nap(self) -> None:
        """Sleep between turns, with many sessions. Goes on for as long as the loop runs."""
        loop = asyncio.get_running_loop()
        if len(self._sessions.open) > MANY_SESSIONS:
            time.sleep(NAP_S)
            loop.call_soon(self.nap)
        else:
            loop.call_later(1.0, self.nap)

    async def begin(self) -> None:
        """The window begins."""
        self._window.end_ns = _NEVER
        self._window.begin_ns = time.monotonic_ns()
        self.beat.measure(True)

    async def end(self) -> None:
        """The window ends."""
        self._window.end_ns = time.monotonic_ns()
        self.beat.measure(False)

    def record(self) -> record.ModelRecord:
        """What was written down."""
        return record.ModelRecord(
            calls=self._sessions.records(),
            forward_us=self._window.forward_us.tobytes(),
            lag=record.Lag(self.beat.late_us.tobytes()),
            begin_ns=self._window.begin_ns,
            end_ns=self._window.end_ns,
        )


async def serve(listen: str, model: Model, out: Path) -> None:
    """Serve until the parent says ``finish``."""
    host, _, port = listen.rpartition(":")
    for line in range(len(lines.names())):
        for delta_ms in lines.DELTAS_MS:
            lines.pieces(line, delta_ms)
    gc.collect()
    gc.freeze()
    server = await ws_create_server(model.accept, host, int(port))
    model.beat.start()
    model.nap()
    control.say(ready=f"{host}:{server.sockets[0].getsockname()[1]}")

    async def finish() -> None:
        record.write(out, model.record())

    await control.obey({"begin": model.begin, "end": model.end, "finish": finish})
    server.close()


def main() -> None:
    """Command line of the process."""
    parser = argparse.ArgumentParser(description="the Realtime API's end of many calls")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bare", action="store_true", help="the far end is a blind relay")
    parser.add_argument("--out", type=Path, required=True, help="where the record goes")
    args = parser.parse_args()
    uvloop.run(serve(args.listen, Model(seed=args.seed, bare=args.bare), args.out))


if __name__ == "__main__":
    main()
