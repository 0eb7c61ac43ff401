"""The floor: the same frames through a bare relay (``python -m bench.relay``).

It understands nothing: every message that comes on one socket goes out on the other, unread. What
is left is the price of two WebSockets in Python at its cheapest, below which no bridge can be.
"""

from __future__ import annotations

import argparse
import asyncio

import uvloop
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_connect,
    ws_create_server,
)


class Side(WSListener):
    """One socket of a call; knows the other."""

    def __init__(self) -> None:
        self.other: Side | None = None
        self.transport: WSTransport | None = None
        self._waiting: list[bytes] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Send what came too early."""
        self.transport = transport
        for message in self._waiting:
            transport.send(WSMsgType.TEXT, message)
        self._waiting.clear()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The other goes as well."""
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.send_close()
            self.other.transport.disconnect()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Hand on."""
        if frame.msg_type is WSMsgType.TEXT and self.other is not None:
            self.other.send(frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def send(self, message: bytes) -> None:
        """Out on this side."""
        if self.transport is not None:
            self.transport.send(WSMsgType.TEXT, message)
        else:
            self._waiting.append(message)


class Carrier(Side):
    """The side that calls us; opens the other."""

    def __init__(self, realtime: str) -> None:
        super().__init__()
        model = Side()
        self.other, model.other = model, self
        self._opening = asyncio.ensure_future(ws_connect(lambda: model, realtime))


async def relay(listen: str, realtime: str) -> None:
    """Serve until the process ends."""
    host, _, port = listen.rpartition(":")

    def accept(request: WSUpgradeRequest) -> WSListener:
        return Carrier(realtime)

    server = await ws_create_server(accept, host, int(port))
    await server.serve_forever()


def main() -> None:
    """Command line of the process."""
    parser = argparse.ArgumentParser(description="a blind relay, as the floor")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--realtime", required=True, metavar="ws://…")
    args = parser.parse_args()
    uvloop.run(relay(args.listen, args.realtime))


if __name__ == "__main__":
    main()
