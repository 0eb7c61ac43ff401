"""Everything on the simulator's wire, both ways, is what the vendor's own package describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

from tests.simulators.realtime.drive import Drive, every, kinds
from tests.simulators.realtime.scenarios import ALL

SERVER: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
CLIENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)

SENT = {
    "error",
    "session.created",
    "session.updated",
    "conversation.item.added",
    "conversation.item.done",
    "conversation.item.retrieved",
    "conversation.item.truncated",
    "conversation.item.deleted",
    "conversation.item.input_audio_transcription.delta",
    "conversation.item.input_audio_transcription.completed",
    "conversation.item.input_audio_transcription.failed",
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "input_audio_buffer.cleared",
    "response.created",
    "response.done",
    "response.output_item.added",
    "response.output_item.done",
    "response.content_part.added",
    "response.content_part.done",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.delta",
    "response.output_audio_transcript.done",
    "response.output_text.delta",
    "response.output_text.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "rate_limits.updated",
}
TAKEN = {
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "conversation.item.delete",
    "response.create",
    "response.cancel",
}

# The package describes less than the service sends: seen in recordings, absent from the types.
_BEYOND_THE_PACKAGE = {"phase", "obfuscation", "expires_at", "id", "object", "include"}


def unknown_fields(model: Any) -> set[str]:
    """Names of fields, at any depth, that the package's type does not declare."""
    found: set[str] = set()
    if isinstance(model, BaseModel):
        found |= set(model.model_extra or {})
        for name in type(model).model_fields:
            found |= unknown_fields(getattr(model, name))
    elif isinstance(model, list):
        for entry in model:
            found |= unknown_fields(entry)
    return found


@pytest.mark.parametrize("scenario", ALL, ids=lambda s: s.__name__)
def test_events_are_valid_by_the_published_types(scenario: Callable[[], Drive]) -> None:
    drive = scenario()
    for event in drive.events:
        parsed = SERVER.validate_python(event)
        assert parsed.type == event["type"]
        assert unknown_fields(parsed) <= _BEYOND_THE_PACKAGE, event["type"]
    for event in drive.sent:
        parsed = CLIENT.validate_python(event)
        assert parsed.type == event["type"]
        assert not unknown_fields(parsed), event["type"]


def test_scenarios_show_every_event_the_simulator_knows() -> None:
    drives = [scenario() for scenario in ALL]
    assert {kind for drive in drives for kind in kinds(drive.events)} == SENT
    assert {kind for drive in drives for kind in kinds(drive.sent)} == TAKEN


def test_event_ids_are_unique_and_present() -> None:
    ids = [event["event_id"] for scenario in ALL for event in scenario().events]
    per_session = [e["event_id"] for e in ALL[0]().events]
    assert all(ids) and len(set(per_session)) == len(per_session)


def test_the_published_types_do_refuse_something() -> None:
    """Otherwise the tests above would say nothing."""
    with pytest.raises(ValidationError):
        SERVER.validate_python({"type": "response.done", "event_id": "e"})


def test_refused_events_are_the_only_errors_of_the_good_scenarios() -> None:
    assert not every(ALL[0]().events, "error")
    assert not every(ALL[1]().events, "error")
