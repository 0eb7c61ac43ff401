"""Recorded sessions with the live API, where they are; see the tests that read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DIRECTORY = Path(__file__).parents[3] / "shared" / "data" / "realtime_recordings"

WHY_SKIPPED = "the recordings are not part of the project: ../shared/data is absent"


@dataclass(frozen=True)
class Recording:
    """Both directions of one WebSocket session, in order."""

    name: str
    messages: tuple[tuple[str, dict[str, Any]], ...]
    """Direction (``sent``, ``received``) and event."""

    @property
    def received(self) -> list[dict[str, Any]]:
        """What the server said."""
        return [event for direction, event in self.messages if direction == "received"]


def recordings() -> list[Recording]:
    """All of them; none where they are absent."""
    if not DIRECTORY.is_dir():
        return []
    found = []
    for path in sorted(DIRECTORY.glob("*.yaml")):
        interactions = yaml.safe_load(path.read_text())["interactions"]
        messages = tuple(
            (i["direction"], i["data"])
            for i in interactions
            if i.get("kind") == "message" and i.get("data")
        )
        if messages:
            found.append(Recording(path.stem, messages))
    return found
