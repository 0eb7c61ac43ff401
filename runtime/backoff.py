"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random


class Backoff:
    """Waits that double from one failure to the next, up to a maximum.

    Each is shortened at random by up to a half, so that those who failed together do not come back
    together.

    Args:
        first_s: The first wait, in seconds, before it is shortened.
        max_s: No wait is longer.
    """

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s

    def next_s(self) -> float:
        """The wait after another failure, in seconds."""
        wait_s = self._next_s
        self._next_s = min(2 * wait_s, self._max_s)
        return wait_s * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It worked: the next wait is the first one again."""
        self._next_s = self._first_s
