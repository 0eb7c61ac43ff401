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

from asheard.v1 import session_service_pb2
from runtime.facts import FactOutbox
from session import link
from session.call import Call
from session.link import SessionService
from tests.session.ends import FRAME, Model, Worker, ulaw, until, worker

AGENT = "name: x\ninstructions: i\n"
GOOD = (1, 2)
BAD = 9


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


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("way", ["compiled", "Python"])
async def test_what_a_call_raises_in_spite_of_its_own_barriers_ends_that_call_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "Python":
        monkeypatch.setattr(link, "kernel", lambda: None)
    async with worker(agent=AGENT, directory=tmp_path) as w:
        models = await neighbours(w)
        media_ms = 0
        for name in ("receive_positions", "receive_audio", "leave", "run"):
            with monkeypatch.context() as patch:
                broken(patch, Call, name)
                ended = len(w.facts.of("session_ended", f"CA{BAD}"))
                finished = len(w.gateway.controls("call_finished", BAD))
                await w.gateway.open(BAD)
                if name != "run":
                    await (await w.model.session()).open()
                match name:
                    case "receive_positions":
                        await w.gateway.positions(("item", 0), call=BAD)
                    case "receive_audio":
                        # In one message with a neighbour's, behind and ahead of it.
                        await w.gateway._stream.write(mixed(media_ms))
                    case "leave":
                        await w.gateway.close(BAD)
                await w.gateway.wait_for("call_finished", BAD, count=finished + 1)
                if name != "run":
                    await w.facts.wait_for("session_ended", f"CA{BAD}", count=ended + 1)
                else:
                    await w.gateway.close(BAD)
            if name == "receive_audio":
                await until(lambda: len(models[0].caller_audio) % 800 == 320, "the neighbour's")
                media_ms += 40
            await assert_well(w, models, media_ms)
            media_ms += 100
        assert await w.metric('asheard_link_faults_total{where="call"}') == 4
        assert await w.metric("asheard_active_calls") == len(GOOD)


def mixed(media_ms: int) -> session_service_pb2.LinkRequest:
    """A frame of the bad call between two of a good one's."""
    return session_service_pb2.LinkRequest(
        caller_audio=session_service_pb2.CallerAudio(
            call=[GOOD[0], BAD, GOOD[0]],
            payload=[FRAME] * 3,
            media_ms=[media_ms, 0, media_ms + 20],
            received_unix_us=[1] * 3,
        )
    )


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
    await w.gateway._stream.write(uneven)
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
    monkeypatch.setattr(link, "KEPT_BYTES", 1000)
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


@pytest.mark.parametrize("way", ["compiled", "Python"])
async def test_clocks_that_differ_are_no_latency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "Python":
        monkeypatch.setattr(link, "kernel", lambda: None)
    async with worker(agent=AGENT, directory=tmp_path) as w:
        model = await w.call()
        now_us = time.time_ns() // 1000
        off_us = (0, 3_600_000_000, -3_600_000_000, 60_000_000, -500_000_000)
        audio = session_service_pb2.CallerAudio(
            call=[1] * 10,
            payload=[FRAME] * 10,
            media_ms=range(0, 200, 20),
            received_unix_us=[now_us - off for off in off_us * 2],
        )
        await w.gateway._stream.write(session_service_pb2.LinkRequest(caller_audio=audio))
        await until(lambda: len(model.caller_audio) == 1600, "the frames")
        assert await w.metric("asheard_frame_forward_seconds_count") == 2
        assert await w.metric("asheard_frame_forward_seconds_sum") < 20
        assert await w.metric("asheard_clock_differences_total") == 8


async def test_a_worker_that_was_halted_for_hours_says_how_late_it_is_as_far_as_it_can() -> None:
    service = cast(Any, SessionService.__new__(SessionService))
    service._lag = SimpleNamespace(recent_s=5_000.0)
    service._tasks, service._max_calls, service._draining = set(), 1, False
    assert service.load_report().event_loop_lag_us == 2**32 - 1
