"""Sentences that are said without the model: items of ours, which nothing of the model's changes."""

from __future__ import annotations

import base64

import pytest

from asheard.v1 import fact_pb2
from session.notices import Notice, NoticeBook, Sentence
from session.realtime import events
from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock
from session.realtime.outputs import Note, PartCut, PartPlayed, ToCaller, WriteFact
from tests.session.realtime.talk import AGENT, Talk

HOLD_MS = 2_500
BOOK: NoticeBook = {Notice.HOLD: Sentence.of("One moment, please.", b"\x55" * (8 * HOLD_MS))}
FIRST = "notice_t_1"


def test_a_sentence_is_recorded_given_and_over_at_once() -> None:
    talk = Talk(notices=BOOK)
    assert talk.notice(Notice.HOLD) == HOLD_MS / 1000
    assert talk.to_caller == [(FIRST, 1000), (FIRST, 1000), (FIRST, 500), (FIRST, 0)]
    audio = b"".join(base64.b64decode(o.payload) for o in talk.of(ToCaller))
    assert audio == b"\x55" * (8 * HOLD_MS)
    (added,) = talk.facts("item_added")
    assert added.notice and added.item_id == FIRST and added.response_id == ""
    assert talk.facts("item_generated") == [
        fact_pb2.ItemGenerated(
            item_id=FIRST,
            text="One moment, please.",
            audio_ms=HOLD_MS,
            status=fact_pb2.GENERATION_STATUS_COMPLETED,
        )
    ]


def test_the_model_is_told_what_was_said() -> None:
    talk = Talk(notices=BOOK)
    talk.notice(Notice.HOLD)
    (told,) = [event for event in talk.sent if isinstance(event, events.CreateItem)]
    assert told.item == {
        "id": FIRST,
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "One moment, please."}],
    }


def test_it_is_said_where_no_session_stands() -> None:
    conversation = Conversation(AGENT, "gpt-test", InputClock(), notices=BOOK, tag="t")
    conversation.finish(failed=True)
    assert conversation.say(Notice.HOLD) == HOLD_MS / 1000
    outputs = conversation.take()
    names = [output.name for output in outputs if isinstance(output, WriteFact)]
    assert names == ["session_started", "item_added", "item_generated"]
    assert not [output for output in outputs if type(output).__name__ == "ToModel"]


def test_nothing_is_said_to_a_caller_who_has_left_nor_without_a_sentence() -> None:
    talk = Talk(notices=BOOK)
    assert talk.notice(Notice.SORRY) == 0
    talk.hang_up()
    assert talk.notice(Notice.HOLD) == 0
    assert talk.to_caller == [] and talk.facts("item_added") == []


def test_each_has_an_id_and_a_place_of_its_own() -> None:
    talk = Talk(notices=BOOK)
    talk.say("R", "A", "Good evening.", 900)
    talk.notice(Notice.HOLD)
    talk.notice(Notice.HOLD)
    added = talk.facts("item_added")
    assert [(a.item_id, a.previous_item_id) for a in added] == [
        ("A", ""),
        (FIRST, "A"),
        ("notice_t_2", FIRST),
    ]


def test_the_next_turn_stands_after_it() -> None:
    talk = Talk(notices=BOOK)
    talk.notice(Notice.HOLD)
    item = {"id": FIRST, "type": "message", "role": "assistant", "status": "completed"}
    talk.server("conversation.item.added", previous_item_id="U", item=item)
    talk.server("conversation.item.done", previous_item_id="U", item=item)
    talk.item("R", "A", previous=FIRST)
    added = talk.facts("item_added")
    assert [(a.item_id, a.previous_item_id) for a in added] == [
        (FIRST, ""),
        ("A", FIRST),
    ]


@pytest.mark.parametrize("heard_ms", [0, 1_200, HOLD_MS])
def test_a_barge_in_cuts_it_and_the_model_is_not_told_to_cut_anything(heard_ms: int) -> None:
    talk = Talk(notices=BOOK)
    talk.notice(Notice.HOLD)
    talk.caller_speaks()
    assert len(talk.interrupts) == 1
    talk.positions((FIRST, heard_ms), interrupt_id=1)
    assert talk.truncations == [] and talk.deletions == []
    words = talk.of(PartCut) if 0 < heard_ms < HOLD_MS else talk.of(PartPlayed)
    assert [part.item_id for part in words] == [FIRST]
    assert talk.facts("item_truncated") == [] and talk.facts("item_deleted") == []


def test_one_that_never_reached_the_line_is_settled_like_any_other() -> None:
    talk = Talk(notices=BOOK)
    talk.notice(Notice.HOLD)
    talk.caller_speaks()
    talk.positions(interrupt_id=1)
    talk.caller_stops()
    talk.caller_speaks("U2", 3_000)
    assert len(talk.interrupts) == 1, "there is nothing left that could be playing"
    assert talk.deletions == []


def test_it_outlasts_a_response_that_is_cut_with_it() -> None:
    talk = Talk(notices=BOOK)
    talk.response("R")
    talk.item("R", "A")
    talk.audio("R", "A", 500)
    talk.notice(Notice.HOLD)
    talk.caller_speaks()
    talk.item_done("R", "A", "Well", status="incomplete")
    talk.response_done("R", "cancelled", {"type": "cancelled", "reason": "turn_detected"})
    talk.positions(("A", 300), (FIRST, 0), interrupt_id=1)
    assert talk.truncations == [("A", 300)] and talk.deletions == []


def test_an_id_that_the_model_took_is_left_to_it() -> None:
    talk = Talk(notices=BOOK)
    talk.notice(Notice.HOLD)
    talk.say("R", "notice_t_2", "I know what comes next.", 200)
    talk.notice(Notice.HOLD)
    assert [added.item_id for added in talk.facts("item_added") if added.notice] == [
        FIRST,
        "notice_t_3",
    ]
    assert talk.noted(Note.NOTICE, "hold") == 2


def test_what_the_model_says_of_its_id_changes_nothing() -> None:
    talk = Talk(notices=BOOK)
    talk.notice(Notice.HOLD)
    before = list(talk.to_caller)
    written = len(talk.facts("item_generated"))
    talk.response("R")
    talk.item("R", FIRST)
    talk.text("R", FIRST, "Something else entirely, and longer than it was.")
    talk.audio("R", FIRST, 400)
    talk.item_done("R", FIRST, "Something else entirely, and longer than it was.")
    talk.response_done("R", "failed")
    talk.finish(failed=False)
    assert talk.to_caller == before
    assert len(talk.facts("item_generated")) == written
    assert len(talk.facts("item_added")) == 1
