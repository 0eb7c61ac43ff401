"""What the session was told against what the server says is in force."""

from __future__ import annotations

from typing import Any

import pytest

from session.realtime.conversation import Conversation
from session.realtime.input_clock import InputClock
from session.realtime.outputs import Note
from tests.session.realtime.talk import AGENT, Talk

IN_FORCE: dict[str, Any] = {
    "id": "sess_1",
    "audio": {
        "input": {
            "format": {"type": "audio/pcmu"},
            "transcription": {"model": "gpt-4o-transcribe", "language": None, "prompt": None},
            "noise_reduction": None,
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5000000238418579,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
                "idle_timeout_ms": None,
                "create_response": True,
                "interrupt_response": True,
            },
        },
        "output": {"format": {"type": "audio/pcmu"}, "voice": "marin", "speed": 1.0},
    },
}


def said(session: object) -> Talk:
    talk = Talk()
    talk.conversation = Conversation(AGENT, "m", InputClock())
    talk.outputs.clear()
    talk.conversation.open()
    talk.server("session.updated", session=session)
    return talk


def replaced(path: str, value: object) -> dict[str, Any]:
    """What is in force, with one value another."""
    import copy

    session = copy.deepcopy(IN_FORCE)
    *way, last = path.split(".")
    place = session
    for key in way:
        place = place[key]
    place[last] = value
    return session


@pytest.mark.parametrize(
    "session",
    [
        IN_FORCE,
        {"id": "sess_1"},
        {},
        None,
        {"audio": 7, "voice": "marin"},
        {"audio": {"input": None, "output": {"format": None}}},
        {
            "input_audio_format": "g711_ulaw",
            "output_audio_format": "g711_ulaw",
            "voice": "marin",
            "turn_detection": {"type": "server_vad", "threshold": 0.5},
        },
    ],
    ids=lambda session: repr(session)[:40],
)
def test_what_was_told_is_in_force_or_not_mentioned(session: object) -> None:
    talk = said(session)
    assert talk.conversation.configured
    assert talk.noted(Note.SETTING_DIFFERS) == 0


PCM = {"type": "audio/pcm", "rate": 24000}


@pytest.mark.parametrize(
    ("session", "which"),
    [
        (replaced("audio.input.format", PCM), "input_format"),
        (replaced("audio.output.format", PCM), "output_format"),
        (replaced("audio.output.format", "audio/pcma"), "output_format"),
        ({"input_audio_format": "pcm16"}, "input_format"),
        ({"output_audio_format": "pcm16"}, "output_format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_audio_format_ends_the_session_with_that_reason(
    session: object, which: str
) -> None:
    talk = said(session)
    assert talk.fatal == [f"the model has another audio format than audio/pcmu: {which}"]
    assert not talk.conversation.configured, "no audio may be appended"
    assert talk.noted(Note.SETTING_DIFFERS, which) == 1


@pytest.mark.parametrize(
    ("path", "value", "which"),
    [
        ("audio.input.turn_detection", None, "turn_detection"),
        ("audio.input.turn_detection.silence_duration_ms", 200, "turn_detection"),
        ("audio.input.turn_detection.threshold", 0.9, "turn_detection"),
        ("audio.input.turn_detection.interrupt_response", False, "turn_detection"),
        ("audio.input.transcription", None, "transcription"),
        ("audio.input.transcription.model", "whisper-1", "transcription"),
        ("audio.output.voice", "alloy", "voice"),
        ("audio.output.voice", {"id": "voice_1"}, "voice"),
    ],
)
def test_any_other_difference_is_counted_once_and_the_call_goes_on(
    path: str, value: object, which: str
) -> None:
    talk = said(replaced(path, value))
    talk.server("session.updated", session=replaced(path, value))
    assert talk.conversation.configured
    assert talk.fatal == []
    assert talk.noted(Note.SETTING_DIFFERS) == talk.noted(Note.SETTING_DIFFERS, which) == 1
