"""The yardstick: a bridge of the usual shape, in one process (``python -m bench.yardstick``).

It is what most Python bridges between Twilio and a Realtime model do: the ``websockets`` library on
both sides, ``json`` for every message, one task per direction, a mark of one and the same name
after each delta, and at a barge-in a truncation at the time that has passed on Twilio's media
clock since the item's first delta. It is written to be fair: nothing in it is slower than it has to
be for that shape. It is not to be learnt from; what is wrong with it is what asheard is about.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

MARK = "responsePart"


class Call:
    """One call between its two sockets."""

    def __init__(self, carrier: ServerConnection, model: ClientConnection) -> None:
        self._carrier = carrier
        self._model = model
        self._stream_sid = ""
        self._media_ms = 0
        """Newest media timestamp."""
        self._item_since_ms: int | None = None
        """Media timestamp when the item's first delta came. None: nothing is playing."""
        self._item_id = ""
        self._marks: list[str] = []

    async def run(self) -> None:
        """Bridge until either side is gone."""
        await self._tell_model({"type": "session.update", "session": _SESSION})
        directions = {asyncio.create_task(self._listen()), asyncio.create_task(self._speak())}
        _, other = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for task in other:
            task.cancel()
        await asyncio.gather(*directions, return_exceptions=True)

    async def _listen(self) -> None:
        """Caller to model."""
        async for text in self._carrier:
            message = json.loads(text)
            event = message["event"]
            if event == "media":
                self._media_ms = int(message["media"]["timestamp"])
                await self._tell_model(
                    {"type": "input_audio_buffer.append", "audio": message["media"]["payload"]}
                )
            elif event == "start":
                self._stream_sid = message["start"]["streamSid"]
            elif event == "mark":
                if self._marks:
                    self._marks.pop(0)
            elif event == "stop":
                return

    async def _speak(self) -> None:
        """Model to caller."""
        async for text in self._model:
            event = json.loads(text)
            kind = event["type"]
            if kind == "response.output_audio.delta":
                payload = base64.b64encode(base64.b64decode(event["delta"])).decode()
                await self._tell_carrier({"event": "media", "media": {"payload": payload}})
                if self._item_since_ms is None:
                    self._item_since_ms = self._media_ms
                self._item_id = event["item_id"]
                await self._tell_carrier({"event": "mark", "mark": {"name": MARK}})
                self._marks.append(MARK)
            elif kind == "input_audio_buffer.speech_started":
                await self._cut_off()

    async def _cut_off(self) -> None:
        if not self._marks or self._item_since_ms is None:
            return
        await self._tell_model(
            {
                "type": "conversation.item.truncate",
                "item_id": self._item_id,
                "content_index": 0,
                "audio_end_ms": self._media_ms - self._item_since_ms,
            }
        )
        await self._tell_carrier({"event": "clear"})
        self._marks.clear()
        self._item_since_ms = None

    async def _tell_model(self, event: dict[str, Any]) -> None:
        await self._model.send(json.dumps(event))

    async def _tell_carrier(self, message: dict[str, Any]) -> None:
        await self._carrier.send(json.dumps({**message, "streamSid": self._stream_sid}))


_SESSION = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "instructions": "Answer briefly.",
    "audio": {
        "input": {"format": {"type": "audio/pcmu"}, "turn_detection": {"type": "server_vad"}},
        "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
    },
}


async def bridge(listen: str, realtime: str) -> None:
    """Serve until the process ends."""

    async def one_call(carrier: ServerConnection) -> None:
        async with connect(realtime, max_size=None, proxy=None) as model:
            try:
                await Call(carrier, model).run()
            except ConnectionClosed:
                pass  # One side has gone; so does the other, below.

    host, _, port = listen.rpartition(":")
    async with serve(one_call, host, int(port)) as server:
        await server.serve_forever()


def main() -> None:
    """Command line of the process."""
    parser = argparse.ArgumentParser(description="a bridge of the usual shape, as a yardstick")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--realtime", required=True, metavar="ws://…")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop")
    args = parser.parse_args()
    run = uvloop.run if args.loop == "uvloop" else asyncio.run
    run(bridge(args.listen, args.realtime))


if __name__ == "__main__":
    main()
