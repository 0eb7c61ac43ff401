"""When the model is asked to speak: the code does what its tables say."""

from __future__ import annotations

import pytest

from asheard.v1 import transcript_pb2
from session.realtime import replies
from session.realtime.debts import Kind
from session.realtime.events import CreateResponse, ErrorDetail, ResponseOptions
from session.realtime.faults import REFUSALS
from session.realtime.replies import (
    ASKED_S,
    COMMIT_S,
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
    State,
)
from session.realtime.waits import FIRST_BACKOFF_S

NOW = 100.0
GREETING = "Say hello."
MODEL = transcript_pb2.DEAD_AIR_REASON_MODEL
TOOL = transcript_pb2.DEAD_AIR_REASON_TOOL
REFUSED = transcript_pb2.DEAD_AIR_REASON_REFUSED
NO_RESPONSE = transcript_pb2.DEAD_AIR_REASON_NO_RESPONSE


def owe(subject: Replies, kind: Kind = Kind.RESULTS, now: float = NOW) -> None:
    subject.owe(kind, now=now, instructions=GREETING if kind is Kind.GREETING else None)


def owed(subject: Replies) -> tuple[Kind, ...]:
    return subject.owed


def refuse(
    subject: Replies, event_id: str | None = "r1", code: str = "x", now: float = NOW
) -> bool:
    return subject.refused(ErrorDetail(code=code, event_id=event_id), now=now)


def in_state(state: State) -> Replies:
    """One that is in this state, with something owed, by the shortest way."""
    subject = Replies()
    owe(subject)
    if state is State.ASKED:
        assert subject.next("r1", now=NOW) is not None
    if state is State.UNDER_WAY:
        subject.begun("R", now=NOW)
    if state is State.OVER:
        subject.stop()
    assert subject.state is state
    return subject


def feed(subject: Replies, state: State, event: str) -> object:
    """Have an event of the table occur."""
    match event:
        case "ask":
            return subject.next("r2", now=NOW)
        case "begun":
            subject.begun("R2", now=NOW)
        case "refused":
            refuse(subject)
        case "ended":
            subject.done("R", End.SPOKE if state is State.UNDER_WAY else End.CUT, now=NOW)
        case "stop":
            subject.stop()
    return None


def table() -> dict[tuple[State, str], State]:
    """The one in the module's text."""
    rows = [line.split() for line in (replies.__doc__ or "").splitlines()]
    header = next(row for row in rows if row[:2] == ["state", "ask"])
    arrows = {}
    for state in State:
        row = next(row for row in rows if row[:1] == [state.name])
        assert len(row) == len(header)
        for event, cell in zip(header[1:], row[1:], strict=True):
            arrows[state, event] = state if cell == "." else State[cell]
    return arrows


@pytest.mark.parametrize(("state", "event"), table())
def test_the_code_does_what_the_table_says(state: State, event: str) -> None:
    subject = in_state(state)
    step = feed(subject, state, event)
    assert subject.state is table()[state, event]
    assert isinstance(step, CreateResponse) == (state is State.QUIET and event == "ask")


# --- what a response can know -----------------------------------------------------------------


def test_a_result_is_known_to_what_begins_after_the_server_has_added_it() -> None:
    for added, asked in ((True, False), (False, True)):
        subject = Replies()
        subject.results_added(False)
        owe(subject)
        if added:
            subject.results_added(True)
        subject.begun("R", now=NOW)
        if not added:
            subject.results_added(True)
        subject.done("R", End.SPOKE, now=NOW)
        assert (subject.next("r1", now=NOW) is not None) == asked


def test_a_result_owed_after_a_response_that_knew_it_had_spoken_is_not_owed() -> None:
    """The end of the response that called the function came late."""
    subject = Replies()
    subject.begun("R1", now=NOW)
    subject.results_added(False)
    subject.results_added(True)
    subject.begun("R2", now=NOW)
    subject.done("R1", End.SPOKE, now=NOW)
    owe(subject)
    assert owed(subject) == (), "the response under way took it over"
    subject.done("R2", End.FAILED, now=NOW)
    assert owed(subject) == (Kind.RESULTS,)
    subject.begun("R3", now=NOW)
    subject.done("R3", End.SPOKE, now=NOW)
    owe(subject)
    assert owed(subject) == (), "one spoke of it meanwhile"


@pytest.mark.parametrize("answer", ["none", "refused with its id", "refused without an id"])
def test_what_the_server_never_adds_is_known_to_the_response_that_was_asked_for(
    answer: str,
) -> None:
    subject = Replies()
    subject.results_added(False)
    owe(subject)
    assert subject.next("r1", now=NOW) is not None
    subject.begun("R", now=NOW)
    if answer != "none":
        event_id = "r1" if answer == "refused with its id" else None
        assert refuse(subject, event_id, "conversation_already_has_active_response")
    subject.done("R", End.SPOKE, now=NOW)
    assert (subject.next("r2", now=NOW) is None) == (answer == "none")


def test_even_what_was_asked_for_does_not_know_results_that_joined_after_it_began() -> None:
    subject = Replies()
    subject.results_added(False)
    owe(subject)
    assert subject.next("r1", now=NOW) is not None
    subject.begun("R", now=NOW)
    subject.results_added(True)
    subject.done("R", End.SPOKE, now=NOW)
    assert subject.next("r2", now=NOW) is not None


def test_what_was_owed_twice_is_settled_once_by_what_knows_both() -> None:
    subject = Replies()
    subject.committed("U", now=NOW)
    subject.begun("R1", now=NOW)
    subject.committed("U", now=NOW)
    subject.done("R1", End.SPOKE, now=NOW)
    assert owed(subject) == (Kind.ANSWER,), "the second turn came after its beginning"
    subject.begun("R2", now=NOW)
    subject.done("R2", End.SPOKE, now=NOW)
    assert owed(subject) == ()


def test_news_make_void_what_has_instructions_of_its_own() -> None:
    for news in (Kind.ANSWER, Kind.RESULTS):
        for other in (Kind.GREETING, Kind.CONTINUATION, Kind.WAITING):
            for order in ((news, other), (other, news)):
                subject = Replies()
                if (news, other) == (Kind.RESULTS, Kind.CONTINUATION):
                    continue  # the next test
                for kind in order:
                    owe(subject, kind)
                assert owed(subject) == (news,)
                assert subject.next("r1", now=NOW) == CreateResponse(event_id="r1")
    subject = Replies()
    owe(subject, Kind.GREETING)
    assert subject.next("r1", now=NOW) == CreateResponse(
        event_id="r1", response=ResponseOptions(GREETING)
    )


# --- how a response ends ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.GREETING, Kind.ANSWER, Kind.RESULTS])
def test_what_becomes_of_the_debts_that_a_response_took_over(kind: Kind) -> None:
    for end, left, after_s in (
        (End.SPOKE, (), None),
        (End.CUT, (), None),
        (End.SILENT, (kind,), 0.0),
        (End.FAILED, (kind,), FIRST_BACKOFF_S),
    ):
        subject = Replies()
        owe(subject, kind)
        subject.begun("R", now=NOW)
        subject.done("R", end, now=NOW)
        assert owed(subject) == left
        due = subject.next_timer()
        assert due == (None if after_s is None else max(after_s and NOW + after_s, 0.0))
        if due is not None:
            request = subject.next("r1", now=NOW + FIRST_BACKOFF_S)
            assert isinstance(request, CreateResponse)
            assert (request.response is not None) == (kind is Kind.GREETING)


@pytest.mark.parametrize(
    "order", [(Kind.RESULTS, Kind.CONTINUATION), (Kind.CONTINUATION, Kind.RESULTS)]
)
def test_results_are_spoken_of_together_with_what_noise_cut_off(order: tuple[Kind, ...]) -> None:
    subject = Replies()
    for kind in order:
        subject.owe(kind, now=NOW, instructions="Go on." if kind is Kind.CONTINUATION else None)
    request = subject.next("r1", now=NOW)
    assert request == CreateResponse(event_id="r1", response=ResponseOptions("Go on."))
    subject.begun("R", now=NOW)
    assert owed(subject) == ()


def test_what_a_turn_made_void_is_owed_again_when_nobody_spoke_in_it() -> None:
    subject = Replies()
    owe(subject, Kind.GREETING)
    subject.committed("U", now=NOW)
    subject.committed("V", now=NOW)
    assert owed(subject) == (Kind.ANSWER,)
    subject.no_turn("U")
    assert owed(subject) == (Kind.ANSWER,), "the other turn stands"
    subject.no_turn("V")
    assert owed(subject) == (Kind.GREETING,)
    assert subject.next("r1", now=NOW) is not None, "voice detection is not waited for"


def test_what_was_asked_for_a_turn_that_was_none_does_not_settle_what_is_owed_again() -> None:
    subject = Replies()
    owe(subject, Kind.GREETING)
    subject.committed("U", now=NOW)
    assert subject.next("r1", now=NOW + EXPECT_S) is not None
    subject.no_turn("U")
    subject.begun("R", now=NOW + EXPECT_S)
    subject.done("R", End.SPOKE, now=NOW + EXPECT_S)
    assert owed(subject) == (Kind.GREETING,)


def test_an_answer_that_is_owed_for_more_than_turns_is_not_withdrawn_with_them() -> None:
    subject = Replies()
    owe(subject, Kind.ANSWER)
    subject.committed("U", now=NOW)
    subject.no_turn("U")
    assert owed(subject) == (Kind.ANSWER,)


def test_what_a_turn_made_void_is_void_for_good_once_it_is_being_answered() -> None:
    subject = Replies()
    owe(subject, Kind.GREETING)
    subject.committed("U", now=NOW)
    subject.begun("R", now=NOW)
    subject.no_turn("U")
    assert owed(subject) == ()
    subject.done("R", End.SPOKE, now=NOW)
    subject.committed("V", now=NOW)
    subject.no_turn("V")
    assert owed(subject) == ()


def test_a_response_that_failed_though_nothing_was_owed_is_owed_as_an_answer() -> None:
    subject = Replies()
    subject.done("R", End.FAILED, now=NOW)
    assert owed(subject) == (Kind.ANSWER,)


def test_what_is_silent_twice_has_failed_and_after_three_failures_the_caller_is_told() -> None:
    subject = Replies()
    owe(subject)
    subject.begun("R1", now=NOW)
    subject.done("R1", End.SILENT, now=NOW)
    now = NOW
    for attempt in range(MAX_FAILURES):
        due = subject.next_timer()
        assert due is not None
        now = max(now, due)
        assert isinstance(subject.next(f"r{attempt}", now=now), CreateResponse)
        subject.begun(f"S{attempt}", now=now)
        subject.done(f"S{attempt}", End.SILENT, now=now)
    assert subject.next("r9", now=NOW + TELL_S) == Sorry()
    assert owed(subject) == ()
    assert subject.next_timer() is None


def test_the_end_of_what_never_began_and_was_cut_takes_nothing_over() -> None:
    subject = Replies()
    subject.committed("U", now=NOW)
    subject.done("R0", End.CUT, now=NOW)
    assert owed(subject) == (Kind.ANSWER,)


def test_a_response_without_a_sign_is_given_up() -> None:
    for cut, after_s in ((False, STALLED_S), (True, ENDING_S)):
        subject = in_state(State.UNDER_WAY)
        subject.sign(NOW + 1)
        if cut:
            subject.cut(now=NOW + 1)
        due = NOW + 1 + after_s
        assert subject.next_timer() == due
        assert subject.next("r1", now=due - 0.01) is None
        assert subject.next("r1", now=due) == GiveUp("R")
        subject.done("R", End.FAILED, now=due)
        assert owed(subject) == (() if cut else (Kind.RESULTS,))


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["with its id", *sorted(REFUSALS), "no answer"])
def test_all_ways_to_be_refused_are_the_same(how: str) -> None:
    subject = in_state(State.ASKED)
    now = NOW
    if how == "no answer":
        now += ASKED_S
        assert subject.next("r2", now=now - 0.01) is None
        assert subject.next("r2", now=now) is None
    else:
        assert refuse(subject, "r1" if how == "with its id" else None, how)
    assert subject.state is State.QUIET
    assert subject.owing(now) == REFUSED
    assert subject.next_timer() == now + FIRST_BACKOFF_S
    assert subject.next("r2", now=now + FIRST_BACKOFF_S - 0.01) is None
    assert subject.next("r2", now=now + FIRST_BACKOFF_S) is not None


def test_an_error_about_something_else_refuses_nothing() -> None:
    subject = in_state(State.ASKED)
    assert not refuse(subject, "another event of ours", "server_error")
    assert not refuse(subject, None, "invalid_value")
    assert subject.state is State.ASKED


def test_the_wait_that_the_server_names_is_waited_for() -> None:
    subject = in_state(State.ASKED)
    detail = ErrorDetail(
        code="rate_limit_exceeded", event_id="r1", message="Please try again in 6s."
    )
    subject.refused(detail, now=NOW)
    assert subject.next_timer() == NOW + 6
    subject.limited(7.5, now=NOW)
    assert subject.next_timer() == NOW + 7.5
    assert subject.owing(NOW + 7) == REFUSED


def test_after_three_refusals_the_caller_is_told_as_soon_as_it_has_waited_for_long_enough() -> None:
    subject = Replies()
    owe(subject)
    now, asked_at = NOW, []
    for attempt in range(MAX_FAILURES + 1):
        due = subject.next_timer()
        assert due is not None
        now = max(now, due)
        assert isinstance(subject.next(f"r{attempt}", now=now), CreateResponse)
        asked_at.append(now - NOW)
        refuse(subject, f"r{attempt}", now=now)
    assert asked_at == pytest.approx([0, 0.5, 1.5, 3.5])
    assert subject.next_timer() == NOW + TELL_S
    assert subject.next("r9", now=NOW + TELL_S - 0.1) is None
    now = NOW + TELL_S
    assert subject.next("r9", now=now) == Sorry()
    owe(subject, now=now)
    assert isinstance(subject.next("r10", now=now + 20), CreateResponse), "counted from anew"


# --- what holds it back -----------------------------------------------------------------------


def test_nothing_is_asked_while_the_caller_speaks_but_not_for_ever() -> None:
    subject = in_state(State.QUIET)
    subject.speech_started(now=NOW)
    assert subject.next("r1", now=NOW + SPEAKING_S - 0.01) is None
    assert subject.next("r1", now=NOW + SPEAKING_S) is not None


def test_voice_detection_is_waited_for_first_to_commit_and_then_to_ask() -> None:
    subject = in_state(State.QUIET)
    subject.speech_started(now=NOW)
    subject.speech_stopped(now=NOW)
    assert subject.next_timer() == NOW + COMMIT_S
    subject.committed("U", now=NOW + 0.1, since=NOW - 0.5)
    assert subject.next_timer() == NOW + 0.1 + EXPECT_S
    assert subject.owing_since() == NOW - 0.5
    assert subject.owing(NOW + 1) == MODEL
    assert subject.owing(NOW + 0.1 + EXPECT_S) == NO_RESPONSE
    assert subject.next("r1", now=NOW + 0.1 + EXPECT_S) is not None


def test_a_noise_after_a_turn_does_not_shorten_the_wait_for_its_answer() -> None:
    subject = Replies()
    subject.committed("U", now=NOW)
    subject.speech_started(now=NOW)
    subject.speech_stopped(now=NOW)
    assert subject.next_timer() == NOW + EXPECT_S


def test_voice_detection_is_not_waited_for_where_it_cannot_ask() -> None:
    for why in ("a response is under way", "it was refused"):
        subject = Replies()
        if why == "a response is under way":
            subject.begun("R", now=NOW)
        subject.committed("U", now=NOW)
        if why == "it was refused":
            refuse(subject, None, "conversation_already_has_active_response")
        else:
            subject.done("R", End.SPOKE, now=NOW)
        due = subject.next_timer()
        assert due is not None and due <= NOW + FIRST_BACKOFF_S
        assert subject.next("r1", now=max(NOW, due)) is not None


def test_a_turn_that_was_none_is_not_owed_an_answer() -> None:
    subject = Replies()
    subject.committed("U", now=NOW)
    subject.no_turn("U")
    assert subject.owing(NOW) is None
    assert subject.next_timer() is None


def test_a_function_is_waited_for_as_long_as_nothing_else_is() -> None:
    subject = Replies()
    subject.calling = True
    assert subject.owing(NOW) == TOOL
    subject.committed("U", now=NOW)
    assert subject.owing(NOW) == MODEL
    subject.begun("R", now=NOW)
    subject.cut(now=NOW)
    assert subject.owing(NOW) == TOOL, "what was cut is not waited for"


def test_who_is_owed_a_word_while_a_function_works_waits_for_the_function() -> None:
    subject = Replies()
    subject.calling = True
    subject.owe(Kind.WAITING, now=NOW, instructions="Say so.")
    assert subject.owing(NOW) == TOOL
    request = subject.next("r1", now=NOW)
    assert isinstance(request, CreateResponse)
    assert request.response == ResponseOptions("Say so.", tool_choice="none")
    assert subject.owing(NOW) == TOOL
    subject.begun("R", now=NOW)
    assert subject.owing(NOW) == TOOL
    subject.owe(Kind.RESULTS, now=NOW)
    subject.calling = False
    assert subject.owing(NOW) == MODEL


def test_who_is_being_answered_does_not_wait_for_a_function() -> None:
    subject = Replies()
    subject.calling = True
    subject.begun("R", now=NOW)
    subject.owe(Kind.WAITING, now=NOW, instructions="Say so.")
    assert subject.owing(NOW) == MODEL


def test_a_word_that_the_model_refuses_for_good_is_said_in_its_place() -> None:
    subject, now = Replies(), NOW
    subject.calling = True
    subject.owe(Kind.WAITING, now=now, instructions="Say so.")
    for attempt in range(MAX_FAILURES + 1):
        now = subject.next_timer() or now
        assert isinstance(subject.next(f"r{attempt}", now=now), CreateResponse)
        subject.refused(ErrorDetail(code="server_error", event_id=f"r{attempt}"), now=now)
    now = subject.next_timer() or now
    assert subject.next("r", now=now) == Sorry(waiting=True)
    assert subject.owing(now) == TOOL


def test_once_it_is_over_nothing_is_owed() -> None:
    subject = in_state(State.OVER)
    subject.committed("U", now=NOW)
    subject.begun("R", now=NOW)
    subject.done("R", End.FAILED, now=NOW)
    assert subject.owing(NOW) is None
    assert subject.next_timer() is None
