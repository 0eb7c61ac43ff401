"""Items of the simulated session: truncation, deletion, what a client adds."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from simulators.realtime.script import (
    bakery,
)
from simulators.speech import spoken
from tests.simulators.realtime.drive import (
    CREATE,
    ORDER,
    Drive,
    agent_item,
    every,
    greeted,
    kinds,
    only,
    only_error,
)

# --- truncation ---------------------------------------------------------------------------------


def truncate(item_id: str, audio_end_ms: Any, content_index: Any = 0) -> dict[str, Any]:
    return {
        "type": "conversation.item.truncate",
        "event_id": "t1",
        "item_id": item_id,
        "content_index": content_index,
        "audio_end_ms": audio_end_ms,
    }


def test_truncate_is_echoed_and_removes_the_transcript() -> None:
    drive = greeted()
    item = agent_item(drive)
    echoed = only(drive.send(truncate(item, 1_500)), "conversation.item.truncated")
    assert (echoed["item_id"], echoed["content_index"], echoed["audio_end_ms"]) == (item, 0, 1_500)
    retrieved = drive.send({"type": "conversation.item.retrieve", "item_id": item})
    content = only(retrieved, "conversation.item.retrieved")["item"]["content"][0]
    assert "transcript" not in content
    assert len(base64.b64decode(content["audio"])) == 1_500 * 8
    assert drive.truth.agent_items[0].truncated_ms == 1_500


def test_truncate_beyond_the_audio_is_refused_in_the_known_words() -> None:
    drive = greeted()
    has_ms = spoken("Yes, I can help you place your order. What would you like?").duration_ms
    error = only_error(drive.send(truncate(agent_item(drive), has_ms + 60)))
    assert error["type"] == "invalid_request_error"
    assert error["code"] == "invalid_value"
    assert error["param"] == "audio_end_ms"
    assert error["message"] == (
        f"Audio content of {has_ms}ms is already shorter than {has_ms + 60}ms"
    )
    assert error["event_id"] == "t1"
    assert drive.truth.agent_items[0].truncated_ms is None
    assert drive.truth.truncations[0].refusal == error["message"]
    assert not every(drive.send(truncate(agent_item(drive), has_ms)), "error")


def test_second_truncate_must_be_shorter_than_the_first() -> None:
    drive = greeted()
    drive.send(truncate(agent_item(drive), 1_000))
    error = only_error(drive.send(truncate(agent_item(drive), 1_001)))
    assert error["message"] == "Audio content of 1000ms is already shorter than 1001ms"
    assert not every(drive.send(truncate(agent_item(drive), 400)), "error")


def test_only_the_models_own_audio_can_be_truncated() -> None:
    drive = Drive(bakery())
    drive.hear_speech(ORDER)
    refused = "Only model output audio messages can be truncated"
    user = drive.truth.caller_items[0].item_id
    assert only_error(drive.send(truncate(user, 100)))["message"] == refused
    written = {
        "type": "message",
        "role": "assistant",
        "id": "a1",
        "content": [{"type": "output_text", "text": "Hello."}],
    }
    drive.send({"type": "conversation.item.create", "item": written})
    assert only_error(drive.send(truncate("a1", 0)))["message"] == refused
    drive = Drive(bakery())
    drive.send(CREATE)
    drive.wait(300)  # The reply's item is open, but its audio has not begun.
    assert only_error(drive.send(truncate(agent_item(drive), 0)))["message"] == refused
    assert only_error(drive.send(truncate("nobody", 0)))["code"] == "item_truncate_invalid_item_id"


@pytest.mark.parametrize(
    ("audio_end_ms", "content_index", "code", "param"),
    [
        (10.5, 0, "invalid_type", "audio_end_ms"),
        (-1, 0, "invalid_value", "audio_end_ms"),
        (10, 1, "invalid_value", "content_index"),
        (True, 0, "invalid_type", "audio_end_ms"),
    ],
)
def test_truncate_is_judged_field_by_field(
    audio_end_ms: Any, content_index: Any, code: str, param: str
) -> None:
    drive = greeted()
    error = only_error(drive.send(truncate(agent_item(drive), audio_end_ms, content_index)))
    assert (error["code"], error["param"]) == (code, param)


def test_deleted_item_is_gone() -> None:
    drive = greeted()
    item = agent_item(drive)
    delete = {"type": "conversation.item.delete", "item_id": item}
    assert only(drive.send(delete), "conversation.item.deleted")["item_id"] == item
    assert only_error(drive.send(delete))["code"] == "item_delete_invalid_item_id"
    retrieve = {"type": "conversation.item.retrieve", "item_id": item}
    assert only_error(drive.send(retrieve))["code"] == "item_retrieve_invalid_item_id"
    assert drive.truth.deletions == [item]


# --- items of the client ------------------------------------------------------------------------


def message(role: str, text: str, **more: Any) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more}
    return {"type": "conversation.item.create", "item": item}


def test_seeded_items_are_acknowledged_in_order_and_under_their_own_ids() -> None:
    drive = Drive(bakery())
    events = drive.send(message("user", "Hello.", id="u1"))
    events += drive.send(message("assistant", "Hello, how can I", id="a1"))
    events += drive.send(message("system", "The caller was cut off here."))
    assert kinds(events) == ["conversation.item.added", "conversation.item.done"] * 3
    added = every(events, "conversation.item.added")
    assert [e["previous_item_id"] for e in added] == [None, "u1", "a1"]
    done = every(events, "conversation.item.done")
    assert [e["previous_item_id"] for e in done] == [None, None, "a1"], "the recorded quirk"
    first = {**message("user", "Before all.", id="u0"), "previous_item_id": "root"}
    assert only(drive.send(first), "conversation.item.added")["previous_item_id"] is None


def test_bad_items_are_refused() -> None:
    drive = Drive(bakery())
    drive.send(message("user", "Hello.", id="u1"))
    error = only_error(drive.send(message("user", "Again.", id="u1")))
    assert (error["code"], error["param"]) == ("invalid_value", "item.id")
    lost = {**message("user", "Where?"), "previous_item_id": "nobody"}
    assert only_error(drive.send(lost))["param"] == "previous_item_id"
    audio = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_audio", "audio": "AAAA"}],
    }
    event = {"type": "conversation.item.create", "item": audio}
    assert only_error(drive.send(event))["param"] == "item.content[0].type"


def test_reply_already_begun_in_an_earlier_session_is_not_repeated() -> None:
    drive = Drive(bakery())
    drive.send(message("assistant", "Yes, I can help you place"))
    drive.send(message("user", "I want bagels and a soda."))
    drive.send(CREATE)
    drive.wait(5_000)
    assert drive.truth.agent_items[0].planned_text.startswith("That will be")


def test_input_no_reply_is_for_gets_the_fallback() -> None:
    drive = greeted()
    drive.hear_speech(spoken("Can you repeat that please?"))
    drive.wait(5_000)
    assert drive.truth.agent_items[-1].planned_text == "I am sorry, could you say that again?"


# --- several items, tools, faults ---------------------------------------------------------------
