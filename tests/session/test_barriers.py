"""Whatever a call raises, and again in its own end: it ends that call alone, and its record has an end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from asheard.v1 import fact_pb2
from runtime.facts import FactWriter
from session.call import Call
from session.link import CallOutlet
from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock
from session.realtime.picows_connection import PicowsConnection
from session.tools import ToolRunner
from session.words import CallWords
from tests.session.ends import FRAME, Model, Worker, until, worker

AGENT = "name: x\ninstructions: Be brief.\n"

OF_A_CALL: dict[str, tuple[type, tuple[str, ...]]] = {
    "_conversation": (
        Conversation,
        (
            "open",
            "receive",
            "take",
            "timer",
            "next_timer",
            "positions_fixed",
            "tool_returned",
            "caller_left",
            "finish",
            "ended",
        ),
    ),
    "_clock": (InputClock, ("receive", "speech", "next_timer")),
    "_words": (CallWords, ("audio", "generated", "cut", "played", "drain", "close")),
    "_outlet": (CallOutlet, ("audio", "interrupt")),
    "_writer": (FactWriter, ("write",)),
    "_connection": (PicowsConnection, ("send", "close")),
}
"""What a call is made of, and what of it may break."""

PLACES = [((part, name),) for part, (_, names) in OF_A_CALL.items() for name in names]

TWICE = [
    (
        ("_conversation", first),
        ("_conversation", "finish"),
        ("_conversation", "ended"),
        ("_outlet", "finished"),
        ("_words", "close"),
        ("_connection", "close"),
    )
    for first in ("open", "receive", "positions_fixed", "timer", "caller_left")
]
"""In the call, and in all that its end consists of."""

Place = tuple[str, str]


class Breaker:
    """Makes methods raise, each time, for what belongs to calls that are named."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan: dict[str, tuple[Place, ...]] = {}
        self.calls: dict[str, Call] = {}
        self.hits: Counter[tuple[str, Place]] = Counter()
        usual = Call.__init__

        def remember(call: Call, call_sid: str, *args: Any, **named: Any) -> None:
            usual(call, call_sid, *args, **named)
            self.calls[call_sid] = call

        monkeypatch.setattr(Call, "__init__", remember)
        for part, (kind, names) in OF_A_CALL.items():
            for name in {*names, "finished"} if part == "_outlet" else names:
                monkeypatch.setattr(kind, name, self._wrapped(part, name, getattr(kind, name)))

    def _wrapped(self, part: str, name: str, usual: Callable[..., Any]) -> Callable[..., Any]:
        def method(this: Any, *args: Any, **named: Any) -> Any:
            for call_sid, places in self.plan.items():
                if (part, name) in places and getattr(self.calls.get(call_sid), part, 0) is this:
                    self.hits[call_sid, (part, name)] += 1
                    raise RuntimeError(f"a bug of ours in {part}.{name}")
            return usual(this, *args, **named)

        return method


async def talk(w: Worker, number: int, model: Model, over: Callable[[], bool]) -> None:
    """Everything that a call may see, without waiting for what a broken one never does."""

    async def either(condition: Callable[[], bool], what: str) -> None:
        await until(lambda: condition() or over(), what)

    with contextlib.suppress(ConnectionClosed):
        await model.say("session.created", session={"id": "sess_1"})
        await model.say("session.updated", session={"id": "sess_1"})
        await model.turn("R0", "Z", "Hello.", 100)
        await either(lambda: len(w.gateway.agent_audio(number)) >= 2, "audio")
        await w.gateway.send_audio(FRAME, call=number)
        await w.gateway.positions(("Z", 100), call=number, cause=fact_pb2.POSITION_CAUSE_PLAYED)
        await model.begin("R", "A")
        await model.text("R", "A", "How may I help you?")
        await model.audio("R", "A", 500)
        function = {"id": "F", "type": "function_call", "call_id": "c", "name": "unknown"}
        function |= {"arguments": "{}", "status": "completed"}
        await model.say("response.output_item.done", response_id="R", item=function)
        await either(lambda: bool(model.of("conversation.item.create")), "the function's answer")
        await model.item_done("R", "A", "How may I help you?")
        await model.done("R")
        await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=0)
        await either(lambda: bool(w.gateway.controls("interrupt", number)), "the interrupt")
        await asyncio.sleep(0.35)  # positions are late
        await w.gateway.positions(("A", 200), call=number, interrupt_id=1)
        await either(lambda: bool(model.of("conversation.item.truncate")), "the cut")
    await w.gateway.close(number)


async def test_it_ends_that_call_alone_and_its_last_fact_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = Breaker(monkeypatch)
    places: list[tuple[Place, ...]] = [*PLACES, *TWICE]
    for number, broken in enumerate(places, start=1):
        breaker.plan[f"CA{number}"] = broken
    neighbour = len(places) + 1

    async with worker(agent=AGENT, directory=tmp_path) as w:
        sound = await w.call(neighbour)
        await sound.turn("R", "A", "Yes.", 100)

        async def break_one(number: int, model: Model) -> None:
            call_sid = f"CA{number}"

            def over() -> bool:
                call = breaker.calls.get(call_sid)
                return call is not None and call._over

            await talk(w, number, model, over)
            await until(over, f"the end of {breaker.plan[call_sid]}")
            await asyncio.wait_for(model._websocket.wait_closed(), 10)

        breaking = []
        for number in range(1, neighbour):
            await w.gateway.open(number)
            model = await w.model.session()
            breaking.append(asyncio.create_task(break_one(number, model)))
        await asyncio.gather(*breaking)

        # The neighbour on the same link has not noticed.
        await w.gateway.send_audio(*[FRAME] * 50, call=neighbour)
        await sound.wait_for("input_audio_buffer.append", 50)
        await sound.turn("R2", "B", "Of course.", 100)
        await w.gateway.wait_for_audio(
            ("A", 100, False), ("A", 0, True), ("B", 100, False), ("B", 0, True), call=neighbour
        )
        await w.gateway.close(neighbour)
        ended = await w.facts.wait_for("session_ended", f"CA{neighbour}")
        assert not ended.failed
        assert [f.text for f in w.facts.of("item_generated", f"CA{neighbour}")] == [
            "Yes.",
            "Of course.",
        ]
        for call_sid, broken in breaker.plan.items():
            assert breaker.hits[call_sid, broken[0]], f"{broken[0]} was never called"
            if ("_writer", "write") in broken:
                continue  # nothing can be recorded
            await w.facts.wait_for("session_ended", call_sid)
            names = w.facts.names(call_sid)
            assert names.count("session_ended") == 1, broken
            assert names[-1] == "session_ended", broken
            sequence = [f.sequence for f in w.facts.all if f.call_sid == call_sid]
            assert sequence == list(range(1, len(sequence) + 1)), broken
        outcomes = [
            await w.metric(f'asheard_calls_total{{outcome="{outcome}"}}')
            for outcome in ("completed", "model_failed", "link_lost", "failed")
        ]
        assert sum(outcomes) == neighbour, "each call is counted once"
        assert await w.metric("asheard_active_calls") == 0


async def test_a_tool_that_breaks_is_a_function_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def call(self: ToolRunner, name: str, arguments: str) -> None:
        raise RecursionError

    monkeypatch.setattr(ToolRunner, "call", call)
    async with worker(agent=AGENT, directory=tmp_path) as w:
        model = await w.call()
        await model.begin("R")
        function = {"id": "F", "type": "function_call", "call_id": "c", "name": "quote"}
        function |= {"arguments": "{}", "status": "completed"}
        await model.say("response.output_item.done", response_id="R", item=function)
        answer = await model.wait_for("conversation.item.create")
        assert "failed" in answer["item"]["output"]
        assert not (await w.facts.wait_for("tool_returned")).succeeded
        await model.done("R")
        await model.wait_for("response.create")
        assert await w.metric('asheard_tool_calls_total{outcome="failed"}') == 1
