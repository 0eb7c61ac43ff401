"""A scripted Realtime endpoint: says in each session what a script wants, well-formed or not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bench.faults.phone import FRAME_BYTES, FRAME_MS, Phone

_TAG_BYTES = 32
_DELTA_MS = 400

Script = Callable[["ModelSession"], Awaitable[None]]


def sound(ms: int) -> str:
    """Base64 of so much µ-law that is not silence."""
    return base64.b64encode(b"\x55" * (8 * ms)).decode()


class ModelSession:
    """One session: what came into it, and how to say things."""

    _numbers = itertools.count(1)

    def __init__(self, socket: ServerConnection, model: ScriptedModel) -> None:
        self.socket = socket
        self.tag = ""
        """Of the call, by its frames; empty before the first."""
        self.frames: list[int] = []
        """Numbers of the caller's frames, as they came."""
        self.came_at_s: list[float] = []
        """When, by the monotonic clock."""
        self.appended_bytes = 0
        """Audio, filled-in silence as well."""
        self.events: list[dict[str, Any]] = []
        """What the worker sent, but for audio."""
        self.said: list[str] = []
        """Texts of the agent's items that were generated to their end by :meth:`speak`."""
        self.heard: list[str] = []
        """What the caller was transcribed to have said by :meth:`listen`."""
        self.ended = asyncio.Event()
        """The socket is closed."""
        self.overrides: dict[str, Any] = {}
        """What ``session.updated`` says otherwise than was asked for."""
        self.answers: dict[str, str] = {}
        """Text for the answer to ``response.create``, by key ``text``; none: no answer."""
        self.refuses: list[str] = []
        """Types of events that are still to be refused: the next of each type, once per entry."""
        self._model = model
        self._id = next(self._numbers)
        self._sent = 0
        self._moved = asyncio.Event()
        self._script: asyncio.Task[None] | None = None

    async def send(self, kind: str, **body: Any) -> None:
        """Send an event."""
        await self.socket.send(self.event(kind, **body))

    def event(self, kind: str, **body: Any) -> str:
        """An event as it is sent."""
        self._sent += 1
        return json.dumps({"type": kind, "event_id": f"ev{self._sent}", **body})

    async def until_frames(self, count: int) -> None:
        """Wait until so many frames came."""
        while len(self.frames) < count:
            self._moved.clear()
            await self._moved.wait()

    @property
    def paused(self) -> bool:
        """Nothing new is to be said."""
        return self._model.paused

    @property
    def all_heard(self) -> bool:
        """Whether the caller has heard whatever :func:`converse` said, as far as that is known."""
        phone = self._model.phones.get(self.tag)
        return phone is None or phone.played_bytes >= 8 * ANSWER_MS * len(self.said)

    async def serve(self) -> None:
        """Answer until the worker closes."""
        await self.send("session.created", session={"id": f"sess_{self._id}", "type": "realtime"})
        try:
            async for message in self.socket:
                event = json.loads(message)
                if event["type"] == "input_audio_buffer.append":
                    self._appended(base64.b64decode(event["audio"]))
                    continue
                self.events.append(event)
                await self._answer(event)
        finally:
            self.ended.set()
            if self._script is not None:
                self._script.cancel()
                await asyncio.gather(self._script, return_exceptions=True)

    async def _answer(self, event: Mapping[str, Any]) -> None:
        if event["type"] in self.refuses:
            self.refuses.remove(event["type"])
            await self.send("error", error={
                "type": "invalid_request_error", "code": "invalid_value",
                "message": "Not that one.", "event_id": event["event_id"],
            })  # fmt: skip
            return
        match event["type"]:
            case "session.update":
                updated = {"id": f"sess_{self._id}", **event["session"], **self._model.overrides}
                await self.send("session.updated", session=updated)
            case "response.create":
                if text := self.answers.get("text"):
                    await self.speak(f"asked{len(self.events)}", text, 100)
            case "conversation.item.create":
                item = event["item"]
                await self.send("conversation.item.added", item=item, previous_item_id=None)
            case "conversation.item.truncate":
                told = {k: event[k] for k in ("item_id", "content_index", "audio_end_ms")}
                await self.send("conversation.item.truncated", **told)
            case "conversation.item.delete":
                await self.send("conversation.item.deleted", item_id=event["item_id"])

    def _appended(self, audio: bytes) -> None:
        self.appended_bytes += len(audio)
        now_s = time.monotonic()
        for start in range(0, len(audio), FRAME_BYTES):
            head = audio[start : start + _TAG_BYTES]
            tag, _, number = head.partition(b"\xff")[0].partition(b"#")
            if not number.isdigit():
                continue  # silence that was filled in, or no telephone of ours
            self.frames.append(int(number))
            self.came_at_s.append(now_s)
            if not self.tag:
                self.tag = tag.decode()
                self._script = asyncio.create_task(self._play(self._model.script(self.tag)))
        self._moved.set()

    async def _play(self, script: Script) -> None:
        with contextlib.suppress(ConnectionClosed):
            await script(self)

    # -- well-formed pieces of a conversation ----------------------------------------------------

    @property
    def now_ms(self) -> int:
        """On the model's clock: audio that came."""
        return len(self.frames) * FRAME_MS

    async def listen(self, item_id: str, text: str) -> None:
        """The caller has said something."""
        await self.caller_starts(item_id)
        await self.caller_stops(item_id, text)

    async def caller_starts(self, item_id: str) -> None:
        """Voice detection hears the caller begin."""
        start_ms = max(0, self.now_ms - 40)
        await self.send(
            "input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=start_ms
        )

    async def caller_stops(self, item_id: str, text: str) -> None:
        """Voice detection hears the caller end; the words follow at once."""
        add = {"id": item_id, "type": "message", "role": "user", "status": "completed",
               "content": [{"type": "input_audio", "transcript": None}]}  # fmt: skip
        await self.send(
            "input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=self.now_ms
        )
        await self.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
        await self.send("conversation.item.added", item=add, previous_item_id=None)
        transcription = "conversation.item.input_audio_transcription"
        part = {"item_id": item_id, "content_index": 0}
        await self.send(f"{transcription}.delta", delta=text[:3], **part)
        await self.send(f"{transcription}.completed", transcript=text, **part)
        self.heard.append(text)

    async def speak(self, item_id: str, text: str, ms: int) -> None:
        """A whole response of one message."""
        await self.begin(item_id, text, ms)
        await self.end(item_id, text)
        self.said.append(text)

    async def begin(self, item_id: str, text: str, ms: int) -> None:
        """A response, up to its last delta."""
        part = _part(item_id)
        await self.open_item(item_id)
        await self.send(
            "response.content_part.added", part={"type": "audio", "transcript": ""}, **part
        )
        await self.send("response.output_audio_transcript.delta", delta=text, **part)
        await self.audio(item_id, ms)

    async def open_item(self, item_id: str) -> None:
        """A response and its message, as yet without content."""
        item = {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress",
                "content": []}  # fmt: skip
        response_id = f"r-{item_id}"
        await self.send("response.created", response={"id": response_id, "status": "in_progress"})
        await self.send("response.output_item.added", response_id=response_id, item=item)
        await self.send("conversation.item.added", item=item, previous_item_id=None)

    async def audio(self, item_id: str, ms: int, content_index: int = 0) -> None:
        """Audio of a message, in deltas."""
        part = {**_part(item_id), "content_index": content_index}
        for start in range(0, ms, _DELTA_MS):
            delta = sound(min(_DELTA_MS, ms - start))
            await self.send("response.output_audio.delta", delta=delta, **part)

    async def end(self, item_id: str, text: str, status: str = "completed") -> None:
        """A response's end."""
        part = _part(item_id)
        content = [{"type": "output_audio", "transcript": text}]
        await self.send("response.output_audio.done", **part)
        await self.send("response.output_audio_transcript.done", transcript=text, **part)
        await self.send("response.content_part.done", part={"type": "audio"}, **part)
        await self.close_item(item_id, content, status)

    async def close_item(
        self, item_id: str, content: list[dict[str, Any]], status: str = "completed"
    ) -> None:
        """A message's end and its response's."""
        response_id = f"r-{item_id}"
        ended = "completed" if status == "completed" else "incomplete"
        item = {"id": item_id, "type": "message", "role": "assistant", "status": ended,
                "content": content}  # fmt: skip
        await self.send("conversation.item.done", item=item, previous_item_id=None)
        await self.send("response.output_item.done", response_id=response_id, item=item)
        response = {"id": response_id, "status": status, "output": [item], "status_details": None}
        await self.send("response.done", response=response)

    async def call_function(self, item_id: str, name: str, arguments: str = "{}") -> None:
        """A response that calls a function."""
        response_id, call_id = f"r-{item_id}", f"call_{item_id}"
        item = {"id": item_id, "type": "function_call", "status": "in_progress", "name": name,
                "call_id": call_id, "arguments": ""}  # fmt: skip
        done = {**item, "status": "completed", "arguments": arguments}
        await self.send("response.created", response={"id": response_id, "status": "in_progress"})
        await self.send("response.output_item.added", response_id=response_id, item=item)
        await self.send("conversation.item.added", item=item, previous_item_id=None)
        await self.send(
            "response.function_call_arguments.done", response_id=response_id, item_id=item_id,
            call_id=call_id, name=name, arguments=arguments, output_index=0,
        )  # fmt: skip
        await self.send("response.output_item.done", response_id=response_id, item=done)
        response = {"id": response_id, "status": "completed", "output": [done]}
        await self.send("response.done", response=response)


def _part(item_id: str) -> dict[str, Any]:
    return {"response_id": f"r-{item_id}", "item_id": item_id, "output_index": 0,
            "content_index": 0}  # fmt: skip


ANSWER_MS = 160
"""An answer of :func:`converse`."""


async def converse(session: ModelSession) -> None:
    """What a well-behaved model does: every half second, or once the last answer was heard, the caller
    asks, and the agent answers."""
    for number in itertools.count(1):
        frames = 25 * number
        await session.until_frames(frames)
        while session.paused or not session.all_heard:
            frames += 1
            await session.until_frames(frames)
        await session.listen(f"u{number}", f"Question {number}.")
        await session.speak(f"a{number}", f"This is answer {number}.", ANSWER_MS)


class ScriptedModel:
    """Serves sessions; each plays the script that belongs to the tag in its caller's frames.

    Args:
        scripts: By the beginning of the tag; a call that none is for is :func:`converse`.
        overrides: What ``session.updated`` says otherwise than was asked for.
    """

    def __init__(
        self,
        scripts: Mapping[str, Script] | None = None,
        *,
        overrides: dict[str, Any] | None = None,
    ) -> None:
        self.sessions: list[ModelSession] = []
        """In the order in which they were opened."""
        self.phones: dict[str, Phone] = {}
        """Who hears what is said, by tag, so that nobody is talked over on a slow machine."""
        self.paused = False
        """Whether :func:`converse` begins nothing new."""
        self.overrides = overrides or {}
        self._scripts = dict(scripts or {})
        self._server: Server | None = None

    @property
    def address(self) -> str:
        """``host:port``."""
        if self._server is None:
            raise RuntimeError("it is not open")
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        """The endpoint, without the ``model`` query."""
        return f"ws://{self.address}/v1/realtime"

    def script(self, tag: str) -> Script:
        """What is said in the session of a call."""
        for beginning, script in self._scripts.items():
            if tag.startswith(beginning):
                return script
        return converse

    def session(self, tag: str) -> ModelSession | None:
        """The newest session of a call."""
        found = [session for session in self.sessions if session.tag == tag]
        return found[-1] if found else None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve, "127.0.0.1", 0, compression=None, ping_interval=None, close_timeout=1,
            max_size=None,
        )  # fmt: skip
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, socket: ServerConnection) -> None:
        session = ModelSession(socket, self)
        self.sessions.append(session)
        with contextlib.suppress(ConnectionClosed):
            await session.serve()
