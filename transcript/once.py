"""Things that are logged once, not once for each fact."""

from __future__ import annotations

from collections import OrderedDict

MAX_REMEMBERED = 10_000
"""Calls of which it is remembered that something was logged: some hours of them."""


class Once:
    """What was logged before, as far as memory goes."""

    def __init__(self) -> None:
        self._said: OrderedDict[tuple[str, str], None] = OrderedDict()

    def first(self, what: str, call_sid: str) -> bool:
        """Whether this is the first time."""
        if (what, call_sid) in self._said:
            return False
        self._said[what, call_sid] = None
        if len(self._said) > MAX_REMEMBERED:
            self._said.popitem(last=False)
        return True
