"""Whatever the server, the caller and the functions do: nobody is left without an answer, or nagged.

The machine that decides who asks the model to speak is driven in virtual time, and always called
when its timer is due. Beside it a ledger of what the caller waits for is kept, by rules simpler than
the machine's, and held against what it does after every step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from session.realtime.debts import NEWS, Kind
from session.realtime.events import CreateResponse, ErrorDetail
from session.realtime.replies import (
    ASKED_S,
    ENDING_S,
    EXPECT_S,
    MAX_FAILURES,
    SPEAKING_S,
    STALLED_S,
    TELL_S,
    End,
    GiveUp,
    Replies,
    Sorry,
)
from session.realtime.waits import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, LONGEST_NAMED_S, PER_MINUTE
from tests.examples import examples

NOW = 100.0
SLACK_S = 1e-6
"""Of times that were added as floats."""

SETTLED_S = (
    (MAX_FAILURES + 1) * (EXPECT_S + ASKED_S + STALLED_S + LONGEST_BACKOFF_S)
    + LONGEST_NAMED_S
    + 60.0
)
"""Within so much silence of all others the machine settles what is owed: each attempt fails in the
slowest way (one more after an answer that was silent), then a wait that was named, and the minute
that requests before may have used up."""

WAITS_S = {
    "It broke.": 0.0,
    "Rate limit reached. Please try again in 300ms.": 0.3,
    "Please try again in 1.5s.": 1.5,
    "Please try again in 20s.": 20.0,
}
MESSAGES = st.sampled_from(sorted(WAITS_S))
CODES = ("server_error", "rate_limit_exceeded", "conversation_already_has_active_response")
WEAK = sorted(set(Kind) - NEWS, key=lambda kind: kind.value)
"""What has lost its sense once there are news to speak of."""


@dataclass(slots=True, eq=False)
class Wait:
    """Something that the caller waits for."""

    kind: Kind
    since: float
    """When it began to."""
    waited_s: float = 0.0
    """In which neither the server nor the caller did anything to it."""
    missing: bool = False
    """Results that it is about are not in the conversation yet."""


@dataclass(slots=True, eq=False)
class Response:
    """One of the server's, under way."""

    response_id: str
    knows: list[Wait]
    began_at: float
    sign_at: float
    raced: str | None = None
    """A request of ours that came while it was under way: the server will refuse that."""
    cut: bool = False


class AnyServer(RuleBasedStateMachine):
    """A line with a caller, a server and functions that do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.jitters = self._jitters()
        self.subject = Replies(lambda: next(self.jitters))
        self.now = NOW
        self.over = False
        self.waits: list[Wait] = []
        self.request: tuple[str, float, list[Wait]] | None = None
        """Without an answer: its id, when it was sent, and what it was for."""
        self.late: str | None = None
        """One that had no answer in time."""
        self.requested_at: list[float] = []
        self.response: Response | None = None
        self.begun = 0
        self.failures = 0
        """In a row, as the machine can see them."""
        self.silent = False
        self.not_before = 0.0
        self.speaking_since: float | None = None
        self.expected_until = 0.0
        self.calls: list[int] = []
        """Functions at work; so many of each response, whose results belong together."""
        self.told = 0
        """Results on their way into the conversation."""

    @staticmethod
    def _jitters() -> Iterator[float]:
        while True:
            yield from (0.0, 0.5, 1.0)

    # --- time, and what the machine does ----------------------------------------------------

    def _pass(self, seconds: float) -> None:
        """Time passes; the machine is called when it wants to be, and never long after."""
        until = self.now + seconds
        while (due := self.subject.next_timer()) is not None and due <= until:
            self._advance(max(self.now, due))
            self._drain()
        self._advance(until)

    def _advance(self, at: float) -> None:
        if self.speaking_since is None:
            for wait in self.waits:
                wait.waited_s += at - self.now
        self.now = at
        if self.request is not None and at >= self.request[1] + ASKED_S:
            self._failed(self.request[1] + ASKED_S)
            self.late, self.request = self.request[0], None

    def _drain(self) -> None:
        for _ in range(3):
            step = self.subject.next(f"r{len(self.requested_at) + 1}", now=self.now)
            if step is None:
                return
            self._take(step)
        raise AssertionError("a tight loop")

    def _take(self, step: CreateResponse | GiveUp | Sorry) -> None:
        assert not self.over
        if isinstance(step, GiveUp):
            response = self.response
            assert response is not None and response.response_id == step.response_id
            patience_s = ENDING_S if response.cut else STALLED_S
            assert self.now >= response.sign_at + patience_s - SLACK_S, "given up too early"
            self._end(End.CUT if response.cut else End.FAILED)
            return
        assert self.response is None, "a response is under way"
        speaks_since = self.speaking_since
        if speaks_since is not None:
            assert self.now >= speaks_since + SPEAKING_S - SLACK_S, "the caller speaks"
        assert self.request is None, "a request is under way"
        assert self.waits, "nothing was to be said"
        if isinstance(step, Sorry):
            assert self.failures >= MAX_FAILURES
            assert self.now >= min(w.since for w in self.waits) + TELL_S - SLACK_S, "too early"
            self._settle(list(self.waits))
            self.failures, self.silent = 0, False
            return
        if self.failures >= MAX_FAILURES:
            assert self.now < min(w.since for w in self.waits) + TELL_S, "never told"
        assert self.now >= self.not_before - SLACK_S, "sooner than the server or we said"
        assert self.now >= self.expected_until - SLACK_S, "voice detection is about to answer"
        self.requested_at.append(self.now)
        minute = [at for at in self.requested_at if at > self.now - 60.0 + SLACK_S]
        assert len(minute) <= PER_MINUTE
        self.request = step.event_id, self.now, list(self.waits)
        instructed = step.response is not None
        kinds = {wait.kind for wait in self.waits}
        assert not instructed or kinds.isdisjoint(NEWS) or Kind.CONTINUATION in kinds

    # --- the ledger -------------------------------------------------------------------------

    def _owe(self, wait: Wait) -> None:
        if self.over:
            return
        taken = self.response.knows if self.response is not None else []
        standing = [w for w in self.waits if w not in taken or w.missing]
        self.waits.append(wait)
        self._make_void([*standing, wait])

    def _make_void(self, standing: list[Wait]) -> None:
        """What is not said since there are news."""
        kinds = {wait.kind for wait in standing}
        void = set(Kind) - NEWS
        if Kind.ANSWER not in kinds:
            void -= {Kind.CONTINUATION}
        if not kinds.isdisjoint(NEWS):
            self._settle([wait for wait in standing if wait.kind in void])

    def _settle(self, settled: list[Wait]) -> None:
        self.waits = [wait for wait in self.waits if wait not in settled]

    def _failed(self, at: float, named_s: float = 0.0) -> None:
        backoff_s = min(FIRST_BACKOFF_S * 2**self.failures, LONGEST_BACKOFF_S)
        self.failures += 1
        self.not_before = max(self.not_before, at + backoff_s, at + named_s)

    def _begin(self, asked_for: list[Wait]) -> Response:
        self.begun += 1
        response_id = f"R{self.begun}"
        knows = [w for w in self.waits if not w.missing or w in asked_for]
        self.response = response = Response(response_id, knows, self.now, self.now)
        self.expected_until = 0.0
        self.subject.begun(response_id, now=self.now)
        return response

    def _end(self, end: End, named_s: float = 0.0) -> None:
        response, self.response = self.response, None
        assert response is not None
        if end is End.SPOKE:
            self._settle(response.knows)
            self.failures, self.silent = 0, False
            self._stir()
        elif end is not End.CUT:
            if all(wait.missing for wait in response.knows) and not self.over:
                self._owe(Wait(Kind.ANSWER, response.began_at))
            else:
                self._make_void(self.waits)
            if end is End.FAILED or self.silent:
                self._failed(self.now, named_s)
            self.silent = end is End.SILENT
        self.subject.done(response.response_id, end, now=self.now, named_s=named_s or None)

    def _stir(self) -> None:
        """Something came that has the caller wait anew."""
        for wait in self.waits:
            wait.waited_s = 0.0

    # --- the server -------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.9, 5.0, 16.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    @rule(
        what=st.sampled_from(["answers", "answers", "refuses", "speaks by itself"]),
        code=st.sampled_from(CODES),
        message=MESSAGES,
        named=st.booleans(),
    )
    def the_server(self, what: str, code: str, message: str, named: bool) -> None:
        """A request is answered or refused, or one that raced a response is refused."""
        if self.response is not None:
            if self.response.raced is not None:
                self._refuse_raced(code, named=named)
        elif self.request is None or what == "speaks by itself":
            response = self._begin([])
            self._stir()
            if self.request is not None:
                response.raced, self.request = self.request[0], None
        elif what == "answers":
            asked_for, self.request = self.request[2], None
            self._begin(asked_for)
        else:
            event_id, self.request = self.request[0], None
            self._failed(self.now, WAITS_S[message])
            self._error(code, message, event_id if named else None)

    def _refuse_raced(self, code: str, *, named: bool) -> None:
        assert self.response is not None
        event_id, self.response.raced = self.response.raced, None
        self._error(code, "There is an active response.", event_id if named else None)

    def _error(self, code: str, message: str, event_id: str | None) -> bool:
        detail = ErrorDetail(code=code, message=message, event_id=event_id)
        return self.subject.refused(detail, now=self.now)

    @precondition(lambda self: self.response is not None)
    @rule(
        end=st.sampled_from([None, End.SPOKE, End.SPOKE, End.SPOKE, End.SILENT, End.FAILED]),
        calls=st.integers(0, 2),
        quick=st.booleans(),
        message=MESSAGES,
    )
    def the_response(self, end: End | None, calls: int, quick: bool, message: str) -> None:
        """It goes on, or ends."""
        response = self.response
        assert response is not None
        if end is None:
            response.sign_at = self.now
            self.subject.sign(self.now)
            self._stir()
            return
        if response.raced is not None:
            self._refuse_raced(CODES[2], named=True)
        if response.cut:
            self._end(End.CUT)
            return
        called = end is End.SPOKE and calls > 0 and not self.over
        if called and quick:  # all have answered, and joined the conversation, before its end
            self.subject.results_added(False)
            self.subject.results_added(not self.told)
        self._end(end, WAITS_S[message] if end is End.FAILED else 0.0)
        if called and quick:
            self._owe_results(missing=self.told > 0)
        elif called:
            self.calls.append(calls)
            self.subject.calling = True

    @rule(
        what=st.sampled_from(["limit", "of another", "of a late request", "of voice detection's"]),
        seconds=st.sampled_from([0.3, 6.0, LONGEST_NAMED_S]),
        message=MESSAGES,
    )
    def the_server_says_something_else(self, what: str, seconds: float, message: str) -> None:
        """A limit is used up, or an error comes that is not about our request."""
        if what == "limit":
            self.subject.limited(seconds, now=self.now)
            self.not_before = max(self.not_before, self.now + seconds)
            self._stir()
        elif what == "of another" or (what == "of a late request" and self.late is None):
            assert not self._error("invalid_value", message, None)
            assert not self._error("server_error", message, "e7")
        elif what == "of a late request":
            assert not self._error("server_error", message, self.late)
        elif self.request is None and self.response is None:
            assert not self._error("rate_limit_exceeded", message, None)
            if any(wait.kind is Kind.ANSWER for wait in self.waits):
                self.expected_until = 0.0
                self._failed(self.now, WAITS_S[message])

    # --- functions --------------------------------------------------------------------------

    @precondition(lambda self: self.calls or self.told)
    @rule(returns=st.booleans())
    def a_function(self, returns: bool) -> None:
        """It answers, or an answer joins the conversation."""
        if self.calls and (returns or not self.told):
            self.told += 1
            self.subject.results_added(False)
            self.calls[0] -= 1
            if not self.calls[0]:
                self.calls.pop(0)
                self.subject.calling = bool(self.calls)
                self._owe_results(missing=True)
            return
        self.told -= 1
        self.subject.results_added(not self.told)
        for wait in self.waits if not self.told else ():
            if wait.missing and self.response is not None and wait in self.response.knows:
                self.response.knows.remove(wait)  # so it was read without them
            wait.missing = False

    def _owe_results(self, *, missing: bool) -> None:
        self.subject.owe(Kind.RESULTS, now=self.now)
        self._owe(Wait(Kind.RESULTS, self.now, missing=missing))

    # --- the caller -------------------------------------------------------------------------

    @rule(what=st.sampled_from(["speaks", "cuts in", "stops", "is a turn"]))
    def the_caller(self, what: str) -> None:
        if what in ("speaks", "cuts in"):
            self.speaking_since = self.now
            self.subject.speech_started(now=self.now)
        if what == "cuts in" and self.response is not None:
            self.response.cut, self.response.sign_at = True, self.now
            # The turn that follows is owed an answer of its own, and noise a continuation.
            self._settle([wait for wait in self.response.knows if not wait.missing])
            self.subject.cut(now=self.now)
        if what == "stops" and self.speaking_since is not None:
            self.speaking_since = None
            self.subject.speech_stopped(now=self.now)
            self._stir()
        if what == "is a turn":
            self.speaking_since = None
            blocked = self.response is not None and not self.response.cut
            self.expected_until = 0.0 if blocked else self.now + EXPECT_S
            self.subject.committed("U", now=self.now)
            self._owe(Wait(Kind.ANSWER, self.now))
            self._stir()

    @rule(kind=st.sampled_from(WEAK))
    def something_is_owed(self, kind: Kind) -> None:
        instructions = f"About the {kind.value}."
        self.subject.owe(kind, now=self.now, instructions=instructions)
        self._owe(Wait(kind, self.now))

    @precondition(lambda self: len(self.requested_at) > 3)
    @rule()
    def the_caller_hangs_up(self) -> None:
        self.over = True
        self.subject.stop()
        self.waits.clear()

    # --- what holds -------------------------------------------------------------------------

    @invariant()
    def does_what_is_due(self) -> None:
        self._drain()

    @invariant()
    def whoever_waits_is_not_forgotten(self) -> None:
        if self.waits:
            assert self.subject.next_timer() is not None
            if self.speaking_since is None:
                assert self.subject.owing(self.now) is not None
        for wait in self.waits:
            assert wait.waited_s <= SETTLED_S, wait

    @invariant()
    def nobody_waits_once_the_call_is_over(self) -> None:
        if self.over:
            assert self.subject.next_timer() is None
            assert self.subject.owing(self.now) is None

    def teardown(self) -> None:
        """The server is well again, and nobody says anything: all is settled, and then it is quiet."""
        self.the_caller("stops")
        self._stir()
        while self.waits or self.response is not None or self.request is not None:
            if self.response is not None:
                self.the_response(End.SPOKE, 0, quick=False, message="It broke.")
            elif self.request is not None:
                self.the_server("answers", CODES[0], "It broke.", named=True)
            else:
                due = self.subject.next_timer()
                assert due is not None
                self._pass(max(due - self.now, 0.0))
            self._drain()
            self.whoever_waits_is_not_forgotten()
        requests = len(self.requested_at)
        self._pass(120.0)
        assert len(self.requested_at) == requests
        if not self.calls:
            assert self.subject.owing(self.now) is None


AnyServer.TestCase.settings = settings(
    max_examples=examples(200), stateful_step_count=40, deadline=None
)
TestAnyServer = AnyServer.TestCase

TIMES_S = (0.0, 0.1, 0.5, 1.0, 2.9, 5.0, 16.0, 61.0)


@pytest.mark.parametrize("seed", range(examples(400)))
def test_long_calls(seed: int) -> None:
    """The same in calls so long that all that can come together does, somewhere."""
    chance = random.Random(seed)
    machine = AnyServer()
    pick, messages = chance.choice, sorted(WAITS_S)
    for _ in range(300):
        match chance.randrange(16):
            case 0 | 1:
                machine.time_passes(pick(TIMES_S))
            case 2:
                what = ("speaks", "cuts in", "stops", "is a turn")
                machine.the_caller(pick(what))
            case 3:
                machine.something_is_owed(pick(WEAK))
            case 4 if chance.random() < 0.3:
                what = ("limit", "of another", "of a late request", "of voice detection's")
                machine.the_server_says_something_else(pick(what), 6.0, pick(messages))
            case 5 | 6 | 7 | 8 if machine.calls or machine.told:
                machine.a_function(pick((True, False)))
            case 9 | 10 | 11 if machine.response is not None:
                ends = (None, End.SPOKE, End.SPOKE, End.SPOKE, End.SILENT, End.FAILED)
                machine.the_response(
                    pick(ends), pick((0, 1, 2)), pick((True, False)), pick(messages)
                )
            case _:
                what = ("answers", "answers", "refuses", "speaks by itself")
                machine.the_server(pick(what), pick(CODES), pick(messages), pick((True, False)))
        machine.does_what_is_due()
        machine.whoever_waits_is_not_forgotten()
    machine.teardown()
