"""How long to wait before the model is asked again. Pure.

=====================================  ====================================================
since                                  not before
=====================================  ====================================================
requests or responses failed           0.5 s, 1 s, 2 s … later, 20 s at most, and up to a
                                       quarter more by chance
the server named a wait with one       that is over: "try again in 6s", 60 s at most
of its limits has nothing left         it is reset, as the server says; 60 s at most
twelve requests in a minute            the first of them is a minute ago
=====================================  ====================================================

Chance keeps the calls that failed at the same moment from asking at the same moment.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable

from session.realtime.events import RateLimit

FIRST_BACKOFF_S = 0.5
"""Rate limits of the inference pool pass in a second or so."""

LONGEST_BACKOFF_S = 20.0

JITTER = 0.25
"""Of a backoff, at most so much more."""

LONGEST_NAMED_S = 60.0
"""A server that names more is not waited for longer: no caller is there any more."""

PER_MINUTE = 12
"""Requests of ours in a call: a function's result every five seconds."""

_MINUTE_S = 60.0

_NAMED = re.compile(
    r"\b(?:try|retry)(?: again)? (?:in|after) (?P<wait>(?:\d{1,9}(?:\.\d{1,9})?\s?[a-z]+\s?)+)",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"([\d.]+)\s?([a-z]+)", re.IGNORECASE)
_UNITS_S = {
    "ms": 1e-3,
    "mil": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "hou": 3600.0,
}
"""By the first three letters of a unit."""

_MAX_MESSAGE_CHARS = 1000
"""Of a message, so much is looked at."""


def named_wait_s(message: str | None) -> float | None:
    """The wait that a message of the server's names, in seconds; None: none that can be read."""
    found = _NAMED.search((message or "")[:_MAX_MESSAGE_CHARS])
    if found is None:
        return None
    seconds = 0.0
    for amount, unit in _AMOUNT.findall(found["wait"]):
        unit_s = _UNITS_S.get(unit.lower()[:3])
        if unit_s is None:
            break
        seconds += float(amount) * unit_s
    return min(seconds, LONGEST_NAMED_S) or None


def exhausted_s(limits: Iterable[RateLimit]) -> float:
    """How long until every limit that is used up is reset, in seconds; 0: none is used up."""
    waits = [
        limit.reset_seconds or 0.0
        for limit in limits
        if limit.remaining is not None and limit.remaining <= 0
    ]
    return min(max([0.0, *waits]), LONGEST_NAMED_S)


class Pace:
    """Says when the next request may go out; see the module for the table.

    Args:
        jitter: Chance, from 0 to 1.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._not_before = 0.0
        self._asked: deque[float] = deque(maxlen=PER_MINUTE)
        self.failures = 0
        """Requests and responses that failed one after the other."""

    @property
    def due_at(self) -> float:
        """When the next request may go out, in monotonic seconds."""
        if len(self._asked) < PER_MINUTE:
            return self._not_before
        return max(self._not_before, self._asked[0] + _MINUTE_S)

    def asked(self, *, now: float) -> None:
        """A request goes out."""
        self._asked.append(now)

    def failed(self, *, now: float, named_s: float | None = None) -> None:
        """A request was refused, or a response failed.

        Args:
            now: Monotonic seconds.
            named_s: The wait that the server named with it.
        """
        backoff_s = min(FIRST_BACKOFF_S * 2.0**self.failures, LONGEST_BACKOFF_S)
        self.failures = min(self.failures + 1, 10)
        backoff_s *= 1 + JITTER * self._jitter()
        self.wait_until(now + max(backoff_s, named_s or 0.0))

    def succeeded(self) -> None:
        """The model spoke: failures are counted from anew."""
        self.failures = 0

    def wait_until(self, at: float) -> None:
        """Nothing is asked before this; what was said before stands if it is later."""
        self._not_before = max(self._not_before, at)
