"""The way between two simulated ends: delay, jitter, and what happens to marks on it.

Randomness comes in as a :class:`random.Random`, so that a seed repeats a run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Path:
    """One direction of an ordered connection."""

    delay_ms: int = 0
    """Least time on the way."""
    jitter_ms: int = 0
    """On top of it, evenly spread between 0 and this."""


DIRECT = Path()
"""No delay."""


class Link:
    """Says when what is sent now arrives; nothing overtakes, as in any TCP connection."""

    def __init__(self, path: Path, random_source: random.Random) -> None:
        self._path = path
        self._random = random_source
        self._last_ms = 0

    @property
    def instant(self) -> bool:
        """Nothing is ever delayed."""
        return self._path == DIRECT

    def arrival_ms(self, sent_ms: int) -> int:
        """When a message sent at ``sent_ms`` arrives, not before the one sent before it."""
        jitter_ms = self._random.randint(0, self._path.jitter_ms) if self._path.jitter_ms else 0
        self._last_ms = max(self._last_ms, sent_ms + self._path.delay_ms + jitter_ms)
        return self._last_ms


@dataclass(frozen=True, slots=True)
class MarkFaults:
    """What goes wrong with mark echoes. Nothing of it is known to happen; a bridge must survive it.

    The three are shares of all echoes, between 0 and 1.
    """

    lost: float = 0.0
    late: float = 0.0
    """Held back for ``late_ms`` while later messages pass it."""
    late_ms: int = 400
    duplicated: float = 0.0

    def fate(self, random_source: random.Random) -> tuple[int, ...]:
        """Extra delay of each copy of one echo that goes out; empty if it is lost."""
        if random_source.random() < self.lost:
            return ()
        delay_ms = self.late_ms if random_source.random() < self.late else 0
        if random_source.random() < self.duplicated:
            return (delay_ms, delay_ms)
        return (delay_ms,)


@dataclass(frozen=True, slots=True)
class Network:
    """Conditions of one call."""

    to_server: Path = DIRECT
    from_server: Path = DIRECT
    marks: MarkFaults = MarkFaults()
    seed: int = 0


PERFECT = Network()
"""No delay and no fault."""
