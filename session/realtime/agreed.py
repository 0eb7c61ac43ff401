"""What the session was told against what the server says is in force. Pure.

A server that speaks another dialect may accept ``session.update`` and go on as it likes. Audio in
a format that nobody asked for is noise to the caller and to the transcript, so it ends the session;
any other difference is worth a line in the log. What the server does not mention is not compared.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from session.realtime.events import Session

SETTINGS = ("input_format", "output_format", "turn_detection", "transcription", "voice")
"""What is compared: names for the log and labels of a metric."""

FORMATS = frozenset({"input_format", "output_format"})
"""Without these there is no conversation."""

_ULAW = frozenset({"audio/pcmu", "g711_ulaw"})
"""GA and beta name of µ-law at 8 kHz, which is what Twilio has."""

_ROUNDING = 1e-3
"""Thresholds come back as the nearest number of another precision."""


def differences(told: dict[str, Any], said: Session) -> list[str]:
    """The settings in force that are not those of ``session.update``, out of :data:`SETTINGS`."""
    into, out = told["audio"]["input"], told["audio"]["output"]
    audio = said.audio if isinstance(said.audio, dict) else {}
    into_said, out_said = (_section(audio, name) for name in ("input", "output"))
    found = {
        "input_format": _is_other_format(into_said.get("format", said.input_audio_format)),
        "output_format": _is_other_format(out_said.get("format", said.output_audio_format)),
        "turn_detection": _differ(
            into["turn_detection"], into_said.get("turn_detection", said.turn_detection)
        ),
        "transcription": _differ(
            into["transcription"], into_said.get("transcription", said.input_audio_transcription)
        ),
        "voice": _differ(out["voice"], out_said.get("voice", said.voice)),
    }
    return [name for name in SETTINGS if found[name]]


def _section(audio: dict[str, Any], name: str) -> dict[str, Any]:
    section = audio.get(name)
    return section if isinstance(section, dict) else {}


def _is_other_format(said: object) -> bool:
    kind = said.get("type", UNSET) if isinstance(said, dict) else said
    # Of neither name nor type that we can read, nothing is known.
    return isinstance(kind, str) and kind not in _ULAW


def _differ(told: object, said: object) -> bool:
    """Whether what is said contradicts what was told; keys that only one side has do not count."""
    if said is UNSET:
        return False
    if isinstance(told, dict) and isinstance(said, dict):
        return any(_differ(value, said[key]) for key, value in told.items() if key in said)
    if isinstance(told, int | float) and isinstance(said, int | float):
        return abs(told - said) > _ROUNDING
    return told != said
