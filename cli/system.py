"""The whole system as processes of this machine: what is started, with which ports, how it ends.

:func:`plan` is pure: environment in, programs out. :class:`Supervisor` runs programs, prefixes
their lines, says loudly when one dies, and stops them in order. ``asheard up``, the demo, the
benchmarks and the end-to-end tests all start the system with these.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

import aiohttp

from gateway.config import REUSE_PORT
from runtime.config import Address, Environment, address
from runtime.process import EXIT_FAILED, EXIT_USAGE, SUPERVISED

QUICK_DEATH_S = 5.0
"""A process that dies so soon after its start will probably do so again."""

MAX_QUICK_DEATHS = 3
"""So often in a row, and the supervisor gives up instead of spinning."""

RESTART_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the system."""

    name: str
    """Prefix of its log lines."""
    arguments: tuple[str, ...]
    """Arguments of ``asheard``."""
    environment: Mapping[str, str]
    """All of its environment."""
    ready_url: str | None = None
    """Answers 200 when the program is ready. None: nothing to ask."""
    command: tuple[str, ...] = (sys.executable, "-m", "cli.main")
    """What the arguments are given to: ``asheard``, by the interpreter that runs us."""


def on_one_machine(environment: Environment) -> dict[str, str]:
    """The environment of a system whose parts all run on this machine.

    What only they, or people at this machine, have to reach is on loopback; the gateway's public
    port is open. What the operator has set stays.
    """
    return {**_INNER, **{name: value for name, value in environment.items() if value}}


_INNER = {
    "ASHEARD_SESSION_LISTEN": "127.0.0.1:50061",
    "ASHEARD_TRANSCRIPT_LISTEN": "127.0.0.1:50071",
    "ASHEARD_GATEWAY_ADMIN": "127.0.0.1:9101",
    "ASHEARD_TRANSCRIPT_ADMIN": "127.0.0.1:9102",
    "ASHEARD_SESSION_ADMIN": "127.0.0.1:9103",
}
"""The rest (viewer, facts) is on loopback wherever it runs."""


def plan(environment: Environment, *, sessions: int) -> list[Program]:
    """The programs of a system with ``sessions`` session workers, in the order of their start.

    Worker i listens at the session port + i and has its admin port at the session admin port + i;
    ``ASHEARD_SESSION_TARGETS`` follows from that. All but the gateway's public port is on loopback,
    unless the environment says otherwise.

    Raises:
        ConfigurationError: An address is unusable.
    """
    environment = on_one_machine(environment)
    transcript_admin, gateway_admin, session_listen, session_admin = (
        address(environment, name, _INNER[name])
        for name in (
            "ASHEARD_TRANSCRIPT_ADMIN",
            "ASHEARD_GATEWAY_ADMIN",
            "ASHEARD_SESSION_LISTEN",
            "ASHEARD_SESSION_ADMIN",
        )
    )
    common = {**environment, SUPERVISED: "1"}

    workers = [
        Program(
            name=f"session-{i}",
            arguments=("session",),
            environment={
                **common,
                "ASHEARD_SESSION_LISTEN": str(session_listen.offset(i)),
                "ASHEARD_SESSION_ADMIN": str(session_admin.offset(i)),
            },
            ready_url=_ready_url(session_admin.offset(i)),
        )
        for i in range(sessions)
    ]
    targets = ",".join(
        str(Address(reachable(session_listen.host), session_listen.port + i))
        for i in range(sessions)
    )
    return [
        Program("transcript", ("transcript",), common, _ready_url(transcript_admin)),
        *workers,
        Program(
            "gateway",
            ("gateway",),
            {**common, "ASHEARD_SESSION_TARGETS": targets},
            _ready_url(gateway_admin),
        ),
    ]


def plan_processes(service: str, environment: Environment, processes: int) -> list[Program]:
    """One service as several processes.

    Process i has its admin port at the service's admin port + i. Gateways share their public port,
    and the kernel spreads the connections. Session worker i listens at the session port + i: a
    gateway must be able to name the worker that has a call.

    Raises:
        ConfigurationError: An address is unusable.
    """
    admin_name = f"ASHEARD_{service.upper()}_ADMIN"
    admin = address(environment, admin_name, _ADMIN_DEFAULTS[service])
    session_listen = address(environment, "ASHEARD_SESSION_LISTEN", "0.0.0.0:50061")
    programs = []
    for i in range(processes):
        own = {admin_name: str(admin.offset(i))}
        if service == "gateway":
            own[REUSE_PORT] = "on"
        else:
            own["ASHEARD_SESSION_LISTEN"] = str(session_listen.offset(i))
        programs.append(
            Program(
                f"{service}-{i}",
                (service,),
                {**environment, SUPERVISED: "1", **own},
                _ready_url(admin.offset(i)),
            )
        )
    return programs


_ADMIN_DEFAULTS = {"gateway": "0.0.0.0:9101", "session": "0.0.0.0:9103"}


def reachable(host: str) -> str:
    """Where a listener at ``host`` can be called from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody listens at just now, in a row: first, first + 1, …

    They lie below the range from which the kernel takes the ports of outgoing connections, so that
    none of those takes one away between this look and the listening.
    """
    while True:
        first = random.randrange(10_000, 32_000 - count)
        taken: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                taken.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        finally:
            for listener in taken:
                listener.close()
        return list(range(first, first + count))


def on_free_ports(environment: Environment, *, sessions: int) -> dict[str, str]:
    """The environment with every listening address on loopback at a free port."""
    ports = free_ports(6 + 2 * sessions)
    gateway, gateway_admin, transcript, ingest, transcript_admin, viewer, session = ports[:7]
    session_admin = session + sessions
    return {
        **environment,
        "ASHEARD_GATEWAY_LISTEN": f"127.0.0.1:{gateway}",
        "ASHEARD_GATEWAY_ADMIN": f"127.0.0.1:{gateway_admin}",
        "ASHEARD_TRANSCRIPT_LISTEN": f"127.0.0.1:{transcript}",
        "ASHEARD_TRANSCRIPT_TARGET": f"127.0.0.1:{transcript}",
        "ASHEARD_INGEST_LISTEN": f"127.0.0.1:{ingest}",
        "ASHEARD_INGEST_TARGET": f"127.0.0.1:{ingest}",
        "ASHEARD_TRANSCRIPT_ADMIN": f"127.0.0.1:{transcript_admin}",
        "ASHEARD_VIEWER_LISTEN": f"127.0.0.1:{viewer}",
        "ASHEARD_SESSION_LISTEN": f"127.0.0.1:{session}",
        "ASHEARD_SESSION_ADMIN": f"127.0.0.1:{session_admin}",
    }


class Supervisor:
    """Runs programs until told to stop.

    A program that dies is reported in one line and started again after a second. One that ends
    with exit status 2 (bad configuration), or dies again and again right after its start, ends the
    whole system: :attr:`failed` is set.

    Args:
        programs: In the order of their start; they are stopped in the reverse order, so that the
            gateway drains its calls while everything it needs still serves.
        output: Where the prefixed lines go.
    """

    def __init__(self, programs: Sequence[Program], output: TextIO = sys.stderr) -> None:
        self._programs = list(programs)
        self._output = output
        self._width = max(len(program.name) for program in programs)
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._stopping: set[str] = set()
        self.failed = asyncio.Event()
        """Set when the system cannot go on."""
        self.exit_status = 0
        """What the supervisor's own exit status should be, once :attr:`failed` is set."""

    async def start(self) -> None:
        """Start all programs."""
        for program in self._programs:
            process = await self._launch(program)
            self._watchers[program.name] = asyncio.create_task(
                self._watch(program, process), name=f"watch {program.name}"
            )

    def process(self, name: str) -> asyncio.subprocess.Process:
        """The running process of a program, for tests that kill it."""
        return self._running[name]

    async def ready(self, deadline_s: float = 30.0) -> None:
        """Wait until every program says that it is ready.

        Raises:
            TimeoutError: One was not ready in time; its last answer is in the text.
        """
        answer = ""
        try:
            async with asyncio.timeout(deadline_s), aiohttp.ClientSession() as http:
                for program in self._programs:
                    while program.ready_url and not self.failed.is_set():
                        try:
                            async with http.get(program.ready_url) as response:
                                answer = f"{program.name}: {(await response.text()).strip()}"
                                if response.status == 200:
                                    break
                        except aiohttp.ClientError:
                            answer = f"{program.name}: its admin port does not answer"
                        await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise TimeoutError(f"not ready after {deadline_s:.0f} s: {answer}") from error

    async def stop(self, now: asyncio.Event | None = None, *, together: bool = False) -> None:
        """Stop all programs, the last started first, each by SIGTERM and with time to drain.

        Args:
            now: When it is set, whatever still runs gets a second SIGTERM, which ends it at once.
            together: All get their SIGTERM at once: none of them needs another to drain.
        """
        if together:
            await asyncio.gather(*(self._stop_one(program, now) for program in self._programs))
        else:
            for program in reversed(self._programs):
                await self._stop_one(program, now)
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)

    async def _stop_one(self, program: Program, now: asyncio.Event | None) -> None:
        self._stopping.add(program.name)
        process = self._running.get(program.name)
        if process is None or process.returncode is not None:
            return
        self._signal(process, signal.SIGTERM)
        ended = asyncio.ensure_future(process.wait())
        if now is not None:
            hurry = asyncio.ensure_future(now.wait())
            await asyncio.wait({ended, hurry}, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if not ended.done():
                self._signal(process, signal.SIGTERM)
        await ended

    def kill(self) -> None:
        """End whatever still runs, without asking."""
        for name, process in self._running.items():
            self._stopping.add(name)
            self._signal(process, signal.SIGKILL)

    def say(self, text: str, name: str = "asheard") -> None:
        """Print one prefixed line."""
        print(f"{name:<{self._width}} | {text}", file=self._output, flush=True)

    async def _launch(self, program: Program) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *program.command,
            *program.arguments,
            env=dict(program.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C goes to the whole foreground group; only the supervisor is to hear it.
            process_group=0,
            limit=1 << 20,
        )
        self._running[program.name] = process
        return process

    async def _watch(self, program: Program, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        quick_deaths = 0
        while True:
            started_at = loop.time()
            await self._copy_lines(program, process)
            status = await process.wait()
            if program.name in self._stopping:
                if status != 0:
                    self.say(f"{program.name} ended with {_describe(status)}")
                return
            lived_s = loop.time() - started_at
            quick_deaths = quick_deaths + 1 if lived_s < QUICK_DEATH_S else 0
            self.say(f"{program.name} died: {_describe(status)}, after {lived_s:.1f} s")
            if status == EXIT_USAGE or quick_deaths >= MAX_QUICK_DEATHS:
                self.exit_status = EXIT_USAGE if status == EXIT_USAGE else EXIT_FAILED
                self.failed.set()
                return
            await asyncio.sleep(RESTART_AFTER_S)
            if program.name in self._stopping:
                return
            self.say(f"starting {program.name} again")
            process = await self._launch(program)

    async def _copy_lines(self, program: Program, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise AssertionError("the process was started with a pipe")
        async for line in process.stdout:
            self.say(line.decode(errors="replace").rstrip(), program.name)

    @staticmethod
    def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        # Not process.send_signal: it polls first, and so may take the exit status from under the
        # event loop's own watcher.
        if process.returncode is None:
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                pass  # It ended, and was reaped, between our look and our signal.


def _ready_url(admin: Address) -> str:
    return f"http://{Address(reachable(admin.host), admin.port)}/readyz"


def _describe(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of asheard's, for demos and tests."""
    foreign = ("ASHEARD_", "TWILIO_", "OPENAI_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
