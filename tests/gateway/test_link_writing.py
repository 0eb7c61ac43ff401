"""What comes while a message is being written: the stream is a worker's that takes its time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

from prometheus_client import CollectorRegistry

from asheard.v1 import fact_pb2, session_service_pb2
from gateway.link import BATCH_FRAMES, KEPT_FRAMES, Lane, LaneListener, Link, Stream
from gateway.metrics import GatewayMetrics
from gateway.placement import WorkerLoad
from tests.gateway.peers import until
from tests.gateway.test_links import Listener


class SlowStream:
    """A gRPC stream that takes one message when it is told to."""

    def __init__(self) -> None:
        self.taken: list[session_service_pb2.LinkRequest] = []
        self.writing = False
        self._may = asyncio.Semaphore(0)

    async def write(self, request: session_service_pb2.LinkRequest) -> None:
        self.writing = True
        await self._may.acquire()
        self.writing = False
        self.taken.append(request)

    async def take(self) -> session_service_pb2.LinkRequest:
        """Let the message under way through."""
        await until(lambda: self.writing, "a message")
        before = len(self.taken)
        self._may.release()
        await until(lambda: len(self.taken) > before, "its end")
        return self.taken[-1]

    async def drain(self) -> list[session_service_pb2.LinkRequest]:
        """Let everything through."""
        before = len(self.taken)
        while True:
            for _ in range(20):
                await asyncio.sleep(0.001)
                if self.writing:
                    break
            else:
                return self.taken[before:]
            await self.take()


@contextlib.asynccontextmanager
async def writing_link() -> AsyncIterator[tuple[Link, SlowStream]]:
    link = Link("nowhere:1", GatewayMetrics(CollectorRegistry()), lambda lane, reason: None)
    link.load = WorkerLoad(active_calls=0, max_calls=99)
    stream = SlowStream()
    task = asyncio.create_task(link._write(cast(Stream, stream)))
    try:
        yield link, stream
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def opened(link: Link, stream: SlowStream, calls: int) -> list[Lane]:
    lanes = [Lane(cast(LaneListener, Listener()), f"CA{n}", f"MZ{n}") for n in range(calls)]
    for lane in lanes:
        link.open(lane)
    await stream.drain()
    for lane in lanes:
        accepted = session_service_pb2.CallAccepted(session_writer="session/1")
        link._control_for(
            lane, session_service_pb2.SessionControl(call=lane.handle, call_accepted=accepted)
        )
    return lanes


async def stuck(link: Link, stream: SlowStream, calls: int) -> list[Lane]:
    """Open calls, and have a message under way with frame 0 of the first."""
    lanes = await opened(link, stream, calls)
    lanes[0].send_audio(b"AAAA", 0, 1)
    await until(lambda: stream.writing, "a message under way")
    return lanes


def frames(*requests: session_service_pb2.LinkRequest) -> list[tuple[int, int]]:
    """Call and timestamp of each."""
    return [
        frame
        for request in requests
        for frame in zip(request.caller_audio.call, request.caller_audio.media_ms, strict=True)
    ]


async def test_frames_that_come_while_a_message_is_written_are_all_in_the_next() -> None:
    async with writing_link() as (link, stream):
        lanes = await stuck(link, stream, 3)
        for ms in range(1, 8):
            for lane in lanes:
                assert lane.send_audio(b"AAAA", ms, 1)
        assert frames(await stream.take()) == [(lanes[0].handle, 0)]
        expected = [(lane.handle, ms) for ms in range(1, 8) for lane in lanes]
        assert frames(await stream.take()) == expected
        assert not any(lane.audio for lane in lanes)


async def test_control_that_comes_meanwhile_is_in_the_next_message_ahead_of_audio() -> None:
    async with writing_link() as (link, stream):
        (lane,) = await stuck(link, stream, 1)
        lane.send_audio(b"AAAA", 1, 1)
        key = session_service_pb2.CallerKeyPressed(digit="5")
        lane.send(session_service_pb2.GatewayControl(key_pressed=key))
        lane.close(fact_pb2.CALL_OUTCOME_COMPLETED)
        await stream.take()
        following = await stream.drain()
        kinds = [[c.WhichOneof("body") for c in request.control] for request in following]
        assert kinds == [["key_pressed"], ["close_call"]]
        assert [frames(request) for request in following] == [[(lane.handle, 1)], []]


async def test_a_link_that_fell_behind_catches_up_in_few_messages_and_in_order() -> None:
    calls, each = 20, 200
    async with writing_link() as (link, stream):
        lanes = await stuck(link, stream, calls)
        for ms in range(1, each + 1):
            for lane in lanes:
                assert lane.send_audio(b"AAAA", ms, 1)
        await stream.take()
        caught_up = await stream.drain()
        assert max(len(request.caller_audio.call) for request in caught_up) <= BATCH_FRAMES
        assert len(caught_up) <= 2 + calls * each // BATCH_FRAMES
        came = frames(*caught_up)
        for lane in lanes:
            assert [ms for call, ms in came if call == lane.handle] == list(range(1, each + 1))
        # And then frames go at once again, none by way of a lane.
        assert [lane.batch for lane in lanes] == [link.batch] * calls
        lanes[3].send_audio(b"AAAA", 999, 1)
        assert frames(await stream.take()) == [(lanes[3].handle, 999)]


async def test_a_link_that_stays_stuck_loses_the_oldest_of_each_call_and_counts_them() -> None:
    async with writing_link() as (link, stream):
        lanes = await stuck(link, stream, 2)
        in_batch = BATCH_FRAMES // 2
        dropped = [
            lane.send_audio(b"AAAA", ms, 1)
            for ms in range(in_batch + KEPT_FRAMES + 3)
            for lane in lanes
        ].count(False)
        assert dropped == 2 * 3
        await stream.take()
        came = frames(*await stream.drain())
        for lane in lanes:
            kept = [ms for call, ms in came if call == lane.handle]
            assert kept == [*range(in_batch), *range(in_batch + 3, in_batch + KEPT_FRAMES + 3)]


async def test_a_lost_link_forgets_what_nobody_will_take() -> None:
    async with writing_link() as (link, stream):
        (lane,) = await stuck(link, stream, 1)
        lane.send_audio(b"AAAA", 1, 1)
        link._lose("the worker died")
        assert (lane.batch, lane.link, link.batch.calls) == (None, None, [])
        assert lane.send_audio(b"AAAA", 2, 1), "kept until the call ends"
        assert link.batch.calls == []
