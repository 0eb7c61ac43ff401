"""Who is audible on the line now. Pure.

The caller is while it speaks, as the model's voice detection says. The agent is until all audio
that was given to the gateway has been played: by its length, since the gateway plays it without a
break, and reports what was played a moment after it was. A barge-in ends that at once.
"""

from __future__ import annotations

from session.realtime.state import Memory


class Line:
    """Knows since when nobody speaks.

    Args:
        memory: Says how long the agent's audio plays.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._caller_until: float | None = 0.0
        """When the caller said its last word. None: it speaks."""

    @property
    def quiet_from(self) -> float | None:
        """When nobody speaks any more, in monotonic seconds; it may lie ahead. None: the caller
        speaks."""
        if self._caller_until is None:
            return None
        return max(self._caller_until, self._memory.playing_until)

    def caller_speaks(self) -> None:
        """The caller began to speak."""
        self._caller_until = None

    def caller_stopped(self, at: float) -> None:
        """The caller said its last word then, in monotonic seconds, or must have by then."""
        if self._caller_until is None:
            self._caller_until = at

    def agent_given(self, length_s: float, *, now: float) -> None:
        """The gateway was given audio that is not the model's."""
        self._memory.playing_until = max(self._memory.playing_until, now) + length_s

    def agent_silenced(self, *, now: float) -> None:
        """The gateway was told to stop what it plays."""
        self._memory.playing_until = min(self._memory.playing_until, now)
