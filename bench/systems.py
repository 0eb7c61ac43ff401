"""The systems that are measured, started as processes of their own on free ports of loopback."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from bench.processes import CHILDREN
from cli.system import Supervisor, clean_environment, free_ports, on_free_ports, plan

NAMES = ("asheard", "yardstick", "relay")


_BESIDE_AUDIO = ("transcript",)
"""asheard's processes that no frame goes through, by the beginning of their names."""


def carries_audio(process: str) -> bool:
    """Whether frames go through a process of a system; descendants of one carry none."""
    return not process.startswith(_BESIDE_AUDIO) and not process.endswith(CHILDREN)


@dataclass(frozen=True, slots=True)
class System:
    """A running bridge."""

    name: str
    media_url: str
    """Where Twilio's end connects."""
    pids: Mapping[str, int]
    """Its processes."""
    transcript_target: str | None = None
    """gRPC target of the transcript service. None: it has none."""
    log: Callable[[], str] = lambda: ""
    """What its processes have printed so far."""


@asynccontextmanager
async def start(
    name: str, realtime_url: str, *, sessions: int = 1, settings: Mapping[str, str] | None = None
) -> AsyncIterator[System]:
    """Run one of the systems.

    Args:
        name: One of :data:`NAMES`.
        realtime_url: Where the model is.
        sessions: Session workers of asheard.
        settings: More environment for asheard.
    """
    if name == "asheard":
        async with _asheard(realtime_url, sessions, settings or {}) as system:
            yield system
    else:
        async with _one_process(name, realtime_url) as system:
            yield system


@asynccontextmanager
async def _asheard(
    realtime_url: str, sessions: int, settings: Mapping[str, str]
) -> AsyncIterator[System]:
    with tempfile.TemporaryDirectory(prefix="asheard-bench-") as folder:
        environment = on_free_ports(
            {
                **clean_environment(),
                "ASHEARD_TWILIO_VALIDATE": "off",
                "ASHEARD_REALTIME_URL": realtime_url,
                "ASHEARD_STORE": f"sqlite:///{folder}/bench.db",
                "ASHEARD_SESSION_MAX_CALLS": "2000",
                "ASHEARD_SESSION_MAX_LAG_MS": "60000",
                "ASHEARD_DRAIN_SECONDS": "5",
                "ASHEARD_LOG_LEVEL": "warning",
                **settings,
            },
            sessions=sessions,
        )
        log: TextIO = io.StringIO()
        programs = plan(environment, sessions=sessions)
        supervisor = Supervisor(programs, log)
        await supervisor.start()
        try:
            try:
                await supervisor.ready()
            except TimeoutError as error:
                raise TimeoutError(f"{error}\n{_text(log)}") from error
            if supervisor.failed.is_set():
                raise RuntimeError(f"asheard did not start:\n{_text(log)}")
            yield System(
                "asheard",
                f"ws://{environment['ASHEARD_GATEWAY_LISTEN']}/twilio/media",
                {program.name: supervisor.process(program.name).pid for program in programs},
                environment["ASHEARD_TRANSCRIPT_TARGET"],
                lambda: _text(log),
            )
        finally:
            now = asyncio.Event()
            asyncio.get_running_loop().call_later(10.0, now.set)
            try:
                async with asyncio.timeout(20):
                    await supervisor.stop(now)
            finally:
                supervisor.kill()


def _text(log: TextIO) -> str:
    return log.getvalue() if isinstance(log, io.StringIO) else ""


@asynccontextmanager
async def _one_process(name: str, realtime_url: str) -> AsyncIterator[System]:
    port = free_ports(1)[0]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"bench.{name}",
        "--listen", f"127.0.0.1:{port}", "--realtime", realtime_url,
        env=clean_environment(), cwd=Path(__file__).parent.parent,
        stdin=asyncio.subprocess.DEVNULL, process_group=0,
    )  # fmt: skip
    try:
        await _listening(port, process)
        yield System(name, f"ws://127.0.0.1:{port}/twilio/media", {name: process.pid})
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(20):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
    raise RuntimeError(f"the process ended at once with status {process.returncode}")
