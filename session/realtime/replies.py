"""When to ask the model for a response by ourselves. Pure.

As a rule the model's voice detection creates responses; ``response.create`` is ours only for the
greeting, for the results of tools, and after a response that failed, which is silence to the
caller. Only one response may be under way: we ask when none is, the caller is silent, and none is
to be expected from voice detection. A response that comes by itself makes ours superfluous, since
it sees the same conversation.
"""

from __future__ import annotations

from dataclasses import dataclass

from session.realtime.events import CreateResponse, ResponseOptions

EXPECT_S = 3.0
"""How long after the caller's last word we wait for the model to answer by itself. Semantic voice
detection creates its response with the end of speech, level detection too; the rest is network."""

RETRY_DELAYS_S = (0.5, 1.5)
"""After a failed response: rate limits of the inference pool pass in a second or so. The caller
waits three seconds at most; then it is better to let them speak."""


@dataclass(frozen=True, slots=True)
class _Wish:
    at: float
    instructions: str | None


class Replies:
    """Decides when to send ``response.create``.

    The conversation reports what happens and calls :meth:`next` after every event and timer.
    """

    def __init__(self) -> None:
        self._wish: _Wish | None = None
        self._asked: tuple[str, _Wish] | None = None
        self._expected_until: float | None = None
        self._failures = 0
        self._stopped = False

    @property
    def wishing(self) -> bool:
        """Something is to be asked for, now or later."""
        return self._wish is not None

    def want(self, *, now: float, instructions: str | None = None) -> None:
        """The model ought to speak as soon as the line is quiet."""
        self._wish = _Wish(now, instructions)

    def stop(self) -> None:
        """Ask for nothing any more."""
        self._stopped = True

    def speech_stopped(self, *, now: float) -> None:
        """Voice detection is about to create a response."""
        self._expected_until = now + EXPECT_S

    def created(self) -> None:
        """A response began, on our request or by itself."""
        self._expected_until = None
        self._wish = None
        self._asked = None

    def done(self, *, failed: bool, instructions: str | None, now: float) -> bool:
        """A response ended.

        Args:
            failed: Its status.
            instructions: With what to ask again.
            now: Monotonic seconds.

        Returns:
            Whether a failed one will be asked for again.
        """
        if not failed:
            self._failures = 0
            return False
        if self._failures >= len(RETRY_DELAYS_S):
            self._failures = 0
            return False
        self._wish = _Wish(now + RETRY_DELAYS_S[self._failures], instructions)
        self._failures += 1
        return True

    def refused(self, event_id: str) -> None:
        """The model refused an event of ours: when it was the request, it is due again.

        The response that stood in its way may not know a tool's result yet.
        """
        if self._asked is not None and self._asked[0] == event_id:
            wish = self._asked[1]
            # A greeting that lost the race against the caller's first words has lost its sense.
            self._wish = self._wish or (wish if wish.instructions is None else None)
            self._asked = None

    def next(
        self, event_id: str, *, busy: bool, speaking: bool, now: float
    ) -> CreateResponse | None:
        """The request to send now, if any.

        Args:
            event_id: For the request.
            busy: A response is under way.
            speaking: The caller is.
            now: Monotonic seconds.
        """
        wish = self._wish
        if wish is None or busy or speaking or self._asked is not None or self._stopped:
            return None
        if now < wish.at or (self._expected_until is not None and now < self._expected_until):
            return None
        self._wish = None
        self._asked = (event_id, wish)
        options = None if wish.instructions is None else ResponseOptions(wish.instructions)
        return CreateResponse(event_id=event_id, response=options)

    def next_timer(self, *, busy: bool, speaking: bool) -> float | None:
        """When :meth:`next` may have something without any event."""
        if self._wish is None or busy or speaking or self._asked is not None or self._stopped:
            return None
        return max(self._wish.at, self._expected_until or 0.0)
