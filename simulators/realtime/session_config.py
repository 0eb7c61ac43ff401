"""The session's configuration: defaults, validation, merging, and its beta shape. Pure.

An update is merged field by field; one that is refused changes nothing (protocol notes B.2).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from simulators.realtime.errors import ClientError
from simulators.realtime.shape import (
    Shape,
    anything,
    array,
    boolean,
    by_type,
    either,
    fields,
    free_object,
    nullable,
    number,
    one_of,
    string,
)

VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")

AUDIO_FORMAT = by_type(
    {
        "audio/pcm": fields(
            {"type": anything, "rate": number(24_000, 24_000, whole=True)}, required=("type",)
        ),
        "audio/pcmu": fields({"type": anything}),
        "audio/pcma": fields({"type": anything}),
    }
)
_VOICE = either(fields({"id": string()}, required=("id",)), one_of(*VOICES))
_TURN_DETECTION = by_type(
    {
        "server_vad": fields(
            {
                "type": anything,
                "threshold": number(0, 1),
                "prefix_padding_ms": number(0, 10_000, whole=True),
                "silence_duration_ms": number(0, 10_000, whole=True),
                "create_response": boolean,
                "interrupt_response": boolean,
                "idle_timeout_ms": nullable(number(5_000, 30_000, whole=True)),
            }
        ),
        "semantic_vad": fields(
            {
                "type": anything,
                "eagerness": one_of("low", "medium", "high", "auto"),
                "create_response": boolean,
                "interrupt_response": boolean,
            }
        ),
    }
)
_TRANSCRIPTION = fields(
    {
        "model": string(),
        "language": nullable(string()),
        "prompt": nullable(string()),
        "delay": anything,
        "keywords": array(string()),
        "languages": array(string()),
    }
)
TOOLS = array(
    by_type(
        {
            "function": fields(
                {
                    "type": anything,
                    "name": string(longest=64),
                    "description": string(),
                    "parameters": free_object,
                },
                required=("name",),
            ),
            "mcp": free_object,
        }
    )
)
TOOL_CHOICE = either(free_object, one_of("none", "auto", "required"))
MAX_OUTPUT_TOKENS = either(one_of("inf"), number(1, 4_096, whole=True))
OUTPUT_MODALITIES = array(one_of("text", "audio"), longest=1)
_TRUNCATION = either(free_object, one_of("auto", "disabled"))
OUTPUT_AUDIO = fields({"format": AUDIO_FORMAT, "voice": _VOICE, "speed": number(0.25, 1.5)})

_SESSION: Shape = fields(
    {
        "type": one_of("realtime", "transcription"),
        "model": string(),
        "output_modalities": OUTPUT_MODALITIES,
        "instructions": string(),
        "audio": fields(
            {
                "input": fields(
                    {
                        "format": AUDIO_FORMAT,
                        "transcription": nullable(_TRANSCRIPTION),
                        "noise_reduction": nullable(
                            fields(
                                {"type": one_of("near_field", "far_field"), "strength": anything}
                            )
                        ),
                        "turn_detection": nullable(_TURN_DETECTION),
                    }
                ),
                "output": OUTPUT_AUDIO,
            }
        ),
        "tools": TOOLS,
        "tool_choice": TOOL_CHOICE,
        "max_output_tokens": MAX_OUTPUT_TOKENS,
        "truncation": _TRUNCATION,
        "tracing": nullable(either(free_object, one_of("auto"))),
        "prompt": nullable(free_object),
        "include": nullable(array(one_of("item.input_audio_transcription.logprobs"))),
        "reasoning": nullable(free_object),
        "parallel_tool_calls": boolean,
    },
    required=("type",),
)

_DEFAULT_VAD = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
_DEFAULT_SEMANTIC_VAD = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}


def default_session(session_id: str, model: str, expires_at: int) -> dict[str, Any]:
    """The session as ``session.created`` shows it.

    ``silence_duration_ms`` and ``voice`` depend on the model, as recorded: 200 and alloy for
    gpt-realtime, 500 and marin for gpt-realtime-2.x.
    """
    first_generation = not model.startswith("gpt-realtime-2")
    turn_detection = dict(_DEFAULT_VAD)
    if first_generation:
        turn_detection["silence_duration_ms"] = 200
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "You are a helpful assistant.",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": expires_at,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": turn_detection,
            },
            "output": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "voice": "alloy" if first_generation else "marin",
                "speed": 1.0,
            },
        },
        "include": None,
    }


def merged(
    session: Mapping[str, Any], update: Any, *, assistant_audio_present: bool
) -> dict[str, Any]:
    """The session after an update.

    Raises:
        ClientError: The update is refused.
    """
    _SESSION(update, "session")
    result = copy.deepcopy(dict(session))
    if update.get("model", result["model"]) != result["model"]:
        raise ClientError(
            "invalid_value", "The model of a session cannot be changed.", "session.model"
        )
    audio = update.get("audio", {})
    voice = audio.get("output", {}).get("voice", result["audio"]["output"]["voice"])
    if assistant_audio_present and voice != result["audio"]["output"]["voice"]:
        raise ClientError(
            "cannot_update_voice",
            "Cannot update a conversation's voice if assistant audio is present.",
        )
    for name, value in update.items():
        if name != "audio":
            result[name] = copy.deepcopy(value)
    result["audio"]["output"].update(copy.deepcopy(audio.get("output", {})))
    for name, value in audio.get("input", {}).items():
        result["audio"]["input"][name] = _merged_input(
            name, result["audio"]["input"][name], copy.deepcopy(value)
        )
    for direction in ("input", "output"):
        audio_format = result["audio"][direction]["format"]
        if audio_format["type"] == "audio/pcm":
            audio_format["rate"] = 24_000
    return result


def _merged_input(name: str, old: Any, new: Any) -> Any:
    if name == "turn_detection" and new is not None:
        if old is not None and old["type"] == new["type"]:
            return {**old, **new}
        defaults = _DEFAULT_VAD if new["type"] == "server_vad" else _DEFAULT_SEMANTIC_VAD
        return {**defaults, **new}
    if name == "transcription" and new is not None:
        return {"model": "gpt-4o-transcribe", "language": None, "prompt": None, **new}
    return new


class Settings:
    """The session's settings as they are now."""

    def __init__(self, session_id: str, model: str, expires_at_s: int, *, beta: bool) -> None:
        self._value = default_session(session_id, model, expires_at_s)
        self._beta = beta

    def update(self, update: Any, *, assistant_audio_present: bool) -> None:
        """Take an update of the client.

        Raises:
            ClientError: It is refused, and nothing has changed.
        """
        if self._beta:
            update = update_from_beta(update)
        self._value = merged(self._value, update, assistant_audio_present=assistant_audio_present)

    def shown(self) -> dict[str, Any]:
        """The session as events show it."""
        return session_to_beta(self._value) if self._beta else self._value

    @property
    def turn_detection(self) -> Mapping[str, Any] | None:
        """None: the client makes the turns."""
        detection: Mapping[str, Any] | None = self._value["audio"]["input"]["turn_detection"]
        return detection

    @property
    def transcription(self) -> Mapping[str, Any] | None:
        """None: the caller is not transcribed."""
        transcription: Mapping[str, Any] | None = self._value["audio"]["input"]["transcription"]
        return transcription

    @property
    def streams_transcription(self) -> bool:
        """The transcription model gives words while the caller speaks."""
        return self.transcription is not None and "realtime" in str(self.transcription["model"])

    @property
    def transcribes_by_duration(self) -> bool:
        """The transcription model is paid by the second, not by the token."""
        return self.transcription is not None and "whisper" in str(self.transcription["model"])

    @property
    def input_format(self) -> str:
        """``audio/pcmu``, ``audio/pcma`` or ``audio/pcm``."""
        return str(self._value["audio"]["input"]["format"]["type"])

    @property
    def output(self) -> Mapping[str, Any]:
        """``audio.output``."""
        output: Mapping[str, Any] = self._value["audio"]["output"]
        return output

    @property
    def output_modalities(self) -> list[str]:
        """``["audio"]`` or ``["text"]``."""
        return list(self._value["output_modalities"])

    @property
    def max_output_tokens(self) -> int | str:
        """A number, or ``inf``."""
        limit: int | str = self._value["max_output_tokens"]
        return limit

    @property
    def instructions(self) -> str:
        """What the model is told to be."""
        return str(self._value["instructions"])

    @property
    def says_phase(self) -> bool:
        """The model marks its messages as commentary or final answer, as gpt-realtime-2.x does."""
        return not self._beta and str(self._value["model"]).startswith("gpt-realtime-2")


# --- beta shape (B.6) -------------------------------------------------------------------------

_BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_BETA_INPUT = {
    "input_audio_transcription": "transcription",
    "input_audio_noise_reduction": "noise_reduction",
    "turn_detection": "turn_detection",
}
_BETA_RENAMED = {"max_response_output_tokens": "max_output_tokens"}


def update_from_beta(update: Any) -> Any:
    """The GA form of a beta ``session.update``; what is not an object is returned as it is."""
    if not isinstance(update, dict):
        return update
    result: dict[str, Any] = {"type": "realtime"}
    source: dict[str, Any] = {}
    sink: dict[str, Any] = {}
    for name, value in update.items():
        if name in ("input_audio_format", "output_audio_format"):
            side = source if name.startswith("input") else sink
            side["format"] = {"type": _BETA_FORMATS.get(value, value)}
        elif (ga_name := _BETA_INPUT.get(name)) is not None:
            source[ga_name] = value
        elif name in ("voice", "speed"):
            sink[name] = value
        elif name == "modalities":
            result["output_modalities"] = ["audio"] if "audio" in value else ["text"]
        elif name != "temperature":
            result[_BETA_RENAMED.get(str(name), str(name))] = value
    audio = {k: v for k, v in (("input", source), ("output", sink)) if v}
    return {**result, "audio": audio} if audio else result


def session_to_beta(session: Mapping[str, Any]) -> dict[str, Any]:
    """The session as the beta interface showed it."""
    formats = {ga: beta for beta, ga in _BETA_FORMATS.items()}
    source, sink = session["audio"]["input"], session["audio"]["output"]
    audio_out = session["output_modalities"] == ["audio"]
    return {
        "id": session["id"],
        "object": session["object"],
        "model": session["model"],
        "expires_at": session["expires_at"],
        "modalities": ["audio", "text"] if audio_out else ["text"],
        "instructions": session["instructions"],
        "voice": sink["voice"],
        "speed": sink["speed"],
        "input_audio_format": formats[source["format"]["type"]],
        "output_audio_format": formats[sink["format"]["type"]],
        "input_audio_transcription": source["transcription"],
        "input_audio_noise_reduction": source["noise_reduction"],
        "turn_detection": source["turn_detection"],
        "tools": session["tools"],
        "tool_choice": session["tool_choice"],
        "temperature": 0.8,
        "max_response_output_tokens": session["max_output_tokens"],
    }
