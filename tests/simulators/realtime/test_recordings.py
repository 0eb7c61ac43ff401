"""The simulator's order and shapes against recorded sessions with the live service.

The recordings are not part of the project; where they are, they lie beside the repository in
``../shared``. Elsewhere these tests are skipped: ``test_engine.py`` holds the same orders as text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from simulators.realtime.script import AgentScript, CallTool, Reply, Speak, say
from simulators.speech import spoken
from tests.simulators.realtime.drive import Drive, every, kinds

RECORDINGS = Path(__file__).parents[4] / "shared" / "data" / "realtime_recordings"

pytestmark = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason="the recorded sessions are not beside this checkout"
)

Events = list[dict[str, Any]]


def recorded(name: str) -> tuple[Events, Events]:
    """What the client sent and what the server sent, each in order."""
    interactions = yaml.safe_load((RECORDINGS / f"{name}.yaml").read_text())["interactions"]
    messages = [i for i in interactions if i.get("kind") == "message"]
    return (
        [m["data"] for m in messages if m["direction"] == "sent"],
        [m["data"] for m in messages if m["direction"] == "received"],
    )


def outline(events: Events) -> list[str]:
    """The order of events with runs of deltas as one word, and without what comes at any time."""
    words: list[str] = []
    for event in events:
        kind = event["type"]
        if "transcription" in kind or kind in ("rate_limits.updated", "session.created"):
            continue
        if kind.endswith(".delta"):
            kind = "deltas of " + kind.split(".")[1].replace("_transcript", "")
        if not words or words[-1] != kind:
            words.append(kind)
    return words


def shape(value: Any) -> Any:
    """A value with its leaves as types: what must be alike though texts and ids differ."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in sorted(value.items()) if k not in _FREE}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) else type(value).__name__


# Depends on the session's own settings, or on whether the model has reasoned, not on the protocol.
_FREE = {"tools", "transcription", "format", "seconds", "previous_item_id", "reasoning_tokens"}


def shapes(events: Events) -> dict[str, list[Any]]:
    """Every shape in which an event of each type occurs."""
    found: dict[str, list[Any]] = {}
    for event in events:
        of_type = found.setdefault(event["type"], [])
        if shape(event) not in of_type:
            of_type.append(shape(event))
    return found


def assert_alike(ours: Events, theirs: Events) -> None:
    """Each type of event that both have, has in ours only shapes that theirs have."""
    known = shapes(theirs)
    compared = 0
    for kind, variants in shapes(ours).items():
        for variant in variants if kind in known else []:
            compared += 1
            assert variant in known[kind], f"{kind} never looks like this: {variant}"
    assert compared >= 10


def play(drive: Drive, client: Events) -> None:
    """Send what the recorded client sent, with time to answer after each response.create."""
    for event in client:
        if event["type"] == "input_audio_buffer.append":
            continue
        if event["type"] == "conversation.item.create" and "call_id" in event["item"]:
            calls = every(drive.events, "response.function_call_arguments.done")
            event = {**event, "item": {**event["item"], "call_id": calls[-1]["call_id"]}}
        drive.send(event)
        if event["type"] == "response.create":
            drive.wait(20_000)


def test_spoken_turn_with_server_vad() -> None:
    _, theirs = recorded("test_audio_in_server_vad_turn")
    text = only_transcript(theirs)
    drive = Drive(AgentScript(replies=(say(text),)), model="gpt-realtime")
    whisper = {"input": {"transcription": {"model": "gpt-realtime-whisper"}}}
    drive.send({"type": "session.update", "session": {"type": "realtime", "audio": whisper}})
    drive.hear_speech(spoken("Hello, is anybody there?"))
    drive.wait(20_000)
    ours = drive.events[2:]  # Two updates were sent, in the recording one.
    assert outline(ours) == outline(theirs)
    assert_alike(drive.events, theirs)


def test_three_spoken_turns() -> None:
    _, theirs = recorded("test_input_audio_retention_segments_three_server_vad_turns")
    texts = [e["transcript"] for e in every(theirs, "response.output_audio_transcript.done")]
    drive = Drive(AgentScript(replies=tuple(map(say, texts))), model="gpt-realtime")
    for _ in texts:
        drive.hear_speech(spoken("Hello, is anybody there?"))
        drive.wait(20_000)
    assert outline(drive.events) == outline(theirs)
    ours_previous = [
        e["previous_item_id"] is None for e in every(drive.events, "conversation.item.done")
    ]
    their_previous = [
        e["previous_item_id"] is None for e in every(theirs, "conversation.item.done")
    ]
    assert ours_previous == their_previous, "the quirk of conversation.item.done"


def test_written_input_spoken_answer() -> None:
    client, theirs = recorded("test_text_in_audio_out_turn")
    drive = Drive(
        AgentScript(replies=(say(only_transcript(theirs)),)), model="gpt-realtime", configure=False
    )
    play(drive, client)
    assert outline(drive.events) == outline(theirs)
    assert_alike(drive.events, theirs)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("test_message_history_seeding", "gpt-realtime"),
        ("test_history_seeding_parity_openai-current", "gpt-realtime-2.1"),
    ],
)
def test_seeded_history(name: str, model: str) -> None:
    client, theirs = recorded(name)
    text = every(theirs, "response.output_text.done")[-1]["text"]
    drive = Drive(AgentScript(replies=(say(text),)), model=model, configure=False)
    play(drive, client)
    assert outline(drive.events) == outline(theirs)
    assert_alike(drive.events, theirs)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("test_tool_call_round", "gpt-realtime"),
        ("test_text_tool_round_parity_openai-current", "gpt-realtime-2.1"),
    ],
)
def test_tool_round(name: str, model: str) -> None:
    client, theirs = recorded(name)
    call = every(theirs, "response.function_call_arguments.done")[0]
    texts = [e["text"] for e in every(theirs, "response.output_text.done")]
    parts: list[Speak | CallTool] = [Speak(text) for text in texts[:-1]]
    parts.append(CallTool(call["name"], call["arguments"]))
    script = AgentScript(replies=(Reply(tuple(parts)), say(texts[-1])))
    drive = Drive(script, model=model, configure=False)
    play(drive, client)
    assert outline(drive.events) == outline(theirs)
    assert_alike(drive.events, theirs)


def test_recorded_client_events_are_all_accepted() -> None:
    for path in sorted(RECORDINGS.glob("test_*.yaml")):
        if "webrtc" in path.name:
            continue  # Those sessions were made over HTTP.
        drive = Drive(AgentScript(), configure=False)
        client, _ = recorded(path.stem)
        for event in client:
            assert "error" not in kinds(drive.send(event)) or event["type"] == "response.create"


def only_transcript(events: Events) -> str:
    transcripts = every(events, "response.output_audio_transcript.done")
    return str(transcripts[-1]["transcript"])
