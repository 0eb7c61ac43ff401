"""The supervisor: prefixed lines, loud restarts, an ordered end. Real processes."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys

import aiohttp
import pytest

from cli import system
from cli.system import (
    Program,
    Supervisor,
    clean_environment,
    on_free_ports,
    plan,
    plan_processes,
)

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
SAYS_GOODBYE = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))\n"
    "print('up', flush=True); time.sleep(60)"
)
STUBBORN = (
    "import signal, sys, time\n"
    "asked = []\n"
    "def on_term(*_):\n"
    "    asked.append(1)\n"
    "    print('asked', flush=True)\n"
    "    if len(asked) == 2: sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, on_term)\n"
    "print('up', flush=True)\n"
    "while True: time.sleep(1)"
)


def python(name: str, code: str) -> Program:
    return Program(name, (code,), dict(os.environ), command=(sys.executable, "-c"))


async def printed(output: io.StringIO, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in output.getvalue():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "RESTART_AFTER_S", 0.01)


async def test_lines_are_prefixed_and_the_last_started_is_stopped_first() -> None:
    output = io.StringIO()
    supervisor = Supervisor([python("back", SAYS_GOODBYE), python("front", SAYS_GOODBYE)], output)
    await supervisor.start()
    await printed(output, "back  | up")
    await printed(output, "front | up")
    await supervisor.stop()
    said = output.getvalue()
    assert said.index("front | bye") < said.index("back  | bye")


async def test_a_killed_program_is_reported_and_started_again() -> None:
    output = io.StringIO()
    supervisor = Supervisor([python("worker", SAYS_GOODBYE)], output)
    await supervisor.start()
    await printed(output, "up")
    supervisor.process("worker").kill()
    await printed(output, "worker died: signal SIGKILL")
    await printed(output, "starting worker again")
    await printed(output, "again\nworker | up")
    await supervisor.stop()
    assert not supervisor.failed.is_set()


async def test_bad_configuration_ends_the_system_with_its_status() -> None:
    output = io.StringIO()
    supervisor = Supervisor([python("worker", "import sys; sys.exit(2)")], output)
    await supervisor.start()
    async with asyncio.timeout(20):
        await supervisor.failed.wait()
    await supervisor.stop()
    assert supervisor.exit_status == 2
    assert output.getvalue().count("died") == 1


async def test_a_program_that_dies_at_once_again_and_again_ends_the_system() -> None:
    output = io.StringIO()
    supervisor = Supervisor([python("worker", "import sys; sys.exit(7)")], output)
    await supervisor.start()
    async with asyncio.timeout(20):
        await supervisor.failed.wait()
    await supervisor.stop()
    assert supervisor.exit_status == 1
    assert output.getvalue().count("died: exit status 7") == system.MAX_QUICK_DEATHS


async def test_a_second_request_reaches_a_program_that_drains() -> None:
    output = io.StringIO()
    supervisor = Supervisor([python("worker", STUBBORN)], output)
    await supervisor.start()
    await printed(output, "up")
    now = asyncio.Event()
    stopping = asyncio.create_task(supervisor.stop(now))
    await printed(output, "asked")
    assert not stopping.done()
    now.set()
    async with asyncio.timeout(20):
        await stopping
    assert output.getvalue().count("asked") == 2


async def test_a_program_that_does_not_hear_sigterm_is_not_waited_for_by_kill() -> None:
    output = io.StringIO()
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEPER}"
    supervisor = Supervisor([python("worker", deaf)], output)
    await supervisor.start()
    await printed(output, "up")
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.05)
    supervisor.kill()
    async with asyncio.timeout(20):
        await stopping
    assert f"signal {signal.SIGKILL.name}" in output.getvalue()


def test_the_plan_gives_each_worker_its_ports_and_the_gateway_their_targets() -> None:
    programs = plan({"ASHEARD_TWILIO_VALIDATE": "off"}, sessions=2)
    assert [p.name for p in programs] == ["transcript", "session-0", "session-1", "gateway"]
    second = programs[2].environment
    assert second["ASHEARD_SESSION_LISTEN"] == "127.0.0.1:50062"
    assert second["ASHEARD_SESSION_ADMIN"] == "127.0.0.1:9104"
    gateway = programs[3]
    assert gateway.environment["ASHEARD_SESSION_TARGETS"] == "127.0.0.1:50061,127.0.0.1:50062"
    assert gateway.ready_url == "http://127.0.0.1:9101/readyz"


def test_free_ports_do_not_overlap() -> None:
    environment = on_free_ports({}, sessions=3)
    programs = plan({**environment, "ASHEARD_TWILIO_VALIDATE": "off"}, sessions=3)
    ports = [v.rpartition(":")[2] for k, v in environment.items() if "TARGET" not in k]
    for program in programs[2:4]:
        ports.append(program.environment["ASHEARD_SESSION_LISTEN"].rpartition(":")[2])
        ports.append(program.environment["ASHEARD_SESSION_ADMIN"].rpartition(":")[2])
    assert len(ports) == len(set(ports)) == 6 + 2 * 3


def test_processes_of_a_service_have_their_own_ports_but_for_the_gateways_public_one() -> None:
    gateways = plan_processes("gateway", {"ASHEARD_GATEWAY_LISTEN": "0.0.0.0:8080"}, 2)
    assert [p.environment["ASHEARD_GATEWAY_ADMIN"] for p in gateways] == [
        "0.0.0.0:9101",
        "0.0.0.0:9102",
    ]
    assert {p.environment["ASHEARD_GATEWAY_LISTEN"] for p in gateways} == {"0.0.0.0:8080"}
    sessions = plan_processes("session", {}, 2)
    assert [p.environment["ASHEARD_SESSION_LISTEN"] for p in sessions] == [
        "0.0.0.0:50061",
        "0.0.0.0:50062",
    ]
    assert sessions[1].ready_url == "http://127.0.0.1:9104/readyz"


async def test_two_gateway_processes_share_one_public_port() -> None:
    environment = on_free_ports(
        {**clean_environment(), "ASHEARD_TWILIO_VALIDATE": "off"}, sessions=2
    )
    output = io.StringIO()
    supervisor = Supervisor(plan_processes("gateway", environment, 2), output)
    await supervisor.start()
    try:
        await printed(output, "gateway-0 | [info     ] gateway serves")
        await printed(output, "gateway-1 | [info     ] gateway serves")
        async with aiohttp.ClientSession(f"http://{environment['ASHEARD_GATEWAY_LISTEN']}") as http:
            for _ in range(8):
                async with http.get("/twilio/voice?CallSid=CA1") as response:
                    assert response.status == 200  # no worker is there: all lines are busy
        await supervisor.stop(together=True)
    finally:
        supervisor.kill()
        await supervisor.stop()
    assert not supervisor.failed.is_set()
