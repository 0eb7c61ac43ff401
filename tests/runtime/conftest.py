from __future__ import annotations

import pytest

from runtime import facts


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants to wait for pauses between tries."""
    monkeypatch.setattr(facts, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(facts, "MAX_RETRY_S", 0.01)
    monkeypatch.setattr(facts, "BUSY_S", 0.0)
    monkeypatch.setattr(facts, "LINGER_S", 0.0)
