"""What each end writes down of a run, and how the two processes hand it over (MessagePack files).

Times are CLOCK_MONOTONIC in nanoseconds: both ends are on one machine.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class Lag(msgspec.Struct):
    """How late an end's own event loop ran what was due, over the window."""

    late_us: bytes = b""
    """``array('I')``: each turn of its clock, in microseconds."""


class SpokenItem(msgspec.Struct):
    """One item that the model generated."""

    item_id: str
    line: int
    """Place of the line in :func:`bench.load.lines.names`."""
    audio_bytes: int = 0
    """µ-law sent of it."""
    chars: int = 0
    """How much of the line's text was sent."""
    completed: bool = False
    """All of it was generated."""
    text_at_delta: list[int] = []
    """How much of the text had been sent when each audio delta was."""
    delta_bytes: list[int] = []
    """Length of each audio delta."""
    first_audio_ns: int = 0
    """When its first audio delta was sent."""


class Truncation(msgspec.Struct):
    """What the bridge told the model about what was played."""

    item_id: str
    audio_end_ms: int
    """-1: the item was deleted instead."""
    accepted: bool


class ModelCall(msgspec.Struct):
    """One call at the model's end."""

    call: int
    items: list[SpokenItem] = []
    interrupts_ns: list[int] = []
    """When each ``speech_started`` was sent, in order."""
    truncations: list[Truncation] = []
    frames: int = 0
    """Frames received for the first time."""
    lost: list[int] = []
    """Numbers of frames that later ones overtook and that never came."""
    repeated: int = 0
    reordered: int = 0
    """Frames that came after a later one."""
    strangers: int = 0
    """Frames of other calls."""
    foreign_bytes: int = 0
    """Appended audio that was no frame."""
    errors: list[str] = []


class ModelRecord(msgspec.Struct):
    """A whole run at the model's end."""

    calls: list[ModelCall]
    forward_us: bytes
    """``array('I')``: per frame sent in the window, microseconds from Twilio's end to here."""
    lag: Lag
    begin_ns: int = 0
    end_ns: int = 0
    """The window. What happens before and after it is counted, but not timed: all calls begin, and
    end, at once, as they would not in life."""


class PlayedItem(msgspec.Struct):
    """One item as far as it came to Twilio's end."""

    line: int
    received_bytes: int
    played_bytes: int
    """How much of it the caller heard."""
    whole: bool
    """What came is a piece from its start without a gap."""


class Cut(msgspec.Struct):
    """One time the caller spoke into the agent's speech."""

    onset: int
    """Which of the call's onsets it was, from 0."""
    line: int
    """What was playing."""
    clear_ns: int = 0
    """When ``clear`` came. 0: never."""
    clear_ms: int = 0
    """Newest media timestamp sent before that."""
    reply_ms: int = 0
    """Newest media timestamp sent before the first audio of what was playing came."""


class CallerCall(msgspec.Struct):
    """One call at Twilio's end."""

    call: int
    call_sid: str
    items: list[PlayedItem] = []
    cuts: list[Cut] = []
    first_audio_ns: list[tuple[int, int]] = []
    """(line, when its first audio came) for each reply."""
    onsets: int = 0
    """How often the caller spoke."""
    frames: int = 0
    clears: int = 0
    foreign_bytes: int = 0
    """Agent audio that belongs to no line."""
    ended: str = ""
    """``hung_up``, ``lost`` (the bridge closed the socket), ``refused``."""


class CallerRecord(msgspec.Struct):
    """A whole run at Twilio's end."""

    calls: list[CallerCall]
    lag: Lag


def write(path: Path, record: ModelRecord | CallerRecord) -> None:
    """Hand a record over."""
    path.write_bytes(msgspec.msgpack.encode(record))


def read_model(path: Path) -> ModelRecord:
    """What the model's end wrote."""
    return msgspec.msgpack.decode(path.read_bytes(), type=ModelRecord)


def read_caller(path: Path) -> CallerRecord:
    """What Twilio's end wrote."""
    return msgspec.msgpack.decode(path.read_bytes(), type=CallerRecord)
