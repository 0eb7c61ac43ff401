"""A model's server that sends too much, the wrong thing, or nothing at all; a neighbour is well."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from asheard.v1 import fact_pb2
from session.realtime import connection
from session.realtime.bounds import MAX_MESSAGE_BYTES, MAX_PARTS
from session.realtime.picows_connection import MAX_FRAGMENTS, connect_picows
from tests.session.ends import FRAME, Model, Worker, endpoint, ulaw, until, worker

AGENT = "name: x\ninstructions: Be brief.\n"


async def neighbour_is_well(w: Worker, model: Model) -> None:
    """The call on the same link speaks and hears as if it were alone."""
    await model.turn("R", "A", "Yes.", 100)
    await w.gateway.wait_for_audio(("A", 100, False), ("A", 0, True), call=2)
    await w.gateway.send_audio(*[FRAME] * 10, call=2)
    await model.wait_for("input_audio_buffer.append", 10)


TOO_LARGE = json.dumps(
    {
        "type": "response.output_audio.delta",
        "response_id": "R",
        "item_id": "A",
        "delta": "AAAA" * (MAX_MESSAGE_BYTES // 4),
    }
)
THIRD = MAX_MESSAGE_BYTES // 3


@pytest.mark.parametrize(
    "message",
    [
        TOO_LARGE,
        [TOO_LARGE[:THIRD], TOO_LARGE[THIRD : 2 * THIRD], TOO_LARGE[2 * THIRD :]],
        [""] * (MAX_FRAGMENTS + 2),
    ],
    ids=["in one frame", "in fragments", "in empty fragments"],
)
async def test_an_event_that_is_too_large_ends_that_session_alone(
    tmp_path: Path, message: str | list[str]
) -> None:
    async with worker(agent=AGENT, directory=tmp_path) as w:
        model, sound = await w.call(1), await w.call(2)
        await model.socket.send(message)
        finished = await w.gateway.wait_for("call_finished")
        assert finished.detail == "the model sent an event of more than 4 MiB"
        await w.gateway.close()
        assert (await w.facts.wait_for("session_ended")).failed
        await neighbour_is_well(w, sound)


@pytest.mark.parametrize("event", ["{", '{"type":"x"}', '{"type":"error","error":[]}'])
async def test_a_flood_of_events_ends_that_session_alone(tmp_path: Path, event: str) -> None:
    async with worker(agent=AGENT, directory=tmp_path) as w:
        model, sound = await w.call(1), await w.call(2)
        protocol = model.socket.protocol
        for _ in range(100_000):
            protocol.send_text(event.encode())
        model.socket.transport.write(b"".join(protocol.data_to_send()))
        finished = await w.gateway.wait_for("call_finished")
        assert finished.detail == "the model sent more events at once than are taken"
        await w.gateway.close()
        assert (await w.facts.wait_for("session_ended")).failed
        await neighbour_is_well(w, sound)


async def test_minutes_of_audio_in_one_delta_arrive_in_pieces(tmp_path: Path) -> None:
    async with worker(agent=AGENT, directory=tmp_path) as w:
        model, sound = await w.call(1), await w.call(2)
        await model.begin("R", "A")
        await model.audio("R", "A", 360_000)
        await until(
            lambda: sum(ms for _, ms, _ in w.gateway.agent_audio()) == 360_000, "six minutes"
        )
        largest = max(len(a.payload) for m in w.gateway.messages for a in m.agent_audio)
        assert largest <= 64 * 1024
        await neighbour_is_well(w, sound)


async def test_a_content_index_beyond_its_bound_is_dropped_and_the_call_goes_on(
    tmp_path: Path,
) -> None:
    async with worker(agent=AGENT, directory=tmp_path) as w:
        model, sound = await w.call(1), await w.call(2)
        await model.begin("R", "A")
        for index in (2**31, 2**64, -1, MAX_PARTS):
            part = {"response_id": "R", "item_id": "A", "content_index": index}
            await model.say("response.output_audio.delta", delta=ulaw(20), **part)
            await model.say("response.output_audio_transcript.delta", delta="No.", **part)
            await model.say("response.output_audio.done", **part)
        await model.audio("R", "A", 100)
        await model.item_done("R", "A", "Yes.")
        await model.done("R")
        await w.gateway.wait_for_audio(("A", 100, False), ("A", 0, True))
        assert (await w.facts.wait_for("item_generated")).text == "Yes."
        name = 'asheard_realtime_malformed_events_total{type="response.output_audio.delta"}'
        assert await w.metric(name) == 4
        await neighbour_is_well(w, sound)


async def test_audio_in_another_format_ends_the_session_with_that_reason(tmp_path: Path) -> None:
    async with worker(agent=AGENT, directory=tmp_path) as w:
        await w.gateway.open()
        await w.gateway.send_audio(FRAME)
        model = await w.model.session()
        await model.wait_for("session.update")
        pcm = {"type": "audio/pcm", "rate": 24000}
        await model.say(
            "session.updated", session={"id": "s", "audio": {"output": {"format": pcm}}}
        )
        finished = await w.gateway.wait_for("call_finished")
        assert "audio format" in finished.detail
        assert finished.outcome == fact_pb2.CALL_OUTCOME_MODEL_FAILED
        assert model.of("input_audio_buffer.append") == []
        name = 'asheard_realtime_setting_differences_total{setting="output_format"}'
        assert await w.metric(name) == 1


@pytest.mark.parametrize("arguments", ["", '{"order": ["bag'])
async def test_a_cancelled_call_never_reaches_the_tool(tmp_path: Path, arguments: str) -> None:
    asked: list[str] = []

    async def order(request: web.Request) -> web.Response:
        asked.append(await request.text())
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/order", order)
    async with TestServer(app) as http:
        url = http.make_url("/order")
        tools = f'tools: [{{name: order, description: Orders., url: "{url}"}}]\n'
        agent = AGENT + "transcription: null\n" + tools
        async with worker(agent=agent, directory=tmp_path) as w:
            model = await w.call()
            call = {"id": "F", "type": "function_call", "call_id": "c", "name": "order"}
            begun = {**call, "arguments": "", "status": "in_progress"}
            cut = {**call, "arguments": arguments, "status": "incomplete"}
            await model.begin("R")
            await model.say("response.output_item.added", response_id="R", item=begun)
            await model.say("conversation.item.added", item=begun)
            await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=0)
            await model.say(
                "response.function_call_arguments.done",
                response_id="R",
                item_id="F",
                call_id="c",
                arguments=arguments,
            )
            await model.say("conversation.item.done", item=cut)
            await model.say("response.output_item.done", response_id="R", item=cut)
            details = {"type": "cancelled", "reason": "turn_detected"}
            await model.done("R", "cancelled", details)
            told = await model.wait_for("conversation.item.create")
            assert "not carried out" in told["item"]["output"]
            await w.gateway.close()
            await w.facts.wait_for("session_ended")
            assert asked == []
            assert w.facts.of("tool_called") == w.facts.of("item_added") == []
            assert await w.metric('asheard_tool_calls_total{outcome="not_carried_out"}') == 1


async def test_late_text_of_a_cut_part_is_timed_as_a_whole(tmp_path: Path) -> None:
    whole = "Sure. What would you like to order?"
    async with worker(agent=AGENT, directory=tmp_path) as w:
        model = await w.call()
        await model.begin("R", "A")
        await model.text("R", "A", "Sure. ")
        await model.audio("R", "A", 2600)
        await model.say("conversation.item.done", item={"id": "A", "status": "completed"})
        await w.gateway.wait_for_audio(("A", 2600, False), ("A", 0, True))
        await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=0)
        await w.gateway.wait_for("interrupt")
        await w.gateway.positions(("A", 1500), interrupt_id=1)
        assert len((await w.facts.wait_for("words_timed")).words) == 1
        for piece in ("What would you ", "like to order?"):
            await model.text("R", "A", piece)
        await model.say(
            "response.output_audio_transcript.done",
            response_id="R",
            item_id="A",
            transcript=whole,
        )
        timed = await w.facts.wait_for("words_timed", count=2)
        assert [whole[word.text_start : word.text_end] for word in timed.words] == whole.split()
        assert timed.audio_ms == 2600
        assert timed.source.refined
        assert [f.text for f in w.facts.of("item_generated")] == ["Sure. ", whole]


async def test_a_clock_that_was_set_leaves_figures_that_can_be(tmp_path: Path) -> None:
    async with worker(agent=AGENT, directory=tmp_path) as w:
        model = await w.call()
        for hour in (-1, 1):
            at = time.time_ns() // 1000 + hour * 3_600_000_000
            await w.gateway.send_audio(*[FRAME] * 50, received_unix_us=at)
        await model.wait_for("input_audio_buffer.append", 100)
        for start_ms, response in ((0, "R"), (1000, "Q")):
            await model.say("input_audio_buffer.speech_started", audio_start_ms=start_ms)
            await model.say("input_audio_buffer.speech_stopped", audio_end_ms=start_ms + 1000)
            await model.turn(response, "A" + response, "Yes.", 100)
        await until(lambda: ("AQ", 100, False) in w.gateway.agent_audio(), "both answers")
        await model.say("input_audio_buffer.speech_started", audio_start_ms=300)
        assert 0 <= (await w.gateway.wait_for("interrupt")).detection_us <= 60_000_000
        for name in ("asheard_first_audio_seconds", "asheard_frame_forward_seconds"):
            assert 0 <= await w.metric(f"{name}_sum") <= 60 * await w.metric(f"{name}_count")


# --- a socket that carries nothing any more -----------------------------------------------------


class Proxy:
    """TCP between worker and model, until it stops forwarding without a word."""

    def __init__(self, to: str) -> None:
        self._to = urlsplit(to)
        self.carrying = asyncio.Event()
        self.carrying.set()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection, both ways."""
        far_reader, far_writer = await asyncio.open_connection(self._to.hostname, self._to.port)
        self._writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.append(asyncio.create_task(self._carry(source, sink)))

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self.carrying.wait()
            sink.write(data)

    async def close(self) -> None:
        """Let go of both ends."""
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(
            *self._tasks, *(w.wait_closed() for w in self._writers), return_exceptions=True
        )


@asynccontextmanager
async def proxy(to: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before an endpoint, and the endpoint's URL by way of it."""
    made = Proxy(to)
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield made, to.replace(f":{urlsplit(to).port}", f":{port}")
    finally:
        server.close()
        await made.close()
        await server.wait_closed()


def test_a_dead_socket_is_noticed_within_ten_seconds() -> None:
    assert 2 * connection.PING_S <= 9.5
    assert connection.UNACKNOWLEDGED_MS <= 9_500


@pytest.mark.parametrize("speaking", [True, False], ids=["data under way", "at rest"])
async def test_a_model_that_has_vanished_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaking: bool
) -> None:
    """At a tenth of the pace: what is asked for is the same, the wait is not."""
    monkeypatch.setattr(connection, "PING_S", 0.45)
    async with (
        endpoint() as real,
        proxy(real.url) as (between, url),
        worker(agent=AGENT, directory=tmp_path, realtime=real, realtime_url=url) as w,
    ):
        model = await w.call()
        await model.begin("R", "A")
        await model.audio("R", "A", 300)
        await w.gateway.wait_for_audio(("A", 300, False))
        began = time.monotonic()
        between.carrying.clear()

        async def speak() -> None:
            while speaking and not w.gateway.controls("call_finished"):
                await w.gateway.send_audio(FRAME)
                await asyncio.sleep(0.02)

        caller = asyncio.create_task(speak())
        finished = await w.gateway.wait_for("call_finished")
        took_s = time.monotonic() - began
        await caller
        assert finished.outcome == fact_pb2.CALL_OUTCOME_MODEL_FAILED
        assert "no sign of life" in finished.detail
        assert 0.4 < took_s < 5, "far from the two seconds of a closing handshake and more"
        await w.gateway.close()
        assert (await w.facts.wait_for("session_ended")).failed


async def test_the_system_gives_up_what_nobody_acknowledges() -> None:
    async with endpoint() as real:
        opened = await connect_picows(real.url, model="m", key=None)
        port = urlsplit(real.url).port
        assert port is not None
        assert patience_ms(port) == [connection.UNACKNOWLEDGED_MS]
        await opened.close()


def patience_ms(port: int) -> list[int]:
    """Of each of this process' sockets to a port: how long it waits for an acknowledgement."""
    found: list[int] = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(number))) as same:
            if same.family == socket.AF_INET and same.getpeername()[1] == port:
                found.append(same.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found
