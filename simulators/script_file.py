"""Script files: a caller or an agent in YAML, checked, with one error that names the key. Pure.

The keys are the fields of the dataclasses in ``twilio/script.py``, ``realtime/script.py`` and
``realtime/faults.py``; see the examples in ``simulators/README.md``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from simulators import script_values as values
from simulators.realtime import faults
from simulators.realtime import script as agent
from simulators.script_values import Reader
from simulators.speech import spoken
from simulators.twilio import script as caller


def caller_script(text: str, name: str) -> caller.CallerScript:
    """Read a caller's script.

    Args:
        text: YAML.
        name: Name of the file, for errors.

    Raises:
        ConfigurationError: Something in it is wrong; the text names the key.
    """
    steps = values.listed(_step)
    fields = values.fields(
        values.load(text, name),
        name,
        {
            "name": values.text,
            "from": values.text,
            "to": values.text,
            "steps": steps,
            "end": _step,
            "max_call_ms": values.whole(1),
        },
    )
    renamed = {"from": "from_number", "to": "to_number"}
    return caller.CallerScript(**{renamed.get(k, k): v for k, v in fields.items()})


def agent_script(text: str, name: str) -> agent.AgentScript:
    """Read an agent's script.

    Raises:
        ConfigurationError: Something in it is wrong; the text names the key.
    """
    fields = values.fields(
        values.load(text, name),
        name,
        {
            "name": values.text,
            "replies": values.listed(_reply),
            "fallback": _reply,
            "hearings": values.listed(_HEARING),
            "first_text_ms": values.whole(0),
            "first_audio_ms": values.whole(0),
            "speed": values.positive,
            "delta_ms": values.whole(1),
            "transcription_delay_ms": values.whole(0),
            "stragglers": values.whole(0),
            "cancel_ms": values.whole(0),
            "expires_after_ms": values.whole(1),
            "names": values.choice("ga", "beta"),
            "vocabulary": values.listed(values.text),
            "goes_on": values.boolean,
            "names_in_errors": values.boolean,
            "refusals": values.listed(_REFUSAL),
            "turns": values.listed(values.optional(_TURN)),
            "wordless": _TURN,
            "results": values.listed(values.optional(_RESULT)),
            "events": values.listed(_EVENT),
            "faults": _FAULTS,
        },
    )
    return agent.AgentScript(**fields)


# --- the caller ---------------------------------------------------------------------------------

_ACTIONS: Mapping[str, Callable[[Any, str], caller.Action]] = {
    "say": lambda value, key: caller.Say(values.text(value, key)),
    "press": lambda value, key: caller.Press(_digits(value, key)),
    "hang_up": lambda value, key: _flag(value, key, caller.HangUp()),
    "drop": lambda value, key: _flag(value, key, caller.Drop()),
    "shift_timestamps_ms": lambda value, key: caller.ShiftTimestamps(
        values.whole(None)(value, key)
    ),
    "omit_silence": lambda value, key: caller.OmitSilence(values.boolean(value, key)),
    "noise": values.made(caller.Noise, {"ms": values.whole(1)}, required=("ms",)),
    "echo": values.made(caller.Echo, {"ms": values.whole(1)}, required=("ms",)),
}


def _step(value: Any, key: str) -> caller.Step:
    mapping = values.mapping(value, key)
    named = [action for action in _ACTIONS if action in mapping]
    if len(named) != 1:
        raise values.bad(key, f"needs exactly one of {', '.join(_ACTIONS)}")
    known: dict[str, Reader] = {"when": _occasion, "timeout_ms": values.whole(1)}
    rest = values.fields({k: v for k, v in mapping.items() if k != named[0]}, key, known)
    action = _ACTIONS[named[0]](mapping[named[0]], f"{key}.{named[0]}")
    return caller.Step(action, **rest)


def _occasion(value: Any, key: str) -> caller.Occasion:
    mapping = values.mapping(value, key)
    if "agent_silent_ms" in mapping:
        fields = values.fields(mapping, key, {"agent_silent_ms": values.whole(0)})
        return caller.AgentSilent(fields["agent_silent_ms"])
    if "agent_played_ms" in mapping:
        fields = values.fields(mapping, key, {"agent_played_ms": values.whole(0)})
        return caller.AgentPlayed(fields["agent_played_ms"])
    if "elapsed_ms" in mapping:
        fields = values.fields(mapping, key, {"elapsed_ms": values.whole(0)})
        return caller.Elapsed(fields["elapsed_ms"])
    if "agent_word" in mapping:
        known: dict[str, Reader] = {
            "agent_word": values.text,
            "line": values.text,
            "occurrence": values.whole(1),
            "plus_ms": values.whole(0),
        }
        fields = values.fields(mapping, key, known, required=("line",))
        word = caller.AgentWord(word=fields.pop("agent_word"), **fields)
        try:
            spoken(word.line).word_end_ms(word.word, word.occurrence)
        except ValueError as error:
            raise values.bad(f"{key}.agent_word", str(error)) from None
        return word
    raise values.bad(key, "needs one of agent_silent_ms, agent_played_ms, elapsed_ms, agent_word")


def _digits(value: Any, key: str) -> str:
    digits = str(value)
    if not digits or any(digit not in "0123456789*#ABCD" for digit in digits):
        raise values.bad(key, "must be keys out of 0-9, *, #, A-D")
    return digits


def _flag(value: Any, key: str, action: caller.Action) -> caller.Action:
    if value is not True:
        raise values.bad(key, "must be true, or be left out")
    return action


# --- the agent ----------------------------------------------------------------------------------


_STALL = values.made(
    agent.Stall,
    {"at_audio_ms": values.whole(0), "for_ms": values.whole(0)},
    required=("at_audio_ms", "for_ms"),
)
_FAILURE = values.made(
    agent.Failure,
    {
        "status": values.choice("failed", "incomplete"),
        "code": values.text,
        "message": values.text,
        "after_audio_ms": values.whole(0),
    },
)
_DROP = values.made(
    agent.Drop,
    {
        "after_audio_ms": values.whole(0),
        "close_code": values.whole(1000),
        "times": values.whole(1),
    },
)
_HEARING = values.made(
    agent.Hearing,
    {"text": values.string, "delay_ms": values.whole(0), "failure": values.text},
)
_REFUSAL = values.made(
    faults.RequestFault,
    {
        "nth": values.whole(1),
        "times": values.whole(1),
        "for_ms": values.whole(0),
        "answer": values.choice("error", "none", "response"),
        "after_ms": values.whole(0),
        "code": values.optional(values.text),
        "message": values.string,
        "names_request": values.boolean,
    },
)
_TURN = values.made(
    faults.TurnFault,
    {
        "no_commit": values.boolean,
        "no_response": values.boolean,
        "response_after_ms": values.whole(0),
    },
)
_RESULT = values.made(
    faults.ResultFault, {"overtaken": values.boolean, "after_ms": values.whole(0)}
)
_RATE_LIMITS = values.made(
    faults.RateLimits,
    {
        "name": values.choice("requests", "tokens"),
        "remaining": values.whole(0),
        "reset_s": values.positive,
        "at": values.choice("created", "done"),
    },
)


def _times(value: Any, key: str) -> int | None:
    """How many events in a row; None for ``all``."""
    return None if value == "all" else int(values.whole(1)(value, key))


_EVENT = values.made(
    faults.EventFault,
    {
        "type": values.text,
        "item": values.text,
        "nth": values.whole(1),
        "times": _times,
        "lose": values.boolean,
        "twice": values.boolean,
        "after_ms": values.whole(0),
        "after": values.text,
        "set": values.mapping,
        "remove": values.listed(values.text),
        "add": values.listed(values.mapping),
        "frame": values.string,
    },
    required=("type",),
)
_FAULTS = values.made(
    faults.RandomFaults,
    {
        field.name: values.whole(0) if field.type == "int" else values.share
        for field in dataclasses.fields(faults.RandomFaults)
    },
)


def _reply(value: Any, key: str) -> agent.Reply:
    if isinstance(value, str):
        return agent.say(value)
    mapping = dict(values.mapping(value, key))
    if "say" in mapping:
        if "parts" in mapping:
            raise values.bad(key, "has both say and parts; say is short for one part")
        mapping["parts"] = [{"say": mapping.pop("say")}]
    fields = values.fields(
        mapping,
        key,
        {
            "parts": values.listed(_part),
            "when": values.text,
            "first_text_ms": values.whole(0),
            "first_audio_ms": values.whole(0),
            "speed": values.positive,
            "stall": _STALL,
            "failure": _FAILURE,
            "drop": _DROP,
            "overlap_items": values.boolean,
            "when_told": values.text,
            "text_only": values.boolean,
            "rate_limits": _RATE_LIMITS,
            "events": values.listed(_EVENT),
            "spoiled_times": values.whole(0),
        },
        required=("parts",),
    )
    return agent.Reply(**fields)


def _part(value: Any, key: str) -> agent.Speak | agent.CallTool:
    mapping = values.mapping(value, key)
    if "say" in mapping:
        return agent.Speak(values.fields(mapping, key, {"say": values.text})["say"])
    if "call" in mapping:
        fields = values.fields(mapping, key, {"call": values.text, "arguments": values.text})
        return agent.CallTool(fields["call"], fields.get("arguments", "{}"))
    raise values.bad(key, "needs say or call")
