"""Twilio's end of a good call at a gateway, and what must be whole about it when it is over."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import aiohttp

from asheard.v1 import fact_pb2

FRAME_S = 0.02

SPOKEN_MS = 400


class GoodCall:
    """Twilio's end of a good call, and what the others know of it."""

    def __init__(self, number: int, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.call_sid = f"CA_good_{number}"
        self.stream_sid = f"MZ_good_{number}"
        self._socket = socket
        self._separators = (",", ":") if number % 2 else (", ", ": ")
        """Twilio writes no spaces; with them frames take the general way through the gateway."""
        self.sent_at: list[float] = []
        self.arrived: list[int] = []
        self.handle = 0
        self.spoken = 0
        self.facts: list[fact_pb2.Fact] = []
        self._plays_until = 0.0
        self.stop = asyncio.Event()
        self.lost = ""

    async def run(self) -> None:
        """Send frames until told to stop; play what comes; hang up."""
        listening = asyncio.create_task(self._listen())
        try:
            await self._say("connected", protocol="Call", version="1.0.0")
            start = {
                "streamSid": self.stream_sid,
                "accountSid": "AC1",
                "callSid": self.call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"stream": "1"},
            }
            await self._say("start", start=start)
            due = time.monotonic()
            while not self.stop.is_set():
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                number = len(self.sent_at)
                payload = base64.b64encode(number.to_bytes(4, "big") * 40).decode()
                media = {"track": "inbound", "chunk": "1", "payload": payload}
                self.sent_at.append(time.monotonic())
                await self._say("media", media=media | {"timestamp": str(20 * (number + 1))})
                due += FRAME_S
            await asyncio.sleep(max(0.0, self._plays_until - time.monotonic()) + 0.2)
            await self._say("stop", stop={"accountSid": "AC1", "callSid": self.call_sid})
        except (ConnectionError, aiohttp.ClientError) as error:
            self.lost = f"the socket of a good call was lost: {type(error).__name__}"
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _say(self, event: str, **fields: Any) -> None:
        message = {"event": event, "streamSid": self.stream_sid, **fields}
        if event == "connected":
            del message["streamSid"]
        await self._socket.send_str(json.dumps(message, separators=self._separators))

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            said = json.loads(message.data)
            now = time.monotonic()
            if said["event"] == "media":
                played_s = len(base64.b64decode(said["media"]["payload"])) / 8000
                self._plays_until = max(now, self._plays_until) + played_s
            elif said["event"] == "mark":
                loop.call_later(max(0.0, self._plays_until - now), self._echo, said["mark"]["name"])
        if not self.stop.is_set():
            self.lost = f"a good call was ended with {self._socket.close_code}"

    def _echo(self, name: str) -> None:
        if not self._socket.closed:
            self._echoing = asyncio.create_task(self._say("mark", mark={"name": name}))

    def fault(self, *, halted: bool) -> str | None:
        """What is not whole about it, now that it is over."""
        if self.lost:
            return self.lost
        if not halted and self.arrived != list(range(len(self.sent_at))):
            return f"{len(self.sent_at)} frames were sent, {len(self.arrived)} came in their order"
        kinds = [str(fact.WhichOneof("body")) for fact in self.facts]
        if [fact.sequence for fact in self.facts] != list(range(1, len(self.facts) + 1)):
            return "a fact of a good call is missing"
        if kinds[:1] != ["call_started"] or kinds[-1:] != ["call_ended"]:
            return f"the facts of a good call are {kinds[:3]} … {kinds[-3:]}"
        if self.facts[-1].call_ended.outcome != fact_pb2.CALL_OUTCOME_COMPLETED:
            return "a good call did not end well"
        fixed = [fact.position_fixed for fact in self.facts if fact.HasField("position_fixed")]
        played = [f for f in fixed if f.cause == fact_pb2.POSITION_CAUSE_PLAYED]
        if len(played) != self.spoken or any(f.position.sent_ms != SPOKEN_MS for f in played):
            return f"{self.spoken} items were spoken, {len(played)} of {len(fixed)} played to their end"
        return None
