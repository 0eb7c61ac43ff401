"""Scripted peers of a gateway: a session worker, a transcript service, Twilio's end of a socket."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import aiohttp
import grpc
import grpc.aio

from asheard.v1 import (
    fact_pb2,
    ingest_service_pb2,
    ingest_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from runtime.config import Address
from runtime.rpc import LINK, GrpcServer

STREAM_SID = "MZ" + "0a" * 16
CALL_SID = "CA" + "0c" * 16
FRAME = base64.b64encode(b"\xff" * 160).decode()
PATIENCE_S = 10.0
"""Long enough for a machine with other things to do; a test that passes never waits for it."""


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while not condition():
        assert loop.time() < deadline, f"waited in vain for: {what}"
        await asyncio.sleep(0.002)


def speech(ms: int) -> bytes:
    """Base64 text of so much µ-law."""
    return base64.b64encode(b"\x55" * (8 * ms))


class CallerFrame(NamedTuple):
    """One of the caller's frames, as the link brought it."""

    payload: bytes
    media_ms: int
    received_unix_us: int


class ScriptedWorker(session_service_pb2_grpc.SessionServiceServicer):
    """A session worker that does what a test says, and remembers what it is told."""

    def __init__(self) -> None:
        self.refuses: session_service_pb2.RefusalReason.ValueType | None = None
        self.answers = True
        self.load = session_service_pb2.LoadReport(active_calls=0, max_calls=10)
        self.requests: list[session_service_pb2.LinkRequest] = []
        self.opened: list[tuple[int, str, str]] = []
        self.closed: dict[int, fact_pb2.CallOutcome.ValueType] = {}
        self.audio: dict[int, list[CallerFrame]] = {}
        self.positions: list[session_service_pb2.PositionsFixed] = []
        self.keys: list[str] = []
        self.links = 0
        self._out: asyncio.Queue[session_service_pb2.LinkResponse | None] = asyncio.Queue()
        self._server: GrpcServer | None = None
        self.port = 0

    async def start(self, port: int = 0) -> None:
        # As the real one, or the gateway's pings would be too many for it after three seconds.
        self._server = GrpcServer(Address("127.0.0.1", port), [], liveness=LINK)
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(self, self._server.server)
        await self._server.start()
        self.port = self._server.port

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def Link(
        self,
        request_iterator: AsyncIterator[session_service_pb2.LinkRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[session_service_pb2.LinkResponse]:
        self.links += 1
        self._out = asyncio.Queue()
        self.say(load_report=self.load, call=0)
        reader = asyncio.create_task(self._read(request_iterator))
        try:
            while (response := await self._out.get()) is not None:
                yield response
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[session_service_pb2.LinkRequest]) -> None:
        async for request in requests:
            self.requests.append(request)
            for control in request.control:
                self._control(control)
            audio = request.caller_audio
            for handle, payload, media_ms, received_unix_us in zip(
                audio.call, audio.payload, audio.media_ms, audio.received_unix_us, strict=True
            ):
                assert handle not in self.closed, "audio after the end of its call"
                frame = CallerFrame(payload, media_ms, received_unix_us)
                self.audio.setdefault(handle, []).append(frame)
        self._out.put_nowait(None)

    def _control(self, control: session_service_pb2.GatewayControl) -> None:
        match control.WhichOneof("body"):
            case "open_call":
                opened = control.open_call
                self.opened.append((control.call, opened.call_sid, opened.stream_sid))
                if self.refuses is not None:
                    self.say(
                        call=control.call,
                        call_refused=session_service_pb2.CallRefused(reason=self.refuses),
                    )
                elif self.answers:
                    self.say(
                        call=control.call,
                        call_accepted=session_service_pb2.CallAccepted(
                            session_writer=f"session/{self.port}-{control.call}"
                        ),
                    )
            case "positions_fixed":
                self.positions.append(control.positions_fixed)
            case "key_pressed":
                self.keys.append(control.key_pressed.digit)
            case "close_call":
                self.closed[control.call] = control.close_call.outcome

    def say(self, **control: Any) -> None:
        """Send one control message."""
        self._out.put_nowait(
            session_service_pb2.LinkResponse(
                control=[session_service_pb2.SessionControl(**control)]
            )
        )

    def speak(
        self, item_id: str, ms: int, *, call: int = 1, last: bool = False, delta_ms: int = 400
    ) -> None:
        """Send an item's audio in deltas, faster than real time."""
        deltas = [min(delta_ms, ms - start) for start in range(0, ms, delta_ms)]
        for number, delta in enumerate(deltas):
            self._out.put_nowait(
                session_service_pb2.LinkResponse(
                    agent_audio=[
                        session_service_pb2.AgentAudio(
                            call=call,
                            item_id=item_id,
                            payload=speech(delta),
                            last=last and number == len(deltas) - 1,
                        )
                    ]
                )
            )

    def interrupt(self, interrupt_id: int, *, call: int = 1, onset_ms: int | None = None) -> None:
        self.say(
            call=call,
            interrupt=session_service_pb2.Interrupt(
                interrupt_id=interrupt_id,
                onset_ms=onset_ms,
                detection_us=200_000,
                worker_us=300,
                sent_unix_us=time.time_ns() // 1000 - 1,
            ),
        )

    def finish(
        self,
        *,
        call: int = 1,
        outcome: fact_pb2.CallOutcome.ValueType | None = None,
        told: bool = False,
    ) -> None:
        self.say(
            call=call,
            call_finished=session_service_pb2.CallFinished(
                outcome=outcome or fact_pb2.CALL_OUTCOME_ENDED_BY_AGENT, told=told
            ),
        )


class RecordingTranscript(ingest_service_pb2_grpc.IngestServiceServicer):
    """A transcript service that keeps facts in a list."""

    def __init__(self) -> None:
        self.facts: list[fact_pb2.Fact] = []
        self.refuse: grpc.StatusCode | None = None
        self.port = 0
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server()
        ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)

    async def AppendFacts(
        self,
        request: ingest_service_pb2.AppendFactsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> ingest_service_pb2.AppendFactsResponse:
        if self.refuse is not None:
            await context.abort(self.refuse, "as the test wants it")
        self.facts.extend(request.facts)
        return ingest_service_pb2.AppendFactsResponse()

    def kinds(self, writer: str = "") -> list[str]:
        """What the facts are, in order; of one writer if named."""
        return [
            str(fact.WhichOneof("body"))
            for fact in self.facts
            if not writer or fact.writer == writer
        ]

    def only(self, kind: str) -> Any:
        """The body of the one fact of this kind."""
        (body,) = self.all(kind)
        return body

    def all(self, kind: str) -> list[Any]:
        return [getattr(fact, kind) for fact in self.facts if fact.WhichOneof("body") == kind]


class TwilioEnd:
    """Twilio's end of a media socket, message by message."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.stream_sid = STREAM_SID
        self.received: list[dict[str, Any]] = []
        self._sequence = 0
        self._media_ms = 0

    async def send(self, event: str, **fields: Any) -> None:
        message: dict[str, Any] = {"event": event}
        if event != "connected":
            self._sequence += 1
            message |= {"sequenceNumber": str(self._sequence), "streamSid": self.stream_sid}
        await self.socket.send_str(json.dumps(message | fields))

    async def start(
        self, parameters: dict[str, Any] | None = None, *, call_sid: str = CALL_SID
    ) -> None:
        await self.send("connected", protocol="Call", version="1.0.0")
        await self.send(
            "start",
            start={
                "streamSid": self.stream_sid,
                "accountSid": "AC1",
                "callSid": call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": parameters or {},
            },
        )

    async def media(self, timestamp_ms: int | None = None, payload: str = FRAME) -> None:
        self._media_ms = self._media_ms + 20 if timestamp_ms is None else timestamp_ms
        await self.send(
            "media",
            media={
                "track": "inbound",
                "chunk": "1",
                "timestamp": str(self._media_ms),
                "payload": payload,
            },
        )

    async def pace(self, first_ms: int, last_ms: int) -> None:
        """Media messages with these timestamps, each 20 ms after the one before: the playhead
        does not believe in media that outruns real time."""
        for timestamp_ms in range(first_ms, last_ms + 20, 20):
            await asyncio.sleep(0.02)
            await self.media(timestamp_ms)

    async def echo(self, name: str) -> None:
        await self.send("mark", mark={"name": name})

    async def stop(self) -> None:
        await self.send("stop", stop={"accountSid": "AC1", "callSid": CALL_SID})

    async def receive(self) -> dict[str, Any]:
        message = await self.socket.receive(timeout=PATIENCE_S)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        value: dict[str, Any] = json.loads(message.data)
        assert value["streamSid"] == self.stream_sid
        self.received.append(value)
        return value

    async def receive_audio(self, ms: int) -> list[str]:
        """Receive until so much audio came and the mark after it; names of all marks."""
        audio_bytes, marks = 0, []
        while audio_bytes < 8 * ms or self.received[-1]["event"] != "mark":
            message = await self.receive()
            if message["event"] == "media":
                audio_bytes += len(base64.b64decode(message["media"]["payload"]))
            elif message["event"] == "mark":
                marks.append(message["mark"]["name"])
            else:
                raise AssertionError(message)
        assert audio_bytes == 8 * ms
        return marks

    def drop(self) -> None:
        """Lose the connection, without a word."""
        descriptor = os.dup(self.socket.get_extra_info("socket").fileno())
        with socket.socket(fileno=descriptor) as its:
            its.shutdown(socket.SHUT_RDWR)

    async def close_code(self) -> int | None:
        """Read until the gateway closes; its close code."""
        while True:
            message = await self.socket.receive(timeout=PATIENCE_S)
            if message.type is not aiohttp.WSMsgType.TEXT:
                return self.socket.close_code


class RawEnd:
    """A peer of a media socket that writes bytes of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int, *, path: str = "/twilio/media") -> RawEnd:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 101 ")
        return cls(reader, writer)

    async def rest(self) -> bytes:
        """All that comes until the connection is closed."""
        return await asyncio.wait_for(self.reader.read(), 10)
