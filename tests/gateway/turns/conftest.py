"""These tests run on both event loops: reading in turns deals with the transports of either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """That of most tests, and the one of production."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
