"""Functions that take long, in a call through the real worker."""

from __future__ import annotations

import asyncio
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from session.call import Call
from tests.session.endpoints import Hanging, endpoint
from tests.session.ends import Model, until, worker


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
