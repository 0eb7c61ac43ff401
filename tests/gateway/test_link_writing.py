"""What comes while a message is being written: the stream is a worker's that takes its time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

from prometheus_client import CollectorRegistry

from asheard.v1 import fact_pb2, session_service_pb2
from gateway.instant import now
from gateway.link import (
    BATCH_FRAMES,
    DIRECT_BYTES,
    KEPT_BYTES,
    KEPT_FRAMES,
    MAX_CONTROLS,
    MAX_FRAME_BYTES,
    MESSAGE_BYTES,
    Lane,
    LaneListener,
    Link,
    Stream,
)
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
async def writing_link(
    registry: CollectorRegistry | None = None,
) -> AsyncIterator[tuple[Link, SlowStream]]:
    metrics = GatewayMetrics(registry or CollectorRegistry())
    link = Link("nowhere:1", metrics, lambda lane, reason: None)
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
            lane,
            session_service_pb2.SessionControl(call=lane.handle, call_accepted=accepted),
            now(),
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


def max_bytes(requests: list[session_service_pb2.LinkRequest]) -> int:
    return max(request.ByteSize() for request in requests)


async def test_messages_are_bounded_in_bytes_and_long_frames_cost_their_own_call_alone() -> None:
    async with writing_link() as (link, stream):
        loud, quiet, other = await stuck(link, stream, 3)
        for ms in range(1, KEPT_FRAMES):  # in frames of 6 s
            loud.send_audio(b"A" * MAX_FRAME_BYTES, ms, 1)
            assert quiet.send_audio(b"AAAA", ms, 1)
        assert not loud.send_audio(b"A" * (MAX_FRAME_BYTES + 1), KEPT_FRAMES, 1), (
            "longer than is passed on"
        )
        assert loud.kept_bytes == sum(len(frame[0]) for frame in loud.audio) <= KEPT_BYTES
        other.send_audio(b"AAAA", 1, 1)
        await stream.take()
        requests = await stream.drain()
        assert max_bytes(requests) < 2 * MESSAGE_BYTES
        came = frames(*requests)
        assert [ms for call, ms in came if call == quiet.handle] == list(range(1, KEPT_FRAMES))
        assert [ms for call, ms in came if call == loud.handle] == [KEPT_FRAMES - 1], (
            "the newest that fit"
        )
        assert (other.handle, 1) in came
        assert loud.kept_bytes == 0
        loud.send_audio(b"A" * DIRECT_BYTES, 500, 1)
        assert frames(await stream.take()) == [(loud.handle, 500)], "and then as before"


async def test_what_is_beyond_a_message_goes_into_the_next_in_order_with_the_end_behind() -> None:
    async with writing_link() as (link, stream):
        lanes = await stuck(link, stream, 2)
        for ms in range(1, BATCH_FRAMES // 2):  # as the compiled way has them, up to one read
            for lane in lanes:
                link.batch.add(lane.handle, b"A" * 16_000, ms, 1)
        lanes[0].close(fact_pb2.CALL_OUTCOME_COMPLETED)
        key = session_service_pb2.CallerKeyPressed(digit="5")
        lanes[1].send(session_service_pb2.GatewayControl(key_pressed=key))
        await stream.take()
        requests = await stream.drain()
        assert max_bytes(requests) < 1.1 * MESSAGE_BYTES
        assert len(requests) >= 16
        for lane in lanes:
            came = [ms for call, ms in frames(*requests) if call == lane.handle]
            assert came == list(range(1, BATCH_FRAMES // 2))
        kinds = [[c.WhichOneof("body") for c in request.control] for request in requests]
        assert kinds[0] == ["key_pressed"]
        assert kinds[-1] == ["close_call"]
        assert not frames(requests[-1])


async def test_much_control_is_dropped_for_its_own_call_and_split_into_messages() -> None:
    registry = CollectorRegistry()
    async with writing_link(registry) as (link, stream):
        loud, quiet = await stuck(link, stream, 2)

        def pressed() -> session_service_pb2.GatewayControl:
            key = session_service_pb2.CallerKeyPressed(digit="5")
            return session_service_pb2.GatewayControl(key_pressed=key)

        for _ in range(MAX_CONTROLS + 30):
            loud.send(pressed())
        quiet.send(pressed())
        await stream.take()
        (request,) = await stream.drain()
        assert len(request.control) == MAX_CONTROLS + 1
        dropped = registry.get_sample_value("asheard_link_controls_dropped_total")
        assert dropped == 30
        assert loud.outcome is None

        quiet.send_audio(b"AAAA", 1, 1)
        await until(lambda: stream.writing, "a message under way")
        large = session_service_pb2.PositionsFixed()
        for n in range(7000):
            large.positions.add(item_id="i" * 40, content_index=n)
        for _ in range(MAX_CONTROLS + 1):
            positions = session_service_pb2.GatewayControl(positions_fixed=large)
            loud.send(positions)
        await until(lambda: loud.outcome is not None, "the end of a call that says too much")
        assert cast(Listener, quiet.listener).kinds == ["accepted"]
        quiet.send_audio(b"AAAA", 2, 1)
        await stream.take()
        requests = await stream.drain()
        assert max_bytes(requests) < 2 * MESSAGE_BYTES
        assert (quiet.handle, 2) in frames(*requests)
        closed = [
            c.call for request in requests for c in request.control if c.HasField("close_call")
        ]
        assert closed == [loud.handle]


async def test_early_control_is_bounded() -> None:
    lane = Lane(cast(LaneListener, Listener()), "CA1", "MZ1")
    for _ in range(MAX_CONTROLS + 30):
        key = session_service_pb2.CallerKeyPressed(digit="5")
        lane.send(session_service_pb2.GatewayControl(key_pressed=key))
    assert len(lane.early) == MAX_CONTROLS


async def test_a_frame_that_cannot_be_sent_ends_its_call_and_the_message_goes_on() -> None:
    async with writing_link() as (link, stream):
        good, bad, ugly = await stuck(link, stream, 3)
        good.send_audio(b"AAAA", 1, 1)
        bad.send_audio(b"AAAA", 2**70, 1)
        ugly.send_audio(cast(bytes, "AAAA\ud800"), 1, 1)
        good.send_audio(b"AAAA", 2, 1)
        await stream.take()
        assert frames(await stream.take()) == [(good.handle, 1), (good.handle, 2)]
        await until(lambda: bad.outcome is not None and ugly.outcome is not None, "their ends")
        assert good.outcome is None
        good.send_audio(b"AAAA", 3, 1)
        requests = await stream.drain()
        assert frames(*requests) == [(good.handle, 3)]


async def test_uneven_columns_are_dropped_and_the_link_goes_on() -> None:
    registry = CollectorRegistry()
    async with writing_link(registry) as (link, stream):
        (lane,) = await stuck(link, stream, 1)
        lane.send_audio(b"AAAA", 1, 1)
        link.batch.calls.append(lane.handle)  # as when there was no memory for the rest of a frame
        await stream.take()
        assert frames(await stream.take()) == []
        lane.send_audio(b"AAAA", 2, 1)
        assert frames(await stream.take()) == [(lane.handle, 2)]
        assert registry.get_sample_value("asheard_caller_frames_dropped_total") == 2
