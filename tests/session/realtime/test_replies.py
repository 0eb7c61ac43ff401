"""When the model is asked to speak: the code does what its table says, and never asks twice."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from session.realtime import replies
from session.realtime.events import CreateResponse, ResponseOptions
from session.realtime.replies import EXPECT_S, RETRY_DELAYS_S, TABLE, Event, Owed, Replies, State
from tests.examples import examples

NOW = 100.0
GREETING = "Say hello."


def owe(subject: Replies, owed: Owed, at: float = NOW) -> None:
    subject.owe(owed, at=at, instructions=GREETING if owed is Owed.GREETING else None)


def ask(subject: Replies, event_id: str = "r1", now: float = NOW) -> CreateResponse | None:
    return subject.next(event_id, responding=False, now=now)


def in_state(state: State, asked: Owed = Owed.RESULTS) -> Replies:
    """One that is in this state, by the shortest way."""
    subject = Replies()
    if state in (State.OWED, State.ASKED, State.ASKED_AND_OWED):
        owe(subject, asked)
    if state in (State.ASKED, State.ASKED_AND_OWED):
        assert ask(subject) is not None
    if state is State.ASKED_AND_OWED:
        owe(subject, Owed.RESULTS)
    if state is State.OVER:
        subject.stop()
    assert subject.state is state
    return subject


def feed(subject: Replies, event: Event) -> CreateResponse | None:
    """Have an event occur."""
    match event:
        case Event.OWE:
            owe(subject, Owed.RESULTS)
        case Event.ASK:
            return ask(subject, "r2")
        case Event.CREATED:
            subject.created()
        case Event.REFUSED | Event.LAPSED:
            subject.refused("r1")
        case Event.STOP:
            subject.stop()
    return None


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_the_code_does_what_the_table_says(state: State, event: Event) -> None:
    subject = in_state(state, Owed.GREETING if event is Event.LAPSED else Owed.RESULTS)
    request = feed(subject, event)
    assert subject.state is TABLE.get((state, event), state)
    assert (request is not None) == (event is Event.ASK and (state, event) in TABLE)
    assert subject.next_timer(responding=False) == (NOW if subject.state is State.OWED else None)


def test_the_table_in_the_text_is_the_one_that_runs() -> None:
    rows = [line.split() for line in (replies.__doc__ or "").splitlines()]
    header = next(row for row in rows if row[:2] == ["state", "owe"])
    arrows = {}
    for state in State:
        row = next(row for row in rows if row[:1] == [state.name])
        cells = [cell for cell in row[1:] if not cell.startswith("(") and not cell.endswith(")")]
        assert len(cells) == len(header) - 1
        for event, cell in zip(header[1:], cells, strict=True):
            if cell != ".":
                arrows[state, Event[event.upper()]] = State[cell]
    assert arrows == TABLE


@pytest.mark.parametrize("owed", Owed)
def test_a_refused_request_is_owed_again_unless_it_has_lost_its_sense(owed: Owed) -> None:
    subject = in_state(State.ASKED, owed)
    subject.refused("another event of ours")
    assert ask(subject, "r2") is None, "the request is still unanswered"
    subject.refused("r1")
    assert (ask(subject, "r2") is None) == (owed is Owed.GREETING)


def test_what_is_owed_later_is_what_is_asked_for() -> None:
    subject = in_state(State.OWED, Owed.GREETING)
    owe(subject, Owed.RESULTS)
    assert ask(subject, "r7") == CreateResponse(event_id="r7")
    subject.created()
    owe(subject, Owed.GREETING)
    assert ask(subject, "r8") == CreateResponse(event_id="r8", response=ResponseOptions(GREETING))


def test_what_failed_is_tried_again_later_and_later_and_then_not() -> None:
    subject = Replies()
    for greeting in (GREETING, None):
        for delay_s in RETRY_DELAYS_S:
            subject.done(failed=True, greeting=greeting, now=NOW)
            due = NOW + delay_s
            assert subject.next_timer(responding=False) == due
            assert ask(subject, now=due - 0.001) is None
            request = ask(subject, now=due)
            assert request is not None
            assert (request.response is None) == (greeting is None)
            subject.created()
        subject.done(failed=True, greeting=greeting, now=NOW)
        assert subject.state is State.NOTHING
    subject.done(failed=True, greeting=None, now=NOW)
    subject.created()
    subject.done(failed=False, greeting=None, now=NOW)
    subject.done(failed=True, greeting=None, now=NOW)
    assert subject.next_timer(responding=False) == NOW + RETRY_DELAYS_S[0], "counted from anew"


def test_nothing_is_asked_while_something_holds_it_back() -> None:
    subject = in_state(State.OWED)
    assert subject.next("r1", responding=True, now=NOW) is None
    assert subject.next_timer(responding=True) is None
    subject.speech_started()
    assert ask(subject) is None
    assert subject.next_timer(responding=False) is None
    subject.speech_stopped(now=NOW)
    assert ask(subject, now=NOW + EXPECT_S - 0.001) is None
    assert subject.next_timer(responding=False) == NOW + EXPECT_S
    assert ask(subject, now=NOW + EXPECT_S) is not None


def test_a_response_that_began_is_expected_no_more_and_a_commit_ends_speech() -> None:
    subject = Replies()
    subject.speech_stopped(now=NOW)
    subject.created()
    owe(subject, Owed.RESULTS)
    subject.speech_started()
    subject.committed()
    assert ask(subject) is not None


class AnyOrder(RuleBasedStateMachine):
    """A line with a caller, a model and functions that do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.subject = Replies()
        self.now = NOW
        self.responding = False
        self.speaking = False
        self.expected_until = 0.0
        self.unanswered: str | None = None
        self.sent = 0
        self.over = False

    @rule(owed=st.sampled_from(Owed), delay_s=st.sampled_from([0.0, 0.5]))
    def something_is_owed(self, owed: Owed, delay_s: float) -> None:
        owe(self.subject, owed, self.now + delay_s)

    @rule()
    def a_response_begins(self) -> None:
        self.subject.created()
        self.responding = True
        self.unanswered, self.expected_until = None, 0.0

    @rule(failed=st.booleans(), greeting=st.sampled_from([GREETING, None]))
    def a_response_ends(self, failed: bool, greeting: str | None) -> None:
        self.subject.done(failed=failed, greeting=greeting, now=self.now)
        self.responding = False

    @rule()
    def the_caller_speaks(self) -> None:
        self.subject.speech_started()
        self.speaking = True

    @rule()
    def the_caller_stops(self) -> None:
        self.subject.speech_stopped(now=self.now)
        self.speaking, self.expected_until = False, self.now + EXPECT_S

    @rule()
    def the_callers_speech_is_committed(self) -> None:
        self.subject.committed()
        self.speaking = False

    @rule(of_the_request=st.booleans())
    def something_is_refused(self, of_the_request: bool) -> None:
        self.subject.refused(self.unanswered or "r0" if of_the_request else "another")
        if of_the_request:
            self.unanswered = None

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.5, EXPECT_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def the_call_is_over(self) -> None:
        self.subject.stop()
        self.over = True

    @rule()
    def a_request_may_be_sent(self) -> None:
        due = self.subject.next_timer(responding=self.responding)
        event_id = f"r{self.sent + 1}"
        request = self.subject.next(event_id, responding=self.responding, now=self.now)
        assert (request is not None) == (due is not None and due <= self.now), "the timer tells"
        if request is None:
            return
        assert request.event_id == event_id
        assert self.unanswered is None, "two requests under way"
        assert not self.responding, "a response is under way"
        assert not self.speaking, "the caller speaks"
        assert self.now >= self.expected_until, "voice detection is about to ask"
        assert not self.over
        self.sent += 1
        self.unanswered = event_id

    @invariant()
    def the_state_is_what_happened(self) -> None:
        state = self.subject.state
        assert (state is State.OVER) == self.over
        if not self.over:
            asked = self.unanswered is not None
            assert asked == (state in (State.ASKED, State.ASKED_AND_OWED))


AnyOrder.TestCase.settings = settings(
    max_examples=examples(100), stateful_step_count=30, deadline=None
)
TestAnyOrder = AnyOrder.TestCase
