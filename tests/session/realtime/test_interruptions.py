"""Barge-in: what goes to the caller, what is cut, and what the model is told of it."""

from __future__ import annotations

import pytest

from asheard.v1 import fact_pb2
from session.agent import parse_agent
from session.realtime.outputs import Note, PartCut, PartGenerated, PartPlayed
from tests.session.realtime.talk import Talk

CANCELLED = fact_pb2.GENERATION_STATUS_CANCELLED


def test_barge_in_after_generation_truncates_at_the_position() -> None:
    talk = Talk()
    talk.say("R", "A", "Cash or credit? We also have a discount.", 3000)
    talk.caller_audio(1000)
    talk.caller_speaks(audio_start_ms=200)
    (interrupt,) = talk.interrupts
    assert (interrupt.interrupt_id, interrupt.onset_buffer_ms) == (1, 500)
    assert talk.truncations == [], "not before the position is known"
    talk.positions(("A", 1234), interrupt_id=1)
    assert talk.truncations == [("A", 1234)]
    assert talk.facts("item_truncated") == [], "not before the model answered"
    talk.server("conversation.item.truncated", item_id="A", content_index=0, audio_end_ms=1234)
    assert talk.facts("item_truncated") == [
        fact_pb2.ItemTruncated(item_id="A", content_index=0, audio_end_ms=1234, accepted=True)
    ]
    assert talk.of(PartCut) == [PartCut("A", 0, "Cash or credit? We also have a discount.")]


def test_barge_in_while_generating_drops_what_comes_late() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.text("R", "A", "I can tell you a long story")
    talk.audio("R", "A", 1000)
    talk.caller_speaks()
    talk.audio("R", "A", 250)
    talk.positions(("A", 400), interrupt_id=1)
    talk.audio("R", "A", 250)
    talk.item_done("R", "A", "I can tell you a long story about", status="incomplete")
    talk.response_done("R", "cancelled", {"type": "cancelled", "reason": "turn_detected"})
    talk.audio("R", "A", 250)
    assert talk.to_caller == [("A", 1000)], "no stragglers, and no end: it was cut"
    assert talk.noted(Note.STALE) == 3
    assert talk.truncations == [("A", 400)]
    (generated,) = talk.facts("item_generated")
    assert (generated.audio_ms, generated.status) == (1500, CANCELLED)
    assert generated.text == "I can tell you a long story about"
    assert talk.deletions == []


def test_stale_audio_of_one_response_does_not_stop_the_next() -> None:
    talk = Talk()
    talk.response("R1")
    talk.item("R1", "A")
    talk.audio("R1", "A", 500)
    talk.caller_speaks()
    talk.caller_stops()
    talk.response("R2")
    talk.item("R2", "B")
    talk.audio("R2", "B", 200)
    talk.audio("R1", "A", 250)
    talk.response_done("R1", "cancelled")
    talk.audio("R2", "B", 200)
    assert talk.to_caller == [("A", 500), ("B", 200), ("B", 200)]
    assert len(talk.interrupts) == 1, "a late response.done is no new barge-in"


def test_a_response_is_done_without_ever_being_created() -> None:
    talk = Talk()
    talk.response_done("R0", "cancelled")
    talk.audio("R0", "A", 250)
    assert talk.to_caller == []
    assert talk.noted(Note.STALE) == 1


def test_a_response_cancelled_for_speech_before_its_first_sign_is_interrupted() -> None:
    talk = Talk()
    talk.caller_speaks()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.item_done("R", "A", "Well", status="incomplete")
    talk.response_done("R", "cancelled", {"type": "cancelled", "reason": "turn_detected"})
    assert [i.onset_buffer_ms for i in talk.interrupts] == [None]
    talk.positions(("A", 120), interrupt_id=1)
    assert talk.truncations == [("A", 120)]


def test_a_response_cancelled_beside_another_does_not_silence_that_one() -> None:
    talk = Talk()
    talk.response("R1")
    talk.item("R1", "A")
    talk.audio("R1", "A", 500)
    talk.response("R2")
    talk.item("R2", "B")
    talk.audio("R2", "B", 200)
    talk.response_done("R1", "cancelled", {"type": "cancelled", "reason": "client_cancelled"})
    talk.audio("R2", "B", 200)
    assert talk.interrupts == []
    assert talk.to_caller == [("A", 500), ("B", 200), ("A", 0), ("B", 200)]


def test_an_item_being_generated_is_deleted_only_when_its_response_is_over() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.caller_speaks()
    talk.positions(("A", 0), interrupt_id=1)
    talk.item_done("R", "A", "Well")
    assert talk.deletions == []
    talk.response_done("R", "cancelled")
    assert talk.deletions == ["A"]
    assert talk.truncations == []


def test_an_item_heard_to_its_end_is_left_alone() -> None:
    talk = Talk()
    talk.say("R", "A", "Yes.", 1000)
    talk.caller_speaks()
    talk.positions(("A", 1000), interrupt_id=1)
    assert talk.sent == []
    assert talk.of(PartPlayed) == [PartPlayed("A", 0)]


def test_speech_with_nothing_playing_is_no_barge_in() -> None:
    talk = Talk()
    talk.say("R", "A", "Yes.", 1000)
    talk.played(("A", 1000))
    talk.caller_speaks()
    assert talk.interrupts == []
    assert talk.sent == []


def test_speech_before_the_first_audio_of_a_response_spares_the_item_before() -> None:
    talk = Talk()
    talk.say("R1", "A", "Yes.", 1000)
    talk.played(("A", 1000))
    talk.response("R2")
    talk.item("R2", "B")
    talk.text("R2", "B", "Let me")
    talk.caller_speaks()
    assert talk.interrupts == []
    talk.item_done("R2", "B", "Let me", status="incomplete")
    assert talk.deletions == [], "the server may still be adding to it"
    talk.response_done("R2", "cancelled")
    assert talk.truncations == []
    assert talk.deletions == ["B"]


def test_what_never_reached_twilio_is_deleted() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.item_done("R", "A", "First.")
    talk.item("R", "B", previous="A")
    talk.audio("R", "B", 500)
    talk.item_done("R", "B", "Second.")
    talk.response_done("R")
    talk.caller_speaks()
    talk.positions(("A", 200), interrupt_id=1)  # B was taken back on the link
    assert talk.truncations == [("A", 200)]
    assert talk.deletions == ["B"]
    talk.server("conversation.item.deleted", item_id="B")
    assert talk.facts("item_deleted") == [fact_pb2.ItemDeleted(item_id="B", accepted=True)]


def test_each_queued_item_is_treated_on_its_own() -> None:
    talk = Talk()
    talk.response("R")
    for item_id in ("A", "B", "C"):
        talk.item("R", item_id)
        talk.audio("R", item_id, 500)
        talk.item_done("R", item_id, f"Item {item_id}.")
    talk.response_done("R")
    talk.caller_speaks()
    talk.positions(("A", 500), ("B", 120), ("C", 0), interrupt_id=1)
    assert talk.truncations == [("B", 120)]
    assert talk.deletions == ["C"]


def test_overlapping_items_end_each_at_its_own_time() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.item("R", "B")
    talk.audio("R", "B", 300)
    talk.item_done("R", "A", "First.")
    talk.audio("R", "B", 300)
    talk.item_done("R", "B", "Second.")
    talk.response_done("R")
    assert talk.to_caller == [("A", 500), ("B", 300), ("A", 0), ("B", 300), ("B", 0)]
    assert [(g.item_id, g.audio_ms) for g in talk.facts("item_generated")] == [
        ("A", 500),
        ("B", 600),
    ]


def test_a_position_beyond_what_was_received_is_no_truncation() -> None:
    talk = Talk()
    talk.say("R", "A", "Yes.", 1000)
    talk.caller_speaks()
    talk.positions(("A", 99_999), interrupt_id=1)
    assert talk.sent == []


def test_cut_at_its_end_until_a_straggler_comes_after_the_cut() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.caller_speaks()
    talk.positions(("A", 500), interrupt_id=1)
    assert talk.truncations == []
    talk.audio("R", "A", 250)
    assert talk.truncations == [("A", 500)]


def test_truncated_once_whatever_is_repeated() -> None:
    talk = Talk()
    talk.say("R", "A", "Yes, of course.", 1000)
    talk.caller_speaks("U1")
    talk.positions(("A", 300), interrupt_id=1)
    talk.positions(("A", 280), interrupt_id=1)
    talk.positions(("A", 320))
    talk.caller_speaks("U2")
    talk.positions(("A", 310), interrupt_id=2)
    assert talk.truncations == [("A", 300)]


def test_a_second_barge_in_while_the_first_is_under_way() -> None:
    talk = Talk()
    talk.say("R1", "A", "One.", 1000)
    talk.caller_speaks("U1")
    talk.caller_stops("U1")
    talk.say("R2", "B", "Two.", 1000)
    talk.caller_speaks("U2")
    assert [i.interrupt_id for i in talk.interrupts] == [1, 2]
    talk.positions(("A", 200), interrupt_id=1)
    talk.positions(("B", 100), interrupt_id=2)
    assert talk.truncations == [("A", 200), ("B", 100)]


def test_positions_that_take_long_are_counted_and_used_when_they_come() -> None:
    talk = Talk()
    talk.say("R", "A", "Yes, of course.", 1000)
    talk.caller_speaks()
    assert talk.conversation.next_timer() == pytest.approx(talk.now + 0.3)
    talk.later(0.29)
    assert talk.noted(Note.POSITIONS_LATE) == 0
    talk.later(0.02)
    assert talk.noted(Note.POSITIONS_LATE) == 1
    assert talk.sent == [], "nothing is known: it is left whole"
    talk.later(5)
    assert talk.noted(Note.POSITIONS_LATE) == 1
    talk.positions(("A", 300), interrupt_id=1)
    assert talk.truncations == [("A", 300)]


def test_a_caller_who_may_not_cut_in_does_not() -> None:
    patient = parse_agent(
        "name: x\ninstructions: i\nturn_detection: {type: server_vad, interrupt_response: false}\n",
        name="inline",
    )
    talk = Talk(patient)
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.caller_speaks()
    talk.audio("R", "A", 500)
    assert talk.interrupts == []
    assert talk.to_caller == [("A", 500), ("A", 500)]


def test_a_hang_up_truncates_nothing_but_times_the_words() -> None:
    talk = Talk()
    talk.say("R", "A", "Thank you and goodbye.", 2000)
    talk.positions(("A", 700), cause=fact_pb2.POSITION_CAUSE_HUNG_UP)
    assert talk.sent == []
    assert talk.of(PartCut) == [PartCut("A", 0, "Thank you and goodbye.")]


def test_all_audio_of_a_cancelled_item_was_heard_but_not_all_of_its_text() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.text("R", "A", "One two three four five")
    talk.audio("R", "A", 500)
    talk.caller_speaks()
    talk.positions(("A", 500), interrupt_id=1)
    talk.item_done("R", "A", "One two three four five", status="incomplete")
    talk.response_done("R", "cancelled")
    assert talk.sent == []
    assert talk.of(PartCut) == [PartCut("A", 0, "One two three four five")]
    assert talk.of(PartGenerated) == [PartGenerated("A", 0, "One two three four five", False)]


def test_a_cut_that_is_decided_after_the_hang_up_tells_the_model_nothing() -> None:
    talk = Talk()
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.caller_speaks()
    talk.positions(("A", 500), interrupt_id=1)
    talk.hang_up()
    talk.audio("R", "A", 250)
    talk.finish(failed=False)
    assert talk.truncations == []
    assert talk.deletions == []
    assert [type(output) for output in talk.of(PartCut)] == [PartCut]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("invalid_value", "Audio content of 3700ms is already shorter than 3760ms"),
        ("invalid_value", "Audio content of 120.00ms is already shorter than 140.50ms"),
        ("unsupported_content_type", "Only model output audio messages can be truncated"),
        (None, "Only model output audio messages can be truncated"),
    ],
)
@pytest.mark.parametrize("correlated", [True, False])
def test_a_refused_truncation_is_recorded_and_survived(
    code: str | None, message: str, correlated: bool
) -> None:
    talk = Talk()
    talk.say("R", "A", "Yes, of course.", 1000)
    talk.caller_speaks()
    talk.positions(("A", 300), interrupt_id=1)
    event_id = talk.sent[-1].event_id if correlated else None
    talk.server(
        "error",
        error={
            "type": "invalid_request_error",
            "code": code,
            "message": message,
            "event_id": event_id,
        },
    )
    assert talk.fatal == []
    assert talk.noted(Note.TRUNCATION, "refused") == 1
    assert talk.facts("item_truncated") == [
        fact_pb2.ItemTruncated(item_id="A", audio_end_ms=300, accepted=False)
    ]
