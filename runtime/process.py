"""One service as a process: uvloop, signals, exit status.

SIGTERM and SIGINT ask for a drain, a second one for an end at once. This is the only module that
names uvloop or signals.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop

from asheard.main import EXIT_DONE as EXIT_DONE
from asheard.main import EXIT_FAILED as EXIT_FAILED
from asheard.main import EXIT_USAGE as EXIT_USAGE
from runtime.config import Environment, LogConfig
from runtime.errors import ConfigurationError
from runtime.log import configure

FULL_COLLECTION_S = 120.0
"""How far full collections of garbage are apart. One may halt a process with 450 calls for 70 ms,
which is then a thousandth of the frames; and a finished call leaves some 30 to 60 objects to
collect."""

NEVER = 1 << 30
"""As a threshold of the garbage collector: so many collections of younger garbage are never
made."""

SUPERVISED = "ASHEARD_SUPERVISED"
"""Set by the supervisor for the processes it starts: they end with it, even when it is killed."""


class Stop:
    """How a service learns that it should end."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()
        """Set by the first signal: take no new work, finish what there is."""
        self.now = asyncio.Event()
        """Set by the second signal: end at once."""

    def request(self) -> None:
        """What a signal does."""
        if self.draining.is_set():
            self.now.set()
        self.draining.set()


Service = Callable[[Environment, Stop], Awaitable[None]]


def run_service(name: str, service: Service, environment: Environment | None = None) -> int:
    """Run a service in the foreground until it ends; the exit status.

    Args:
        name: For the log.
        service: Reads its configuration from the mapping, serves until ``stop`` is set, cleans up.
        environment: None: that of the process.

    Returns:
        0 when it ended in order, 2 when its configuration was bad (said on standard error).
    """
    environment = os.environ if environment is None else environment
    if environment.get(SUPERVISED):
        _end_with_parent()
    try:
        configure(name, LogConfig.from_env(environment))
        uvloop.run(_with_signals(service, environment))
    except (ConfigurationError, BaseExceptionGroup) as error:
        # A task group wraps what its tasks raise; anything but bad configuration is a bug.
        bad, other = _split(error)
        if other is not None:
            raise
        for message in bad:
            print(f"asheard {name}: {message}", file=sys.stderr)
        return EXIT_USAGE
    return EXIT_DONE


async def _with_signals(service: Service, environment: Environment) -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.request)
    _tame_garbage_collector()
    collecting = asyncio.create_task(_collect_garbage(), name="garbage collector")
    try:
        await service(environment, stop)
    finally:
        collecting.cancel()


def _tame_garbage_collector() -> None:
    """Keep full collections away from calls: every call of the process waits for one.

    Modules and classes are spared, some 50,000 objects that are never garbage: 130 ms at a gateway
    with 350 calls became 40. And Python would make a full collection whenever there is a quarter
    more to look at than before, which is when calls come, and finds next to nothing then.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, NEVER)


async def _collect_garbage() -> None:
    """Make full collections by the clock."""
    while True:
        await asyncio.sleep(FULL_COLLECTION_S)
        gc.collect()


def _end_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the parent dies, so that no orphan keeps a port."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _split(
    error: BaseException,
) -> tuple[list[ConfigurationError], BaseException | None]:
    """The configuration errors within ``error``, and what else there is."""
    if isinstance(error, ConfigurationError):
        return [error], None
    if not isinstance(error, BaseExceptionGroup):
        return [], error
    bad: list[ConfigurationError] = []
    other: BaseException | None = None
    for inner in error.exceptions:
        inner_bad, inner_other = _split(inner)
        bad.extend(inner_bad)
        other = other or inner_other
    return bad, other
