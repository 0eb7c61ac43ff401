"""The client events the API takes, with every field they may have. Pure."""

from __future__ import annotations

import json
from typing import Any

from simulators.realtime.errors import ClientError, invalid, missing
from simulators.realtime.session_config import (
    MAX_OUTPUT_TOKENS,
    OUTPUT_AUDIO,
    OUTPUT_MODALITIES,
    TOOL_CHOICE,
    TOOLS,
)
from simulators.realtime.shape import (
    anything,
    array,
    by_type,
    either,
    fields,
    free_object,
    nullable,
    number,
    one_of,
    string,
)

_INPUT_TEXT = fields({"type": anything, "text": string()}, required=("text",))
_CONTENT = {
    "user": by_type(
        {
            "input_text": _INPUT_TEXT,
            "input_audio": fields(
                {"type": anything, "audio": string(), "transcript": nullable(string())},
                required=("audio",),
            ),
            "input_image": fields({"type": anything, "image_url": string(), "detail": string()}),
        }
    ),
    "system": by_type({"input_text": _INPUT_TEXT}),
    # Assistant audio cannot be put into a conversation from outside (B.9).
    "assistant": by_type({"output_text": _INPUT_TEXT}),
}


def _message(value: Any, path: str) -> None:
    fields(
        {
            "id": string(longest=32),
            "type": anything,
            "object": anything,
            "status": anything,
            "role": one_of(*_CONTENT),
            "content": anything,
        },
        required=("role", "content"),
    )(value, path)
    array(_CONTENT[value["role"]])(value["content"], f"{path}.content")


ITEM = by_type(
    {
        "message": _message,
        "function_call": fields(
            {
                "id": string(longest=32),
                "type": anything,
                "object": anything,
                "status": anything,
                "call_id": string(),
                "name": string(),
                "arguments": string(),
            },
            required=("name", "arguments"),
        ),
        "function_call_output": fields(
            {
                "id": string(longest=32),
                "type": anything,
                "object": anything,
                "status": anything,
                "call_id": string(),
                "output": string(),
            },
            required=("call_id", "output"),
        ),
    }
)

_RESPONSE = fields(
    {
        "instructions": string(),
        "input": array(free_object),
        "conversation": one_of("auto", "none"),
        "output_modalities": OUTPUT_MODALITIES,
        "audio": fields({"output": OUTPUT_AUDIO}),
        "tools": TOOLS,
        "tool_choice": TOOL_CHOICE,
        "max_output_tokens": MAX_OUTPUT_TOKENS,
        "metadata": nullable(free_object),
        "prompt": nullable(free_object),
        "reasoning": nullable(free_object),
        "parallel_tool_calls": anything,
    }
)
_ID = {"type": anything, "event_id": string(longest=512)}

_EVENTS = {
    "session.update": fields({**_ID, "session": free_object}, required=("session",)),
    "input_audio_buffer.append": fields({**_ID, "audio": string()}, required=("audio",)),
    "input_audio_buffer.commit": fields(_ID),
    "input_audio_buffer.clear": fields(_ID),
    "conversation.item.create": fields(
        {**_ID, "previous_item_id": nullable(string()), "item": ITEM}, required=("item",)
    ),
    "conversation.item.retrieve": fields({**_ID, "item_id": string()}, required=("item_id",)),
    "conversation.item.truncate": fields(
        {
            **_ID,
            "item_id": string(),
            "content_index": number(0, 0, whole=True),
            "audio_end_ms": number(0, 2**31 - 1, whole=True),
        },
        required=("item_id", "content_index", "audio_end_ms"),
    ),
    "conversation.item.delete": fields({**_ID, "item_id": string()}, required=("item_id",)),
    "response.create": fields({**_ID, "response": nullable(either(_RESPONSE))}),
    "response.cancel": fields({**_ID, "response_id": nullable(string())}),
}


def parse(message: str | bytes) -> dict[str, Any]:
    """Read one client event without judging its fields.

    Raises:
        ClientError: It is no JSON object.
    """
    if isinstance(message, bytes):
        raise ClientError(None, "Expected a text frame, but got a binary one.")
    try:
        event = json.loads(message)
    except ValueError:
        raise ClientError(
            None, "We could not parse the JSON body of your request: it is not valid JSON."
        ) from None
    if not isinstance(event, dict):
        raise ClientError("invalid_type", "Expected an object.")
    return event


def check(event: dict[str, Any]) -> None:
    """Judge a client event's type and every field of it.

    Raises:
        ClientError: The API would refuse it.
    """
    kind = event.get("type")
    if kind is None:
        raise missing("type")
    shape = _EVENTS.get(kind) if isinstance(kind, str) else None
    if shape is None:
        known = ", ".join(f"'{k}'" for k in _EVENTS)
        raise invalid("type", f"Invalid value: '{kind}'. Supported values are: {known}.")
    shape(event, "")
