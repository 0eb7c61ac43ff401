"""Whatever a call raises, and again in its own end, ends that call alone; its record has an end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from asheard.v1 import fact_pb2
from runtime.facts import FactWriter
from session.call import Call, Outcome
from session.caller_input import CallerInput
from session.outbox import Outlet
from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock
from session.realtime.picows_connection import PicowsConnection
from session.tools import ToolRunner
from session.words import CallWords
from tests.session.ends import FRAME, Model, Worker, until, worker

AGENT = "name: x\ninstructions: Be brief.\n"

OF_A_CALL: dict[str, tuple[type, tuple[str, ...]]] = {
    "conversation": (
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
    "clock": (InputClock, ("receive", "speech", "next_timer")),
    "input": (CallerInput, ("receive", "begin", "fill_stall")),
    "words": (CallWords, ("audio", "generated", "cut", "played", "drain", "close")),
    "outlet": (Outlet, ("audio", "interrupt")),
    "writer": (FactWriter, ("write",)),
    "connection": (PicowsConnection, ("send", "close")),
}
"""What a call is made of, and what of it may break."""

PLACES = [((part, name),) for part, (_, names) in OF_A_CALL.items() for name in names]

TWICE = [
    (
        ("conversation", first),
        ("conversation", "finish"),
        ("conversation", "ended"),
        ("outlet", "finished"),
        ("words", "close"),
        ("connection", "close"),
    )
    for first in ("open", "receive", "positions_fixed", "timer", "caller_left")
]
"""In the call, and in all that its end consists of."""

Place = tuple[str, str]


class Breaker:
    """Makes methods raise, each time, for what belongs to calls that are named.

    What is made while a call is, or while it runs, belongs to it, and so does what it is made with.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan: dict[str, tuple[Place, ...]] = {}
        self.over: set[str] = set()
        """Calls that have come to their end."""
        self.hits: Counter[tuple[str, Place]] = Counter()
        self._owners: dict[int, tuple[object, str]] = {}
        """By identity; holding the objects keeps identities apart."""
        self._current: ContextVar[str] = ContextVar("call", default="")
        make, run = Call.__init__, Call.run

        def made(call: Call, call_sid: str, *args: Any) -> None:
            for part in (call, *args):
                self._owners[id(part)] = (part, call_sid)
            token = self._current.set(call_sid)
            try:
                make(call, call_sid, *args)
            finally:
                self._current.reset(token)

        async def running(call: Call) -> Outcome:
            _, call_sid = self._owners[id(call)]
            self._current.set(call_sid)
            try:
                return await run(call)
            finally:
                self.over.add(call_sid)

        monkeypatch.setattr(Call, "__init__", made)
        monkeypatch.setattr(Call, "run", running)
        for part, (kind, names) in OF_A_CALL.items():
            monkeypatch.setattr(kind, "__init__", self._making(vars(kind)["__init__"]))
            for name in {*names, "finished"} if part == "outlet" else names:
                monkeypatch.setattr(kind, name, self._wrapped(part, name, getattr(kind, name)))

    def _making(self, usual: Callable[..., None]) -> Callable[..., None]:
        def make(this: object, *args: Any, **named: Any) -> None:
            if call_sid := self._current.get():
                self._owners[id(this)] = (this, call_sid)
            usual(this, *args, **named)

        return make

    def _wrapped(self, part: str, name: str, usual: Callable[..., Any]) -> Callable[..., Any]:
        def method(this: Any, *args: Any, **named: Any) -> Any:
            _, call_sid = self._owners.get(id(this), (None, ""))
            if (part, name) in self.plan.get(call_sid, ()):
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
                return call_sid in breaker.over

            await talk(w, number, model, over)
            await until(over, f"the end of {breaker.plan[call_sid]}")
            await asyncio.wait_for(model.socket.wait_closed(), 10)

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
            if ("writer", "write") in broken:
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
