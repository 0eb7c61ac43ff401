"""What a response cost, why it ended, and what is left: the end of ``response.done``. Pure."""

from __future__ import annotations

from simulators.realtime.faults import RateLimits
from simulators.realtime.script import Reply
from simulators.realtime.wire import Event

_TOKENS_LIMIT = 15_000_000
"""Tokens a minute, as in the recorded ``rate_limits.updated``."""
_REQUESTS_LIMIT = 1_000
"""Requests a minute, where a script says that they run out."""


def usage(*, audio_out_ms: int, text_out: int, audio_in: int, text_in: int) -> Event:
    """Tokens, by the documented rate of one for 50 ms of the model's audio.

    Args:
        audio_out_ms: Audio generated.
        text_out: Tokens of text generated.
        audio_in: Tokens of the caller's audio in the conversation.
        text_in: Tokens of text in the conversation.
    """
    audio_out = -(-audio_out_ms // 50)
    none_cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
    return {
        "total_tokens": audio_in + text_in + audio_out + text_out,
        "input_tokens": audio_in + text_in,
        "output_tokens": audio_out + text_out,
        "input_token_details": {
            "text_tokens": text_in,
            "audio_tokens": audio_in,
            "image_tokens": 0,
            "cached_tokens": 0,
            "cached_tokens_details": none_cached,
        },
        "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
    }


def rate_limits(total_tokens: int, scripted: RateLimits | None) -> list[Event]:
    """What ``rate_limits.updated`` says after so many tokens, or what the script has it say."""
    if scripted is not None:
        limit = _TOKENS_LIMIT if scripted.name == "tokens" else _REQUESTS_LIMIT
        return [
            {
                "name": scripted.name,
                "limit": limit,
                "remaining": scripted.remaining,
                "reset_seconds": scripted.reset_s,
            }
        ]
    return [
        {
            "name": "tokens",
            "limit": _TOKENS_LIMIT,
            "remaining": _TOKENS_LIMIT - total_tokens,
            "reset_seconds": round(total_tokens * 60 / _TOKENS_LIMIT, 3),
        }
    ]


def status_details(status: str, reason: str | None, reply: Reply) -> Event | None:
    """Why a response ended so (B.8); None for a completed one."""
    if status == "completed":
        return None
    if status != "failed":
        return {"type": status, "reason": reason}
    message = "" if reply.failure is None else reply.failure.message
    error = {"type": "server_error", "code": reason, "message": message}
    return {"type": "failed", "error": error}
