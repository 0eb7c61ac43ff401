"""Functions that take long, in a call through the real worker."""

from __future__ import annotations

import asyncio
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from session.call import Call
from simulators.realtime.script import AgentScript, CallTool, Reply, Speak, say
from simulators.speech.corpus import spoken
from tests.session.endpoints import Hanging, endpoint
from tests.session.ends import FRAME, Model, until, worker
from tests.session.test_with_simulator import Caller, frames, simulated


def agent(url: str) -> str:
    """An agent with one function, which may be given up."""
    tool = (
        f'{{name: courier, description: d, url: "{url}", timeout_s: 300, cancel_on_barge_in: true}}'
    )
    return f"name: x\ninstructions: Be brief.\ntools: [{tool}]\n"


async def calls_courier(model: Model) -> None:
    """The model calls the function, and says nothing."""
    await model.begin("R")
    call = {"id": "F", "type": "function_call", "call_id": "call_1", "name": "courier"}
    call |= {"arguments": "{}", "status": "completed"}
    await model.say("response.output_item.added", response_id="R", item=call)
    await model.say("conversation.item.added", item=call)
    await model.say("conversation.item.done", item=call)
    await model.done("R")


async def test_a_barge_in_aborts_the_request(tmp_path: Path) -> None:
    hanging = Hanging()
    async with (
        endpoint(hanging.serve) as url,
        worker(agent=agent(url), directory=tmp_path) as w,
    ):
        model = await w.call()
        await calls_courier(model)
        await hanging.asked.acquire()
        await model.say("input_audio_buffer.speech_started", item_id="U", audio_start_ms=0)
        await asyncio.wait_for(hanging.left.acquire(), 10)
        told = (await model.wait_for("conversation.item.create"))["item"]
        assert told["call_id"] == "call_1"
        assert "given up" in json.loads(told["output"])["error"]
        returned = await w.facts.wait_for("tool_returned")
        assert returned.tool_call_id == "call_1"
        assert not returned.succeeded
        assert await w.metric('asheard_tool_calls_total{outcome="cancelled"}') == 1
        await w.gateway.close()
        await w.facts.wait_for("session_ended")
        assert len(model.of("conversation.item.create")) == 1
        assert len(w.facts.of("tool_returned")) == 1


async def test_a_caller_who_hangs_up_leaves_no_request_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[weakref.ref[Call]] = []
    usual = Call.__init__

    def remembered(call: Call, *args: Any, **named: Any) -> None:
        usual(call, *args, **named)
        calls.append(weakref.ref(call))

    monkeypatch.setattr(Call, "__init__", remembered)
    hanging = Hanging()
    async with (
        endpoint(hanging.serve) as url,
        worker(agent=agent(url), directory=tmp_path) as w,
    ):
        model = await w.call()
        await calls_courier(model)
        await hanging.asked.acquire()
        await w.gateway.close()
        assert not (await w.facts.wait_for("session_ended")).failed
        await asyncio.wait_for(hanging.left.acquire(), 10)
        await until(lambda: calls[0]() is None, "the call is gone")
        assert "tool call" not in {task.get_name() for task in asyncio.all_tasks()}
        assert w.facts.of("tool_returned") == [], "nobody knows what became of it"
        assert await w.metric("asheard_active_calls") == 0


async def test_the_conversation_goes_on_and_the_result_is_spoken_when_it_comes(
    tmp_path: Path,
) -> None:
    """At the Realtime simulator: a word after a second, an answer to something else, the result."""
    script = AgentScript(
        replies=(
            Reply((CallTool("quote", '{"items": ["bagels"]}'),), when="bagels"),
            Reply((Speak("I am still adding it up."),), when_told="still at work"),
            say("Yes, we have coffee.", when="coffee"),
            say("That will be $9.05.", when="9.05"),
        )
    )
    ready = asyncio.Event()

    async def quote(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        await ready.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n$9.05")

    async with endpoint(quote) as url:
        agent_file = (
            "name: x\ninstructions: Be brief.\n"
            "while_waiting: {after_s: 1, instruct: The price is still at work.}\n"
            f"tools: [{{name: quote, description: d, url: {url}, timeout_s: 60}}]\n"
        )
        async with simulated(script, agent_file, tmp_path) as (w, realtime):
            caller = Caller(w)

            def said() -> list[str]:
                return [f.text for f in w.facts.of("item_generated")]

            await w.facts.wait_for("session_started")
            await caller.send(frames(spoken("I want bagels and a soda.").ulaw))
            await caller.send([FRAME] * 50)
            await until(lambda: said() == ["I am still adding it up."], "a word")
            await caller.send(
                frames(spoken("Sorry for interrupting, do you also have coffee?").ulaw)
            )
            await caller.send([FRAME] * 50)
            await until(lambda: said()[1:] == ["Yes, we have coffee."], "an answer meanwhile")
            assert not w.facts.of("tool_returned")
            ready.set()
            await until(lambda: said()[2:] == ["That will be $9.05."], "the result")
            await w.gateway.close()
            await w.facts.wait_for("session_ended")
            assert realtime.sessions[0].refusals == []
            assert len(said()) == 3
