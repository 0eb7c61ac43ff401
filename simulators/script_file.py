"""Script files: a caller or an agent in YAML, checked, with one error that names the key. Pure.

The keys are the fields of the dataclasses in ``twilio/script.py`` and ``realtime/script.py``; see
the examples in ``simulators/README.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from runtime.errors import ConfigurationError
from simulators.realtime import script as agent
from simulators.speech import spoken
from simulators.twilio import script as caller

Reader = Callable[[Any, str], Any]


def caller_script(text: str, name: str) -> caller.CallerScript:
    """Read a caller's script.

    Args:
        text: YAML.
        name: Name of the file, for errors.

    Raises:
        ConfigurationError: Something in it is wrong; the text names the key.
    """
    steps = _list(_step)
    fields = _fields(
        _load(text, name),
        name,
        {
            "name": _text,
            "from": _text,
            "to": _text,
            "steps": steps,
            "end": _step,
            "max_call_ms": _whole(1),
        },
    )
    renamed = {"from": "from_number", "to": "to_number"}
    return caller.CallerScript(**{renamed.get(k, k): v for k, v in fields.items()})


def agent_script(text: str, name: str) -> agent.AgentScript:
    """Read an agent's script.

    Raises:
        ConfigurationError: Something in it is wrong; the text names the key.
    """
    fields = _fields(
        _load(text, name),
        name,
        {
            "name": _text,
            "replies": _list(_reply),
            "fallback": _reply,
            "hearings": _list(_hearing),
            "first_text_ms": _whole(0),
            "first_audio_ms": _whole(0),
            "speed": _positive,
            "delta_ms": _whole(1),
            "transcription_delay_ms": _whole(0),
            "stragglers": _whole(0),
            "cancel_ms": _whole(0),
            "expires_after_ms": _whole(1),
            "names": _choice("ga", "beta"),
        },
    )
    return agent.AgentScript(**fields)


# --- the caller ---------------------------------------------------------------------------------

_ACTIONS: Mapping[str, Callable[[Any, str], caller.Action]] = {
    "say": lambda value, key: caller.Say(_text(value, key)),
    "press": lambda value, key: caller.Press(_digits(value, key)),
    "hang_up": lambda value, key: _flag(value, key, caller.HangUp()),
    "drop": lambda value, key: _flag(value, key, caller.Drop()),
    "shift_timestamps_ms": lambda value, key: caller.ShiftTimestamps(_whole(None)(value, key)),
    "omit_silence": lambda value, key: caller.OmitSilence(_boolean(value, key)),
}


def _step(value: Any, key: str) -> caller.Step:
    mapping = _mapping(value, key)
    named = [action for action in _ACTIONS if action in mapping]
    if len(named) != 1:
        raise _bad(key, f"needs exactly one of {', '.join(_ACTIONS)}")
    known: dict[str, Reader] = {"when": _occasion, "timeout_ms": _whole(1)}
    rest = _fields({k: v for k, v in mapping.items() if k != named[0]}, key, known)
    action = _ACTIONS[named[0]](mapping[named[0]], f"{key}.{named[0]}")
    return caller.Step(action, **rest)


def _occasion(value: Any, key: str) -> caller.Occasion:
    mapping = _mapping(value, key)
    if "agent_silent_ms" in mapping:
        fields = _fields(mapping, key, {"agent_silent_ms": _whole(0)})
        return caller.AgentSilent(fields["agent_silent_ms"])
    if "agent_played_ms" in mapping:
        fields = _fields(mapping, key, {"agent_played_ms": _whole(0)})
        return caller.AgentPlayed(fields["agent_played_ms"])
    if "elapsed_ms" in mapping:
        fields = _fields(mapping, key, {"elapsed_ms": _whole(0)})
        return caller.Elapsed(fields["elapsed_ms"])
    if "agent_word" in mapping:
        known: dict[str, Reader] = {
            "agent_word": _text,
            "line": _text,
            "occurrence": _whole(1),
            "plus_ms": _whole(0),
        }
        fields = _fields(mapping, key, known, required=("line",))
        word = caller.AgentWord(word=fields.pop("agent_word"), **fields)
        try:
            spoken(word.line).word_end_ms(word.word, word.occurrence)
        except ValueError as error:
            raise _bad(f"{key}.agent_word", str(error)) from None
        return word
    raise _bad(key, "needs one of agent_silent_ms, agent_played_ms, elapsed_ms, agent_word")


# --- the agent ----------------------------------------------------------------------------------


def _reply(value: Any, key: str) -> agent.Reply:
    if isinstance(value, str):
        return agent.say(value)
    mapping = dict(_mapping(value, key))
    if "say" in mapping:
        if "parts" in mapping:
            raise _bad(key, "has both say and parts; say is short for one part")
        mapping["parts"] = [{"say": mapping.pop("say")}]
    fields = _fields(
        mapping,
        key,
        {
            "parts": _list(_part),
            "when": _text,
            "first_text_ms": _whole(0),
            "first_audio_ms": _whole(0),
            "speed": _positive,
            "stall": _stall,
            "failure": _failure,
            "drop": _drop,
            "overlap_items": _boolean,
        },
        required=("parts",),
    )
    return agent.Reply(**fields)


def _part(value: Any, key: str) -> agent.Speak | agent.CallTool:
    mapping = _mapping(value, key)
    if "say" in mapping:
        return agent.Speak(_fields(mapping, key, {"say": _text})["say"])
    if "call" in mapping:
        fields = _fields(mapping, key, {"call": _text, "arguments": _text})
        return agent.CallTool(fields["call"], fields.get("arguments", "{}"))
    raise _bad(key, "needs say or call")


def _stall(value: Any, key: str) -> agent.Stall:
    names = ("at_audio_ms", "for_ms")
    return agent.Stall(
        **_fields(_mapping(value, key), key, dict.fromkeys(names, _whole(0)), required=names)
    )


def _failure(value: Any, key: str) -> agent.Failure:
    known: dict[str, Reader] = {
        "status": _choice("failed", "incomplete"),
        "code": _text,
        "message": _text,
        "after_audio_ms": _whole(0),
    }
    return agent.Failure(**_fields(_mapping(value, key), key, known))


def _drop(value: Any, key: str) -> agent.Drop:
    known = {"after_audio_ms": _whole(0), "close_code": _whole(1000), "times": _whole(1)}
    return agent.Drop(**_fields(_mapping(value, key), key, known))


def _hearing(value: Any, key: str) -> agent.Hearing:
    known: dict[str, Reader] = {"text": _text, "delay_ms": _whole(0), "failure": _text}
    return agent.Hearing(**_fields(_mapping(value, key), key, known))


# --- YAML ---------------------------------------------------------------------------------------


def _load(text: str, name: str) -> Mapping[str, Any]:
    try:
        return _mapping(yaml.safe_load(text), name)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = "" if where is None else f", line {where.line + 1}"
        raise ConfigurationError(f"{name}{line}: this is not YAML") from None


def _fields(
    mapping: Mapping[str, Any],
    key: str,
    known: Mapping[str, Reader],
    *,
    required: tuple[str, ...] = (),
) -> dict[str, Any]:
    for name in mapping:
        if name not in known:
            raise _bad(f"{key}.{name}", f"is not known here; known are {', '.join(known)}")
    for name in required:
        if name not in mapping:
            raise _bad(f"{key}.{name}", "is missing")
    return {name: known[name](value, f"{key}.{name}") for name, value in mapping.items()}


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad(key, "must be a mapping")
    return value


def _list(reader: Reader) -> Reader:
    def read(value: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _bad(key, "must be a list")
        return tuple(reader(entry, f"{key}[{index}]") for index, entry in enumerate(value))

    return read


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _bad(key, "must be a text")
    return value


def _digits(value: Any, key: str) -> str:
    digits = str(value)
    if not digits or any(digit not in "0123456789*#ABCD" for digit in digits):
        raise _bad(key, "must be keys out of 0-9, *, #, A-D")
    return digits


def _boolean(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise _bad(key, "must be true or false")
    return value


def _flag(value: Any, key: str, action: caller.Action) -> caller.Action:
    if value is not True:
        raise _bad(key, "must be true, or be left out")
    return action


def _positive(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise _bad(key, "must be a number above 0")
    return float(value)


def _whole(least: int | None) -> Reader:
    def read(value: Any, key: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _bad(key, "must be a whole number")
        if least is not None and value < least:
            raise _bad(key, f"must be at least {least}")
        return value

    return read


def _choice(*values: str) -> Reader:
    def read(value: Any, key: str) -> str:
        if value not in values:
            raise _bad(key, f"must be one of {', '.join(values)}")
        return str(value)

    return read


def _bad(key: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{key}: {problem}")
