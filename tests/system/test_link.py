"""Both real ends of the link between gateway and session worker, and what is between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

from prometheus_client import CollectorRegistry

from asheard.v1 import fact_pb2
from gateway.links import Links
from gateway.metrics import GatewayMetrics
from runtime.rpc import LINK, USUAL
from tests.gateway.conftest import world
from tests.gateway.linked import Listener
from tests.gateway.peers import until
from tests.session.ends import FRAME, Endpoint, Worker, endpoint, worker
from tests.session.ports import free_port
from tests.silence import silent_proxy

ROOT = Path(__file__).parents[2]

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
        await until(lambda: second.kinds == ["accepted", "over"], "the word at the other")
        assert other.kinds == ["accepted"]
        serving.cancel()


async def test_twilios_callback_ends_a_stream_that_another_gateway_has(tmp_path: Path) -> None:
    async with (
        worker(agent=AGENT, directory=tmp_path) as w,
        world(targets=(w.address,)) as one,
        world(targets=(w.address,)) as two,
    ):
        serving = asyncio.create_task(_sessions(w))
        ends = [await here.connect() for here in (one, one, two)]
        for number, end in enumerate(ends):
            end.stream_sid = f"MZ{number}"
            await end.start(call_sid=f"CA{number}")
        await until(lambda: len(w.gateway.messages) and w.model.sessions.empty(), "the calls")
        for here, count in ((one, 2), (two, 1)):
            await until(
                lambda here=here, n=count: len(here.transcript.all("session_assigned")) == n,  # type: ignore[misc]
                "the workers",
            )
        stopped = {"StreamEvent": "stream-stopped", "CallSid": "CA0", "StreamSid": "MZ0"}
        async with two.http.post(f"{two.url}/twilio/status", data=stopped) as answer:
            assert answer.status == 204
        over = {"CallSid": "CA2", "CallStatus": "completed"}
        async with one.http.post(f"{one.url}/twilio/voice?attempt=1", data=over):
            pass
        assert await ends[2].close_code() == 1000, "at once"
        await two.ended()
        assert two.transcript.only("call_ended").outcome == fact_pb2.CALL_OUTCOME_COMPLETED
        assert await ends[0].close_code() == 1000
        await one.ended()
        outcome = one.transcript.only("call_ended").outcome
        assert outcome == fact_pb2.CALL_OUTCOME_DROPPED, "the call itself may go on"
        await w.facts.wait_for("session_ended", "CA0")
        assert one.transcript.kinds("gateway/MZ1").count("call_ended") == 0, "the one between"
        serving.cancel()


async def test_a_worker_that_is_halted_for_a_moment_loses_nothing_and_for_longer_its_link(
    tmp_path: Path,
) -> None:
    async with (
        endpoint() as end,
        process(tmp_path, end) as (worker_process, port),
        gateway(port) as pool,
    ):
        listener = Listener()
        lane = pool.place(listener, "CA1", "MZ1")
        model = await end.session()
        await model.open()
        await until(lambda: listener.kinds == ["accepted"], "the call")

        sent = 0

        async def talk(until_s: float) -> None:
            nonlocal sent
            while time.monotonic() < until_s and listener.kinds == ["accepted"]:
                assert lane.send_audio(FRAME, 20 * sent, time.time_ns() // 1000)
                sent += 1
                await asyncio.sleep(0.02)

        await talk(time.monotonic() + 0.2)
        worker_process.send_signal(signal.SIGSTOP)
        await talk(time.monotonic() + 1.3)  # 2 s, less what a busy machine may take
        worker_process.send_signal(signal.SIGCONT)
        await talk(time.monotonic() + 0.2)
        assert listener.kinds == ["accepted"]
        await until(lambda: len(model.caller_audio) == 160 * sent, "every frame")

        worker_process.send_signal(signal.SIGSTOP)
        await talk(time.monotonic() + 10)
        assert listener.kinds == ["accepted", "lost"]
        again = Listener()  # the new stream that Twilio is given
        pool.place(again, "CA1", "MZ2")
        worker_process.send_signal(signal.SIGCONT)
        await (await end.session()).open()
        await until(lambda: again.kinds == ["accepted"], "the call, going on")


@contextlib.asynccontextmanager
async def process(directory: Path, end: Endpoint) -> AsyncIterator[tuple[Process, int]]:
    """A session worker in a process of its own, and its port."""
    agent = directory / "agent.yaml"
    agent.write_text(AGENT)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "ASHEARD_SESSION_LISTEN": f"127.0.0.1:{port}",
        "ASHEARD_SESSION_ADMIN": f"127.0.0.1:{free_port()}",
        "ASHEARD_INGEST_TARGET": "127.0.0.1:1",
        "ASHEARD_REALTIME_URL": end.url,
        "ASHEARD_AGENT": str(agent),
        "ASHEARD_ALIGN": "off",
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "session", env=environment, cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):  # its start takes a busy machine long
            while not await opens(port):
                await asyncio.sleep(0.05)
        yield running, port
    finally:
        running.kill()
        await running.wait()


async def opens(port: int) -> bool:
    """Whether somebody listens at a port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _sessions(w: Worker) -> None:
    """Accept every Realtime session's configuration."""
    while True:
        await (await w.model.session()).open()
