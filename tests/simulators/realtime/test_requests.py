"""Requests to speak that are refused, not answered, or answered late."""

from __future__ import annotations

from simulators.realtime.faults import RateLimits, RequestFault
from simulators.realtime.script import AgentScript, Reply, Speak, say
from simulators.realtime.session_truth import FaultPlayed
from tests.simulators.realtime.drive import (
    LINE,
    ORDER,
    Drive,
    ask,
    kinds,
    only,
    only_error,
    played,
    said,
)


def test_first_request_is_refused_and_the_second_answered() -> None:
    drive = Drive(AgentScript(replies=(say(LINE),), refusals=(RequestFault(),)))
    error = only_error(ask(drive, "first"))
    assert (error["type"], error["code"]) == ("server_error", "server_error")
    assert error["event_id"] == "first"
    drive.wait(400)
    assert kinds(ask(drive, "second")) == ["response.created"]
    drive.wait(5_000)
    assert said(drive) == [LINE]
    first, second = drive.truth.requests
    assert (first.at_ms, first.event_id, first.answer, first.code) == (
        0,
        "first",
        "refused",
        "server_error",
    )
    assert (second.at_ms, second.answer) == (400, "created")
    assert second.response_id == drive.truth.generations[0].response_id
    assert drive.truth.faults == [FaultPlayed(0, "refused", "first")]


def test_refusal_need_not_name_the_request() -> None:
    fault = RequestFault(code="conversation_already_has_active_response", names_request=False)
    drive = Drive(AgentScript(refusals=(fault,)))
    assert only_error(ask(drive, "first"))["event_id"] is None


def test_errors_of_a_session_need_not_name_what_they_are_about() -> None:
    drive = Drive(AgentScript(replies=(say(LINE),), names_in_errors=False))
    ask(drive, "first")
    error = only_error(ask(drive, "second"))
    assert error["code"] == "conversation_already_has_active_response"
    assert error["event_id"] is None


def test_refusals_go_by_number() -> None:
    drive = Drive(AgentScript(refusals=(RequestFault(2, times=2),)))
    answers = []
    for number in range(4):
        answers += [e["type"] for e in ask(drive, f"r{number}")]
        drive.wait(5_000)
    assert answers == ["response.created", "error", "error", "response.created"]


def test_rate_limit_refuses_until_its_time_is_over() -> None:
    fault = RequestFault(
        code="rate_limit_exceeded", message="Please try again in 6s.", for_ms=6_000
    )
    drive = Drive(AgentScript(refusals=(fault,)))
    for _ in range(3):
        assert only_error(ask(drive, "r"))["message"] == "Please try again in 6s."
        drive.wait(1_999)
    drive.wait(3)
    assert kinds(ask(drive, "r")) == ["response.created"]


def test_request_may_never_be_answered_or_late() -> None:
    faults = (RequestFault(answer="none"), RequestFault(2, answer="response", after_ms=7_000))
    drive = Drive(AgentScript(refusals=faults))
    assert ask(drive, "first") + drive.wait(60_000) == []
    assert ask(drive, "second") + drive.wait(6_999) == []
    assert kinds(drive.wait(1)) == ["response.created"]
    assert [r.answer for r in drive.truth.requests] == ["none", "created"]
    assert drive.truth.requests[1].answered_ms == 67_000
    assert played(drive) == ["unanswered", "answered_late"]


def test_late_refusal_comes_after_a_response_that_began_meanwhile() -> None:
    fault = RequestFault(code="conversation_already_has_active_response", after_ms=4_000)
    drive = Drive(AgentScript(replies=(say(LINE),), refusals=(fault,)))
    ask(drive, "first")
    names = kinds(drive.hear_speech(ORDER) + drive.wait(2_000))
    assert names.index("response.created") < names.index("error")


def test_request_keeps_its_instructions_in_the_truth() -> None:
    drive = Drive(AgentScript())
    ask(drive, "first", instructions="Greet the caller.")
    assert drive.truth.requests[0].instructions == "Greet the caller."


def test_requests_are_refused_while_nothing_is_left() -> None:
    spent = Reply((Speak(LINE),), rate_limits=RateLimits(reset_s=8.0))
    drive = Drive(AgentScript(replies=(spent,)))
    ask(drive, "first")
    limits = only(drive.wait(5_000), "rate_limits.updated")["rate_limits"]
    assert limits == [{"name": "requests", "limit": 1_000, "remaining": 0, "reset_seconds": 8.0}]
    done_ms = drive.truth.generations[0].done_ms
    error = only_error(ask(drive, "second"))
    assert error["code"] == "rate_limit_exceeded"
    assert f"try again in {(done_ms + 8_000 - drive.now) / 1000:g}s" in error["message"]
    drive.wait(done_ms + 8_000 - drive.now)
    assert kinds(ask(drive, "third")) == ["response.created"]


def test_limits_may_be_said_at_the_beginning_and_leave_something() -> None:
    limits = RateLimits("tokens", remaining=500, at="created")
    drive = Drive(AgentScript(replies=(Reply((Speak(LINE),), rate_limits=limits),)))
    assert kinds(ask(drive, "first")) == ["response.created", "rate_limits.updated"]
    drive.wait(5_000)
    assert kinds(ask(drive, "second")) == ["response.created"]
