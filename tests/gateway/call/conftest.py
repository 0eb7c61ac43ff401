"""These tests run in virtual time: what is due comes at once, and when it is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.gateway.call.stage import Stage
from tests.gateway.virtual_time import VirtualLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """See :mod:`tests.gateway.virtual_time`."""
    return {"virtual": VirtualLoop}


@pytest.fixture
async def stage() -> Stage:
    """A call."""
    return Stage()
