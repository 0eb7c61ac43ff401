"""Who asks the model to speak, and what the caller is owed. Pure: this file alone decides it.

As a rule the model's voice detection creates responses. ``response.create`` is ours for what the
caller is owed and nobody else asks for. What is owed is a debt (:mod:`.debts`), and every debt ends
in speech of the model's, or in words of ours.

A response takes over all debts that it can know when it begins. Others stand until it is over; one
that answered our request, and was not refused to us by its end, knew what we asked for. What becomes
of the debts that a response took over:

================================================  ================================================
a response                                        its debts
================================================  ================================================
spoke, or called functions                        settled
said nothing that can be heard, and called none   owed again at once; the second time as if failed
failed; showed no sign for 15 s                   owed again after a backoff (:mod:`.waits`)
was cut off by the caller                         settled by what follows: a turn is owed an ANSWER,
                                                  noise a CONTINUATION
================================================  ================================================

What is asked and what is under way is one state. Where there is no arrow, nothing changes:

=========  =====  =========  ========  ======  ====
state      ask    begun      refused   ended   stop
=========  =====  =========  ========  ======  ====
QUIET      ASKED  UNDER_WAY  .         .       OVER
ASKED      .      UNDER_WAY  QUIET     .       OVER
UNDER_WAY  .      .          .         QUIET   OVER
OVER       .      .          .         .       .
=========  =====  =========  ========  ======  ====

*begun* and *refused* need not be answers to our request: voice detection's response may come in
between. *refused* is an error with its ``event_id``; or one with none that can be about it
(:data:`~.faults.REFUSALS`); or no answer at all for 5 s. *ended*: of the last response under way.

*ask* is the one arrow that we choose. It is taken as soon as something is owed and nothing holds it
back:

=====================================  ================  ======================================
held back while                        from              until
=====================================  ================  ======================================
the caller speaks                      speech started    speech stopped, or was committed; 60 s
a response is under way                its first sign    its end, or it was heard out (:mod:`.ends`)
voice detection is expected to commit  speech stopped    it is committed, or 1 s later
voice detection is expected to ask     the commit        a response begins, or 3 s later; not
                                                         when one was under way all the time
waits of :mod:`.waits`                 a failure …       as said there
=====================================  ================  ======================================

After three failures in a row, but not before the caller has waited for 5 s, all debts are settled in
words of ours (:class:`Sorry`), and nothing is owed until something new is; until then the model is
asked again.
Where all that was owed is a word while functions are at work, that is what our words say.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from asheard.v1 import transcript_pb2
from session.realtime.debts import Debt, Debts, Kind
from session.realtime.events import CreateResponse, ErrorDetail, ResponseOptions
from session.realtime.faults import REFUSALS
from session.realtime.waits import Pace, named_wait_s

EXPECT_S = 3.0
"""How long after a commit we wait for the model to answer by itself. Voice detection creates its
response with the commit; the rest is network."""

COMMIT_S = 1.0
"""How long after the end of speech its commit may take: the server sends both at once."""

ASKED_S = 5.0
"""How long the answer to a request may take: a round trip, and what the server's queue holds."""

STALLED_S = 15.0
"""How long a response may show no sign."""

ENDING_S = 2.0
"""How long one that the caller cut off may take to say that it is over."""

SPEAKING_S = 60.0
"""How long the caller is believed to speak without a word about it: the end may have been lost."""

MAX_FAILURES = 3
"""In a row; then the caller is told, if it has waited for long enough."""

TELL_S = 5.0
"""How long it waits before it is told: three refusals can come within two seconds, and the next
request may be answered. Less than the patience of :mod:`.dead_air`."""

Reason: TypeAlias = "transcript_pb2.DeadAirReason.ValueType"


class End(enum.Enum):
    """How a response ended, for the caller; see the module."""

    SPOKE = "spoke"
    """It has audio that went to the caller, or called functions."""
    SILENT = "silent"
    """It says that it is over, and there was nothing to be heard in it."""
    FAILED = "failed"
    CUT = "cut"


class State(enum.Enum):
    """What is asked and what is under way; see the table."""

    QUIET = "quiet"
    ASKED = "asked"
    """A request is sent and neither answered nor refused."""
    UNDER_WAY = "under way"
    OVER = "over"
    """Nothing is asked for any more."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A response shows no sign any more: cancel it, and report it with :meth:`Replies.done`."""

    response_id: str
    end: End = End.FAILED
    """To report, unless the caller has cut it off."""


@dataclass(frozen=True, slots=True)
class Sorry:
    """Tell the caller in words of ours that there is no answer. Nothing is owed any more."""

    waiting: bool = False
    """All that was owed is a word while functions are at work: tell the caller to wait instead."""


Step = CreateResponse | GiveUp | Sorry


@dataclass(frozen=True, slots=True)
class _Request:
    event_id: str
    at: float
    debts: tuple[Debt, ...]


@dataclass(slots=True)
class _UnderWay:
    """A response, from its first sign to its end."""

    number: int
    began_at: float
    debts: list[Debt] = field(default_factory=list)
    """That it took over."""
    request: _Request | None = None
    """That it may answer: ours, unless that is refused before its end."""
    cut: bool = False
    heard_out: bool = False

    @property
    def awaited(self) -> bool:
        """Whether the caller waits for something of it."""
        return not self.cut and not self.heard_out


class Replies:
    """Decides when the model is asked to speak; see the module for the tables.

    The conversation reports what happens. After every event and timer it calls :meth:`next` until
    there is nothing more.

    Args:
        jitter: Chance from 0 to 1, for backoffs.
    """

    def __init__(self, jitter: Callable[[], float] = lambda: 0.0) -> None:
        self._pace = Pace(jitter)
        self._debts = Debts()
        self._request: _Request | None = None
        """Without an answer yet."""
        self._under_way: dict[str, _UnderWay] = {}
        self._begun = 0
        """Responses so far; a response's number is this when it has begun."""
        self._spoke = 0
        """Number of the last response that spoke to its end."""
        self.sign_at = 0.0
        """When something of the responses under way came last, in monotonic seconds."""
        self._silent = False
        """The last response that ended said nothing."""
        self._speaking_until: float | None = None
        self._expected_until = 0.0
        self._unanswered = False
        """Voice detection is to answer a turn, or should have."""
        self._over = False
        self.calling = False
        """Functions are under way, as the conversation says."""

    @property
    def state(self) -> State:
        """What is asked and what is under way."""
        if self._over:
            return State.OVER
        if self._under_way:
            return State.UNDER_WAY
        return State.QUIET if self._request is None else State.ASKED

    @property
    def under_way(self) -> Collection[str]:
        """Responses from their first sign to their end, by id."""
        return self._under_way.keys()

    @property
    def speaking(self) -> bool:
        """Whether the caller speaks."""
        return self._speaking_until is not None

    # --- what is owed -------------------------------------------------------------------------

    def owe(
        self, kind: Kind, *, now: float, since: float | None = None, instructions: str | None = None
    ) -> None:
        """The model ought to speak as soon as nothing holds that back.

        Args:
            kind: What about.
            now: Monotonic seconds.
            since: When the caller's wait for it began. None: now.
            instructions: For its response alone. None: the session's.
        """
        since = now if since is None else since
        if kind is not Kind.RESULTS:
            self._debts.add(Debt(kind, since, self._begun + 1, instructions))
            return
        debt = self._debts.results(since)
        if debt.is_known_to(self._spoke):
            return  # a response that knew them has spoken meanwhile
        for response in self._under_way.values():
            if not response.cut and debt.is_known_to(response.number):
                response.debts.append(debt)
                return
        self._debts.add(debt)

    @property
    def owed(self) -> tuple[Kind, ...]:
        """What is owed and no response under way is about; the oldest first."""
        return self._debts.kinds

    def withdraw(self, kind: Kind) -> list[str]:
        """Something is not owed after all; what was asked for it stays so.

        Returns:
            Responses under way that are about nothing else: to be cancelled, if they must not speak.
        """
        self._debts.withdraw(kind)
        return [
            response_id
            for response_id, response in self._under_way.items()
            if not response.cut and response.debts and all(d.kind is kind for d in response.debts)
        ]

    def results_added(self, added: bool) -> None:
        """Whether the server has said of all results that it was sent that they joined the
        conversation: what begins from then on knows them."""
        self._debts.results_added(added, begun=self._begun)

    def stop(self) -> None:
        """Ask for nothing any more."""
        self._over = True
        self._debts.clear()
        self._request = None
        self._under_way.clear()

    def give_up(self) -> list[str]:
        """The caller was told in words of ours: nothing is owed any more.

        Returns:
            Responses under way that must not speak after that: to be cancelled.
        """
        self._debts.clear()
        self._request = None
        self._expected_until = 0.0
        self._unanswered = False
        self._pace.succeeded()
        self._silent = False
        return [response_id for response_id, it in self._under_way.items() if not it.cut]

    # --- what the model does ------------------------------------------------------------------

    def begun(self, response_id: str, *, now: float) -> None:
        """A response showed its first sign, on our request or by itself."""
        if self._over or response_id in self._under_way:
            return
        self._begun += 1
        response = self._under_way[response_id] = _UnderWay(self._begun, now)
        response.debts = self._debts.take_known(response.number)
        response.request, self._request = self._request, None
        self._expected_until = 0.0
        self._unanswered = False
        self.sign(now)

    def heard_out(self, response_id: str, heard_out: bool) -> None:
        """Whether a response was heard to its end, though it is not said to be over."""
        response = self._under_way.get(response_id)
        if response is not None:
            response.heard_out = heard_out

    def sign(self, at: float) -> None:
        """Something of the responses under way came then, in monotonic seconds."""
        self.sign_at = max(self.sign_at, at)

    def cut(self, *, now: float) -> None:
        """The caller has cut off what is under way."""
        for response in self._under_way.values():
            response.cut = True
        self.sign(now)

    def done(self, response_id: str, end: End, *, now: float, named_s: float | None = None) -> None:
        """A response is over.

        Args:
            response_id: Which; one that never showed a sign begins and ends with this.
            end: How.
            now: Monotonic seconds.
            named_s: The wait that the server named.
        """
        if self._over:
            return
        if end is not End.CUT:
            self.begun(response_id, now=now)
        response = self._under_way.pop(response_id, None)
        if response is None or response.cut or end is End.CUT:
            return
        if end is End.SPOKE:
            self._pace.succeeded()
            self._silent = False
            self._spoke = max(self._spoke, response.number)
            for debt in response.request.debts if response.request is not None else ():
                self._debts.settle(debt)
            return
        for debt in response.debts or [Debt(Kind.ANSWER, response.began_at, 0)]:
            debt.known_from = self._begun + 1
            self._debts.add(debt)
        if end is End.FAILED or self._silent:
            self._pace.failed(now=now, named_s=named_s)
        self._silent = end is End.SILENT

    def refused(self, detail: ErrorDetail, *, now: float) -> bool:
        """The model reported an error. Whether it is its No to our request."""
        if detail.event_id is None and str(detail.code or detail.type) not in REFUSALS:
            return False
        request = self._request
        if request is not None and detail.event_id in (None, request.event_id):
            self._request = None
            self._pace.failed(now=now, named_s=named_wait_s(detail.message))
            return True
        for response in self._under_way.values():
            request = response.request
            if request is not None and detail.event_id in (None, request.event_id):
                response.request = None  # it is not ours
                return True
        if detail.event_id is None and Kind.ANSWER in self._debts.kinds:
            # Voice detection was refused in our place: it is not to be waited for.
            self._expected_until = 0.0
            self._pace.failed(now=now, named_s=named_wait_s(detail.message))
        return False

    def limited(self, seconds: float, *, now: float) -> None:
        """The server says that a limit of the account is used up for so long."""
        self._pace.wait_until(now + seconds)

    # --- what the caller does -----------------------------------------------------------------

    def speech_started(self, *, now: float) -> None:
        """The caller speaks."""
        self._speaking_until = now + SPEAKING_S

    def speech_stopped(self, *, now: float) -> None:
        """The caller stopped: voice detection is about to commit what it said, if it was speech."""
        self._speaking_until = None
        self._expected_until = max(self._expected_until, now + COMMIT_S)

    def committed(self, item_id: str, *, now: float, since: float | None = None) -> None:
        """What the caller said is a turn, with or without the end of speech.

        Args:
            item_id: The turn.
            now: Monotonic seconds.
            since: When it said its last word. None: now.
        """
        if self._over:
            return
        self._speaking_until = None
        # The server asks for nothing by itself while a response that it has not cut is under way.
        blocked = any(response.awaited for response in self._under_way.values())
        self._expected_until = 0.0 if blocked else now + EXPECT_S
        self._unanswered = not blocked
        since = now if since is None else since
        self._debts.add(Debt(Kind.ANSWER, since, self._begun + 1, turns={item_id}))

    def no_turn(self, item_id: str) -> None:
        """Nobody spoke in what was committed as a turn: it is owed no answer. One that is asked or
        under way stays so."""
        # A response that is asked for already was not told of anything else.
        known_from = self._begun + (1 if self._request is None else 2)
        if self._debts.no_turn(item_id, known_from=known_from):
            self._expected_until = 0.0
            self._unanswered = False

    # --- what is to be done -------------------------------------------------------------------

    def next(self, event_id: str, *, now: float) -> Step | None:
        """What is to be done now, if anything.

        Args:
            event_id: For a request.
            now: Monotonic seconds.
        """
        due = self.next_timer()
        if due is None or now < due:
            return None
        if self._request is not None:
            self._request = None
            self._pace.failed(now=now)
            return self.next(event_id, now=now)
        for response_id, response in self._under_way.items():
            if now >= self._stalled_at(response):
                return GiveUp(response_id, End.SPOKE if response.heard_out else End.FAILED)
        if now >= self._told_at():
            waiting = self._only_waiting()
            self.give_up()
            return Sorry(waiting=waiting)
        self._speaking_until = None
        self._unanswered = False
        self._pace.asked(now=now)
        self._request = _Request(event_id, now, self._debts.all)
        options = None
        spoken_of = self._debts.spoken_of
        if spoken_of.instructions is not None:
            # Of a call without a result the model is tempted to make another.
            choice = "none" if spoken_of.kind is Kind.WAITING else None
            options = ResponseOptions(spoken_of.instructions, tool_choice=choice)
        return CreateResponse(event_id=event_id, response=options)

    def next_timer(self) -> float | None:
        """When :meth:`next` has something without any event; None: it takes one."""
        if self._over:
            return None
        if self._under_way:
            return min(self._stalled_at(response) for response in self._under_way.values())
        if self._request is not None:
            return self._request.at + ASKED_S
        if not self._debts:
            return None
        held_until = max(self._expected_until, self._speaking_until or 0.0)
        return max(held_until, min(self._pace.due_at, self._told_at()))

    def owing(self, now: float) -> Reason | None:
        """What the caller waits for, if anything."""
        if self._over:
            return None
        if self.calling and self._only_waiting():
            return transcript_pb2.DEAD_AIR_REASON_TOOL
        if any(response.awaited for response in self._under_way.values()) or self._request:
            return transcript_pb2.DEAD_AIR_REASON_MODEL
        if not self._debts:
            return transcript_pb2.DEAD_AIR_REASON_TOOL if self.calling else None
        if self._pace.failures or now < self._pace.due_at:
            return transcript_pb2.DEAD_AIR_REASON_REFUSED
        if self._unanswered and now >= self._expected_until:
            return transcript_pb2.DEAD_AIR_REASON_NO_RESPONSE
        return transcript_pb2.DEAD_AIR_REASON_MODEL

    def owing_since(self) -> float | None:
        """When the caller's wait began for what is owed, in monotonic seconds; functions apart."""
        since = [debt.since for debt in self._debts.all]
        for response in self._under_way.values():
            if response.awaited:
                since += [response.began_at, *(debt.since for debt in response.debts)]
        return min(since, default=None)

    def _only_waiting(self) -> bool:
        """Whether a word while functions are at work is all that is owed, asked or under way."""
        owed = list(self._debts.kinds)
        for response in self._under_way.values():
            if response.awaited:
                owed += [debt.kind for debt in response.debts] or [Kind.ANSWER]
        return bool(owed) and all(kind is Kind.WAITING for kind in owed)

    def _told_at(self) -> float:
        """When the caller is told that there is no answer, if nothing holds that back."""
        if self._pace.failures < MAX_FAILURES:
            return float("inf")
        return (self.owing_since() or 0.0) + TELL_S

    def _stalled_at(self, response: _UnderWay) -> float:
        if response.heard_out and self._debts:
            return self.sign_at
        return self.sign_at + (ENDING_S if response.cut else STALLED_S)
