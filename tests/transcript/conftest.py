"""What tests of the transcript service share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.transcript.running_server import Client, running


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """Of a service of its own, on a new file."""
    async with running(tmp_path / "facts.db") as client:
        yield client
