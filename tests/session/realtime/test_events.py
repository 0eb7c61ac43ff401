"""The codec, against the published types and what was recorded on the live wire."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import TypeAdapter

from runtime.errors import PeerProtocolError
from session.agent import load_agent, parse_agent, session_update
from session.realtime import events
from tests.session.recordings import WHY_SKIPPED, Recording, recordings

CLIENT_EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)

SEMANTIC = parse_agent(
    """
name: s
instructions: i
turn_detection: {type: semantic_vad, eagerness: low}
transcription: {model: whisper-1, language: de}
tools: [{name: f, description: d, url: "http://127.0.0.1:1/f"}]
""",
    name="inline",
)


@pytest.mark.parametrize(
    "event",
    [
        events.UpdateSession(event_id="e1", session=session_update(load_agent(None))),
        events.UpdateSession(event_id="e1", session=session_update(SEMANTIC)),
        events.CommitAudio(event_id="e2"),
        events.CreateItem(
            event_id="e3",
            item={"type": "function_call_output", "call_id": "call_1", "output": "{}"},
        ),
        events.TruncateItem(event_id="e4", item_id="item_1", content_index=0, audio_end_ms=0),
        events.DeleteItem(event_id="e5", item_id="item_1"),
        events.CreateResponse(event_id="e6"),
        events.CreateResponse(event_id="e7", response=events.ResponseOptions("Greet.")),
        events.CancelResponse(event_id="e8", response_id="resp_1"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_client_events_are_what_the_published_types_say(event: events.ClientEvent) -> None:
    wire = json.loads(events.encode(event))
    published = CLIENT_EVENTS.validate_json(events.encode(event), strict=True)
    # Whatever we write is a field that is published: nothing was dropped in validation.
    assert published.model_dump(mode="json", exclude_unset=True) == wire
    assert not published.model_extra


def test_append_is_concatenated_into_the_published_event() -> None:
    published = CLIENT_EVENTS.validate_json(events.append_audio(b"//8="), strict=True)
    assert published.model_dump(exclude_unset=True) == {
        "type": "input_audio_buffer.append",
        "audio": "//8=",
    }


def test_every_published_server_event_is_known() -> None:
    published = {
        get_args(member.model_fields["type"].annotation)[0]
        for member in get_args(get_args(RealtimeServerEvent)[0])
    }
    known = {str(member.__struct_config__.tag) for member in get_args(events.AnyServerEvent)}
    assert published - known - events.UNUSED == set()


@pytest.mark.parametrize(
    ("ga", "beta"),
    [
        ("response.output_audio.delta", "response.audio.delta"),
        ("response.output_audio.done", "response.audio.done"),
        ("response.output_audio_transcript.delta", "response.audio_transcript.delta"),
        ("response.output_audio_transcript.done", "response.audio_transcript.done"),
        ("conversation.item.added", "conversation.item.created"),
    ],
)
def test_beta_names_say_the_same(ga: str, beta: str) -> None:
    body = {
        "response_id": "r",
        "item_id": "i",
        "content_index": 1,
        "delta": "AAAA",
        "transcript": "t",
        "item": {"id": "i", "type": "message", "role": "assistant"},
    }
    of_ga = events.decode(json.dumps({"type": ga, **body}))
    of_beta = events.decode(json.dumps({"type": beta, **body}))
    assert isinstance(of_beta, type(of_ga))
    assert [getattr(of_ga, f) for f in of_ga.__struct_fields__] == [
        getattr(of_beta, f) for f in of_beta.__struct_fields__
    ]


def test_an_unknown_event_is_no_error() -> None:
    assert events.decode(b'{"type":"response.telepathy"}') == events.UnknownEvent(
        "response.telepathy", False
    )
    assert events.decode(b'{"type":"response.output_text.delta","x":1}') == events.UnknownEvent(
        "response.output_text.delta", True
    )


def test_a_malformed_event_names_the_field_and_not_its_value() -> None:
    event = events.decode(b'{"type":"input_audio_buffer.speech_started","audio_start_ms":"secret"}')
    assert isinstance(event, events.MalformedEvent)
    assert event.type == "input_audio_buffer.speech_started"
    assert "audio_start_ms" in event.detail
    assert "secret" not in event.detail


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"type":7}', b"\xff\xfe", b'"type"'])
def test_what_is_no_event_is_the_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        events.decode(data)


def test_the_reason_of_a_response_in_all_its_shapes() -> None:
    def reason(details: object) -> str:
        done = events.decode(
            json.dumps(
                {
                    "type": "response.done",
                    "response": {"id": "r", "status": "failed", "status_details": details},
                }
            )
        )
        assert isinstance(done, events.ResponseDone)
        return done.response.reason

    assert reason(None) == ""
    assert reason("rate limited") == "rate limited"
    assert reason({"type": "cancelled", "reason": "turn_detected"}) == "turn_detected"
    assert reason({"type": "failed", "error": {"type": "t", "code": "c"}}) == "c"


@pytest.mark.skipif(not recordings(), reason=WHY_SKIPPED)
@pytest.mark.parametrize("recording", recordings(), ids=lambda r: r.name)
def test_nothing_in_a_recording_is_unknown(recording: Recording) -> None:
    for event in recording.received:
        decoded = events.decode(json.dumps(event))
        assert not isinstance(decoded, events.MalformedEvent), (event["type"], decoded)
        assert not isinstance(decoded, events.UnknownEvent) or decoded.expected, event["type"]
