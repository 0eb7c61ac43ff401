"""The codec, against the published types and what was recorded on the live wire."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import TypeAdapter

from native import append_message
from session.agent import load_agent, parse_agent, session_update
from session.realtime import codec, events
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
    wire = json.loads(codec.encode(event))
    published = CLIENT_EVENTS.validate_json(codec.encode(event), strict=True)
    # Whatever we write is a field that is published: nothing was dropped in validation.
    assert published.model_dump(mode="json", exclude_unset=True) == wire
    assert not published.model_extra


def test_append_is_concatenated_into_the_published_event() -> None:
    made = append_message(b"//8=")
    assert made is not None
    published = CLIENT_EVENTS.validate_json(made[0], strict=True)
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
    of_ga = codec.decode(json.dumps({"type": ga, **body}))
    of_beta = codec.decode(json.dumps({"type": beta, **body}))
    assert isinstance(of_beta, type(of_ga))
    assert [getattr(of_ga, f) for f in of_ga.__struct_fields__] == [
        getattr(of_beta, f) for f in of_beta.__struct_fields__
    ]


def test_an_unknown_event_is_no_error() -> None:
    assert codec.decode(b'{"type":"response.telepathy"}') == events.UnknownEvent(
        "response.telepathy", False
    )
    assert codec.decode(b'{"type":"response.output_text.delta","x":1}') == events.UnknownEvent(
        "response.output_text.delta", True
    )


def test_a_malformed_event_names_the_field_and_not_its_value() -> None:
    event = codec.decode(b'{"type":"conversation.item.deleted","item_id":["secret"]}')
    assert event == events.MalformedEvent("conversation.item.deleted", "item_id")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"type":[]}',
        b"\xff\xfe",
        b'"type"',
        b"[" * 1_000_000,
        b'{"type":"x' + b"\xff" * 100,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_event_is_counted_and_nothing_else(data: bytes) -> None:
    event = codec.decode(data)
    assert isinstance(event, events.MalformedEvent)
    assert event.type == events.UNREADABLE


TEXT = {"response_id": "R", "item_id": "A", "delta": "Yes."}


@pytest.mark.parametrize(
    "odd",
    [
        {"content_index": 0.0},
        {"content_index": "0"},
        {"content_index": None},
        {"output_index": [[[[]]]]},
        {"obfuscation": "\ud800"},
    ],
    ids=repr,
)
def test_of_an_odd_event_is_read_what_is_needed(odd: dict[str, object]) -> None:
    kind = "response.output_audio_transcript.delta"
    event = codec.decode(json.dumps({"type": kind, **TEXT, **odd}))
    assert event == events.TranscriptDelta("R", "A", "Yes.", 0)


@pytest.mark.parametrize("index", [32, 2**31, 2**64, -1, "40", 1e9, "1" * 5000])
def test_another_part_is_never_taken_for_one_beyond_the_bound(index: object) -> None:
    kind = "response.output_audio_transcript.delta"
    event = codec.decode(json.dumps({"type": kind, **TEXT, "content_index": index}))
    if index != "1" * 5000:  # that is no number at all
        assert isinstance(event, events.MalformedEvent)
        assert event.type == kind


@pytest.mark.parametrize("item_id", ["", None, "x" * 257, [], {}])
def test_an_id_must_be_there_and_be_one(item_id: object) -> None:
    kind = "response.output_audio_transcript.delta"
    event = codec.decode(json.dumps({"type": kind, **TEXT, "item_id": item_id}))
    assert event == events.MalformedEvent(kind, "item_id")


def test_text_can_be_encoded_whatever_it_was() -> None:
    begin = (
        b'{"type":"response.output_audio_transcript.delta","response_id":"R","item_id":"A","delta":'
    )
    for odd in (b'"a\\ud800"}', b'"a\xff"}', b'"\\udc00\\ud800"}'):
        event = codec.decode(begin + odd)
        assert isinstance(event, events.TranscriptDelta)
        assert event.delta.encode()
    pair = codec.decode(begin + b'"\\ud83d\\ude00\\ud800"}')
    assert isinstance(pair, events.TranscriptDelta)
    assert pair.delta == "\N{GRINNING FACE}?"


@pytest.mark.parametrize(
    "odd",
    [
        {"status_details": {"error": "server_error"}},
        {"status_details": 7},
        {"usage": [], "metadata": 7},
        {"usage": {"output_token_details": {"text_tokens": "many", "audio_tokens": 12.0}}},
        {"output": [7, {"type": "message"}, {"id": "A", "content": 7}]},
        {"output": {"id": "A"}},
    ],
    ids=repr,
)
def test_a_response_ends_however_its_end_looks(odd: dict[str, object]) -> None:
    response = {"id": "R", "status": "failed", **odd}
    event = codec.decode(json.dumps({"type": "response.done", "response": response}))
    assert isinstance(event, events.ResponseDone)
    assert (event.response.id, event.response.status) == ("R", "failed")


def test_an_odd_end_says_what_it_can() -> None:
    output = [{"id": "F", "type": "function_call", "call_id": "c", "arguments": {"n": 1}}, {}]
    content = [7, {"type": "output_text", "text": "second"}]
    details = {"error": "server_error"}
    event = codec.decode(
        json.dumps(
            {
                "type": "response.done",
                "response": {
                    "id": "R",
                    "status_details": details,
                    "output": [*output, {"id": "A", "content": content, "role": 7.5}],
                    "usage": {
                        "output_token_details": {"text_tokens": "many", "audio_tokens": 12.0}
                    },
                },
            }
        )
    )
    assert isinstance(event, events.ResponseDone)
    assert event.response.reason == "server_error"
    function, message = event.response.output or []
    assert json.loads(function.arguments or "") == {"n": 1}
    assert [c.text for c in message.content or ()] == [None, "second"], "each keeps its place"
    assert event.response.usage is not None
    assert event.response.usage.output_token_details == events.TokenDetails(0, 12, 0)


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"response.done"}',
        b'{"type":"response.done","response":{"status":"completed"}}',
        b'{"type":"response.done","response":[]}',
        b'{"type":"response.done","response":{"id":"R"',
        b'{"type":"response.done","response":' + b'{"a":' * 100_000,
    ],
    ids=lambda data: repr(data[:60]),
)
def test_an_end_without_an_id_is_an_end(data: bytes) -> None:
    assert codec.decode(data) == events.ResponseDone(events.Response(""))


def test_an_error_is_one_whatever_it_holds() -> None:
    for body, code in (
        ({}, None),
        ({"error": "server_error"}, "server_error"),
        ({"error": 7}, None),
    ):
        event = codec.decode(json.dumps({"type": "error", **body}))
        assert isinstance(event, events.Error)
        assert event.error.code == code


def test_the_reason_of_a_response_in_all_its_shapes() -> None:
    def reason(details: object) -> str:
        done = codec.decode(
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
        decoded = codec.decode(json.dumps(event))
        assert not isinstance(decoded, events.MalformedEvent), (event["type"], decoded)
        assert not isinstance(decoded, events.UnknownEvent) or decoded.expected, event["type"]
