"""Log lines: a static message, values as fields, the call's id on each line of a call.

Levels: ERROR a call or the process suffers and somebody should look; WARNING a peer misbehaved or
something was given up, the call goes on; INFO one line when a call starts and one when it ends,
and what a process does as a whole; DEBUG per event, never on by default.

Speech, transcripts, telephone numbers, pressed digits, secrets and raw payloads of peers are not
logged at any level.
"""

from __future__ import annotations

import logging
import sys
from typing import cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from runtime.config import LogConfig

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure(service: str, config: LogConfig) -> None:
    """Set up logging of this process, once; lines go to standard error.

    Args:
        service: Name of the service, a field of each line.
        config: Format and level.
    """
    level = _LEVELS[config.level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if config.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=32)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)

    # Libraries log through the standard library; what they say of connections may hold payloads
    # at DEBUG, so they never get below WARNING.
    library_handler = logging.StreamHandler(sys.stderr)
    library_handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [library_handler]
    root.setLevel(logging.WARNING)


def get_log(name: str) -> FilteringBoundLogger:
    """A logger; ``.bind(call=call_sid)`` gives one for a call."""
    return cast(FilteringBoundLogger, structlog.get_logger(module=name))
