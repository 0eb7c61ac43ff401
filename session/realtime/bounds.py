"""How much of what the model sends is kept or passed on. Pure; numbers with their reasons.

The model's server is a peer like any other: what it sends is bounded where it comes in, before it
is kept. What lies beyond a bound is dropped and counted; where a conversation without it would make
no sense, the session ends with a reason. No real conversation of an hour comes near a bound.
"""

from __future__ import annotations

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""One event, fragments together. The largest in use are ``session.updated``, which repeats an
agent's instructions and functions, and six minutes of audio in one delta. Beyond it the session
ends."""

MAX_ID_CHARS = 256
"""Id of an item, a response or a function call, and a function's name: the API's have 20 to 64."""

MAX_PARTS = 32
"""Content parts of an item: ``content_index`` is below this. The API's items have one or two."""

MAX_ITEMS = 512
"""The agent's items that are remembered at a time; those that are over and settled go first."""

MAX_ITEMS_A_RESPONSE = 64
"""The API's responses have one or two, and a few function calls."""

MAX_RESPONSES = 16
"""Responses under way at a time. The API has one, and stragglers of those before it; with more, the
oldest counts as over."""

MAX_REMEMBERED = 256
"""Ids of what is over, to know stragglers by: those come within seconds."""

MAX_TEXT_CHARS = 60_000
"""Text of a part: an hour of speech; at four bytes each, less than the largest fact. More is
dropped."""

MAX_CALLER_TEXT_CHARS = 16 * 1024
"""Transcript of one of the caller's items: a quarter of an hour of speech. More is dropped."""

MAX_PART_AUDIO_BYTES = 600 * 8000
"""Audio of a part: ten minutes, which is what Twilio's buffer holds. More is dropped."""

MAX_HELD_AUDIO_BYTES = 1800 * 8000
"""Audio of all parts of which it is not decided what the caller heard: half an hour. More is
dropped."""

MAX_PIECE_CHARS = 64 * 1024
"""Base64 of one piece for the gateway: six seconds, so that no message of the link is large for one
call. A larger delta is split; a multiple of four, since base64 can be split there and nowhere
else."""

MAX_ARGUMENTS_CHARS = 60_000
"""Arguments of a function call: the model's own limit of output is a quarter of this. A call with
more is not carried out."""

MAX_CALLS = 16
"""Function calls under way at a time, each an HTTP request."""

MAX_FACTS = 20_000
"""Facts of a session: an hour of quick talk comes to some 8,000. Beyond it the session ends, since
all calls of a worker share one outbox to the transcript service."""

MAX_FACT_BYTES = 16 * 1024 * 1024
"""The same in bytes: an hour of speech is some 100 KB of text, and all of it is written a few
times."""
