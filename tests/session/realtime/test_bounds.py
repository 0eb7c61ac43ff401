"""What a conversation keeps of a model that sends without end, and what it says of it."""

from __future__ import annotations

import base64
import gc
import tracemalloc

import pytest

from session.realtime import bounds, caller, cuts, events, interruptions, items, noise, order, state
from session.realtime.input_clock import audio_bytes
from session.realtime.outputs import Note, ToCaller
from tests.session.realtime.talk import Talk


def test_a_large_delta_reaches_the_caller_in_pieces_that_are_base64_each() -> None:
    talk = Talk()
    talk.response("R")
    talk.audio("R", "A", 60_000)
    pieces = [output.payload for output in talk.of(ToCaller)]
    assert len(pieces) > 5
    assert max(map(len, pieces)) <= bounds.MAX_PIECE_CHARS
    assert sum(audio_bytes(piece) or 0 for piece in pieces) == 480_000
    assert b"".join(map(base64.b64decode, pieces)) == b"\x55" * 480_000


def test_audio_of_a_part_is_bounded_and_what_is_missing_is_not_claimed() -> None:
    talk = Talk()
    talk.response("R")
    for _ in range(7):
        talk.audio("R", "A", 100_000)
    talk.item_done("R", "A", "A very long story.")
    assert talk.noted(Note.DROPPED, "audio") == 1
    (generated,) = talk.facts("item_generated")
    assert generated.audio_ms == 600_000
    assert generated.status != 1, "its text runs past its audio"


def test_audio_that_waits_for_a_position_is_bounded_in_all() -> None:
    talk = Talk()
    for n in range(8):
        talk.response(f"R{n}")
        talk.audio(f"R{n}", f"A{n}", 300_000)
        talk.response_done(f"R{n}")
    assert sum(f.audio_ms for f in talk.facts("item_generated")) == 1_800_000
    assert talk.noted(Note.DROPPED, "audio") == 2
    talk.played(("A0", 300_000))
    talk.response("R")
    talk.audio("R", "B", 1000)
    assert talk.to_caller[-1] == ("B", 1000), "what is settled makes room"


def test_text_of_a_part_is_bounded() -> None:
    talk = Talk()
    talk.response("R")
    for _ in range(9):
        talk.text("R", "A", "word " * 2_000)
    talk.item_done("R", "A", "x" * 100_000)
    (generated,) = talk.facts("item_generated")
    assert len(generated.text) == bounds.MAX_TEXT_CHARS
    assert talk.noted(Note.DROPPED, "text") > 0


def test_transcripts_of_the_caller_are_bounded() -> None:
    talk = Talk()
    talk.caller_stops("U")
    kind = "conversation.item.input_audio_transcription"
    for _ in range(40):
        talk.server(f"{kind}.delta", item_id="U", delta="word " * 200)
        talk.later(1)
    assert len(talk.facts("caller_transcribed")[-1].text) == bounds.MAX_CALLER_TEXT_CHARS
    talk.server(f"{kind}.completed", item_id="U", transcript="x" * 1_000_000)
    assert len(talk.facts("caller_transcribed")[-1].text) == bounds.MAX_CALLER_TEXT_CHARS
    assert talk.noted(Note.DROPPED, "caller_text") > 0


def test_responses_at_a_time_are_bounded_and_the_newest_is_heard() -> None:
    talk = Talk()
    for n in range(100):
        talk.response(f"R{n}")
        talk.audio(f"R{n}", f"A{n}", 20)
    assert talk.to_caller[-1] == ("A99", 20)
    assert talk.noted(Note.DROPPED, "response") == 100 - bounds.MAX_RESPONSES
    for n in range(100):
        talk.response_done(f"R{n}")
    assert not talk.responding, "a request of ours is possible again"


def test_items_of_a_response_are_bounded() -> None:
    talk = Talk()
    talk.response("R")
    for n in range(bounds.MAX_ITEMS_A_RESPONSE + 10):
        talk.audio("R", f"A{n}", 20)
    assert len(talk.facts("item_added")) == bounds.MAX_ITEMS_A_RESPONSE
    assert talk.noted(Note.DROPPED, "item") == 10


def test_a_session_that_says_more_than_any_conversation_is_long_is_ended() -> None:
    talk = Talk()
    written = len(talk.all_facts())
    while not talk.fatal:
        talk.outputs.clear()
        talk.caller_speaks("U")
        written += len(talk.all_facts())
    assert written == bounds.MAX_FACTS
    assert talk.fatal == ["the model says more than any conversation is long"]
    talk.finish(failed=True)
    talk.end("ended", failed=True)
    assert talk.all_facts()[-1][0] == "session_ended"
    assert len(talk.all_facts()) < 10


@pytest.mark.parametrize("flood", ["items", "callers", "others", "transcripts", "interrupts"])
def test_a_long_session_keeps_no_more_than_a_short_one(
    flood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids without end, of every kind, none of which ever comes to an end; with small bounds."""
    for module in (caller, cuts, interruptions, items, noise, order, state):
        for name in ("MAX_ITEMS", "MAX_REMEMBERED", "REMEMBERED_ITEMS"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, 32)
    talk = Talk()

    def event(n: int) -> None:
        if flood == "items":
            item = {"id": f"A{n}", "type": "message", "role": "assistant"}
            talk.server("conversation.item.added", item=item)
        elif flood == "callers":
            item = {"id": f"U{n}", "type": "message", "role": "user"}
            item["content"] = [{"type": "input_audio"}]  # type: ignore[assignment]
            talk.server("conversation.item.added", item=item)
        elif flood == "others":
            talk.server("conversation.item.added", item={"id": f"O{n}", "type": "mcp_call"})
        elif flood == "transcripts":
            kind = "conversation.item.input_audio_transcription.delta"
            talk.server(kind, item_id=f"U{n}", delta="Hm.")
        else:
            talk.response(f"R{n}")
            talk.audio(f"R{n}", f"A{n}", 20)
            talk.caller_speaks()
        talk.outputs.clear()

    tracemalloc.start()
    try:
        for n in range(100):
            event(n)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for n in range(100, 600):
            event(n)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 30_000, "bytes, for 500 events"


def test_numbers_that_are_none_are_counted_as_what_they_can_be() -> None:
    talk = Talk()
    talk.server(
        "rate_limits.updated",
        rate_limits=[
            {"name": "tokens", "limit": 5e-324, "remaining": 1e308},
            {"name": "requests", "limit": -1, "remaining": 1},
            {"name": "x" * 1000, "limit": 100, "remaining": -5},
        ],
    )
    limits = [o for o in talk.outputs if getattr(o, "note", None) is Note.RATE_LIMIT]
    assert [(o.label, o.amount) for o in limits] == [("tokens", 1000), ("other", 0)]  # type: ignore[union-attr]
    usage = {"output_token_details": {"text_tokens": -5, "audio_tokens": 10**30}}
    talk.server("response.done", response={"id": "R", "status": "completed", "usage": usage})
    assert talk.noted(Note.TOKENS, "output_text") == 0
    assert talk.noted(Note.TOKENS, "output_audio") == 10**9


def test_one_event_that_cannot_be_read_does_not_block_the_next_request() -> None:
    """A response that has ended must count as over, however its end looked."""
    for odd in (
        {"id": "R", "status": "failed", "status_details": {"error": "server_error"}},
        {"id": "R", "status": ["failed"], "usage": 7.5, "output": "none"},
        {"status": "failed"},
        None,
    ):
        talk = Talk()
        talk.response("R")
        talk.item("R", "A")
        talk.server("response.done", response=odd)
        assert not talk.responding, odd
        assert len(talk.facts("item_generated")) == 1


def test_an_end_without_an_id_is_taken_for_the_only_response() -> None:
    talk = Talk()
    talk.response("R1")
    talk.response("R2")
    talk.conversation.receive(events.ResponseDone(events.Response("")), now=talk.now)
    talk.take()
    assert talk.noted(Note.MALFORMED_EVENT, "response.done") == 1, "which one cannot be told"
