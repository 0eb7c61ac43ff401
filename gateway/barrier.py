"""What one call raises ends that call alone, in its own clean-up as well.

The gateway's calls share one event loop, one reader of their sockets and one link to each session
worker. An exception that leaves a call there would take the neighbours with it. So whatever runs a
call's code for others runs it through here, and so does each step by which a call ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec

from structlog.typing import FilteringBoundLogger

Arguments = ParamSpec("Arguments")

FAULTS = (Exception, asyncio.CancelledError)
"""What a call's code may raise where no task runs it: there a cancellation is a fault as well."""


def guarded(
    log: FilteringBoundLogger,
    action: Callable[Arguments, object],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> bool:
    """Do something that must not harm anything else; whether it came to its end.

    What it raises is logged, once, and goes no further; only what ends the process does
    (``KeyboardInterrupt``, ``SystemExit``).
    """
    try:
        action(*args, **kwargs)
    except FAULTS as error:
        report(log, "fault while ending or serving one call", error)
        return False
    return True


def surely(log: FilteringBoundLogger, *steps: Callable[[], object]) -> None:
    """Take the first step that comes to its end; each is for what the one before it raised."""
    for step in steps:
        if guarded(log, step):
            return


def report(log: FilteringBoundLogger, event: str, error: BaseException) -> None:
    """Log an exception with its traceback. Never raises, even when nothing can be logged."""
    try:
        log.error(event, exc_info=error)
    except Exception:
        pass  # standard error is closed, say: that is no reason to end a call
