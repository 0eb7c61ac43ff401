"""The worker's end of the link: what one call raises, and what a gateway sends, harms no other."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from asheard.v1 import session_service_pb2
from runtime.facts import FactOutbox
from session import outbox
from session.call import Call
from session.caller_input import CallerInput
from session.calls import Calls
from session.link import Link
from session.metrics import SessionMetrics
from tests.session.ends import FRAME, Model, Worker, ulaw, until, worker

AGENT = "name: x\ninstructions: i\n"
GOOD = (1, 2)
BAD = 9
BAD_FRAME = base64.b64encode(b"\x01" * 160)
"""Of the bad call; frames know of no call."""


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[Worker]:
    async with worker(agent=AGENT, directory=tmp_path) as running:
        yield running


async def neighbours(w: Worker) -> list[Model]:
    return [await w.call(number) for number in GOOD]


async def assert_well(w: Worker, models: list[Model], media_ms: int) -> None:
    """The link carries the neighbours' audio, both ways."""
    for number, model in zip(GOOD, models, strict=True):
        heard = len(model.caller_audio)
        await w.gateway.send_audio(*[FRAME] * 5, call=number, media_ms=media_ms)
        await until(lambda m=model, n=heard: len(m.caller_audio) >= n + 800, "the caller's audio")  # type: ignore[misc]
        said = len(w.gateway.agent_audio(number))
        item = f"item{media_ms}"
        await model.begin(f"resp{media_ms}", item)
        await model.audio(f"resp{media_ms}", item, 40)
        await until(lambda n=number, s=said: len(w.gateway.agent_audio(n)) > s, "agent audio")  # type: ignore[misc]


def broken(
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    name: str,
    error: type[BaseException] = RuntimeError,
) -> None:
    """Let a method raise for the bad call, and for no other."""
    right = getattr(kind, name)

    def wrong(self: Any, *args: Any, **kwargs: Any) -> Any:
        sid = getattr(self, "sid_of_test", args[0] if args else "")
        if sid == f"CA{BAD}":
            raise error(f"a bug in {name}")
        return right(self, *args, **kwargs)

    monkeypatch.setattr(kind, name, wrong)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls know which one they are."""
    right = Call.__init__

    def init(self: Call, call_sid: str, *args: Any) -> None:
        right(self, call_sid, *args)
        self.sid_of_test = call_sid  # type: ignore[attr-defined]

    monkeypatch.setattr(Call, "__init__", init)


async def test_what_is_raised_while_a_call_is_opened_refuses_that_call_alone(
    w: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = await neighbours(w)
    media_ms = 0
    for kind, name in ((FactOutbox, "writer"), (Call, "__init__")):
        with monkeypatch.context() as patch:
            broken(patch, kind, name)
            before = len(w.gateway.controls("call_refused", BAD))
            await w.gateway.open(BAD)
            refused = await w.gateway.wait_for("call_refused", BAD, count=before + 1)
            assert refused.detail == "internal error", name
        await assert_well(w, models, media_ms)
        media_ms += 100
    assert await w.metric('asheard_link_faults_total{where="open"}') == 2
    await w.gateway.open(BAD)
    await w.gateway.wait_for("call_accepted", BAD)


def break_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what takes frames raise for the bad call's."""
    right = CallerInput.receive

    def wrong(self: CallerInput, payload: bytes, *args: Any) -> bool:
        if payload == BAD_FRAME:
            raise RuntimeError("a bug in receive")
        return right(self, payload, *args)

    monkeypatch.setattr(CallerInput, "receive", wrong)


@pytest.mark.usefixtures("named")
async def test_what_a_call_raises_in_spite_of_its_own_barriers_ends_that_call_alone(
    w: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = await neighbours(w)
    media_ms = 0
    for name in ("receive_positions", "crash", "leave", "run"):
        with monkeypatch.context() as patch:
            broken(patch, Call, name)
            break_frames(patch)
            ended = len(w.facts.of("session_ended", f"CA{BAD}"))
            finished = len(w.gateway.controls("call_finished", BAD))
            await w.gateway.open(BAD)
            if name != "run":
                await (await w.model.session()).open()
            match name:
                case "receive_positions":
                    await w.gateway.positions(("item", 0), call=BAD)
                case "crash":
                    # In one message with a neighbour's, after and before it.
                    await w.gateway.write(mixed(media_ms))
                case "leave":
                    await w.gateway.close(BAD)
            await w.gateway.wait_for("call_finished", BAD, count=finished + 1)
            if name != "run":
                await w.facts.wait_for("session_ended", f"CA{BAD}", count=ended + 1)
            else:
                await w.gateway.close(BAD)
        if name == "crash":
            await until(lambda: len(models[0].caller_audio) % 800 == 320, "the neighbour's")
            media_ms += 40
        await assert_well(w, models, media_ms)
        media_ms += 100
    assert await w.metric('asheard_link_faults_total{where="call"}') == 4
    assert await w.metric("asheard_active_calls") == len(GOOD)


async def test_what_the_way_of_frames_raises_ends_that_call_with_that_reason(
    w: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_frames(monkeypatch)
    models = await neighbours(w)
    await w.call(BAD)
    await w.gateway.write(mixed(0))
    finished = await w.gateway.wait_for("call_finished", BAD)
    assert finished.detail == "internal error: RuntimeError"
    assert (await w.facts.wait_for("session_ended", f"CA{BAD}")).failed
    await until(lambda: len(models[0].caller_audio) == 320, "the neighbour's")
    await assert_well(w, models, 40)
    assert await w.metric('asheard_link_faults_total{where="call"}') == 0


def mixed(media_ms: int) -> session_service_pb2.LinkRequest:
    """A frame of the bad call between two of a good one's."""
    return session_service_pb2.LinkRequest(
        caller_audio=session_service_pb2.CallerAudio(
            call=[GOOD[0], BAD, GOOD[0]],
            payload=[FRAME, BAD_FRAME, FRAME],
            media_ms=[media_ms, 0, media_ms + 20],
            received_unix_us=[1] * 3,
        )
    )


class OneCall:
    """All that a link knows of the calls, with one that takes frames as a test wants it."""

    def __init__(self, receive: Any) -> None:
        self.metrics = SessionMetrics(CollectorRegistry())
        self.crashed: list[Exception] = []
        self.cancelled = 0
        self._call = SimpleNamespace(
            input=SimpleNamespace(receive=receive), crash=self.crashed.append
        )

    def refusal(self) -> None:
        return None

    def start(self, *_: object) -> tuple[Any, Any]:
        return self._call, SimpleNamespace(cancel=self._cancel)

    def _cancel(self) -> None:
        self.cancelled += 1


def opened(call: OneCall) -> Link:
    """A link with that call, whose handle is 1."""
    link = Link(cast(Calls, call), lambda stopped: None)
    body = session_service_pb2.OpenCall(call_sid="CA1", stream_sid="MZ1")
    control = session_service_pb2.GatewayControl(call=1, open_call=body)
    link.receive(session_service_pb2.LinkRequest(control=[control]))
    return link


def frames(*handles: int) -> session_service_pb2.LinkRequest:
    n = len(handles)
    return session_service_pb2.LinkRequest(
        caller_audio=session_service_pb2.CallerAudio(
            call=handles, payload=[FRAME] * n, media_ms=range(n), received_unix_us=[1] * n
        )
    )


async def test_each_frame_of_a_message_is_taken_though_each_raises() -> None:
    taken: list[int] = []

    def receive(payload: bytes, media_ms: int, received_unix_us: int, now: float) -> bool:
        taken.append(media_ms)
        raise ValueError

    call = OneCall(receive)
    opened(call).receive(frames(1, 7, 1, 1))
    assert taken == [0, 2, 3]
    assert [type(error) for error in call.crashed] == [ValueError] * 3


async def test_a_cancellation_that_no_task_meant_drops_the_call() -> None:
    taken: list[int] = []

    def receive(payload: bytes, media_ms: int, received_unix_us: int, now: float) -> bool:
        taken.append(media_ms)
        raise asyncio.CancelledError

    call = OneCall(receive)
    opened(call).receive(frames(1, 1))
    assert (taken, call.cancelled, call.crashed) == ([0], 1, [])


async def test_what_is_no_fault_of_a_call_is_raised() -> None:
    def receive(*_: object) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(OneCall(receive)).receive(frames(1))


async def test_a_message_is_timed_once_by_its_oldest_frame_that_went_to_a_model() -> None:
    sent = iter([False, True, True])
    call = OneCall(lambda *_: next(sent))
    request = frames(1, 1, 1)
    now_us = time.time_ns() // 1000
    request.caller_audio.received_unix_us[:] = [now_us - 900_000, now_us - 400_000, now_us]
    opened(call).receive(request)
    (family,) = call.metrics.frame_forward.collect()
    values = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples}
    assert values["count"] == 1
    assert 0.4 <= values["sum"] < 0.9


@pytest.mark.usefixtures("named")
async def test_a_call_that_cancels_itself_is_over_for_its_gateway_too(
    w: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = await neighbours(w)
    broken(monkeypatch, Call, "run", asyncio.CancelledError)
    await w.gateway.open(BAD)
    await w.gateway.wait_for("call_finished", BAD)
    await assert_well(w, models, 0)


@pytest.mark.usefixtures("named")
async def test_the_loss_of_the_link_ends_all_calls_though_one_of_them_raises(
    w: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await w.call(BAD)
    await neighbours(w)
    broken(monkeypatch, Call, "leave")
    w.gateway.hang_up()
    for number in (BAD, *GOOD):
        await w.facts.wait_for("session_ended", f"CA{number}")


async def test_uneven_columns_are_dropped_and_counted_and_the_link_stays(w: Worker) -> None:
    models = await neighbours(w)
    uneven = session_service_pb2.LinkRequest(
        control=[
            session_service_pb2.GatewayControl(
                call=BAD,
                open_call=session_service_pb2.OpenCall(call_sid=f"CA{BAD}", stream_sid="MZ1"),
            )
        ],
        caller_audio=session_service_pb2.CallerAudio(
            call=[GOOD[0]] * 3, payload=[FRAME] * 2, media_ms=[0] * 3, received_unix_us=[0] * 3
        ),
    )
    await w.gateway.write(uneven)
    await w.gateway.wait_for("call_accepted", BAD)
    await (await w.model.session()).open()
    await assert_well(w, models, 0)
    assert len(models[0].caller_audio) == 800, "none of it was taken for anybody's"
    assert await w.metric('asheard_caller_frames_unappended_total{reason="uneven"}') == 3


async def test_a_gateway_that_does_not_take_a_calls_audio_loses_that_call_for_that_reason(
    w: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = await neighbours(w)
    bad = await w.call(BAD)
    monkeypatch.setattr(outbox, "MAX_AUDIO_BYTES", 1000)
    await bad.begin("R", "A")
    await bad.audio("R", "A", 400)
    finished = await w.gateway.wait_for("call_finished", BAD)
    assert finished.detail == "the gateway did not take 0 MiB of the call's audio"
    await assert_well(w, models, 0)


@pytest.mark.parametrize(
    ("content_index", "item_id", "ms"),
    [(2**31, "A", 40), (-1, "A", 40), (0, "A" * 100_000, 40), (0, "A", 300_000)],
    ids=["content_index", "negative", "item_id", "audio"],
)
async def test_no_event_of_the_model_breaks_the_link_for_others(
    w: Worker, content_index: int, item_id: str, ms: int
) -> None:
    models = await neighbours(w)
    bad = await w.call(BAD)
    await bad.begin("R", item_id)
    await bad.say(
        "response.output_audio.delta",
        response_id="R", item_id=item_id, content_index=content_index, delta=ulaw(ms),
    )  # fmt: skip
    await assert_well(w, models, 0)
    await w.gateway.close(BAD)
    await w.facts.wait_for("session_ended", f"CA{BAD}")
    await assert_well(w, models, 100)


async def test_a_long_frame_is_dropped_alone(w: Worker) -> None:
    (model, _) = models = await neighbours(w)
    long = base64.b64encode(b"\xff" * 60_000)
    await w.gateway.send_audio(FRAME, long, FRAME, call=GOOD[0])
    await until(lambda: len(model.caller_audio) >= 320, "the others")
    assert await w.metric('asheard_caller_frames_unappended_total{reason="too_long"}') == 1
    await assert_well(w, models, 60)


async def test_clocks_that_differ_are_no_latency(w: Worker) -> None:
    model = await w.call()
    now_us = time.time_ns() // 1000
    off_us = (0, 3_600_000_000, -3_600_000_000, 60_000_000, -500_000_000)
    for number, off in enumerate(off_us * 2):
        await w.gateway.send_audio(FRAME, media_ms=20 * number, received_unix_us=now_us - off)
    await until(lambda: len(model.caller_audio) == 1600, "the frames")
    assert await w.metric("asheard_frame_forward_seconds_count") == 2
    assert await w.metric("asheard_frame_forward_seconds_sum") < 20
    assert await w.metric("asheard_clock_differences_total") == 8
