"""Names of marks, which echoes of them are still to come, and what came that was not to come. Pure.

A mark's echo is *expected* until it comes, or until a later one proves as much or its stretch is
settled; from then on it is *late* if it comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.playout.clock import Stamp
from gateway.playout.stretch import Clearing, Mark, Stretch

MAX_UNEXPECTED = 100
"""Echoes of marks that nobody waits for, that are looked at. A network's repeats are a few; a peer
that sends more is only counted."""

MAX_NAME_CHARS = 32
"""What is kept of a name that is not ours."""

UNKNOWN_ROUND_TRIP_US = 300_000
"""What is allowed for a round trip before the first echo measured it."""

SLOWEST_ROUND_TRIP_US = 700_000
"""With the wait on top of it a second: positions are wanted while the caller is still speaking."""

_KINDS = ("s", "p", "f")


@dataclass(slots=True)
class Counts:
    """What did not go as it should, for the metrics. Nothing here is an error of ours."""

    unknown_echoes: int = 0
    """Names that were never sent."""
    repeated_echoes: int = 0
    late_echoes: int = 0
    """Came after an echo that proves more, or after their stretch was settled."""
    missed_echoes: int = 0
    """Proven by a later echo; some still come late."""
    ignored_echoes: int = 0
    """Unknown and repeated ones beyond what is looked at."""
    stray_bytes: int = 0
    """Sent of parts whose position was fixed: the shell broke its word."""


class RoundTrip:
    """How long a mark takes to Twilio and back when nothing is before it."""

    def __init__(self) -> None:
        self.last_us: int | None = None
        """As last measured. None: never."""
        self.allowed_us = UNKNOWN_ROUND_TRIP_US
        """What is to be allowed for it: the slowest so far."""
        self._slowest_us = 0

    def measure(self, sent: Stamp, echo: Stamp) -> None:
        """Take a mark that found an empty buffer, by the media clock if that runs."""
        if sent.reading_us is None or echo.reading_us is None:
            self.last_us = echo.now_us - sent.now_us
        else:
            self.last_us = max(0, echo.reading_us - sent.reading_us)
        self._slowest_us = min(max(self._slowest_us, self.last_us), SLOWEST_ROUND_TRIP_US)
        self.allowed_us = self._slowest_us


class Echoes:
    """One stream's."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.marks: dict[str, tuple[Mark, Stretch]] = {}
        """Expected echoes, of all stretches not settled."""
        self.fences: dict[str, Clearing] = {}
        """Expected echoes of fences."""
        self._late: dict[str, Stretch] = {}
        self._names = 0
        self._unexpected = 0

    def next_name(self, kind: str) -> str:
        """One counter for all, so that a name says when it was given: s3, p4, f5."""
        self._names += 1
        return f"{kind}{self._names}"

    def expect_no_more(self, marks: Iterable[Mark], stretch: Stretch) -> None:
        """Take echoes for late from now on."""
        for mark in marks:
            if self.marks.pop(mark.name, None) is not None:
                self._late[mark.name] = stretch

    def look_at(self, name: str) -> str | None:
        """The name as it is kept; None: it is one too many that nobody waits for, and only
        counted."""
        if name in self.marks or name in self.fences or name in self._late:
            return name
        name = name[:MAX_NAME_CHARS]
        if self._unexpected >= MAX_UNEXPECTED:
            self.count_unexpected(name)
            self.counts.ignored_echoes += 1
            return None
        self._unexpected += 1
        return name

    def count_unexpected(self, name: str) -> Stretch | None:
        """Count an echo that nobody waits for; the stretch of one that is late."""
        late = self._late.pop(name, None)
        if late is not None:
            self.counts.late_echoes += 1
        elif self._is_ours(name):
            self.counts.repeated_echoes += 1
        else:
            self.counts.unknown_echoes += 1
        return late

    def _is_ours(self, name: str) -> bool:
        """Whether a mark of this name was ever given."""
        number = name[1:]
        if name[:1] not in _KINDS or not (number.isascii() and number.isdecimal()):
            return False
        return len(number) <= len(str(self._names)) and 0 < int(number) <= self._names
