"""When to ask the model for a response by ourselves. Pure.

As a rule the model's voice detection creates responses. ``response.create`` is ours only for what
the caller is owed and nobody else asks for:

============  =====================================  ================  =====================
owed          since                                  from              when it is refused
============  =====================================  ================  =====================
a greeting    the session is configured, or the      at once, after a  no longer owed: the
              first response failed                  failure later     caller spoke first
the results   a response is over and all functions   at once           owed again: what stood
of functions  that it called have answered                             in the way may not
                                                                       know the results
a retry       a response failed, which is silence    0.5 s later, the  owed again
              to the caller                          next time 1.5 s,
                                                     then not at all
============  =====================================  ================  =====================

What is owed and what is asked is one state. What is owed later replaces what was owed, since one
response answers both; a response that begins by itself answers everything, since it sees the same
conversation. Where there is no arrow, nothing changes:

===============  ===============  ======  =======  ===================  =========  ====
state            owe              ask     created  refused              lapsed     stop
===============  ===============  ======  =======  ===================  =========  ====
NOTHING          OWED             .       .        .                    .          OVER
OWED             OWED             ASKED   NOTHING  .                    .          OVER
ASKED            ASKED_AND_OWED   .       NOTHING  OWED                 NOTHING    OVER
ASKED_AND_OWED   ASKED_AND_OWED   .       NOTHING  OWED (the later)     OWED       OVER
OVER             .                .       .        .                    .          .
===============  ===============  ======  =======  ===================  =========  ====

*ask* is the one arrow with an output, ``response.create``, and the one that we choose. It is taken
as soon as what is owed is due and nothing holds it back:

=====================================  ================  ======================================
held back while                        from              until
=====================================  ================  ======================================
the caller speaks                      speech started    speech stopped, or was committed
a response is under way                its first sign    its end
voice detection is expected to ask     speech stopped    a response is created, or 3 s later
=====================================  ================  ======================================
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from session.realtime.events import CreateResponse, ResponseOptions

EXPECT_S = 3.0
"""How long after the caller's last word we wait for the model to answer by itself. Semantic voice
detection creates its response with the end of speech, level detection too; the rest is network."""

RETRY_DELAYS_S = (0.5, 1.5)
"""After a failed response: rate limits of the inference pool pass in a second or so. The caller
waits three seconds at most; then it is better to let them speak."""


class Owed(enum.Enum):
    """What the caller is owed."""

    GREETING = "greeting"
    RESULTS = "results"
    RETRY = "retry"


LAPSING = frozenset({Owed.GREETING})
"""What has lost its sense once another response came first."""


class State(enum.Enum):
    """What is owed and what is asked; see the table."""

    NOTHING = "nothing"
    OWED = "owed"
    ASKED = "asked"
    """A request is sent and neither answered nor refused."""
    ASKED_AND_OWED = "asked and owed"
    """The same, and something more is owed since."""
    OVER = "over"
    """Nothing is asked for any more."""


class Event(enum.Enum):
    """What changes the state."""

    OWE = "owe"
    ASK = "ask"
    CREATED = "created"
    """A response began, on our request or by itself."""
    REFUSED = "refused"
    LAPSED = "lapsed"
    """Our request was refused, and what it was for has lost its sense."""
    STOP = "stop"


TABLE = {
    (State.NOTHING, Event.OWE): State.OWED,
    (State.NOTHING, Event.STOP): State.OVER,
    (State.OWED, Event.OWE): State.OWED,
    (State.OWED, Event.ASK): State.ASKED,
    (State.OWED, Event.CREATED): State.NOTHING,
    (State.OWED, Event.STOP): State.OVER,
    (State.ASKED, Event.OWE): State.ASKED_AND_OWED,
    (State.ASKED, Event.CREATED): State.NOTHING,
    (State.ASKED, Event.REFUSED): State.OWED,
    (State.ASKED, Event.LAPSED): State.NOTHING,
    (State.ASKED, Event.STOP): State.OVER,
    (State.ASKED_AND_OWED, Event.OWE): State.ASKED_AND_OWED,
    (State.ASKED_AND_OWED, Event.CREATED): State.NOTHING,
    (State.ASKED_AND_OWED, Event.REFUSED): State.OWED,
    (State.ASKED_AND_OWED, Event.LAPSED): State.OWED,
    (State.ASKED_AND_OWED, Event.STOP): State.OVER,
}
"""State and event to state. What is not here changes nothing."""


@dataclass(frozen=True, slots=True)
class _Debt:
    owed: Owed
    due_at: float
    instructions: str | None
    """For this response alone. None: the session's."""


class Replies:
    """Decides when to send ``response.create``; see the module for the tables.

    The conversation reports what happens and calls :meth:`next` after every event and timer.
    """

    def __init__(self) -> None:
        self._state = State.NOTHING
        self._debt: _Debt | None = None
        """What is owed and not asked for."""
        self._asked: tuple[str, _Debt] | None = None
        """The request without an answer: its ``event_id``, and what it is for."""
        self._expected_until = 0.0
        self._failures = 0
        """Responses that failed one after the other."""
        self.speaking = False
        """The caller is."""

    @property
    def state(self) -> State:
        """What is owed and what is asked."""
        return self._state

    # --- what is owed -------------------------------------------------------------------------

    def owe(self, owed: Owed, *, at: float, instructions: str | None = None) -> None:
        """The model ought to speak as soon as the line is quiet.

        Args:
            owed: What for.
            at: Not before this, in monotonic seconds.
            instructions: For this response alone. None: the session's.
        """
        self._debt = _Debt(owed, at, instructions)
        self._take(Event.OWE)

    def stop(self) -> None:
        """Ask for nothing any more."""
        self._take(Event.STOP)

    # --- what the model does ------------------------------------------------------------------

    def created(self) -> None:
        """A response began, on our request or by itself."""
        self._expected_until = 0.0
        self._debt = None
        self._asked = None
        self._take(Event.CREATED)

    def done(self, *, failed: bool, greeting: str | None, now: float) -> None:
        """A response ended.

        Args:
            failed: Its status.
            greeting: Instructions of the greeting while that is owed, for the next attempt; None
                once the model has spoken.
            now: Monotonic seconds.
        """
        if not failed or self._failures >= len(RETRY_DELAYS_S):
            self._failures = 0
            return
        owed = Owed.RETRY if greeting is None else Owed.GREETING
        self.owe(owed, at=now + RETRY_DELAYS_S[self._failures], instructions=greeting)
        self._failures += 1

    def refused(self, event_id: str) -> None:
        """The model refused an event of ours, perhaps the request."""
        if self._asked is None or self._asked[0] != event_id:
            return
        debt = self._asked[1]
        self._asked = None
        if debt.owed in LAPSING:
            self._take(Event.LAPSED)
            return
        self._debt = self._debt or debt
        self._take(Event.REFUSED)

    # --- what the caller does -----------------------------------------------------------------

    def speech_started(self) -> None:
        """The caller speaks."""
        self.speaking = True

    def speech_stopped(self, *, now: float) -> None:
        """The caller stopped: voice detection is about to create a response."""
        self.speaking = False
        self._expected_until = now + EXPECT_S

    def committed(self) -> None:
        """What the caller said is an item, with or without the end of speech."""
        self.speaking = False

    # --- what is to be sent -------------------------------------------------------------------

    def next(self, event_id: str, *, responding: bool, now: float) -> CreateResponse | None:
        """The request to send now, if any.

        Args:
            event_id: For the request.
            responding: A response is under way.
            now: Monotonic seconds.
        """
        due = self.next_timer(responding=responding)
        debt = self._debt
        if due is None or debt is None or now < due:
            return None
        self._debt = None
        self._asked = event_id, debt
        self._take(Event.ASK)
        options = None if debt.instructions is None else ResponseOptions(debt.instructions)
        return CreateResponse(event_id=event_id, response=options)

    def next_timer(self, *, responding: bool) -> float | None:
        """When :meth:`next` has something without any event; None: it takes one."""
        debt = self._debt
        if self._state is not State.OWED or debt is None or responding or self.speaking:
            return None
        return max(debt.due_at, self._expected_until)

    def _take(self, event: Event) -> None:
        self._state = TABLE.get((self._state, event), self._state)
