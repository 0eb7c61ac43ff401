"""The session worker's neighbours, scripted: a model, a gateway, a transcript service.

:func:`worker` runs the real worker between them, over real sockets on loopback.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from aiohttp import ClientSession
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from asheard.v1 import (
    fact_pb2,
    ingest_service_pb2,
    ingest_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
    transcript_pb2,
)
from runtime.config import Address
from runtime.process import Stop
from runtime.rpc import GrpcServer, channel
from session import service
from session.config import SessionConfig
from session.words import Refine
from tests.session.ports import free_port
from words.proportional import ProportionalSource
from words.timing import Speech, WordTimes

WAIT_S = 10.0
"""How long anything may take on a busy machine before a test fails."""

FRAME = base64.b64encode(b"\xff" * 160)


def ulaw(ms: int) -> str:
    """Base64 of so much audio that is not silence."""
    return base64.b64encode(b"\x55" * (8 * ms)).decode()


async def proportional(speech: Speech) -> WordTimes | None:
    """Refined word times of a sort, without an aligner."""
    return ProportionalSource().word_times(speech)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; ``what`` is said when it never comes."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {WAIT_S} s in vain for {what}")
        await asyncio.sleep(0.005)


class Model:
    """One session at the scripted Realtime endpoint."""

    def __init__(self, websocket: ServerConnection) -> None:
        self.socket = websocket
        self.events: list[dict[str, Any]] = []
        """What the worker sent, audio included."""
        self.path = websocket.request.path if websocket.request is not None else ""
        self.headers = dict(websocket.request.headers) if websocket.request is not None else {}

    async def listen(self) -> None:
        """Take in what the worker says until the socket ends."""
        try:
            async for message in self.socket:
                assert isinstance(message, str), "the API takes text frames only"
                self.events.append(json.loads(message))
        except ConnectionClosed:
            pass

    async def say(self, kind: str, **body: Any) -> None:
        """Send an event."""
        await self.socket.send(json.dumps({"type": kind, "event_id": "event_x", **body}))

    async def close(self, code: int, reason: str = "") -> None:
        """End the session."""
        await self.socket.close(code, reason)

    def drop(self) -> None:
        """Break the connection without a closing handshake."""
        self.socket.transport.abort()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What the worker sent of a kind."""
        return [event for event in self.events if event["type"] == kind]

    async def wait_for(self, kind: str, count: int = 1) -> dict[str, Any]:
        """The ``count``-th event of a kind, as soon as it is there."""
        await until(lambda: len(self.of(kind)) >= count, f"{count} {kind}")
        return self.of(kind)[count - 1]

    @property
    def caller_audio(self) -> bytes:
        """All audio appended."""
        return b"".join(
            base64.b64decode(event["audio"]) for event in self.of("input_audio_buffer.append")
        )

    # Pieces of a conversation, in the live API's order.

    async def open(self) -> None:
        """Accept the session's configuration."""
        await self.say("session.created", session={"id": "sess_1"})
        await self.wait_for("session.update")
        await self.say("session.updated", session={"id": "sess_1"})

    async def begin(self, response_id: str, *item_ids: str) -> None:
        """A response begins its items."""
        await self.say("response.created", response={"id": response_id, "status": "in_progress"})
        for item_id in item_ids:
            item = {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress"}
            await self.say("response.output_item.added", response_id=response_id, item=item)
            await self.say("conversation.item.added", item=item)

    async def audio(self, response_id: str, item_id: str, ms: int) -> None:
        """Generated audio."""
        await self.say(
            "response.output_audio.delta",
            response_id=response_id,
            item_id=item_id,
            content_index=0,
            delta=ulaw(ms),
        )

    async def text(self, response_id: str, item_id: str, text: str) -> None:
        """Generated text."""
        await self.say(
            "response.output_audio_transcript.delta",
            response_id=response_id,
            item_id=item_id,
            content_index=0,
            delta=text,
        )

    async def item_done(
        self, response_id: str, item_id: str, text: str, status: str = "completed"
    ) -> None:
        """An item ends."""
        part = {"response_id": response_id, "item_id": item_id, "content_index": 0}
        await self.say("response.output_audio.done", **part)
        await self.say("response.output_audio_transcript.done", transcript=text, **part)
        item = {
            "id": item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [{"type": "output_audio", "transcript": text}],
        }
        await self.say("conversation.item.done", item=item)
        await self.say("response.output_item.done", response_id=response_id, item=item)

    async def done(self, response_id: str, status: str = "completed", details: Any = None) -> None:
        """A response ends."""
        await self.say(
            "response.done",
            response={"id": response_id, "status": status, "status_details": details},
        )

    async def turn(self, response_id: str, item_id: str, text: str, ms: int) -> None:
        """A whole response of one item."""
        await self.begin(response_id, item_id)
        await self.text(response_id, item_id, text)
        await self.audio(response_id, item_id, ms)
        await self.item_done(response_id, item_id, text)
        await self.done(response_id)


@dataclass
class Endpoint:
    """The scripted Realtime endpoint: hands out sessions as they come."""

    url: str
    sessions: asyncio.Queue[Model] = field(default_factory=asyncio.Queue)

    async def session(self) -> Model:
        """The next session."""
        return await asyncio.wait_for(self.sessions.get(), WAIT_S)


class Gateway:
    """The scripted gateway: one link, any number of calls."""

    def __init__(
        self,
        stream: grpc.aio.StreamStreamCall[
            session_service_pb2.LinkRequest, session_service_pb2.LinkResponse
        ],
    ) -> None:
        self._stream = stream
        self._writing = asyncio.Lock()
        self.messages: list[session_service_pb2.LinkResponse] = []

    async def listen(self) -> None:
        """Take in what the worker says until the link ends."""
        async for message in self._stream:
            self.messages.append(message)

    async def write(self, request: session_service_pb2.LinkRequest) -> None:
        """Send a message."""
        async with self._writing:  # a stream takes one message at a time
            await self._stream.write(request)

    async def control(self, call: int, **body: Any) -> None:
        """Send control."""
        await self.write(
            session_service_pb2.LinkRequest(
                control=[session_service_pb2.GatewayControl(call=call, **body)]
            )
        )

    async def open(self, call: int = 1) -> None:
        """Give a call to the worker."""
        await self.control(
            call, open_call=session_service_pb2.OpenCall(call_sid=f"CA{call}", stream_sid="MZ1")
        )

    async def close(self, call: int = 1) -> None:
        """End a call."""
        await self.control(
            call,
            close_call=session_service_pb2.CloseCall(outcome=fact_pb2.CALL_OUTCOME_COMPLETED),
        )

    async def send_audio(
        self,
        *payloads: bytes,
        call: int = 1,
        media_ms: int = 0,
        received_unix_us: int | None = None,
    ) -> None:
        """The caller's frames of 20 ms."""
        await self.write(
            session_service_pb2.LinkRequest(
                caller_audio=session_service_pb2.CallerAudio(
                    call=[call] * len(payloads),
                    payload=payloads,
                    media_ms=range(media_ms, media_ms + 20 * len(payloads), 20),
                    received_unix_us=[received_unix_us or time.time_ns() // 1000] * len(payloads),
                )
            )
        )

    async def positions(
        self,
        *heard: tuple[str, int],
        call: int = 1,
        interrupt_id: int = 0,
        cause: fact_pb2.PositionCause.ValueType = fact_pb2.POSITION_CAUSE_CLEARED,
    ) -> None:
        """How much of some items was heard."""
        await self.control(
            call,
            positions_fixed=session_service_pb2.PositionsFixed(
                interrupt_id=interrupt_id,
                cause=cause,
                positions=[
                    transcript_pb2.ItemPosition(item_id=item_id, low_ms=ms, best_ms=ms, high_ms=ms)
                    for item_id, ms in heard
                ],
            ),
        )

    def hang_up(self) -> None:
        """End the link."""
        self._stream.cancel()

    def controls(self, kind: str, call: int = 1) -> list[Any]:
        """Control of a kind for a call; 0 for the worker as a whole."""
        return [
            getattr(control, kind)
            for message in self.messages
            for control in message.control
            if control.WhichOneof("body") == kind and control.call == call
        ]

    async def wait_for(self, kind: str, call: int = 1, count: int = 1) -> Any:
        """The ``count``-th control of a kind."""
        await until(lambda: len(self.controls(kind, call)) >= count, f"{count} {kind}")
        return self.controls(kind, call)[count - 1]

    def agent_audio(self, call: int = 1) -> list[tuple[str, int, bool]]:
        """Audio for a call: item, milliseconds, whether it is the last of its part."""
        return [
            (audio.item_id, len(base64.b64decode(audio.payload)) // 8, audio.last)
            for message in self.messages
            for audio in message.agent_audio
            if audio.call == call
        ]

    async def wait_for_audio(self, *expected: tuple[str, int, bool], call: int = 1) -> None:
        """Until exactly this has come."""
        await until(lambda: len(self.agent_audio(call)) >= len(expected), f"audio {expected}")
        assert self.agent_audio(call) == list(expected)


class Facts(ingest_service_pb2_grpc.IngestServiceServicer):
    """The scripted transcript service."""

    def __init__(self) -> None:
        self.all: list[fact_pb2.Fact] = []
        self.refuse: grpc.StatusCode | None = None

    async def AppendFacts(
        self,
        request: ingest_service_pb2.AppendFactsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> ingest_service_pb2.AppendFactsResponse:
        """Take facts."""
        if self.refuse is not None:
            await context.abort(self.refuse, "as the test wants it")
        self.all.extend(request.facts)
        return ingest_service_pb2.AppendFactsResponse()

    def names(self, call_sid: str = "CA1") -> list[str]:
        """What happened in a call, in order."""
        return [str(f.WhichOneof("body")) for f in self.all if f.call_sid == call_sid]

    def of(self, name: str, call_sid: str = "CA1") -> list[Any]:
        """Facts of a kind."""
        return [
            getattr(fact, name)
            for fact in self.all
            if fact.call_sid == call_sid and fact.WhichOneof("body") == name
        ]

    async def wait_for(self, name: str, call_sid: str = "CA1", count: int = 1) -> Any:
        """The ``count``-th fact of a kind."""
        await until(lambda: len(self.of(name, call_sid)) >= count, f"fact {name} of {call_sid}")
        return self.of(name, call_sid)[count - 1]


@dataclass
class Worker:
    """The real worker and what is around it."""

    model: Endpoint
    gateway: Gateway
    facts: Facts
    stop: Stop
    serving: asyncio.Task[None]
    address: str
    admin_port: int

    async def call(self, number: int = 1) -> Model:
        """Open a call; its session at the model, configured."""
        await self.gateway.open(number)
        model = await self.model.session()
        await model.open()
        return model

    async def metric(self, name: str) -> float:
        """A sample off the admin port, such as ``asheard_calls_total{outcome="completed"}``."""
        url = f"http://127.0.0.1:{self.admin_port}/metrics"
        async with ClientSession() as http, http.get(url) as response:
            for line in (await response.text()).splitlines():
                if line.startswith(name + " "):
                    return float(line.split(" ")[1])
        raise AssertionError(f"there is no metric {name}")


@asynccontextmanager
async def endpoint(refuse: HTTPStatus | None = None) -> AsyncIterator[Endpoint]:
    """A scripted Realtime endpoint; ``refuse`` is how it answers each handshake, if it does."""
    found = Endpoint("")

    async def handle(websocket: ServerConnection) -> None:
        model = Model(websocket)
        found.sessions.put_nowait(model)
        await model.listen()

    def answer(connection: ServerConnection, _request: object) -> Any:
        return None if refuse is None else connection.respond(refuse, "no\n")

    async with serve(handle, "127.0.0.1", 0, process_request=answer, max_size=None) as server:
        host, port = next(iter(server.sockets)).getsockname()[:2]
        found.url = f"ws://{host}:{port}/v1/realtime"
        yield found


@asynccontextmanager
async def worker(
    *,
    agent: str | None = None,
    directory: Path | None = None,
    realtime: Endpoint | None = None,
    realtime_url: str | None = None,
    key: str | None = None,
    port: int | None = None,
    max_calls: int = 200,
    align: str = "cut",
    refine: Refine | None = proportional,
) -> AsyncIterator[Worker]:
    """A worker between scripted neighbours.

    Args:
        agent: Text of its agent file, written to ``directory``; None: the bundled bakery.
        directory: For the agent file.
        realtime: The endpoint; None: one of its own.
        realtime_url: Where it really looks for the endpoint.
        key: For the endpoint.
        port: Where it listens; None: at a free port.
        max_calls: Its capacity.
        align: Which items' words are timed.
        refine: How; None: by the aligner.
    """
    path: Path | None = None
    if agent is not None:
        assert directory is not None
        path = directory / "agent.yaml"
        path.write_text(agent)
    facts = Facts()
    ingest = GrpcServer(Address("127.0.0.1", 0), ["asheard.v1.IngestService"])
    ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(facts, ingest.server)
    await ingest.start()
    async with _given(realtime) as model:
        config = SessionConfig(
            listen=Address("127.0.0.1", port or free_port()),
            admin=Address("127.0.0.1", free_port()),
            ingest_target=f"127.0.0.1:{ingest.port}",
            realtime_url=realtime_url or model.url,
            realtime_model="gpt-test",
            openai_api_key=key,
            agent_path=path,
            max_calls=max_calls,
            align=align,
        )
        stop = Stop()
        serving = asyncio.create_task(service.serve(config, stop, refine=refine))
        await _listening(config.listen.port, serving)
        link = channel(f"127.0.0.1:{config.listen.port}")
        ready = asyncio.create_task(link.channel_ready())
        await asyncio.wait({ready, serving}, timeout=WAIT_S, return_when="FIRST_COMPLETED")
        if serving.done():
            ready.cancel()
            await link.close()
            await ingest.stop(0)
            serving.result()
        assert ready.done(), "the worker does not answer"
        gateway = Gateway(session_service_pb2_grpc.SessionServiceStub(link).Link())
        listening = asyncio.create_task(gateway.listen())
        try:
            yield Worker(
                model, gateway, facts, stop, serving, str(config.listen), config.admin.port
            )
        finally:
            stop.draining.set()
            stop.now.set()
            gateway.hang_up()
            await asyncio.gather(listening, return_exceptions=True)
            try:
                await asyncio.wait_for(serving, WAIT_S)
            finally:
                await link.close()
                await ingest.stop(0)


async def _listening(port: int, serving: asyncio.Task[None]) -> None:
    """Wait until the port is open: gRPC would wait a second before it tried again."""
    while not serving.done():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.005)
        else:
            writer.close()
            return


@asynccontextmanager
async def _given(realtime: Endpoint | None) -> AsyncIterator[Endpoint]:
    if realtime is not None:
        yield realtime
        return
    async with endpoint() as made:
        yield made
