"""Each test runs on the event loop that what it tests has in production.

The services run on uvloop, and it differs where it hurts: a timer that is due within half a
millisecond is no ``TimerHandle``, transports buffer and close in another order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop

import tests.examples  # noqa: F401  # chooses how many there are, before any test is defined

TESTS = Path(__file__).parent

ON_ASYNCIO = {"bench", "cli", "client", "deploy", "simulators", "system"}
"""What runs on asyncio's own loop: commands, simulators, and what starts the services as processes
(those are on uvloop then)."""


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of a test, by its directory; another ``conftest.py`` may say otherwise."""
    if item.path.relative_to(TESTS).parts[0] in ON_ASYNCIO:
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}
