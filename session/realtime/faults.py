"""How grave an ``error`` event is. Pure; a table.

The session normally stays open after an error: most are answers to a race that a barge-in lost,
and nothing follows from them. A few say that nothing will ever work on this socket.
"""

from __future__ import annotations

import enum
import re

from session.realtime.events import ErrorDetail


class Severity(enum.Enum):
    """What follows from an error."""

    BENIGN = "benign"
    """A race that was lost; nothing."""
    WARNING = "warning"
    """Something of ours was refused; logged, the call goes on."""
    FATAL = "fatal"
    """The session is over, or will never work."""


_FATAL_CODES = frozenset(
    {
        "session_expired",
        "invalid_api_key",
        "insufficient_quota",
        "account_deactivated",
        "billing_hard_limit_reached",
    }
)

_BENIGN_CODES = frozenset(
    {
        # The response ended by itself before our cancel arrived.
        "response_cancel_not_active",
        # Voice detection created one before us.
        "conversation_already_has_active_response",
        # Voice detection had committed already.
        "input_audio_buffer_commit_empty",
        # Truncated or deleted by the server before us.
        "item_not_found",
        "item_truncate_invalid_item_id",
        "item_delete_invalid_item_id",
    }
)

REFUSALS = frozenset(
    {
        "conversation_already_has_active_response",
        "rate_limit_exceeded",
        "inference_rate_limit_exceeded",
        "server_error",
        "internal_error",
        "service_unavailable",
        "overloaded",
    }
)
"""Codes, or types where there is no code, of errors that are about our request to speak though they do not
name it. Others without an ``event_id`` are about something else."""

_TOO_LONG = re.compile(r"of \d+(?:\.\d+)?\s*ms is already shorter than \d+(?:\.\d+)?\s*ms")
_MAX_MESSAGE_CHARS = 1000
"""Of a message, so much is looked at."""

_NOT_AUDIO = "Only model output audio messages can be truncated"

_COUNTED_CODES = _FATAL_CODES | _BENIGN_CODES | {
    "invalid_value",
    "unknown_parameter",
    "missing_required_parameter",
    "cannot_update_voice",
    "string_above_max_length",
    "rate_limit_exceeded",
    "unsupported_content_type",
    "inference_rate_limit_exceeded",
    "server_error",
    "content_filter",
    "max_output_tokens",
}  # fmt: skip


def is_truncation_refusal(detail: ErrorDetail) -> bool:
    """Whether this is the model's No to a truncation.

    By the message: the code is reported as ``invalid_value``, ``unsupported_content_type``, null.
    """
    message = (detail.message or "")[:_MAX_MESSAGE_CHARS]
    return _NOT_AUDIO in message or _TOO_LONG.search(message) is not None


def severity(detail: ErrorDetail) -> Severity:
    """How grave an error is."""
    code = str(detail.code or "")
    if code in _FATAL_CODES:
        return Severity.FATAL
    if code in _BENIGN_CODES or is_truncation_refusal(detail):
        return Severity.BENIGN
    return Severity.WARNING


def is_benign_code(code: str) -> bool:
    """Whether an error with this code is not worth a line in the log."""
    return code in _BENIGN_CODES


def is_fatal_code(code: str) -> bool:
    """Whether a response that failed with this code means that all others will."""
    return code in _FATAL_CODES


def counted_code(code: str | int | None) -> str:
    """The code as a label: itself out of a bounded set, else ``other``."""
    text = str(code or "none")
    return text if text in _COUNTED_CODES or text == "none" else "other"


_SECRET = re.compile(r"\b(?:sk|ek|sess)[-_][A-Za-z0-9*_-]+")


_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def told_code(status: str, reason: str) -> str:
    """Why a response fell short, as it may stand in a transcript.

    Args:
        status: Of the response.
        reason: The server's; empty when it gave none.

    Returns:
        The server's code. Empty where there is none, or the response completed or was cut off;
        ``other`` for what is no code: a sentence may quote speech.
    """
    if not reason or status in ("completed", "cancelled"):
        return ""
    is_code = _CODE.fullmatch(reason) is not None and _SECRET.search(reason) is None
    return reason if is_code else "other"


def without_secrets(message: str) -> str:
    """An error text with anything like a key taken out, at most 200 characters.

    Only for refusals of our own configuration: other texts may quote speech.
    """
    return _SECRET.sub("[key]", message[:_MAX_MESSAGE_CHARS])[:200]
