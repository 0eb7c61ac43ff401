"""The least bridge that can join the two simulators, for tests of the simulators alone.

It keeps no account of what was heard: that is the point of the product, not of this.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from tests.simulators.realtime.drive import pcmu_session


class Bridge:
    """Media one way, deltas the other, ``clear`` when the caller speaks."""

    def __init__(self, realtime_url: str) -> None:
        self._realtime_url = realtime_url
        self.headers: list[dict[str, str]] = []
        """Headers of each upgrade request."""
        self.paths: list[str] = []
        self.echoes: list[str] = []
        """Marks that came back."""
        self.keys: list[str] = []
        """Keys the caller pressed."""

    async def serve_call(self, twilio: ServerConnection) -> None:
        assert twilio.request is not None
        self.headers.append({k.lower(): v for k, v in twilio.request.headers.raw_items()})
        self.paths.append(twilio.request.path)
        async with connect(self._realtime_url, compression=None, proxy=None) as model:
            await model.send(json.dumps(pcmu_session()))
            started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            down = asyncio.create_task(self._down(twilio, model, started))
            async for frame in twilio:
                message = json.loads(frame)
                match message["event"]:
                    case "start":
                        started.set_result(message["streamSid"])
                        await model.send('{"type": "response.create"}')
                    case "media":
                        audio = message["media"]["payload"]
                        append = {"type": "input_audio_buffer.append", "audio": audio}
                        await model.send(json.dumps(append))
                    case "mark":
                        self.echoes.append(message["mark"]["name"])
                    case "dtmf":
                        self.keys.append(message["dtmf"]["digit"])
            await model.close()
            await down

    async def _down(
        self, twilio: ServerConnection, model: ClientConnection, started: asyncio.Future[str]
    ) -> None:
        sid = await started
        stale: set[str] = set()
        current = ""
        async for frame in model:
            event = json.loads(frame)
            match event["type"]:
                case "response.created":
                    current = event["response"]["id"]
                case "response.output_audio.delta" if event["response_id"] not in stale:
                    media = {
                        "event": "media",
                        "streamSid": sid,
                        "media": {"payload": event["delta"]},
                    }
                    await twilio.send(json.dumps(media))
                    mark = {"event": "mark", "streamSid": sid, "mark": {"name": event["event_id"]}}
                    await twilio.send(json.dumps(mark))
                case "input_audio_buffer.speech_started":
                    stale.add(current)
                    await twilio.send(json.dumps({"event": "clear", "streamSid": sid}))
        await twilio.close()


@asynccontextmanager
async def open_bridge(realtime_url: str) -> AsyncIterator[tuple[Bridge, int]]:
    """A bridge and its port."""
    bridge = Bridge(realtime_url)
    async with serve(bridge.serve_call, "127.0.0.1", 0, compression=None) as server:
        yield bridge, server.sockets[0].getsockname()[1]
