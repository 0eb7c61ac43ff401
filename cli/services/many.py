"""``--processes N``: one service as N processes under a supervisor, one core each.

Python runs on one core; a machine with more cores carries more calls with more processes. Each has
an admin port of its own, port + i, so that its probes and its metrics are its own and true; that is
why Prometheus' multiprocess mode is not used (docs/adr/0005).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal

from cli.system import Program, Supervisor, plan_processes
from gateway.config import GatewayConfig
from runtime.config import Environment
from runtime.credentials import Credentials
from runtime.process import EXIT_DONE, Stop
from session.config import SessionConfig


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--processes``."""
    parser.add_argument(
        "--processes", type=_count, default=1, metavar="N",
        help="processes, one for each core to be used (default: 1); see docs/operations.md",
    )  # fmt: skip


def run(service: str, processes: int, environment: Environment | None = None) -> int:
    """Supervise ``processes`` processes of ``service`` until a signal.

    Raises:
        ConfigurationError: Found here, once, rather than in each process.
    """
    environment = environment or dict(os.environ)
    Credentials(_CONFIGURATIONS[service].from_env(environment).trust)
    return asyncio.run(_supervise(plan_processes(service, environment, processes)))


_CONFIGURATIONS: dict[str, type[GatewayConfig | SessionConfig]] = {
    "gateway": GatewayConfig,
    "session": SessionConfig,
}


async def _supervise(programs: list[Program]) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.request)
    supervisor = Supervisor(programs)
    await supervisor.start()
    asked = asyncio.create_task(stop.draining.wait())
    failed = asyncio.create_task(supervisor.failed.wait())
    await asyncio.wait({asked, failed}, return_when=asyncio.FIRST_COMPLETED)
    await supervisor.stop(stop.now, together=True)
    for task in (asked, failed):
        task.cancel()
    return supervisor.exit_status if supervisor.failed.is_set() else EXIT_DONE


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError("give a whole number from 1 to 256")
    return int(text)
