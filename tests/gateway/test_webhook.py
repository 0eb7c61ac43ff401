"""What the voice webhook decides."""

from __future__ import annotations

import pytest

from asheard.v1 import fact_pb2
from gateway.webhook import (
    MAX_STREAMS,
    Answer,
    answer_after_stream,
    answer_new_call,
    attempt_of,
    stream_number_of,
)


def test_a_new_call_gets_a_stream_or_a_busy_line() -> None:
    assert answer_new_call(has_room=True) is Answer.STREAM
    assert answer_new_call(has_room=False) is Answer.LINES_BUSY


@pytest.mark.parametrize(
    ("call_status", "outcome", "attempt", "expected"),
    [
        # The caller hung up, whatever became of the stream.
        ("completed", fact_pb2.CALL_OUTCOME_DROPPED, 1, Answer.NOTHING),
        ("completed", None, 1, Answer.NOTHING),
        ("", fact_pb2.CALL_OUTCOME_COMPLETED, 1, Answer.NOTHING),
        ("in-progress", fact_pb2.CALL_OUTCOME_COMPLETED, 1, Answer.NOTHING),
        # We ended it.
        ("in-progress", fact_pb2.CALL_OUTCOME_ENDED_BY_AGENT, 1, Answer.HANG_UP),
        ("in-progress", fact_pb2.CALL_OUTCOME_REFUSED, 1, Answer.LINES_BUSY),
        ("in-progress", fact_pb2.CALL_OUTCOME_MODEL_FAILED, 1, Answer.OUT_OF_ORDER),
        # It was lost: the caller is still there.
        ("in-progress", fact_pb2.CALL_OUTCOME_DROPPED, 1, Answer.STREAM),
        ("in-progress", fact_pb2.CALL_OUTCOME_SESSION_LOST, 2, Answer.STREAM),
        ("in-progress", fact_pb2.CALL_OUTCOME_PROTOCOL_ERROR, 1, Answer.STREAM),
        ("in-progress", None, 1, Answer.STREAM),
        ("", None, 1, Answer.STREAM),
        # But not for ever.
        ("in-progress", None, MAX_STREAMS - 1, Answer.STREAM),
        ("in-progress", None, MAX_STREAMS, Answer.OUT_OF_ORDER),
        ("in-progress", fact_pb2.CALL_OUTCOME_DROPPED, MAX_STREAMS, Answer.OUT_OF_ORDER),
    ],
)
def test_after_a_stream(
    call_status: str,
    outcome: fact_pb2.CallOutcome.ValueType | None,
    attempt: int,
    expected: Answer,
) -> None:
    assert answer_after_stream(call_status, outcome, attempt) is expected


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (fact_pb2.CALL_OUTCOME_MODEL_FAILED, Answer.HANG_UP),
        (fact_pb2.CALL_OUTCOME_ENDED_BY_AGENT, Answer.HANG_UP),
        (fact_pb2.CALL_OUTCOME_COMPLETED, Answer.NOTHING),
    ],
)
def test_a_caller_who_was_told_is_not_told_again(
    outcome: fact_pb2.CallOutcome.ValueType, expected: Answer
) -> None:
    assert answer_after_stream("in-progress", outcome, 1, told=True) is expected


@pytest.mark.parametrize(
    ("text", "attempt"), [("1", 1), ("12", 12), ("", 5), ("-1", 5), ("x", 5), ("9999", 5), ("²", 5)]
)
def test_an_attempt_that_makes_no_sense_is_the_last(text: str, attempt: int) -> None:
    assert attempt_of(text) == attempt


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("12", 12), ("", 0), ("-1", 0), ("9999", 0), ("²", 0), ("x", 0)]
)
def test_a_stream_number_that_makes_no_sense_is_none(text: str, number: int) -> None:
    assert stream_number_of(text) == number
