"""Both real ends of the link between gateway and session worker, and what is between them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from prometheus_client import CollectorRegistry

from gateway.links import Links
from gateway.metrics import GatewayMetrics
from runtime.rpc import LINK, USUAL
from tests.gateway.peers import until
from tests.gateway.test_links import Listener
from tests.session.ends import FRAME, Worker, worker
from tests.silence import silent_proxy

AGENT = "name: x\ninstructions: i\n"


@contextlib.asynccontextmanager
async def gateway(port: int) -> AsyncIterator[Links]:
    """A gateway's links, to the worker at a port."""
    pool = Links([f"127.0.0.1:{port}"], GatewayMetrics(CollectorRegistry()))
    running = asyncio.create_task(pool.run())
    try:
        await until(lambda: pool.up, "the link")
        yield pool
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def port_of(w: Worker) -> int:
    return int(w.address.rpartition(":")[2])


async def test_a_peer_that_vanished_is_noticed_at_both_ends_of_the_link(tmp_path: Path) -> None:
    # Within three seconds; a machine that is busy with something else may take longer, and without
    # keepalive none of it happens in minutes.
    assert sum(LINK) <= 3_000
    assert sum(USUAL) <= 30_000

    async def lose(number: int, *, up: bool, down: bool, busy: bool) -> None:
        async with silent_proxy(port_of(w)) as proxy, gateway(proxy.port) as pool:
            listener = Listener()
            lane = pool.place(listener, f"CA{number}", "MZ1")
            await until(lambda: listener.kinds == ["accepted"], "the call")
            proxy.up, proxy.down = up, down
            began = time.monotonic()
            while "lost" not in listener.kinds:
                assert time.monotonic() - began < 10, "the gateway does not notice"
                if busy:
                    lane.send_audio(FRAME, round(time.monotonic() * 1000), 0)
                await asyncio.sleep(0.02)
            await w.facts.wait_for("session_ended", f"CA{number}")
            assert w.facts.of("session_ended", f"CA{number}")[0].reason == (
                "the link to the gateway broke"
            )

    async with worker(agent=AGENT, directory=tmp_path) as w:
        serving = asyncio.create_task(_sessions(w))
        async with asyncio.TaskGroup() as group:
            for number, (up, down, busy) in enumerate(
                ((True, False, False), (False, True, True), (False, False, True)), 1
            ):
                group.create_task(lose(number, up=up, down=down, busy=busy))
        serving.cancel()


async def test_a_stop_told_to_one_gateway_reaches_the_one_that_has_the_stream(
    tmp_path: Path,
) -> None:
    async with (
        worker(agent=AGENT, directory=tmp_path) as w,
        gateway(port_of(w)) as one,
        gateway(port_of(w)) as two,
    ):
        serving = asyncio.create_task(_sessions(w))
        first, second, other = Listener(), Listener(), Listener()
        one.place(first, "CA1", "MZ1")
        one.place(other, "CA2", "MZ2")
        two.place(second, "CA3", "MZ3")
        for listener in (first, second, other):
            await until(lambda heard=listener: heard.kinds == ["accepted"], "the call")  # type: ignore[misc]
        two.announce_stopped("CA1", "MZ1")
        await until(lambda: first.kinds == ["accepted", "stopped"], "the word at its gateway")
        two.announce_stopped("CA2", "MZ_older")  # a stream of before
        two.announce_stopped("CA9", "")
        two.announce_stopped("", "MZ2")
        two.announce_stopped("CA2" * 1000, "MZ2")
        one.announce_stopped("CA3", "")  # of whichever stream
        await until(lambda: second.kinds == ["accepted", "stopped"], "the word at the other")
        assert other.kinds == ["accepted"]
        serving.cancel()


async def _sessions(w: Worker) -> None:
    """Accept every Realtime session's configuration."""
    while True:
        await (await w.model.session()).open()
