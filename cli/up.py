"""``asheard up``: the whole system on this machine until Ctrl-C.

With ``--simulate-missing`` and neither ``OPENAI_API_KEY`` nor ``ASHEARD_REALTIME_URL`` set, the
Realtime simulator stands in for the model, and one simulated Twilio call is placed, so that a
first transcript is there to look at.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

from cli.system import (
    Program,
    Supervisor,
    clean_environment,
    free_ports,
    on_one_machine,
    plan,
    reachable,
)
from gateway.config import GatewayConfig
from runtime.config import Environment, LogConfig, address
from runtime.credentials import Credentials
from runtime.process import EXIT_DONE, SUPERVISED, Stop
from session.config import SessionConfig
from transcript.config import TranscriptConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--sessions", type=_count, default=2, metavar="N", help="session workers (default: 2)"
    )
    parser.add_argument(
        "--simulate-missing",
        action="store_true",
        help="without a key or a Realtime URL: use the simulators, and place one call",
    )
    parser.epilog = "Configured by environment variables: see docs/configuration.md."


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; a second one ends everything at once."""
    environment = on_one_machine(os.environ)
    simulator: list[Program] = []
    if args.simulate_missing and not (
        environment.get("OPENAI_API_KEY") or environment.get("ASHEARD_REALTIME_URL")
    ):
        port = free_ports(1)[0]
        environment["ASHEARD_REALTIME_URL"] = f"ws://127.0.0.1:{port}/v1/realtime"
        simulator = [
            Program(
                "realtime",
                ("simulate", "realtime", "--listen", f"127.0.0.1:{port}"),
                {**clean_environment(), SUPERVISED: "1"},
            )
        ]
    _check(environment)
    programs = [*simulator, *plan(environment, sessions=args.sessions)]
    return asyncio.run(_serve(environment, programs, place_call=bool(simulator)))


def _check(environment: Environment) -> None:
    """Find bad configuration here, once, rather than in three processes."""
    LogConfig.from_env(environment)
    GatewayConfig.from_env(environment)
    session = SessionConfig.from_env(environment)
    TranscriptConfig.from_env(environment)
    Credentials(session.trust)


async def _serve(environment: Environment, programs: list[Program], *, place_call: bool) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.request)

    supervisor = Supervisor(programs)
    await supervisor.start()
    work = asyncio.create_task(_greet(supervisor, environment, place_call=place_call))
    asked = asyncio.create_task(stop.draining.wait())
    failed = asyncio.create_task(supervisor.failed.wait())
    await asyncio.wait({asked, failed}, return_when=asyncio.FIRST_COMPLETED)
    if supervisor.failed.is_set():
        supervisor.say("the system cannot go on; stopping the rest")
        stop.now.set()
    else:
        supervisor.say("draining: calls may finish; once more to end at once")
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await supervisor.stop(stop.now)
    for task in (asked, failed):
        task.cancel()
    return supervisor.exit_status if supervisor.failed.is_set() else EXIT_DONE


async def _greet(supervisor: Supervisor, environment: Environment, *, place_call: bool) -> None:
    try:
        await supervisor.ready()
    except TimeoutError as error:
        supervisor.say(str(error))
        return
    if supervisor.failed.is_set():
        return
    gateway = address(environment, "ASHEARD_GATEWAY_LISTEN", "0.0.0.0:8080")
    viewer = address(environment, "ASHEARD_VIEWER_LISTEN", "127.0.0.1:8090")
    public = f"http://{reachable(gateway.host)}:{gateway.port}"
    supervisor.say(f"ready: point a Twilio number at {public}/twilio/voice")
    supervisor.say(f"ready: transcripts at http://{reachable(viewer.host)}:{viewer.port}/")
    if place_call:
        supervisor.say("no OPENAI_API_KEY: the simulators stand in, and place one call")
        await _place_call(supervisor, public)


async def _place_call(supervisor: Supervisor, public: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "simulate", "twilio",
        # Twilio speaks TLS only; the simulator sends what a proxy that ends it would send.
        f"{public.replace('http:', 'https:')}/twilio/voice",
        env=clean_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.STDOUT,
        process_group=0,
    )  # fmt: skip
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    supervisor.say(
        "the simulated call is over" if status == EXIT_DONE else "the simulated call failed"
    )


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("give a whole number from 1 to 64")
    return int(text)
