"""The worker as a process: admission, drain, and what it does not start with."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from asheard.v1 import session_service_pb2
from runtime.errors import ConfigurationError
from runtime.metrics import LoopLag
from runtime.rpc import channel
from tests.session.ends import Model, until, worker

QUIET = "name: x\ninstructions: Be brief.\n"


async def test_a_full_worker_refuses_and_says_why(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path, max_calls=1) as w:
        await w.call(1)
        await w.gateway.open(2)
        refused = await w.gateway.wait_for("call_refused", call=2)
        assert refused.reason == session_service_pb2.REFUSAL_REASON_RESOURCE_EXHAUSTED
        await w.gateway.close(1)
        await w.facts.wait_for("session_ended")
        await until(
            lambda: w.gateway.controls("load_report", call=0)[-1].active_calls == 0, "room again"
        )
        model: Model = await w.call(3)
        await model.turn("R", "A", "Yes.", 100)
        await w.gateway.wait_for_audio(("A", 100, False), ("A", 0, True), call=3)
        assert await w.metric('asheard_calls_total{outcome="refused"}') == 1


async def test_a_worker_that_is_short_of_cpu_refuses_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        with monkeypatch.context() as patched:
            patched.setattr(LoopLag, "usual_s", 0.101)
            await w.gateway.open(1)
            refused = await w.gateway.wait_for("call_refused", call=1)
        assert refused.reason == session_service_pb2.REFUSAL_REASON_RESOURCE_EXHAUSTED
        assert refused.detail == "the worker is short of CPU: its event loop is 101 ms late"
        await w.call(2)


async def test_load_is_reported_at_once_and_with_every_change(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path, max_calls=7) as w:
        first = await w.gateway.wait_for("load_report", call=0)
        assert (first.active_calls, first.max_calls, first.draining) == (0, 7, False)
        await w.call()
        reports = w.gateway.controls("load_report", call=0)
        assert reports[-1].active_calls == 1


async def test_drain_refuses_new_calls_lets_old_ones_finish_and_delivers_facts(
    tmp_path: Path,
) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        health = channel(w.address)
        check = health_pb2_grpc.HealthStub(health).Check  # type: ignore[attr-defined]  # untyped
        request = health_pb2.HealthCheckRequest(service="asheard.v1.SessionService")
        assert (await check(request)).status == health_pb2.HealthCheckResponse.SERVING
        model = await w.call()
        w.stop.request()
        await until(lambda: w.gateway.controls("load_report", call=0)[-1].draining, "the drain")
        assert (await check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await health.close()
        await w.gateway.open(2)
        refused = await w.gateway.wait_for("call_refused", call=2)
        assert refused.reason == session_service_pb2.REFUSAL_REASON_DRAINING
        await model.turn("R", "A", "Goodbye.", 100)
        await w.gateway.wait_for_audio(("A", 100, False), ("A", 0, True))
        assert not w.serving.done()
        await w.gateway.close()
        await asyncio.wait_for(asyncio.shield(w.serving), 10)
        assert w.facts.names()[-1] == "session_ended"


async def test_the_second_signal_ends_calls_at_once_with_their_facts(tmp_path: Path) -> None:
    async with worker(agent=QUIET, directory=tmp_path) as w:
        await w.call()
        w.stop.request()
        w.stop.request()
        await asyncio.wait_for(asyncio.shield(w.serving), 10)
        assert w.facts.of("session_ended")[0].failed


async def test_a_port_that_is_taken_is_a_configuration_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError):
            async with worker(agent=QUIET, directory=tmp_path, port=taken.getsockname()[1]):
                pass


async def test_a_bad_agent_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="voise: unknown key"):
        async with worker(agent=QUIET + "voise: marin\n", directory=tmp_path):
            pass
