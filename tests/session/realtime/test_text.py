"""Text that comes late, and text without sound."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from asheard.v1 import fact_pb2
from session.realtime.outputs import PartGenerated
from tests.session.realtime.talk import Talk

WHOLE = "Sure. What would you like to order?"
PIECES = ["Sure. ", "What would you ", "like to order?"]


def done(transcript: str | None, status: str = "completed") -> dict[str, Any]:
    return {
        "id": "A",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [{"type": "output_audio", "transcript": transcript}],
    }


class Late(Talk):
    """An answer whose item ends before its text is there."""

    def __init__(self) -> None:
        super().__init__()
        self.response("R")
        self.item("R", "A")
        self.audio("R", "A", 2600)
        self.text("R", "A", PIECES[0])
        self.server("conversation.item.done", item=done(None))
        self.server("response.output_item.done", response_id="R", item=done(None))

    def transcript_done(self, text: str = WHOLE) -> None:
        self.server(
            "response.output_audio_transcript.done",
            response_id="R",
            item_id="A",
            content_index=0,
            transcript=text,
        )

    def response_done(self, *_: Any, **__: Any) -> None:
        self.server(
            "response.done",
            response={"id": "R", "status": "completed", "output": [done(WHOLE)]},
        )

    @property
    def standing(self) -> str:
        """The rule by which facts are read: the longest of a part stands, the later of equals."""
        facts = self.facts("item_generated")
        assert {(f.item_id, f.content_index, f.audio_ms, f.status) for f in facts} == {
            ("A", 0, 2600, fact_pb2.GENERATION_STATUS_COMPLETED)
        }
        texts = [str(f.text) for f in facts]
        assert texts == sorted(texts, key=len), "each says more than the one before"
        return texts[-1]


@pytest.mark.parametrize(
    "kinds", list(itertools.permutations(["deltas", "transcript", "response"], 2))
)
def test_text_after_its_items_end_is_taken(kinds: tuple[str, ...]) -> None:
    talk = Late()
    assert talk.standing == PIECES[0]
    for kind in kinds:
        if kind == "deltas":
            for piece in PIECES[1:]:
                talk.text("R", "A", piece)
            talk.later(1.1)
        elif kind == "transcript":
            talk.transcript_done()
        else:
            talk.response_done()
        assert talk.standing == WHOLE
    assert len(talk.facts("item_generated")) == 2
    assert talk.of(PartGenerated)[-1].text == WHOLE, "its words are timed with all of it"


def test_pieces_that_come_late_are_gathered_for_a_second() -> None:
    talk = Late()
    for piece in PIECES[1:]:
        talk.text("R", "A", piece)
        talk.later(0.1)
    assert len(talk.facts("item_generated")) == 1
    talk.later(1)
    assert talk.standing == WHOLE
    assert len(talk.facts("item_generated")) == 2


def test_what_is_gathered_when_the_session_ends_is_written() -> None:
    talk = Late()
    talk.server("response.done", response={"id": "R", "status": "completed"})
    for piece in PIECES[1:]:
        talk.text("R", "A", piece)
    talk.finish(failed=False)
    assert talk.standing == WHOLE


def test_a_shorter_text_that_comes_later_takes_nothing_away() -> None:
    talk = Late()
    talk.transcript_done()
    talk.transcript_done("Sure.")
    talk.text("R", "A", PIECES[1])
    talk.later(2)
    talk.finish(failed=False)
    assert talk.standing == WHOLE


def test_text_of_an_item_that_nobody_knows_any_more_is_no_item() -> None:
    talk = Talk()
    talk.say("R", "A", "Yes.", 100)
    talk.text("R", "B", "of a response that is over")
    talk.finish(failed=False)
    assert [f.item_id for f in talk.facts("item_generated")] == ["A"]


def test_an_item_known_only_from_its_responses_end_is_recorded_as_not_spoken() -> None:
    talk = Talk()
    talk.server(
        "response.done", response={"id": "R", "status": "completed", "output": [done(WHOLE)]}
    )
    (added,) = talk.facts("item_added")
    (generated,) = talk.facts("item_generated")
    assert added.item_id == "A"
    assert (generated.text, generated.audio_ms) == (WHOLE, 0)


def test_audio_and_text_of_a_function_call_are_nothing_that_was_said() -> None:
    talk = Talk()
    talk.response("R")
    call = {"id": "F", "type": "function_call", "call_id": "c", "name": "f", "status": "completed"}
    talk.server("response.output_item.done", response_id="R", item=call)
    talk.audio("R", "F", 500)
    talk.text("R", "F", "What is this?")
    talk.response_done("R")
    assert talk.to_caller == []
    assert talk.facts("item_generated") == talk.facts("item_progressed") == []


# --- text without sound -------------------------------------------------------------------------


class Mixed(Talk):
    """An answer of a text part and an audio part."""

    def __init__(self, *, first: str = "text") -> None:
        super().__init__()
        self.kinds = [first, "audio" if first == "text" else "text"]
        self.sound = self.kinds.index("audio")
        self.response("R")
        item = {"id": "A", "type": "message", "role": "assistant", "status": "in_progress"}
        self.server("response.output_item.added", response_id="R", item=item)
        self.server("conversation.item.added", item=item)
        for index, kind in enumerate(self.kinds):
            self.server(
                "response.content_part.added",
                response_id="R",
                item_id="A",
                content_index=index,
                part={"type": kind},
            )
        self.audio("R", "A", 7100, content_index=self.sound)

    def ends(self, status: str = "completed") -> None:
        content = [
            {"type": "output_audio", "transcript": "You may send it back until Friday."}
            if kind == "audio"
            else {"type": "output_text", "text": "The refund deadline is Friday."}
            for kind in self.kinds
        ]
        item = {"id": "A", "type": "message", "role": "assistant", "content": content}
        self.server("conversation.item.done", item={**item, "status": status})
        self.response_done("R", status if status == "completed" else "cancelled")


@pytest.mark.parametrize("first", ["text", "audio"])
def test_a_part_without_sound_is_recorded_so_and_holds_up_no_position(first: str) -> None:
    talk = Mixed(first=first)
    talk.ends()
    audio_ms = {f.content_index: f.audio_ms for f in talk.facts("item_generated")}
    assert audio_ms == {talk.sound: 7100, 1 - talk.sound: 0}
    assert {p.content_index for p in talk.of(PartGenerated)} == {0, 1}
    talk.caller_speaks()
    talk.positions(("A", 4300), interrupt_id=1, content_index=talk.sound)
    assert talk.truncations == [("A", 4300)]
    assert talk.deletions == []


@pytest.mark.parametrize("first", ["text", "audio"])
def test_an_item_of_which_nothing_sounded_is_deleted_with_its_text(first: str) -> None:
    talk = Mixed(first=first)
    talk.caller_speaks()
    talk.positions(("A", 0), interrupt_id=1, content_index=talk.sound)
    talk.ends("incomplete")
    assert talk.deletions == ["A"]
    assert talk.truncations == []


@pytest.mark.parametrize("first", ["text", "audio"])
def test_an_item_whose_sound_was_all_stale_is_deleted_with_its_text(first: str) -> None:
    talk = Talk()
    talk.response("R")
    talk.caller_speaks()
    mixed = Mixed.__new__(Mixed)
    mixed.__dict__.update(talk.__dict__)
    mixed.kinds = [first, "audio" if first == "text" else "text"]
    mixed.audio("R", "A", 500, content_index=mixed.kinds.index("audio"))
    mixed.ends("incomplete")
    assert mixed.to_caller == []
    assert mixed.deletions == ["A"]


def test_a_text_that_was_never_meant_for_the_ear_is_left_alone() -> None:
    talk = Talk()
    talk.response("R")
    talk.caller_speaks()
    item = {"id": "A", "type": "message", "role": "assistant", "status": "incomplete"}
    item["content"] = [{"type": "output_text", "text": "Thinking."}]  # type: ignore[assignment]
    talk.server("response.output_item.done", response_id="R", item=item)
    talk.response_done("R", "cancelled")
    assert talk.deletions == []
    assert [f.audio_ms for f in talk.facts("item_generated")] == [0]


def test_audio_of_a_part_that_was_announced_as_text_is_sound() -> None:
    talk = Talk()
    talk.response("R")
    part = {"response_id": "R", "item_id": "A", "content_index": 0}
    talk.server("response.content_part.added", part={"type": "text"}, **part)
    talk.audio("R", "A", 500)
    talk.caller_speaks()
    talk.positions(("A", 0), interrupt_id=1)
    talk.response_done("R", "cancelled")
    assert talk.deletions == ["A"]
