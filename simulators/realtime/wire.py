"""Server events as they go over the socket."""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]

Sent = Event | str
"""An event, or a text frame as it stands."""

_PADDING = "q7ZtK2mWx9RbV4Ld"


def obfuscation(delta: str) -> str:
    """Padding that brings a delta to an even length, as recorded beside every text delta."""
    return _PADDING[len(delta) % 16 :]


def copied(value: Any) -> Any:
    """A deep copy of a JSON value."""
    if isinstance(value, dict):
        return {k: copied(v) for k, v in value.items()}
    if isinstance(value, list):
        return [copied(v) for v in value]
    return value
