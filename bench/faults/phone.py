"""A telephone: Twilio's end of one media stream, small enough to know by heart what it did."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections import deque
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from bench.faults.proxy import vanish

FRAME_MS = 20
FRAME_BYTES = 160

_SILENCE = b"\xff"


class Phone:
    """Plays 20 ms with each frame that it sends, and echoes the marks that it comes to.

    So all that happens hangs on frames and not on clocks, and a slow machine makes a call longer.

    Args:
        media_url: The gateway's socket.
        call_sid: The call.
        tag: Goes into each frame, before its number.
    """

    def __init__(self, media_url: str, call_sid: str, tag: str) -> None:
        self.call_sid = call_sid
        self.stream_sid = "MZ" + call_sid[2:]
        self.tag = tag
        self.sent_at_s: list[float] = []
        """When each frame was sent, by the monotonic clock."""
        self.closed = asyncio.Event()
        """The gateway, or the network, has ended the socket."""
        self.played_bytes = 0
        """Of the agent's audio."""
        self.socket: ClientConnection | None = None
        self._url = media_url
        self._reader: asyncio.Task[None] | None = None
        self._queue: deque[int | str] = deque()
        """What is to be played: bytes of audio, names of marks."""
        self._messages = 0

    @property
    def sent(self) -> int:
        """Frames sent so far."""
        return len(self.sent_at_s)

    @property
    def close_code(self) -> int | None:
        """With which the gateway closed the socket; None while it is open."""
        return self.socket.close_code if self.socket is not None else None

    async def open(self, parameters: dict[str, str] | None = None) -> None:
        """Connect, and start the stream.

        Raises:
            OSError: The gateway cannot be reached.
            WebSocketException: It refused.
        """
        self.socket = await connect(
            self._url, compression=None, proxy=None, ping_interval=None, close_timeout=1
        )
        self._reader = asyncio.create_task(self._read(self.socket))
        # Twilio's has no CallSid; with one, a test knows whose the socket is from the beginning.
        await self.send("connected", protocol="Call", version="1.0.0", callSid=self.call_sid)
        media_format = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        await self.send("start", start={
            "streamSid": self.stream_sid, "accountSid": "AC1", "callSid": self.call_sid,
            "tracks": ["inbound"], "mediaFormat": media_format,
            "customParameters": parameters or {},
        })  # fmt: skip

    async def send(self, event: str, **fields: Any) -> None:
        """Send a message; nothing happens when the socket is gone."""
        self._messages += 1
        head = {"event": event, "sequenceNumber": str(self._messages)}
        if event != "connected":
            head["streamSid"] = self.stream_sid
        await self.send_text(json.dumps(head | fields))

    async def send_text(self, text: str | bytes) -> None:
        """Send any message; nothing happens when the socket is gone."""
        if self.socket is not None:
            with contextlib.suppress(ConnectionClosed, OSError):
                await self.socket.send(text)

    async def frames(self, count: int, *, pace_s: float = FRAME_MS / 1000) -> None:
        """Speak, and hear, for so many frames; fewer when the socket ends."""
        for _ in range(count):
            if self.closed.is_set():
                return
            tagged = f"{self.tag}#{self.sent}".encode().ljust(FRAME_BYTES, _SILENCE)
            self.sent_at_s.append(time.monotonic())
            await self.send("media", media={
                "track": "inbound", "chunk": str(self.sent),
                "timestamp": str(self.sent * FRAME_MS),
                "payload": base64.b64encode(tagged).decode(),
            })  # fmt: skip
            await self._play()
            await asyncio.sleep(pace_s)

    async def stop(self) -> None:
        """Hang up."""
        await self.send("stop", stop={"accountSid": "AC1", "callSid": self.call_sid})

    def drop(self) -> None:
        """Lose the socket."""
        if self.socket is not None:
            self.socket.transport.abort()

    def vanish(self) -> None:
        """Lose the network: nothing comes any more, and nothing is said."""
        if self.socket is not None:
            vanish(self.socket.transport.get_extra_info("socket"))

    async def close(self) -> None:
        """End everything."""
        self.drop()
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _play(self) -> None:
        room = FRAME_BYTES
        while self._queue:
            head = self._queue[0]
            if isinstance(head, str):
                self._queue.popleft()
                await self.send("mark", mark={"name": head})
                continue
            played = min(head, room)
            self.played_bytes += played
            room -= played
            if played < head:
                self._queue[0] = head - played
                return
            self._queue.popleft()
            if not room:
                return

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "media":
                    self._queue.append(len(base64.b64decode(message["media"]["payload"])))
                elif message["event"] == "mark":
                    self._queue.append(message["mark"]["name"])
                else:
                    marks = [entry for entry in self._queue if isinstance(entry, str)]
                    self._queue = deque(marks)
        except WebSocketException:
            pass
        finally:
            self.closed.set()
